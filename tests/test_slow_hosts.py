"""Which hosts took longest: a few with each batch, and bounded for a run however many there are."""

from msgspec.structs import replace
from peers import row

from engine.model import Batch
from engine.results.collector import Collector
from engine.results.slow_hosts import KEPT, KIND, SLOW_MS, TOLD, SlowHosts, slowest

ROW = row("http", 80)


def test_a_batch_tells_its_slowest() -> None:
    """Summed over the ports of a host, a few at most, and none that was quick."""
    rows = [replace(ROW, ip=f"10.0.0.{last}", elapsed_ms=400 + last) for last in range(100)]
    assert slowest(rows) == {}
    told = slowest([*rows, *rows, *rows])
    assert told == {f"{KIND}10.0.0.{last}": 3 * (400 + last) for last in range(99, 99 - TOLD, -1)}


def test_a_name_without_an_address_is_no_host() -> None:
    assert slowest([replace(ROW, ip=ip, elapsed_ms=SLOW_MS) for ip in ("", "\ud800")]) == {}


def test_what_is_slow_again_and_again_is_kept() -> None:
    """However many others were slow once."""
    hosts = SlowHosts()
    for number in range(20 * KEPT):
        hosts.add(f"once {number}", 1000)
        hosts.add("always", 1000)
    assert hosts.longest(1) == [("always", 20 * KEPT * 1000)]
    assert len(hosts.longest(10_000)) <= 2 * KEPT


def test_a_run_has_them_beside_its_tally() -> None:
    collector = Collector([])
    collector.take(Batch(b"", 1, [0], {"bytes": 7, KIND + "::1": 5000}))
    collector.take_committed([], 1, {"bytes": 1, KIND + "::1": 6000})
    assert collector.tally == {"bytes": 8}
    assert collector.slow_hosts.longest(20) == [("::1", 11_000)]
