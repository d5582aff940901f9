"""The wheel, installed by pipx and by uv into an empty place, is a command that scans without an installed Nmap."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from installed import assert_named, greeter

from engine import __version__

ROOT = Path(__file__).resolve().parent.parent
Install = Callable[[Path, Path], tuple[list[str], dict[str, str]]]  # wheel, place -> command, its environment

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("install")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make dist` makes of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = folder.glob("*.whl")
    return wheel


def by_pipx(wheel: Path, place: Path) -> tuple[list[str], dict[str, str]]:
    arguments = [f"--pip-args=-c {ROOT / 'constraints.txt'}", "--python", sys.executable]
    places = {"PIPX_HOME": "home", "PIPX_BIN_DIR": "bin", "PIPX_MAN_DIR": "man"}
    return (
        [sys.executable, "-m", "pipx", "install", *arguments, str(wheel)],
        {name: str(place / folder) for name, folder in places.items()},
    )


def by_uv(wheel: Path, place: Path) -> tuple[list[str], dict[str, str]]:
    arguments = ["--constraints", str(ROOT / "constraints.txt"), "--python", sys.executable, "--no-python-downloads"]
    places = {"UV_TOOL_DIR": "home", "UV_TOOL_BIN_DIR": "bin"}
    return (
        [sys.executable, "-m", "uv", "tool", "install", *arguments, str(wheel)],
        {name: str(place / folder) for name, folder in places.items()},
    )


def needs(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(tool) is None, reason=f"needs {tool}: the extra installdev")


@pytest.mark.parametrize(
    "install",
    [pytest.param(by_pipx, id="pipx", marks=needs("pipx")), pytest.param(by_uv, id="uv", marks=needs("uv"))],
)
def test_a_tool_installs_a_command_that_scans(install: Install, wheel: Path, tmp_path: Path) -> None:
    command, places = install(wheel, tmp_path)
    outside = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PROBEMILL_PROBES"}}
    done = subprocess.run(command, env=outside | places, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [file.name for file in (tmp_path / "bin").iterdir()] == ["probemill"]

    def probemill(*arguments: str) -> str:
        environment = outside | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        command = [str(tmp_path / "bin" / "probemill"), *arguments]
        return subprocess.run(
            command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True
        ).stdout

    assert probemill("--version").split()[-1] == __version__
    with greeter() as port:
        assert_named(probemill("scan", f"127.0.0.1:{port}", "--probes", "builtin"), port)
