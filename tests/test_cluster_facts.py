"""What nodes say of themselves, what is thought of it, and that a look at them leaves nothing behind: without Ray."""

import asyncio
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from engine.cli.main import cli
from engine.errors import ConfigError, EngineError, OutputError
from engine.model import ScanConfig
from engine.pool.cluster import check as checking
from engine.pool.cluster import facts as asked
from engine.pool.cluster.check import check
from engine.pool.cluster.engine import Node
from engine.pool.cluster.facts import NodeFacts, gather, put, remove, seen
from engine.pool.cluster.settings import ClusterSettings, Zone
from engine.pool.cluster.supplies import gathered
from engine.pool.cluster.verdicts import Finding, NodeReport, Seen, Terms, Verdict, of_all, report, worst
from engine.state.attempt import Staging

CONFIG = ScanConfig(workers=0)
FACTS = NodeFacts(
    version="0.1.0",
    python="3.12.1",
    ray="2.60.0",
    database="a" * 64,
    engine="hyperscan",
    descriptors=(1024, 65536),
    ports=(32768, 60999),
    usable_ports=28232,
    ray_ports=False,
    conntrack=None,
    tw_reuse=2,
    tw_buckets=65536,
    cpus=4,
    memory=8_000_000_000,
    sources=(),
)
NODE = Node("n1", "10.0.0.1", 4.0, {"CPU": 4.0})
FOLDER = Staging("/state")
STORE = Staging("s3://bucket/run", "0" * 16)


def terms(config: ScanConfig = CONFIG, staging: Staging | None = None, **settings: Any) -> Terms:
    return Terms(config, ClusterSettings(**settings), staging, FACTS, 2)


def findings(seen: Seen, judged_by: Terms | None = None) -> dict[str, Finding]:
    return {finding.name: finding for finding in report(seen, judged_by or terms()).findings}


def test_a_node_like_the_driver_is_fit() -> None:
    said = report(Seen(NODE, FACTS, put=True), terms(staging=FOLDER))
    assert worst([said]) is Verdict.OK
    assert not [finding for finding in said.findings if finding.mend]


@pytest.mark.parametrize(
    ("changed", "name", "verdict", "mend"),
    [
        ({"version": "0.2.0"}, "probemill", "bad", "install 0.1.0"),
        ({"python": "3.12.9"}, "Python", "ok", ""),
        ({"python": "3.11.1"}, "Python", "bad", "install 3.12.1"),
        ({"ray": "2.59.0"}, "Ray", "bad", "install 2.60.0"),
        ({"ray": ""}, "Ray", "bad", "install 2.60.0"),
        ({"database": "b" * 64}, "database", "bad", "the driver has aaaaaaaaaaaa"),
        ({"database": ""}, "database", "bad", "the driver has"),
        ({"engine": "re2"}, "matching", "warning", "hyperscan"),
        ({"engine": ""}, "matching", "bad", "--matcher"),
        ({"descriptors": (1024, 5000 + 164)}, "descriptors", "ok", ""),
        ({"descriptors": (1024, 5000 + 163)}, "descriptors", "warning", "ulimit -Hn 5164"),
        ({"descriptors": (16, 31)}, "descriptors", "bad", "ulimit -Hn 5164"),
        ({"descriptors": (-1, -1)}, "descriptors", "ok", ""),
        ({"usable_ports": 20_000}, "local ports", "ok", ""),
        ({"usable_ports": 19_999}, "local ports", "warning", "ip_local_port_range"),
        ({"usable_ports": 10_000, "sources": ("10.0.0.1", "10.0.0.2")}, "local ports", "ok", ""),
        ({"ports": (1024, 65535), "ray_ports": True}, "local ports", "warning", "ip_local_reserved_ports"),
        ({"ports": None, "usable_ports": 0}, "local ports", "ok", ""),
        ({"conntrack": (100, 600_100)}, "connection tracking", "ok", ""),
        ({"conntrack": (100, 600_099)}, "connection tracking", "warning", "nf_conntrack_max=600100"),
        ({"conntrack": (260_000, 262_144)}, "connection tracking", "bad", "nf_conntrack_max=860000"),
        ({"tw_reuse": 0}, "TIME_WAIT", "warning", "tcp_tw_reuse=1"),
        ({"tw_buckets": 8192}, "TIME_WAIT", "warning", "tcp_max_tw_buckets=20000"),
        ({"tw_reuse": None, "tw_buckets": None}, "TIME_WAIT", "ok", ""),
        ({"cpus": 2}, "CPUs", "warning", "--num-cpus 2"),
        ({"memory": 1_000_000_000}, "memory", "warning", "cpus_per_actor"),
    ],
)
def test_what_is_amiss(changed: dict[str, Any], name: str, verdict: str, mend: str) -> None:
    """Each fact by itself, with what mends it; all others stay as they are."""
    found = findings(Seen(NODE, replace(FACTS, **changed)))
    assert found[name].verdict == verdict
    assert mend in found[name].mend
    assert bool(found[name].mend) == (verdict != "ok")
    assert not [other for other in found.values() if other.name != name and other.verdict != "ok"]


def test_what_a_rate_asks_of_connection_tracking() -> None:
    """Shared among the nodes that have actors. Where not even our own connections have an entry, there is no limit."""
    assert findings(Seen(NODE, replace(FACTS, conntrack=(0, 30))))["connection tracking"].verdict == "ok"
    facts = replace(FACTS, conntrack=(5, 30_005))
    assert findings(Seen(NODE, facts), terms(ScanConfig(rate=500)))["connection tracking"].verdict == "ok"
    assert findings(Seen(NODE, facts), terms(ScanConfig(rate=600)))["connection tracking"].verdict == "warning"
    assert findings(Seen(NODE, facts))["connection tracking"].verdict == "warning"


def test_what_fewer_conversations_ask_of_descriptors() -> None:
    facts = replace(FACTS, descriptors=(1024, 1024))
    assert findings(Seen(NODE, facts), terms(ScanConfig(max_inflight=400)))["descriptors"].verdict == "ok"


@pytest.mark.parametrize(
    ("ahead", "unsure", "verdict"),
    [
        (0.0, 0.0, "ok"),
        (-2.0, 0.0, "ok"),
        (5.0, 4.0, "ok"),
        (-5.0, 0.5, "warning"),
        (700.0, 0.0, "bad"),
        (-700.0, 90.0, "bad"),
    ],
)
def test_clocks(ahead: float, unsure: float, verdict: str) -> None:
    """Only what is certain counts."""
    assert findings(Seen(NODE, FACTS, clock=(ahead, unsure)))["clock"].verdict == verdict


def test_a_node_that_scans_nothing_needs_nothing() -> None:
    """A head without CPUs is no fault, and its limits are nobody's concern."""
    head = Node("h", "10.0.0.9", 0.0, {})
    found = findings(
        Seen(head, replace(FACTS, descriptors=(16, 16), memory=1)), terms(ScanConfig(sources=("1.2.3.4",)))
    )
    assert "nothing is scanned there" in found["CPUs"].value
    assert {finding.verdict for finding in found.values()} == {Verdict.OK}
    assert not {"descriptors", "memory", "sources"} & found.keys()


def test_sources() -> None:
    wanted = terms(ScanConfig(sources=("10.0.0.1", "10.0.0.2")))
    some = findings(Seen(NODE, replace(FACTS, sources=("10.0.0.1",))), wanted)["sources"]
    assert (some.verdict, some.value) == ("ok", "1 of 2: 10.0.0.1")
    assert findings(Seen(NODE, FACTS), wanted)["sources"].verdict == "bad"


@pytest.mark.parametrize(
    ("staging", "put", "verdict", "said"),
    [
        (FOLDER, True, "ok", ""),
        (FOLDER, False, "bad", "another folder / share this folder"),
        (FOLDER, None, "bad", "cannot be put: full / share this folder"),
        (STORE, False, "bad", "another store / endpoint and credentials"),
        (STORE, None, "bad", "cannot be put: full / endpoint and credentials"),
    ],
)
def test_segments(staging: Staging, put: bool | None, verdict: str, said: str) -> None:
    """A folder that is not shared is the commonest mistake, and is said to be that."""
    found = findings(Seen(NODE, FACTS, put=put, put_trouble="full"), terms(staging=staging))["segments"]
    value, _, mend = said.partition(" / ")
    assert found.verdict == verdict
    assert value in found.value
    assert mend in found.mend


def test_no_place_is_no_finding() -> None:
    assert "segments" not in findings(Seen(NODE, FACTS))


def test_a_node_that_does_not_answer() -> None:
    found = report(Seen(NODE, None, "cannot be reached"), terms())
    assert [(finding.name, finding.value, finding.verdict) for finding in found.findings] == [
        ("answer", "cannot be reached", "bad")
    ]


def test_all_nodes_together() -> None:
    """Zones that no node is in, no room for an actor, engines that differ."""
    dmz = Node("n2", "10.0.0.2", 4.0, {"zone:dmz": 1.0})
    zones = {"dmz": Zone(("10.8.0.0/16",))}
    both = [Seen(NODE, FACTS), Seen(dmz, FACTS)]
    assert not of_all(both, terms(zones=zones)).findings
    alone = of_all(both[:1], terms(zones=zones)).findings
    assert [(finding.name, finding.verdict) for finding in alone] == [("zone dmz", "bad")]
    assert "zone:dmz" in alone[0].mend
    zoned = of_all(both[1:], terms(zones=zones)).findings
    assert [(finding.name, finding.verdict) for finding in zoned] == [("actors", "warning")]
    idle = of_all([Seen(Node("h", "10.0.0.9", 0.0, {}), FACTS)], terms()).findings
    assert [(finding.name, finding.verdict) for finding in idle] == [("actors", "bad")]
    mixed = of_all([*both, Seen(NODE, replace(FACTS, engine="re2"))], terms(zones=zones)).findings
    assert [finding.value for finding in mixed] == ["hyperscan, re2"]


def test_a_zone_without_networks() -> None:
    found = findings(Seen(Node("n", "10.0.0.1", 1.0, {"zone:dmz": 1.0}), FACTS))["zones"]
    assert (found.value, found.verdict) == ("dmz", "warning")


# -- how they are found out


def test_this_machine() -> None:
    """The driver's facts are gathered by the same function."""
    supplies = gathered(CONFIG)
    facts = gather(ScanConfig(sources=("127.0.0.1", "192.0.2.1")), supplies)
    assert len(facts.database) == 64
    assert facts.engine in {"hyperscan", "re2"}
    assert facts.cpus > 0
    assert facts.sources == ("127.0.0.1",)
    assert gather(ScanConfig(sources=("192.0.2.1",)), supplies).sources == ()


def test_a_machine_that_tells_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No fact is an error."""
    monkeypatch.setattr(asked, "NET", tmp_path)
    facts = gather(CONFIG, replace(gathered(CONFIG), database=b"no database"))
    assert (facts.ports, facts.usable_ports, facts.conntrack, facts.tw_reuse) == (None, 0, None, None)
    assert (facts.database, facts.engine) == ("", "")
    assert findings(Seen(NODE, facts))["database"].verdict == "bad"


def test_kernel_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ports that are reserved are not usable; Ray's count as long as they are not reserved."""
    monkeypatch.setattr(asked, "NET", tmp_path)
    for name, text in {
        "ipv4/ip_local_port_range": "10000\t20999",
        "ipv4/ip_local_reserved_ports": "10001,10002-19999,30000",
        "netfilter/nf_conntrack_max": "262144",
        "netfilter/nf_conntrack_count": "17",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    facts = gather(CONFIG, gathered(CONFIG))
    assert facts.ports == (10_000, 20_999)
    assert facts.usable_ports == 1_001
    assert not facts.ray_ports
    assert facts.conntrack == (17, 262_144)
    (tmp_path / "ipv4/ip_local_reserved_ports").write_text("\n")
    assert gather(CONFIG, gathered(CONFIG)).ray_ports


def test_memory_of_a_container(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is left of its limit; the file cache is as good as free."""
    monkeypatch.setattr(asked, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("900000\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 300000\n")
    assert gather(CONFIG, gathered(CONFIG)).memory == 400_000


@pytest.mark.parametrize("run", ["", "0123456789abcdef"])
def test_what_is_put_is_seen_and_removed(tmp_path: Path, run: str) -> None:
    """Under a name that no run has; what is removed twice is no error."""
    staging = Staging(str(tmp_path), run)
    manifest = put(staging)
    assert [path.name for path in tmp_path.iterdir()] == [manifest.key or manifest.staged]
    assert seen(staging, manifest)
    for _ in range(2):
        remove(staging, manifest)
        assert not list(tmp_path.iterdir())
    assert not seen(staging, manifest)


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        put(Staging(str(tmp_path / "no")))
    with pytest.raises(OutputError):
        put(Staging(str(tmp_path / "file" / "no")))


def test_facts_travel() -> None:
    assert pickle.loads(pickle.dumps(FACTS)) == FACTS


# -- the whole check, with nodes that are this process


class FakeEngine:
    """wrong: what becomes of a question to a node, by its address."""

    name = "nowhere"

    def __init__(self, nodes: list[Node], wrong: dict[str, Callable[[Any], Any]] | None = None) -> None:
        self._nodes = nodes
        self._wrong = wrong or {}
        self._supplies: Any = None
        self.closed = False

    async def open(self, supplies: Any) -> None:
        self._supplies = supplies

    async def nodes(self) -> list[Node]:
        return self._nodes

    async def ask(self, node: Node, question: Callable[[Any], Any]) -> Any:
        return self._wrong.get(node.address, lambda answer: answer())(lambda: question(self._supplies))

    async def close(self) -> None:
        self.closed = True


def checked(engine: FakeEngine, staging: Staging | None = None) -> list[NodeReport]:
    reports = asyncio.run(check(engine, ClusterSettings(), CONFIG, staging))  # type: ignore[arg-type]
    assert engine.closed
    return reports


def two_nodes(wrong: Callable[[Any], Any]) -> FakeEngine:
    return FakeEngine([NODE, Node("n2", "10.0.0.2", 4.0, {})], {"10.0.0.2": wrong})


def verdict(reports: list[NodeReport], node: str, name: str) -> str:
    (found,) = (each for said in reports if said.node == node for each in said.findings if each.name == name)
    return found.verdict


def test_a_shared_folder(tmp_path: Path) -> None:
    reports = checked(FakeEngine([NODE]), Staging(str(tmp_path)))
    assert verdict(reports, "10.0.0.1", "segments") == "ok"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_another_one_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What such a node has put is removed by the node."""
    monkeypatch.setattr(checking, "LOOKS_S", (0.0,))
    monkeypatch.setattr(checking, "seen", lambda *_: False)
    monkeypatch.setattr(checking, "remove", lambda *_: None)
    reports = checked(FakeEngine([NODE]), Staging(str(tmp_path)))
    assert verdict(reports, "10.0.0.1", "segments") == "bad"
    assert not list(tmp_path.iterdir())


def test_a_node_without_the_folder(tmp_path: Path) -> None:
    reports = checked(FakeEngine([NODE]), Staging(str(tmp_path / "no")))
    assert verdict(reports, "10.0.0.1", "segments") == "bad"


def test_one_node_that_fails_does_not_hide_the_others(tmp_path: Path) -> None:
    def gone(_: Any) -> Any:
        raise EngineError("no such module")

    reports = checked(two_nodes(gone), Staging(str(tmp_path)))
    assert verdict(reports, "10.0.0.1", "segments") == "ok"
    assert verdict(reports, "10.0.0.2", "answer") == "bad"


def test_a_clock_that_is_wrong() -> None:
    def late(answer: Any) -> Any:
        said = answer()
        return said - 60.0 if isinstance(said, float) else said

    reports = checked(two_nodes(late))
    assert verdict(reports, "10.0.0.1", "clock") == "ok"
    assert verdict(reports, "10.0.0.2", "clock") == "warning"


def test_the_engine_is_closed_whatever_happens() -> None:
    class Deaf(FakeEngine):
        async def nodes(self) -> list[Node]:
            raise EngineError("nobody")

    engine = Deaf([])
    with pytest.raises(EngineError, match="nobody"):
        asyncio.run(check(engine, ClusterSettings(), CONFIG, None))  # type: ignore[arg-type]
    assert engine.closed


# -- the command


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    engine = two_nodes(lambda answer: answer())

    class Opened:
        settings = ClusterSettings()

    Opened.engine = engine  # type: ignore[attr-defined]
    monkeypatch.setattr("engine.cluster.open_cluster", lambda address, options: Opened)
    return engine


def test_the_command(fake: FakeEngine, tmp_path: Path) -> None:
    """What is true of all nodes is said once; a folder that was not there is gone again."""
    done = CliRunner().invoke(cli, ["cluster", "check", "--state", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert lines[0][-3:-1] == ["2", "nodes:"]
    (segments,) = [line for line in lines if line and line[0] == "segments"]
    assert segments[1] == "all"
    assert not list(tmp_path.iterdir())


def test_the_command_for_machines(fake: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    done = CliRunner().invoke(cli, ["cluster", "check", "--json", "--state", str(tmp_path / "run")])
    said = json.loads(done.output)
    assert [node["node"] for node in said["nodes"]] == ["10.0.0.1", "10.0.0.2"]
    assert said["nodes"][0]["facts"]["cpus"] > 0
    assert {finding["verdict"] for finding in said["nodes"][0]["findings"]} <= {"ok", "warning"}
    assert (tmp_path / "run").is_dir()


def test_the_command_fails_when_something_is_bad(
    fake: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "seen", lambda *_: False)
    monkeypatch.setattr(checking, "LOOKS_S", (0.0,))
    done = CliRunner().invoke(cli, ["cluster", "check", "--state", str(tmp_path)])
    assert done.exit_code == 1
    assert "share this folder" in done.output


def test_segments_elsewhere(fake: FakeEngine, tmp_path: Path) -> None:
    """Their place is looked at, and not the state folder."""
    state, place = tmp_path / "state", tmp_path / "segments"
    done = CliRunner().invoke(cli, ["cluster", "check", "--state", str(state), "--segments", str(place)])
    assert done.exit_code == 0, done.output
    assert not list(tmp_path.iterdir())
    inside = CliRunner().invoke(cli, ["cluster", "check", "--state", str(state), "--segments", str(state / "segments")])
    assert isinstance(inside.exception, ConfigError)
