"""The dashboard asks for metrics that there are, and has what Grafana needs to import it."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from test_metrics import COUNTS, run

from engine.cli.metrics import PREFIX, TALLY, RunMetrics

BOARD: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parent.parent / "docs" / "grafana.json").read_text(encoding="utf-8")
)
PANELS: list[dict[str, Any]] = BOARD["panels"]
QUERIES: list[str] = [target["expr"] for panel in PANELS for target in panel["targets"]]
LEFT_OUT = {  # metrics that the dashboard does not show on purpose: they are of use while somebody looks at one run
    *(PREFIX + "elapsed_seconds", PREFIX + "input_ended"),
    *(PREFIX + "slow_host_milliseconds", PREFIX + "probe_windows_total", PREFIX + "probe_milliseconds_total"),
}
SCRAPED = {"instance", "job"}  # labels that Prometheus adds
WIDTH = 24
UNITS = {"short", "cps", "ms", "s", "Bps", "percentunit"}
WORDS = {"sum", "by", "rate", "increase", "topk", "or", "vector"}  # of PromQL


def exported() -> dict[str, set[str]]:
    """Every metric that a run shows when all has happened, as it is scraped, with its labels."""
    assert {name.partition(":")[0] for name in COUNTS} >= set(TALLY)
    registry = CollectorRegistry()
    registry.register(RunMetrics(run()))
    return {sample.name: set(sample.labels) for family in registry.collect() for sample in family.samples}


def metrics_in(query: str) -> set[str]:
    return set(re.findall(rf"\b{PREFIX}\w+", query))


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_can_be_answered(query: str) -> None:
    """Its metrics are exported, and so are the labels by which it groups and filters."""
    known = exported()
    assert metrics_in(query)
    assert metrics_in(query) <= known.keys()
    for labels in re.findall(r"\bby \(([^)]*)\)", query):
        for metric in metrics_in(query):
            assert set(labels.split(", ")) <= known[metric] | SCRAPED
    for metric, matchers in re.findall(rf"({PREFIX}\w+){{([^}}]*)}}", query):
        assert set(re.findall(r"(\w+)\s*=~?", matchers)) <= known[metric] | SCRAPED
    rest = re.sub(r"{[^}]*}|\[[^\]]*\]|by \([^)]*\)", " ", query)
    assert set(re.findall(r"[A-Za-z_]\w*", rest)) - metrics_in(query) <= WORDS
    assert query.count("(") == query.count(")")


@pytest.mark.parametrize("query", QUERIES)
def test_counters_that_only_grow_are_shown_as_such(query: str) -> None:
    """A rate is taken of a counter, over an interval that fits the zoom."""
    for metric, interval in re.findall(rf"(?:rate|increase)\(({PREFIX}\w+){{[^}}]*}}\[([^\]]+)\]\)", query):
        assert metric.endswith("_total")
        assert interval == "$__rate_interval" or query.startswith("sum by (instance) (increase(")


def test_every_metric_is_shown() -> None:
    """Or deliberately left out."""
    shown = {metric for query in QUERIES for metric in metrics_in(query)}
    assert shown | LEFT_OUT == exported().keys()
    assert not shown & LEFT_OUT


def test_legends_name_labels_of_their_query() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            grouped = {
                label for labels in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in labels.split(", ")
            }
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) == grouped


def test_what_grafana_requires() -> None:
    assert re.fullmatch(r"[\w-]{1,40}", BOARD["uid"])
    assert BOARD["title"]
    assert BOARD["schemaVersion"] >= 36  # data sources as objects
    assert "id" not in BOARD, "it is given by the Grafana that imports it"
    assert "__inputs" not in BOARD
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"]
        assert panel["type"] in {"stat", "timeseries", "bargauge"}
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
    assert len({panel["title"] for panel in PANELS if panel["type"] != "stat"}) == sum(
        panel["type"] != "stat" for panel in PANELS
    )


def test_the_data_source_is_a_variable() -> None:
    """Nobody's own is named, in no query and no panel; variables that are used are defined."""
    variables = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    places = [*PANELS, *(target for panel in PANELS for target in panel["targets"]), variables["instance"]]
    assert all(place["datasource"] == {"type": "prometheus", "uid": "${datasource}"} for place in places)
    used = set(re.findall(r"\$\{?([a-z]\w*)", " ".join(QUERIES) + json.dumps(places)))
    assert used == variables.keys()
    assert metrics_in(variables["instance"]["definition"]) <= exported().keys()
    assert all('instance=~"$instance"' in query for query in QUERIES)


def test_panels_do_not_overlap() -> None:
    """And lie within the grid."""
    boxes = [panel["gridPos"] for panel in PANELS]
    for box in boxes:
        assert box["w"] > 0 < box["h"]
        assert 0 <= box["x"] <= WIDTH - box["w"]
        assert box["y"] >= 0
    for one, other in combinations(boxes, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below
