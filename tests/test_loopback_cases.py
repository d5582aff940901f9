"""Every observed conversation over real loopback sockets, through the public API.

All cases are scanned once, many at a time, before the first test looks at its own outcome; so the whole table takes
about as long as its slowest case. Answers depend on when things come: what differs is scanned again with less beside
it, because a machine that has other work is late now and then, and a fault of ours is there each time.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from cases import REGISTERED, Case, differences, load_all, load_regex
from conformance import check_bare_stream, check_datagrams, check_sink, check_stream, check_tls
from msgspec.structs import replace
from scripted import ScriptedServer, serve

from engine.results.sinks import SINKS, Run, open_sink
from engine.transports import Receiver, Transport
from engine.transports.reactor import Reactor
from engine.transports.tcp import TcpTransport
from engine.transports.tls import Steps, TlsTransport, client_context
from engine.transports.udp import UdpHub
from probemill import ScanConfig, ServiceResult, Target, scan, scan_sync

SETTLING_S = 0.5
AT_ONCE = (24, 4, 1)  # scans; more would make two cores late for the cases with short waits
pytestmark = pytest.mark.xdist_group("loopback")  # with --dist loadgroup the table is scanned by one worker only
CASES = load_all() + [case.conversation for case in load_regex()]
SLOW_FIRST = sorted(CASES, key=lambda case: case.id not in ("B-106", "B-42c", "B-15", "B-48", "B-38"))  # 6 to 9 s each

Outcome = tuple[list[ServiceResult], list[bytes]]


def target_of(case: Case, server: ScriptedServer, ordinal: int = 0) -> Target:
    """The target as a port scan would hand it over."""
    state: Literal["open", "open|filtered"] = "open|filtered" if case.proto == "udp" else "open"
    return Target(ordinal, server.host, server.port, case.proto, state=state)


def config_of(case: Case, folder: Path, port: int) -> ScanConfig:
    path = folder / f"{case.id}.probes"
    path.write_bytes(case.database(port))
    return ScanConfig(probes=(str(path),), intensity=case.intensity, allports=case.all_ports)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the databases are written; it has a services table of its own, so that the machine's does not matter."""
    folder = tmp_path_factory.mktemp("databases")
    table = "".join(f"{name}\t{port}/{proto}\t0.1\n" for (port, proto), name in REGISTERED.items())
    folder.joinpath("nmap-services").write_text(table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NMAPDIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, Outcome]:
    """Rows and what the server received, by case."""
    seen: dict[str, Outcome] = {}
    for at_once in AT_ONCE:
        seen |= scan_cases([case for case in SLOW_FIRST if not as_observed(case, seen)], folder, at_once)
    return seen


def as_observed(case: Case, seen: dict[str, Outcome]) -> bool:
    rows, sent = seen.get(case.id, ([], []))
    return len(rows) == 1 and not differences(case, rows[0], sent)


def scan_cases(cases: list[Case], folder: Path, at_once: int) -> dict[str, Outcome]:
    """Each case in a scan of its own."""

    async def scan_all() -> dict[str, Outcome]:
        gate = asyncio.Semaphore(at_once)

        async def scan_one(case: Case) -> list[ServiceResult]:
            server = servers[case.id]
            async with gate:
                config = config_of(case, folder, server.port)
                return [row async for row in scan([target_of(case, server)], config)]

        results = await asyncio.gather(*map(scan_one, cases))
        await asyncio.sleep(SETTLING_S)  # a server may read our last bytes after we have its answer
        return {case.id: (rows, servers[case.id].sent) for case, rows in zip(cases, results, strict=True)}

    if not cases:
        return {}
    with serve(cases) as servers:
        return asyncio.run(scan_all())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_outcome(case: Case, outcomes: dict[str, Outcome]) -> None:
    """One row per target, and it is the one observed; so are the bytes sent and the connections made."""
    rows, sent = outcomes[case.id]
    assert len(rows) == 1
    assert not differences(case, rows[0], sent), case.what


def test_connections_are_counted(outcomes: dict[str, Outcome]) -> None:
    """The row tells how many TCP connections there were, as the server counted them."""
    tcp = [case for case in CASES if case.proto == "tcp"]
    told = {case.id: outcomes[case.id][0][0].connections for case in tcp}
    assert told == {case.id: len(outcomes[case.id][1]) for case in tcp}


@pytest.mark.parametrize("workers", [0, 2])
def test_one_run_over_many_servers(folder: Path, workers: int) -> None:
    """Targets of one run do not disturb each other: cases that share a database give the same rows together."""
    databases = [case.db for case in CASES]
    shared = [case for case in CASES if databases.count(case.db) > 1 and case.port == 0 and case.intensity == 7]
    most_used = max((case.db for case in shared), key=databases.count)
    together = [case for case in shared if case.db == most_used]
    assert len(together) >= 3
    with serve(together) as servers:
        targets = [target_of(case, servers[case.id], ordinal) for ordinal, case in enumerate(together)]
        config = replace(config_of(together[0], folder, 0), workers=workers)
        listed = list(scan_sync(targets, config))
        rows = {row.port: row for row in listed}
        assert len(listed) == len(rows) == len(together)
        for case in together:
            server = servers[case.id]
            assert not differences(case, rows[server.port], server.sent), case.what


@pytest.mark.parametrize("form", SINKS)
def test_every_form_takes_the_rows(form: str, outcomes: dict[str, Outcome], tmp_path: Path) -> None:
    """Whatever a service said, each form can write it down, however the rows come."""
    rows = [outcomes[case.id][0][0] for case in CASES]
    run = Run(version="0", args="probemill scan", started=1_795_243_093.0)
    assert check_sink(lambda path: open_sink(form, str(path), run), tmp_path / form, rows)


def tls(reactor: Reactor, receiver: Receiver, host: str, port: int) -> Transport:
    steps = Steps()
    reactor.after_turn = steps.take
    return TlsTransport(client_context(), receiver, lambda below: TcpTransport(reactor, below, host, port), steps)


class LoneUdp:
    """A conversation with a hub of its own, in the form that the checks make transports."""

    def __init__(self, reactor: Reactor, receiver: Receiver, host: str, port: int) -> None:
        self._hub = UdpHub(reactor)
        self._transport = self._hub.open(receiver, host, port)

    def send(self, data: bytes) -> None:
        self._transport.send(data)

    def close(self) -> None:
        self._transport.close()
        self._hub.close()


def test_tcp_transport() -> None:
    asyncio.run(check_stream(TcpTransport))
    asyncio.run(check_bare_stream(TcpTransport))


def test_tls_transport() -> None:
    asyncio.run(check_tls(tls))


def test_udp_transport() -> None:
    asyncio.run(check_datagrams(LoneUdp))
