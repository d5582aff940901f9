"""What `--runner ray` refuses before anybody is contacted: one line says what is wrong."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.farm import ROOT
from engine.cli.main import cli
from engine.errors import ConfigError, InputError

TARGET = "127.9.1.1:9"
WAIT_S = 150.0


def refused(*arguments: str | Path) -> str:
    """Run `probemill scan` in this process. -> what it says of a mistake in its options, one line"""
    done = CliRunner().invoke(cli, ["scan", "-q", TARGET, *map(str, arguments)])
    assert isinstance(done.exception, ConfigError | InputError), done.exception
    (line,) = (done.stderr + str(done.exception)).splitlines()
    return line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--runner", "ray"), "--runner ray needs --state DIR"),
        (("--runner", "ray", "--ray-address", "ray://127.0.0.1:10001"), "give HOST:PORT or auto"),
        (("--ray-address", "127.0.0.1:6379"), "--ray-address needs --runner ray"),
        (("--ray-options", "options.toml"), "--ray-options needs --runner ray"),
        (("--runner", "ray", "--version-trace"), "--version-trace: not with --runner ray"),
    ],
)
def test_contradictions(options: tuple[str, ...], words: str) -> None:
    pytest.importorskip("ray", reason="needs probemill[ray]")
    assert words in refused(*options)


def test_segments_are_for_a_cluster(tmp_path: Path) -> None:
    said = refused("--state", tmp_path / "state", "--segments", tmp_path / "segments")
    assert "--segments needs --runner ray" in said
    assert not (tmp_path / "state").exists()


def test_without_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    said = refused("--runner", "ray", "--state", tmp_path / "state")
    assert "pip install 'probemill[ray]'" in said
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cpus = 2\n", "cpus"),
        ("cpus_per_actor = 0\n", "cpus_per_actor"),
        ("patience = -1\n", "patience"),
        ('[zones.dmz]\nnetworks = ["10.8.0.0/99"]\n', "zones.dmz"),
        ("[zones.dmz]\n", "networks"),
        ("patience = \n", "line 1"),
        ('[init]\naddress = "auto"\n', "init.address"),
    ],
)
def test_an_options_file_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    """With its place."""
    (tmp_path / "ray.toml").write_text(text)
    said = refused("--runner", "ray", "--state", tmp_path / "state", "--ray-options", tmp_path / "ray.toml")
    assert words in said
    assert not (tmp_path / "state").exists()


def test_an_options_file_that_is_not_there(tmp_path: Path) -> None:
    said = refused("--runner", "ray", "--state", tmp_path / "state", "--ray-options", tmp_path / "ray.toml")
    assert "No such file" in said


@pytest.mark.slow
@pytest.mark.parametrize("listens", [False, True])
def test_no_cluster_there(tmp_path: Path, listens: bool) -> None:
    """Nobody, or somebody else: one line, and nothing is scanned."""
    pytest.importorskip("ray", reason="needs probemill[ray]")
    with socket.socket() as other:
        other.bind(("127.99.0.10", 0))
        address = f"127.99.0.10:{other.getsockname()[1]}"
        if listens:
            other.listen(100)
        (tmp_path / "ray.toml").write_text('[init]\n_node_ip_address = "127.99.0.10"\n')
        command = [sys.executable, "-m", "probemill", "scan", "-q", TARGET, "--state", str(tmp_path / "state")]
        command += ["--runner", "ray", "--ray-address", address, "--ray-options", str(tmp_path / "ray.toml")]
        done = subprocess.run(
            command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=WAIT_S, check=False
        )
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert address in line
