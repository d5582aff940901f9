"""The audit of exactly-once on a cluster: nodes, actors and drivers that die in the middle of a run.

    python -m bench.chaos_cluster [--quick] [--targets N] [CASE ...]

Each case scans a loopback farm with `--runner ray` on three Ray nodes of this machine, into a state folder and a
Parquet sink, and disturbs that run when some of it is committed and some is not. In the end every target must have
exactly one row in the segments and one in the Parquet files, nothing may be left of attempts that do not count, and no
process. Exit code 1 where anything was lost, doubled or left.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.chaos import Arena
from bench.cluster_arena import Found, Ground, Scan, Scene, wait_for
from bench.farm import farm
from bench.object_store import ObjectStore, object_store

NODES = 3
TARGETS, RATE = 60_000, 3000
QUICK_TARGETS, QUICK_RATE = 4000, 600
DELAY_S = 0.5  # of greetings, so that there are always conversations in flight
AWAY_S = 5.0  # how long the object store is away
HEADS = ("   rows", "lost", "doubled", "lake: lost", "doubled", "left behind")
GIVEN = "unfinished targets are given to others"


class CaseError(Exception):
    """A run did not go as it has to, whatever its rows are."""


def undisturbed(scene: Scene) -> None:
    expect(scene.finish(), 0, scene)


def actor_killed(scene: Scene) -> None:
    with scene.start() as scan:
        scan.middle()
        os.kill(scene.ground.busiest(), signal.SIGKILL)
        expect(scan.wait(), 0, scene)
    said(scene, GIVEN)


def node_killed(scene: Scene) -> None:
    """Not the head, where the driver is."""
    with scene.start() as scan:
        scan.middle()
        scene.ground.kill_node()
        expect(scan.wait(), 0, scene)
    scene.ground.cluster.add()


def node_added(scene: Scene) -> None:
    """One of three comes when the others are at work; it gets actors, and these get targets."""
    scene.ground.kill_node()
    with scene.start() as scan:
        scan.middle()
        node = scene.ground.cluster.add()
        scan.until(lambda: bool(scene.ground.actors(node)))
        expect(scan.wait(), 0, scene)


def head_killed(scene: Scene) -> None:
    """The driver says so in a line and ends; a new cluster goes on."""
    with scene.start() as scan:
        scan.middle()
        scene.ground.cluster.kill(0)
        expect(scan.wait(), 1, scene)
    said(scene, "no longer answers")
    scene.ground.renew()
    expect(scene.finish(), 0, scene)


def driver_killed(scene: Scene) -> None:
    """Resumed at once, while its actors may be there still."""
    with scene.start() as scan:
        scan.middle()
        os.killpg(scan.process.pid, signal.SIGKILL)
        scan.wait()
    expect(scene.finish(), 0, scene)


def actor_stopped(scene: Scene) -> None:
    """For good: others have its work when it must have dropped it."""
    with scene.start() as scan:
        scan.middle()
        os.kill(scene.ground.busiest(), signal.SIGSTOP)
        expect(scan.wait(), 0, scene)
    said(scene, "cannot be reached")


def actor_continued(scene: Scene) -> None:
    """When others have its work already: it does no more of it."""
    with scene.start() as scan:
        scan.middle()
        stopped = scene.ground.busiest()
        os.kill(stopped, signal.SIGSTOP)
        scan.until(lambda: "cannot be reached" in scene.said)
        scan.until(lambda: GIVEN in scene.said, 10.0)
        go_on(stopped)
        expect(scan.wait(), 0, scene)


def store_away(scene: Scene) -> None:
    """Segments wait until it is back."""
    store = scene.store
    assert store is not None
    with scene.start() as scan:
        scan.middle()
        store.kill()
        wait_away(scan)
        store.start()
        expect(scan.wait(), 0, scene)


CASES: dict[str, Callable[[Scene], None]] = {
    case.__name__: case
    for case in (
        undisturbed,
        actor_killed,
        node_killed,
        node_added,
        driver_killed,
        actor_stopped,
        actor_continued,
        store_away,
        head_killed,
    )
}


def expect(code: int, wanted: int, scene: Scene) -> None:
    if code != wanted:
        raise CaseError(f"exit code {code}, not {wanted}: {scene.said}")


def said(scene: Scene, words: str) -> None:
    if words not in scene.said:
        raise CaseError(f"it does not say {words!r}: {scene.said}")


def go_on(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        raise CaseError("the actor that was stopped is gone before its work was given to others") from None


def wait_away(scan: Scan) -> None:
    """While it is away the run goes on, however long that takes."""
    wait_for(lambda: scan.process.poll() is not None, AWAY_S)
    if scan.process.poll() is not None:
        raise CaseError("the run ended while the store was away")


def tried(name: str, scene: Scene) -> tuple[str, Found | None]:
    """-> what was wrong, what was found"""
    try:
        CASES[name](scene)
        found = scene.found()
    except (CaseError, RuntimeError) as error:
        return str(error), None
    return "" if found.perfect else f"{found}\n{scene.said}", found


def figures(found: Found) -> tuple[int, ...]:
    """As HEADS has them."""
    left = found.attempts + found.processes
    return found.rows, found.lost, found.doubled, found.lake_lost, found.lake_doubled, left


def run_all(names: list[str], targets: int, rate: int, folder: Path, store: ObjectStore) -> int:
    """-> faults"""
    faults = 0
    print(f"{'case':16} {' '.join(HEADS)}  seconds", flush=True)
    with farm(DELAY_S) as port, Ground(NODES, environment=store.environment) as ground:
        arena = Arena.build(folder, port, targets)
        for name in names:
            away = store if name == "store_away" else None
            scene = Scene(arena, ground, folder / name, ["--rate", str(rate)], away)
            began = time.monotonic()
            wrong, found = tried(name, scene)
            numbers = figures(found) if found else ("-",) * len(HEADS)
            shown = " ".join(f"{number:>{len(head)}}" for number, head in zip(numbers, HEADS, strict=True))
            print(f"{name:16} {shown} {time.monotonic() - began:8.1f}  {wrong and f'fault: {wrong}'}", flush=True)
            if wrong:
                faults += 1
                ground.renew()  # whatever is left there is not to disturb the next case
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_TARGETS} targets instead of {TARGETS}")
    parser.add_argument("--targets", type=int, default=0)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all where none is named")
    options = parser.parse_args()
    if unknown := set(options.cases) - CASES.keys():
        parser.error(f"there is no case {min(unknown)}")
    targets = options.targets or (QUICK_TARGETS if options.quick else TARGETS)
    rate = QUICK_RATE if options.quick else RATE
    print(f"{targets} targets a case, {rate} a second at most")
    with tempfile.TemporaryDirectory() as name, object_store() as store:
        faults = run_all(options.cases or list(CASES), targets, rate, Path(name), store)
    print(f"{faults} faults" if faults else "no fault")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
