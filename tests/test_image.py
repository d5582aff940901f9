"""docs/install/Containerfile, built for real, gives an image that scans as nobody in particular.

`make image-test` runs it, as root, with buildah and debootstrap. No registry is asked: the base is a Debian that
debootstrap makes. How packages are reached from this machine (pip's configuration, certificates) is lent to the build
and stays out of the image.
"""

import configparser
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from installed import assert_named, greeter

from engine import __version__

ROOT = Path(__file__).resolve().parent.parent
LARGEST = 150  # MB that the image may add to its base
RELEASE = "bookworm"
CERTIFICATES = "/etc/ssl/certs"

TOOLS = os.getuid() == 0 and shutil.which("buildah") and shutil.which("debootstrap")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("image"),
    pytest.mark.skipif("PROBEMILL_IMAGE_TEST" not in os.environ, reason="takes minutes; make image-test runs it"),
    pytest.mark.skipif(not TOOLS, reason="needs root, buildah and debootstrap"),
]


class Store:
    """Buildah with images of its own, which go when the test does. It needs no daemon and no namespaces."""

    def __init__(self, folder: Path) -> None:
        self._places = ["--root", str(folder / "images"), "--runroot", str(folder / "run"), "--storage-driver", "vfs"]
        self._environment = os.environ | {"BUILDAH_ISOLATION": "chroot"}

    def __call__(self, command: str, *arguments: str) -> str:
        words = ["buildah", *self._places, command, *arguments]
        done = subprocess.run(words, env=self._environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout.strip()


def base(store: Store) -> str:
    """A small Debian with Python, as an image."""
    container = store("from", "scratch")
    tree = store("mount", container)
    packages = "--include=python3,python3-venv,ca-certificates"
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", packages, RELEASE, tree], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no Debian to begin with: {made.stdout[-300:]}")
    for leftover in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(Path(tree, leftover))
    store("commit", "-q", "--rm", container, "localhost/base")
    return "localhost/base"


def lent(folder: Path) -> Iterator[str]:
    """Volumes of the build: what pip is told here of the network, and certificates."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    values = (line.partition("=") for line in listed.stdout.splitlines())
    told = {name.rpartition(".")[2]: value.strip("'") for name, _, value in values}
    here = configparser.ConfigParser(interpolation=None)
    here["global"] = {name: told[name] for name in ("cert", "default-timeout", "index-url", "proxy") if name in told}
    with (folder / "pip.conf").open("w", encoding="utf-8") as file:
        here.write(file)
    yield f"{folder / 'pip.conf'}:/etc/pip.conf:ro"
    yield f"{CERTIFICATES}:{CERTIFICATES}:ro"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """With localhost/base and localhost/probemill, which was made of it."""
    folder = tmp_path_factory.mktemp("image")
    store = Store(folder)
    try:
        volumes = [word for volume in lent(folder) for word in ("--volume", volume)]
        arguments = ["--format", "docker", "--network", "host", "--build-arg", f"BASE={base(store)}"]
        store("build", *arguments, *volumes, "-f", "docs/install/Containerfile", "-t", "localhost/probemill", ".")
        yield store
    finally:
        if str(folder) not in Path("/proc/self/mounts").read_text("utf-8"):  # nothing of this machine is inside
            shutil.rmtree(folder)


@pytest.fixture(scope="module")
def settings(store: Store) -> dict[str, Any]:
    """What the image says of itself."""
    settings: dict[str, Any] = json.loads(store("inspect", "--type", "image", "localhost/probemill"))
    return settings["Docker"]["config"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def container(store: Store) -> str:
    return store("from", "localhost/probemill")


def test_the_image_says_what_it_is(settings: dict[str, Any]) -> None:
    assert settings["Entrypoint"] == ["probemill"]
    assert settings["Volumes"] == {"/state": {}}
    assert settings["WorkingDir"] == "/state"
    assert settings["User"] == "1000"  # a number: Kubernetes asks whether it is root
    assert settings["Labels"]["org.opencontainers.image.licenses"] == "MIT"


def test_the_command_is_there_and_its_files_are_not_its_own(store: Store, container: str) -> None:
    assert store("run", container, "--", "probemill", "--version").split()[-1] == __version__
    assert store("run", container, "--", "id", "-u") == "1000"
    find = "find / -xdev -writable ! -type l ! -path '/dev/*' ! -path '/proc/*' ! -path '/sys/*' 2>/dev/null; true"
    writable = store("run", container, "--", "sh", "-c", find).splitlines()
    assert {"/" + path.split("/")[1] for path in writable} <= {"/home", "/state", "/tmp", "/var", "/run"}


def test_it_scans_and_keeps_the_state(store: Store, container: str) -> None:
    with greeter() as port:
        scan = ("--network", "host", container, "--", "probemill", "scan", f"127.0.0.1:{port}", "--state", "run")
        assert_named(store("run", *scan, "-o", "-"), port)
    assert json.loads(store("run", container, "--", "probemill", "state", "/state/run"))["rows"] == 1


def test_the_health_line_is_a_command_that_succeeds(store: Store, container: str, settings: dict[str, Any]) -> None:
    how, *command = settings["Healthcheck"]["Test"]
    assert how == "CMD"
    store("run", container, "--", *command)


def test_it_is_small_and_holds_nothing_of_the_build(store: Store, container: str) -> None:
    assert int(store("run", container, "--", "du", "-sm", "/opt/probemill").split()[0]) < LARGEST
    gone = "/src /opt/probemill/bin/pip* /root/.cache /etc/pip.conf"  # of the last, buildah leaves an empty file
    assert store("run", container, "--", "sh", "-c", f"find {gone} -type f -size +0 2>/dev/null; true") == ""
