"""`probemill` from Python: the same politeness as the command, one family of errors, and one response by itself."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loopback import GREETING, Farm, config, database_file, greeting_after

import probemill
from probemill import ConfigError, EngineError, Reason, ScanConfig, Target, Verdict, match, scan, scan_sync

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
        ("workers", -1, "a whole number of at least 0"),
        ("rate", float("inf"), "a number of at least 0"),
        ("rate", None, "a number of at least 0"),
        ("connect_timeout_s", 0.0, "a number above 0"),
        ("probes", "nmap", "a tuple of texts"),
        ("blocklist", (1,), "a tuple of texts"),
        ("seed", "7", "a whole number, or None"),
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
