"""What all tests have: signals that are heard. And what several modules of tests about a cluster begin with."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import config, database_file
from members import QUICK, Ledger

from engine.model import ScanConfig

HEARD = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}


@pytest.fixture(autouse=True)
def heard() -> None:
    """Commands that a test starts hear signals, whoever has started the tests, and whatever ran before in here.

    A command that ends in this very process ignores them from then on, and who is started by it would, too.
    """
    for number, handler in HEARD.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """The committer of a run."""
    made = Ledger(tmp_path / "run")
    yield made
    made.close()


@pytest.fixture
def settings(tmp_path: Path) -> ScanConfig:
    return config(database_file(tmp_path))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner's times, in small."""
    for name, value in QUICK.items():
        monkeypatch.setattr(name, value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where segments are put."""
    made = tmp_path / "segments"
    made.mkdir(0o700)
    return made
