"""`probemill` from Python: the same politeness as the command, one family of errors, and one response by itself."""

import asyncio
import gc
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from loopback import GREETING, Farm, Visit, config, database_file, greeting_after

import probemill
from probemill import (
    ConfigError,
    EngineError,
    MatcherError,
    Reason,
    ScanConfig,
    Target,
    Verdict,
    match,
    scan,
    scan_sync,
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def database(tmp_path: Path) -> str:
    return database_file(tmp_path)


def test_public_names_are_there() -> None:
    missing = [name for name in probemill.__all__ if not hasattr(probemill, name)]
    assert not missing
    wanted = {"scan", "scan_sync", "match", "ScanConfig", "Target", "ServiceResult", "Matcher", "load_database"}
    assert wanted | {"__version__"} <= set(probemill.__all__)


def test_a_checkout_is_the_command_and_the_module(tmp_path: Path) -> None:
    """Without an installation, from the checkout's folder."""
    for arguments in (["-c", "import probemill; print(probemill.__version__)"], ["-m", "probemill", "--version"]):
        done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.split()[-1] == probemill.__version__


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "lists",
    [
        {"blocklist": ("127.0.0.0/8",)},
        {"blocklist": ("127.5.0.0-127.5.0.9", "127.5.0.10")},
        {"allowlist": ("192.0.2.0/24",)},
        {"exclude_reserved": True},
    ],
    ids=str,
)
def test_lists_hold_for_python_too(database: str, lists: dict[str, Any], workers: int) -> None:
    """What a list leaves out is not contacted and has no row."""
    with Farm(greeting_after(0.0)) as farm:
        targets = farm.targets("127.5.0.1", "127.5.0.10")
        assert not list(scan_sync(targets, config(database, workers=workers, **lists)))
        assert not farm.visits


def test_a_list_may_be_a_file(database: str, tmp_path: Path) -> None:
    path = tmp_path / "never"
    path.write_text("127.5.0.0/30 # ours\n")
    with Farm(greeting_after(0.0)) as farm:
        rows = list(scan_sync(farm.targets("127.5.0.1", "127.5.0.9"), config(database, blocklist=(str(path),))))
        assert [row.ip for row in rows] == ["127.5.0.9"]
        assert set(farm.per_address) == {"127.5.0.9"}


def test_shares_are_disjoint_and_complete(database: str) -> None:
    with Farm(greeting_after(0.0)) as farm:
        targets = farm.targets(*(f"127.5.1.{number}" for number in range(20)))
        shares = [{row.ip for row in scan_sync(targets, config(database, shard=f"{i}/3"))} for i in (1, 2, 3)]
    assert sum(map(len, shares)) == len(set.union(*shares)) == 20


def test_ports_for_hosts_without_one(database: str) -> None:
    with Farm(greeting_after(0.0)) as farm:
        settings = config(database, ports=str(farm.port), seed=3)
        rows = list(scan_sync(["127.5.2.0/29", Target(0, "127.5.3.1", farm.port)], settings))
    assert {row.ip for row in rows} == {f"127.5.2.{number}" for number in range(8)} | {"127.5.3.1"}
    assert all(row.product == "Hello" for row in rows)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_deadline_ends_the_scan_with_what_is_known(database: str, workers: int) -> None:
    """Every target that was begun has its row; the silent one is incomplete for want of time."""
    with Farm(greeting_after(60.0)) as farm:
        (row,) = scan_sync(farm.targets("127.5.4.1"), config(database, workers=workers, deadline_s=1.0))
    assert (row.verdict, row.reason) == (Verdict.INCOMPLETE, Reason.BUDGET)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("timing", "foo", "one of nmap, adaptive"),
        ("matcher", "grep", "one of auto, hyperscan, re2, reference"),
        ("intensity", 12, "a whole number from 0 to 9"),
        ("workers", -1, "a whole number from 0 to 1024"),
        ("per_host", 10**30, "a whole number from 0 to 10000000"),
        ("rate", float("inf"), "a number of at least 0"),
        ("rate", None, "a number of at least 0"),
        ("connect_timeout_s", 0.0, "a number above 0"),
        ("probes", "nmap", "a tuple of texts"),
        ("blocklist", (1,), "a tuple of texts"),
        ("seed", "7", "a whole number of 64 bits, or None"),
        ("seed", 10**30, "a whole number of 64 bits, or None"),
        ("recog", "a\0b", "a text"),
        ("probes", ("\0",), "a tuple of texts"),
        ("intensity", "\ud800", "a whole number from 0 to 9"),
        ("reset", 1, "True or False"),
    ],
)
def test_a_value_that_cannot_be_used_names_its_field(field: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        ScanConfig(**{field: value})
    assert str(error.value) == f"{field}: {value!r} cannot be used; expected {expected}"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ports": "22,x"}, "ports: bad port 'x'"),
        ({"shard": "5/4"}, "bad shard '5/4'"),
        ({"blocklist": ("127.0.0.0/40",)}, "blocklist: no file '127.0.0.0/40', and no network: bad prefix length '40'"),
        ({"allowlist": ("nowhere.txt",)}, "allowlist: no file 'nowhere.txt'"),
        ({"post": ("nothing",)}, "no post-processing module 'nothing'"),
        ({"sources": ("192.0.2.1",)}, "source address 192.0.2.1"),
    ],
    ids=str,
)
def test_what_cannot_be_obeyed_is_an_engine_error(database: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError) as error:
        list(scan_sync(["127.0.0.1:1"], config(database, **options)))
    assert message in str(error.value)


def test_an_allowlist_without_entries_is_a_mistake(database: str, tmp_path: Path) -> None:
    """A blocklist may be empty; an allowlist that allows nothing is refused."""
    path = tmp_path / "list"
    path.write_text("# nothing yet\n")
    with pytest.raises(ConfigError, match="allows nothing"):
        list(scan_sync(["127.0.0.1:1"], config(database, allowlist=(str(path),))))
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{unheard.getsockname()[1]}"
        assert list(scan_sync([target], config(database, blocklist=(str(path),))))


@pytest.mark.parametrize("targets", ["127.0.0.1:80", b"127.0.0.1:80", Target(0, "127.0.0.1", 80)], ids=repr)
def test_one_target_is_no_list_of_targets(database: str, targets: Any) -> None:
    """A text would be read letter by letter."""
    with pytest.raises(ConfigError, match="is one target; give a list of them"):
        list(scan_sync(targets, config(database)))


def test_a_text_that_is_no_target(database: str) -> None:
    with pytest.raises(EngineError, match="targets:2: "):
        list(scan_sync(["127.0.0.1:1", "nonsense"], config(database)))


@pytest.mark.parametrize(
    "target",
    [Target(0, "127.0.0.1", 99999), Target(0, "127.0.0.1", -1), Target(0, "127.0.0.1", 1, "sctp"), None, 5, b"x"],  # type: ignore[arg-type]
    ids=repr,
)
def test_what_is_no_target(database: str, target: Any) -> None:
    with pytest.raises(EngineError, match=r"targets:1: .* is no target"):
        list(scan_sync([target], config(database)))


def test_a_target_may_have_a_name_alone(database: str) -> None:
    with Farm(greeting_after(0.0)) as farm:
        (row,) = scan_sync([Target(0, "", farm.port, "tcp", "localhost")], config(database))
    assert (row.host, row.ip in ("127.0.0.1", "::1")) == ("localhost", True)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_of_a_signal_is_the_callers(database: str, workers: int) -> None:
    """scan_sync lets it through as it is, and leaves nothing behind."""

    def ring(*_: object) -> None:
        raise ZeroDivisionError

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with Farm(greeting_after(60.0)) as farm:
            signal.setitimer(signal.ITIMER_REAL, 1.0)
            with pytest.raises(ZeroDivisionError):
                list(scan_sync(farm.targets("127.5.9.1"), config(slow_database(database), workers=workers)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def slow_database(database: str) -> str:
    path = Path(database).with_name("slow")
    path.write_bytes(Path(database).read_bytes().replace(b"totalwaitms 400", b"totalwaitms 20000"))
    return str(path)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_database_is_the_same_error_everywhere(tmp_path: Path, workers: int) -> None:
    with pytest.raises(MatcherError, match="nowhere"):
        list(scan_sync(["127.0.0.1:1"], ScanConfig(probes=(str(tmp_path / "nowhere"),), workers=workers)))


def test_one_response_is_bytes(database: str) -> None:
    settings = ScanConfig(probes=(database,))
    assert match(bytearray(GREETING), config=settings) == match(memoryview(GREETING), config=settings)
    with pytest.raises(ConfigError, match="expected the bytes"):
        match("HELLO", config=settings)  # type: ignore[arg-type]


def test_scan_sync_inside_a_loop_says_what_to_write(database: str) -> None:
    async def run() -> None:
        with pytest.raises(EngineError, match="async for row in scan"):
            scan_sync(["127.0.0.1:1"], config(database))

    asyncio.run(run())


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("how", ["break", "timeout", "cancel"])
def test_leaving_early_lets_go_of_everything(database: str, how: str, workers: int) -> None:
    """No socket, no process and no task is left, however the scan is left."""

    async def scan_some(port: int, farm: Farm) -> None:
        targets = [f"127.5.7.{number}:{port}" for number in range(1, 60)]
        async for _ in scan(targets, config(database, workers=workers, batch_rows=1)):
            if how == "break":
                break

    async def run(farm: Farm) -> None:
        before, tasks = descriptors(), len(asyncio.all_tasks())
        if how == "timeout":
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.6):
                    await scan_some(farm.port, farm)
        else:
            scanning = asyncio.create_task(scan_some(farm.port, farm))
            if how == "cancel":
                while not farm.visits:
                    await asyncio.sleep(0.01)
                scanning.cancel()
            await asyncio.gather(scanning, return_exceptions=True)
        for _ in range(200):
            if descriptors() <= before and len(asyncio.all_tasks()) <= tasks:
                break
            await asyncio.sleep(0.02)
        assert len(asyncio.all_tasks()) <= tasks
        assert descriptors() <= before

    async def half_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, visit: Visit) -> None:
        if how == "break" and int(visit.address.rpartition(".")[2]) % 2:
            writer.write(GREETING)
        await reader.read()

    gc.collect()
    with Farm(half_silent) as farm:
        asyncio.run(run(farm))


def test_leaving_while_the_database_is_made_ready(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has enough of waiting does not wait."""
    release = threading.Event()

    def slow(*_: object) -> None:
        release.wait(30)

    monkeypatch.setattr("engine.conversation.context.open_matcher", slow)

    async def run() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                async for _ in scan(["127.0.0.1:1"], config(database)):
                    pass

    began = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - began < 20
    release.set()


def test_a_name_without_an_address_has_a_row(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "told so")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    (row,) = scan_sync(["no.example:80"], config(database, allowlist=("192.0.2.0/24",)))
    assert (row.ip, row.host, row.state, row.name) == ("", "no.example", "", "")
    assert (row.verdict, row.reason) == (Verdict.INCOMPLETE, Reason.UNRESOLVED)


def test_rows_as_plain_values(database: str) -> None:
    """The same as the line of NDJSON."""
    with Farm(greeting_after(0.0)) as farm:
        (row,) = scan_sync(farm.targets("127.5.8.1"), config(database))
    assert json.loads(row.to_json()) == row.to_dict()
    assert row.to_dict()["verdict"] == "hardmatched"
    assert "fingerprint" not in row.to_dict()
    assert "\n" not in row.to_json()


def test_targets_may_come_asynchronously(database: str) -> None:
    async def run(port: int) -> list[str]:
        async def targets():  # type: ignore[no-untyped-def]
            for number in (1, 2):
                await asyncio.sleep(0)
                yield f"127.5.6.{number}:{port}"

        return [row.ip async for row in scan(targets(), config(database))]

    with Farm(greeting_after(0.0)) as farm:
        assert sorted(asyncio.run(run(farm.port))) == ["127.5.6.1", "127.5.6.2"]


def test_one_response(database: str) -> None:
    settings = ScanConfig(probes=(database,))
    found = match(GREETING, config=settings)
    assert found is not None
    assert (found.service, found.info.product, found.info.version) == ("hello", "Hello", "1.0")
    assert match(b"nothing of the kind", "Ask", config=settings) is None
    with pytest.raises(ConfigError, match="has no udp probe 'Ask'"):
        match(b"", "Ask", "udp", config=settings)
