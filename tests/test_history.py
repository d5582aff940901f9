"""The history that is drawn of a record: what is in it, and that it can be drawn at all. Made-up figures."""

from xml.etree import ElementTree

from test_record import HERE, THERE, line, run

from bench import history
from bench.figures import Figure
from bench.recorded import Recorded, recorded

SVG = "{http://www.w3.org/2000/svg}"


def start(second: float, commit: str = "one") -> Recorded:
    return recorded([Figure("start.warm", second, "s", goal=0.25)], run(commit=commit))


def texts(svg: str) -> list[str]:
    return [text.text or "" for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_figure_is_drawn_that_has_a_goal_or_is_a_headline() -> None:
    lines = [start(0.3), line(9.0, name="match.null.re2.cold"), line(9.0, name="match.null.re2.find")]
    said = texts(history.chart({HERE.name: lines}))
    assert {"start.warm", "match.null.re2.cold", HERE.name} <= set(said)
    assert "match.null.re2.find" not in said


def test_every_line_is_a_dot_that_says_what_it_was() -> None:
    svg = history.chart({HERE.name: [start(0.3, "older"), start(0.2, "newer")], THERE.name: [start(0.1, "far")]})
    dots = [title.text or "" for title in ElementTree.fromstring(svg).iter(f"{SVG}title")]
    assert dots == ["older: 0.3 (0.3 to 0.3)", "newer: 0.2 (0.2 to 0.2)", "far: 0.1 (0.1 to 0.1)"]


def test_no_record_makes_a_chart_that_says_so() -> None:
    assert texts(history.chart({})) == ["no record yet"]
    assert list(history.table({})) == ["There is no record yet."]


def test_names_and_values_cannot_break_the_drawing() -> None:
    odd = line(1.0, name='<a "b">&.cold')
    zero = recorded([Figure("nothing.cold", 0.0, "s", goal=1.0)], run())
    assert '<a "b">&.cold' in texts(history.chart({HERE.name: [odd, zero]}))


def test_the_table_has_the_last_line_of_each_figure() -> None:
    rows = list(history.table({HERE.name: [start(0.3), start(0.2, "two"), line(0.5)]}))
    assert "| `start.warm` | 0.2 s |  | 0.2, 0.2 | 0.25 |" in rows
    assert "| `scan.banner` | 100 rows/s | 0.5 | 0.5, 0.5 |  |" in rows
    assert not any("0.3" in row for row in rows)
