"""What several modules of tests about a cluster begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import config, database_file
from members import QUICK, Ledger

from engine.model import ScanConfig


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
