"""docs/install/probemill@.service and .timer: what systemd itself says of them, and the commands that they run."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from manifests import parsed

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "install"
SERVICE = FOLDER / "probemill@.service"
EXPOSURE = 20  # tenths, of 100: systemd's own sum of what a service may do; a network is most of what is left here
CODES = {0: "over", 1: "over", 2: "running", 130: "running", "KILL": "running"}  # exit status: where the run then is


def settings() -> dict[str, list[str]]:
    """Every setting of the service with its values, lines that go on joined."""
    found: dict[str, list[str]] = {}
    for line in SERVICE.read_text("utf-8").replace("\\\n", "").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(" ".join(value.split()))
    return found


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    command = ["systemd-analyze", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"SYSTEMD_COLORS": "0"}
    )


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """Both, with a command that is there."""
    command = Path(sys.executable).with_name("probemill")
    for unit in FOLDER.glob("probemill@.*"):
        text = unit.read_text("utf-8").replace("/usr/local/bin/probemill", str(command))
        (tmp_path / unit.name).write_text(text, "utf-8")
    return [str(tmp_path / name) for name in ("probemill@.service", "probemill@.timer")]


def test_systemd_finds_nothing_to_say(units: list[str]) -> None:
    """Of ours; it also reads the units that are installed here, and may have something to say of those."""
    done = analyze("verify", "--man=no", *(unit.replace("@", "@edge") for unit in units))
    said = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith(("/lib/", "/usr/lib/"))]
    assert (done.returncode, said) == (0, [])


def test_systemd_finds_it_little_exposed(units: list[str]) -> None:
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE}", units[0])
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_command_has_only_options_that_there_are() -> None:
    [command] = settings()["ExecStart"]
    example = "-p 22,80,443 --rate 200"
    assert f"OPTIONS={example}\n" in SERVICE.read_text("utf-8")
    words = shlex.split(command.replace("$OPTIONS", example))
    options = parsed(words)
    assert options["resume"]
    assert options["state"] == "${STATE_DIRECTORY}/running"
    assert options["inputs"] == ["${CONFIGURATION_DIRECTORY}/targets.txt"]


@pytest.mark.parametrize("status", CODES, ids=str)
def test_a_run_that_is_over_is_put_aside(status: int | str, tmp_path: Path) -> None:
    """One that was stopped or killed stays where the next start resumes it."""
    [command] = settings()["ExecStopPost"]
    running = tmp_path / "running"
    running.mkdir()
    words = shlex.split(command.replace("%%", "%"))
    environment = {"PATH": os.defpath, "STATE_DIRECTORY": str(tmp_path), "EXIT_STATUS": str(status)}
    subprocess.run(words, env=environment, check=True)
    [left] = tmp_path.iterdir()
    assert (left == running) == (CODES[status] == "running")


def test_what_counts_as_done() -> None:
    """Exit code 1, something was skipped, shows as a failure; to be stopped is none; a crash is begun again."""
    found = settings()
    assert found["SuccessExitStatus"] == ["130"]
    assert found["Restart"] == ["on-abnormal"]


def test_it_writes_into_its_own_folders_alone() -> None:
    found = settings()
    assert found["DynamicUser"] == ["yes"]
    assert found["ProtectSystem"] == ["strict"]
    assert not {"ReadWritePaths", "BindPaths", "User"} & found.keys()
    assert found["StateDirectory"] == found["CacheDirectory"] == found["ConfigurationDirectory"] == ["probemill/%i"]
