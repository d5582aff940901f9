"""A scan on the nodes of a Ray cluster, with real processes: what is promised for actors, nodes and drivers that die.

The cases of bench/chaos_cluster.py, small, and what else can only be seen from outside.
"""

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from loopback import Farm, greeting_after, most_at_once
from msgspec.structs import replace
from witness import Door, Witness, most_within

pytest.importorskip("ray", reason="needs probemill[ray]")
pytest.importorskip("pyarrow", reason="needs probemill[lake]")

from bench.chaos import Arena
from bench.chaos_cluster import CASES, DELAY_S
from bench.cluster_arena import FIRST, Ground, Scene
from bench.farm import DATABASE, farm
from bench.object_store import ObjectStore, object_store

TARGETS, RATE = 2400, 600
NODES = 3
PACE = ("--rate", str(RATE))  # several seconds: what is to happen in the middle finds one
HOLD_S = 0.1  # long enough for everything that is allowed at once to come at once

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    pytest.importorskip("moto", reason="needs moto")
    with object_store() as store:
        yield store


@pytest.fixture(scope="module")
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    try:
        environment = request.getfixturevalue("store").environment
    except pytest.skip.Exception:
        environment = {}
    with Ground(NODES, environment=environment) as ground:
        yield ground


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with farm(DELAY_S) as port:
        yield Arena.build(tmp_path_factory.mktemp("arena"), port, TARGETS)


def some(folder: Path, *targets: str) -> Arena:
    """An arena of these targets, served by whoever listens there."""
    folder.mkdir()
    (folder / "probes").write_bytes(DATABASE)
    return Arena(folder, list(targets))


def port_of(arena: Arena) -> str:
    return arena.targets[0].rpartition(":")[2]


@pytest.mark.parametrize(
    "case", [case for case in CASES if case != "actor_stopped"]
)  # the first half of what actor_continued is
def test_each_target_has_one_row(
    case: str, arena: Arena, ground: Ground, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In the segments and in the sink, whatever dies in the middle; and nothing is left of what does not count."""
    away = request.getfixturevalue("store") if case == "store_away" else None
    scene = Scene(arena, ground, tmp_path / case, PACE, away)
    CASES[case](scene)
    found = scene.found()
    assert found.perfect, (found, scene.said)
    assert found.rows == TARGETS


def test_ctrl_c(arena: Arena, ground: Ground, tmp_path: Path) -> None:
    """What is done is committed, what is not is for the next run."""
    scene = Scene(arena, ground, tmp_path / "scene", PACE)
    with scene.start() as scan:
        scan.middle()
        scan.process.send_signal(signal.SIGINT)
        assert scan.process.wait(60) == 130
    assert "interrupted" in scene.said and "--resume goes on" in scene.said
    before = {f"{row.ip}:{row.port}" for row in scene.rows()}
    assert 0 < len(before) < TARGETS
    assert scene.finish() == 0
    assert scene.found().perfect


def test_deadline(arena: Arena, ground: Ground, tmp_path: Path) -> None:
    scene = Scene(arena, ground, tmp_path / "scene", PACE)
    with scene.start("--deadline", "6s") as scan:
        assert scan.process.wait(60) == 1
    assert "the deadline has passed" in scene.said
    assert scene.done() < TARGETS
    assert scene.finish() == 0
    assert scene.found().perfect


def test_what_only_the_driver_knows(arena: Arena, ground: Ground, tmp_path: Path) -> None:
    """Names without an address have their rows. Who is on a list is not contacted, though no node has the list.

    Rows are in an output, too. Of the actors that were asked for there are as many as the cluster has room for.
    """
    witness = Witness(tmp_path)
    port = port_of(arena)
    blocked = [f"127.9.4.{last}:{port}" for last in range(1, 51)]
    free = [f"127.9.5.{last}:{port}" for last in range(1, 151)]
    names = [f"host{number}.invalid:{port}" for number in range(20)]
    mixed = [target for group in zip(blocked, free[:50], free[50:100], free[100:], strict=True) for target in group]
    few = some(tmp_path / "few", *names, *mixed)
    scene = Scene(few, ground, tmp_path / "scene", settings=witness.settings, eyes=witness.folder)
    descriptor = os.memfd_create("blocked")
    try:
        os.write(descriptor, b"127.9.4.0/24\n")
        output = tmp_path / "rows.ndjson"
        options = ["--blocklist", f"/proc/self/fd/{descriptor}", "--workers", "50", "-o", str(output)]
        with scene.start(*options, descriptors=[descriptor]) as scan:
            assert scan.wait() == 0, scene.said
    finally:
        os.close(descriptor)
    found = scene.rows()
    assert Counter(f"{row.ip or row.host}:{row.port}" for row in found) == Counter([*free, *names])
    assert {row.reason for row in found if not row.ip} == {"unresolved"}
    written = [json.loads(line) for line in output.read_bytes().splitlines()]
    assert Counter((row.get("ip", ""), row.get("host", "")) for row in written) == Counter(
        (row.ip, row.host) for row in found
    )
    contacted = set.union(*(witness.seen(node) for node in range(ground.cluster.nodes)))
    assert contacted == {target.partition(":")[0] for target in free}


def test_zones(arena: Arena, ground: Ground, tmp_path: Path) -> None:
    """Without a node of the zone its targets wait, as long as patience lasts; then it has them and nothing else."""
    witness = Witness(tmp_path)
    port = port_of(arena)
    inside = [f"127.9.7.{last}:{port}" for last in range(1, 101)]
    outside = [f"127.9.8.{last}:{port}" for last in range(1, 101)]
    settings = '[zones.dmz]\nnetworks = ["127.9.7.0/24"]\n' + witness.settings
    both = some(tmp_path / "both", *inside, *outside)
    scene = Scene(both, ground, tmp_path / "scene", settings="patience = 12\n" + settings)
    assert scene.finish() == 1
    assert "no node could take 100 targets of zone dmz" in scene.said and "--resume" in scene.said
    assert {f"{row.ip}:{row.port}" for row in scene.rows()} <= set(outside)

    scene.settings = settings
    node = ground.cluster.add('{"zone:dmz": 1}')
    try:
        assert scene.finish() == 0, scene.said
        found = scene.found()
        assert found.perfect, (found, scene.said)
        assert witness.seen(node) == {target.partition(":")[0] for target in inside}
        elsewhere = set.union(*(witness.seen(other) for other in range(ground.cluster.nodes) if other != node))
        assert elsewhere == {target.partition(":")[0] for target in outside}
    finally:
        ground.cluster.kill(node)


def test_a_target_that_kills_actors(arena: Arena, ground: Ground, tmp_path: Path) -> None:
    """It is found and given up; everything else has its row. Of what Ray says of it nothing is amidst our output."""
    deadly = "127.9.9.13"
    witness = Witness(tmp_path, deadly)
    targets = [f"127.9.9.{last}:{port_of(arena)}" for last in range(1, 25)]
    scene = Scene(some(tmp_path / "few", *targets), ground, tmp_path / "scene", settings=witness.settings)
    assert scene.finish("-o", "-") == 0, scene.said
    found = scene.found()
    assert found.perfect, (found, scene.said)
    reasons = {row.ip: row.reason for row in scene.rows() if row.reason}
    assert reasons == {deadly: "crashed"}
    assert f"{deadly} port {port_of(arena)}/tcp kills our actors; given up" in scene.said
    written = [json.loads(line)["ip"] for line in scene.output.read_bytes().splitlines()]
    assert Counter(written) == Counter(target.partition(":")[0] for target in targets)


def test_rate(ground: Ground, tmp_path: Path) -> None:
    """One for the whole cluster, while an actor dies and a node with more of them comes."""
    rate, actors = 500, 4
    with Door() as door:
        targets = [f"127.9.{third}.{last}:{door.port}" for third in range(30) for last in range(1, 201)]
        scene = Scene(some(tmp_path / "many", *targets), ground, tmp_path / "scene", ["--rate", str(rate)])
        ground.kill_node()
        with scene.start() as scan:
            scan.until(lambda: len(ground.actors()) == actors)
            scan.middle(lambda: len(door.times) > FIRST * len(targets))  # what was held back until now
            os.kill(ground.busiest(), signal.SIGKILL)
            ground.cluster.add()
            assert scan.wait() == 0, scene.said
        assert len(door.times) >= len(targets)
        assert most_within(door.times, 1.0) <= 1.1 * rate
    assert scene.found().perfect


def test_caps(ground: Ground, tmp_path: Path) -> None:
    """Of all together, of a host and of a prefix, over all actors."""
    at_once, per_prefix, per_host = 40, 5, 2
    with ExitStack() as stack:
        farms = [stack.enter_context(Farm(greeting_after(HOLD_S, b"SSH-2.0-OpenSSH_9.2p1\r\n"))) for _ in range(3)]
        hosts = [f"127.9.{third}.{last}" for last in range(1, 13) for third in range(16)]
        targets = [target for host in hosts for farm in farms for target in farm.targets(host)]
        caps = ["--per-prefix", str(per_prefix), "--per-host", str(per_host), "--workers", "4"]
        limited = replace(some(tmp_path / "many", *targets), inflight=at_once)
        scene = Scene(limited, ground, tmp_path / "scene", caps)
        assert scene.finish() == 0, scene.said
        visits = [visit for farm in farms for visit in farm.visits]
    assert scene.found().perfect
    assert len(visits) == len(targets)
    assert most_at_once(visits) <= at_once
    for host in hosts:
        assert most_at_once(visit for visit in visits if visit.address == host) <= per_host
    for third in range(16):
        assert most_at_once(visit for visit in visits if visit.address.startswith(f"127.9.{third}.")) <= per_prefix
