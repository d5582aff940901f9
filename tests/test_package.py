"""What is shipped: the wheel's contents, and the promises that README makes about commands."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from engine import __version__
from engine.cli.main import cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in a wheel that is built here and now."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl"))).namelist()


def test_the_wheel_holds_three_names_and_nothing_else(wheel: list[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"engine", "matcher", "probemill.py"}


def test_the_wheel_carries_our_database_and_licence(wheel: list[str]) -> None:
    assert "matcher/data/service-probes" in wheel
    for notice in ("LICENSE", "NOTICE"):
        assert any(name.endswith(f"licenses/{notice}") for name in wheel)


def test_arrow_is_imported_when_it_is_asked_for() -> None:
    """`import probemill`, also with a star, stays light; what is not there is said in one line."""
    script = """
import sys
sys.modules["pyarrow"] = None  # as if it were not installed
import probemill
from probemill import *
assert "engine.arrow" not in sys.modules
try:
    from probemill import arrow
except ImportError as error:
    assert str(error) == "probemill.arrow needs pyarrow: pip install 'probemill[lake]'", error
else:
    raise AssertionError
try:
    probemill.nothing
except AttributeError as error:
    assert str(error) == "module 'probemill' has no attribute 'nothing'"
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", README))
    assert {"run", "test"} <= named <= targets


def test_commands_of_the_readme_exist() -> None:
    """Each `probemill ...` line in a code block names a command, and options, that the command line knows."""
    lines = re.findall(r"^\$ (?:.*\| )?probemill (.+)$", README, re.MULTILINE)
    assert lines
    for line in lines:
        words = re.split(r"[#|]", line)[0].split()
        command = cli
        path = []
        while words and hasattr(command, "commands") and words[0] in command.commands:
            path.append(words[0])
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        flags = [word.partition("=")[0] for word in words if word.startswith("-") and word != "-"]
        unknown = [flag for flag in flags if flag not in options]
        assert path and not unknown, line


COMMANDS = [(), *((name,) for name in cli.commands), *(("db", name) for name in cli.commands["db"].commands)]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, [*path, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output
    assert len(result.output.splitlines()) > 4


def test_every_option_of_scan_is_documented() -> None:
    text = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    missing = [
        option
        for parameter in cli.commands["scan"].params
        for option in parameter.opts
        if option.startswith("-") and f"`{option}" not in text
    ]
    assert not missing


def test_whoever_cites_names_this_version() -> None:
    """CITATION.cff has what the format, Citation File Format 1.2.0, asks for, and nothing that it does not know."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    required = {"cff-version", "message", "title", "authors"}
    known = required | {"abstract", "date-released", "doi", "keywords", "license", "type", "url", "version"}
    assert required <= citation.keys() <= known
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["version"] == __version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (citation["license"], citation["keywords"]) == (project["license"], project["keywords"])
    holders = re.findall(r"^Copyright \(c\) \d+ (.+)$", (ROOT / "LICENSE").read_text(encoding="utf-8"), re.MULTILINE)
    assert [author["name"] for author in citation["authors"]] == holders
    assert all(author.keys() == {"name"} for author in citation["authors"])  # entities, not persons
