"""What commands say of themselves, and of a command line that cannot be used."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from engine.cli.help import Command, Group, first_sentence, sections_of
from engine.cli.kinds import Amount, Bytes, Count, Hours, Seconds, told_time
from engine.cli.lazy import Commands
from engine.cli.main import cli
from engine.cli.options import ALL_OPTIONS, GROUPS

ROOT = Path(__file__).resolve().parent.parent
ESCAPE = "\x1b["


def walk(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from walk(command, (*path, name))
        else:
            yield (*path, name), command


ALL = dict(walk(cli))
MANY = {path: command for path, command in ALL.items() if getattr(command, "brief", ())}


def shown(*arguments: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}}
    done = subprocess.run(
        [sys.executable, "-m", "probemill", *arguments],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


# -- forms


@pytest.mark.parametrize("path", ALL, ids=" ".join)
@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_fits_the_width_and_is_plain_off_a_terminal(
    path: tuple[str, ...], width: int, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    result = CliRunner().invoke(cli, [*path, flag])
    lines = result.stdout.splitlines()
    assert result.exit_code == 0 and lines[0].startswith("Usage: ") and ESCAPE not in result.stdout
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if line != line.rstrip()]


def test_commands_with_many_options_have_a_short_form() -> None:
    """More than ten are many; the others show the same both ways."""
    assert MANY.keys() == {
        path for path, command in ALL.items() if sum(isinstance(param, click.Option) for param in command.params) > 10
    }


@pytest.mark.parametrize("path", MANY, ids=" ".join)
def test_the_short_form_fits_a_screen_and_leads_to_the_whole(path: tuple[str, ...]) -> None:
    brief, whole = (CliRunner().invoke(cli, [*path, flag], env={"COLUMNS": "80"}).stdout for flag in ("-h", "--help"))
    command = MANY[path]
    assert isinstance(command, Command) and set(command.brief) <= {param.name for param in command.params}
    assert len(brief.splitlines()) < 45 and len(whole) > 1.5 * len(brief)
    assert f"probemill {' '.join(path)} --help shows all" in brief
    assert all(example in brief for example in command.examples)


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_option_is_in_the_whole_once_and_in_a_section(path: tuple[str, ...]) -> None:
    """Sections tell of no option that the command has not; what is in none comes last."""
    command = ALL[path]
    context = click.Context(command)
    told = [option for section in sections_of(command, context) for option in section.options]
    assert sorted(map(str, told)) == sorted(
        str(option) for option in command.get_params(context) if isinstance(option, click.Option)
    )
    assert len(told) == len(set(map(id, told)))


def test_what_a_group_says_of_a_command_is_what_the_command_says() -> None:
    """It is written twice, so that nothing has to be imported to say it."""
    assert isinstance(cli.commands, Commands)
    for name, command in cli.commands.items():
        assert cli.commands.about(name) in {None, first_sentence(command.help or "")}


def test_defaults_have_their_units_and_choices_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = " ".join(CliRunner().invoke(cli, ["scan", "--help"]).stdout.split())
    for said in ("[default: 5s]", "[default: 64M]", "[default: 10m]", "nmap|adaptive", "[one of: auto, hyperscan"):
        assert said in text


# -- examples


def examples() -> list[str]:
    lines = [section.example for section in GROUPS]
    for command in ALL.values():
        lines += getattr(command, "examples", ())
        lines += [section.example for section in getattr(command, "sections", ())]
    return sorted({line for line in lines if line})


@pytest.mark.parametrize("line", examples())
def test_an_example_is_a_command_line_that_would_be_taken(line: str) -> None:
    """And it fits eighty columns behind its indent."""
    assert len(line) <= 80 - len("  Example: ") or (len(line) <= 78 and line not in {g.example for g in GROUPS})
    typed = re.search(r"probemill ([^|)]*)", line)  # what pipes and shells stand around it is theirs
    assert typed is not None
    words = typed[1].split()
    command: click.Command = cli
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
    command.make_context(command.name, words)


def test_each_section_of_scan_has_an_example_of_its_own_options() -> None:
    for section in GROUPS:
        named = {word for word in section.example.split() if word.startswith("-")}
        assert named & {name for option in section.options for name in option.opts}, section.title


# -- colours


def on_a_terminal(arguments: list[str], **environment: str) -> str:
    """What the command writes where standard output and error are a terminal of 80 columns."""
    kept = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}}
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "probemill", *arguments],
        cwd=ROOT,
        env=kept | {"TERM": "xterm"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ):
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 1 << 16):
                text += part
        except OSError:  # Linux says so where all is read
            pass
    os.close(ours)
    return text.decode()


@pytest.mark.parametrize("arguments", [["match", "-h"], ["scan", "--intesity", "3"]])
def test_colours_are_for_terminals_whose_user_wants_them(arguments: list[str]) -> None:
    assert ESCAPE in on_a_terminal(arguments)
    assert ESCAPE not in on_a_terminal(arguments, NO_COLOR="1")
    assert ESCAPE not in on_a_terminal(arguments, TERM="dumb")
    assert ESCAPE not in shown(*arguments)
    assert ESCAPE in shown(*arguments, FORCE_COLOR="1")


# -- command lines that cannot be used


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("scan --intesity 3", "no such option '--intesity'; did you mean '--intensity'?"),
        ("scna", "no such command 'scna'; did you mean 'scan'?"),
        ("192.0.2.7:22", "no such command '192.0.2.7:22'; a scan is `probemill scan ...`"),
        ("-sV 192.0.2.7:22", "no such option '-s'; a scan is `probemill scan ...`"),
        ("scan --rate fast", "invalid value for '--rate': 'fast' is not a number; write 250, 0.5, 40k, 62M or 1.5G"),
        ("plan --hours soon", "invalid value for '--hours': 'soon' is not a time; write 24, 24h, 90m or 2d"),
        ("scan --timing quick", "invalid value for '--timing': 'quick' is not one of 'nmap', 'adaptive'."),
        ("scan -o", "option '-o' requires an argument."),
        ("scan --\x1b[31mred", "no such option '--\\x1b[31mred'."),
    ],
)
def test_what_is_wrong_is_said_in_a_line_and_where_help_is_in_another(arguments: str, said: str) -> None:
    lines = shown(*arguments.split()).splitlines()
    assert len(lines) == 2 and lines[0].startswith(f"probemill: {said}")
    assert re.fullmatch(r"Try 'probemill( \w+)? -h' for help\.", lines[1])


# -- starting


def test_nothing_that_renders_help_is_imported_for_anything_else() -> None:
    """And of the commands only the one that is asked for."""
    code = (
        "import sys; from engine.cli.main import cli; cli.main(sys.argv[1:], standalone_mode=False);"
        "print(*(name for name in sys.modules if name.partition('.')[0] in {'rich_click', 'asyncio', 'rich'}))"
    )
    run = [sys.executable, "-c", code]
    version = subprocess.run([*run, "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert version.stdout.splitlines()[1:] == [""]
    schema = subprocess.run([*run, "schema"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "rich_click" not in schema.stdout.splitlines()[-1]


# -- the forms of values


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Seconds(), "1h30m", 5400.0),
        (Seconds(), "1d", 86_400.0),
        (Seconds(), "0.5", 0.5),
        (Hours(), "24", 24.0),
        (Hours(), "24h", 24.0),
        (Hours(), "90m", 1.5),
        (Hours(), "2d", 48.0),
        (Bytes(), "8MB", 8 << 20),
        (Bytes(), "64KiB", 1 << 16),
        (Amount(), "20k", 20_000.0),
        (Amount(), "1e5", 100_000.0),
        (Count(0, 10**7), "20k", 20_000),
        (Count(0, 10**7), "1M", 1_000_000),
    ],
)
def test_forms_that_people_try_are_understood(kind: click.ParamType[float], text: str, value: float) -> None:
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize("kind", [Seconds(), Hours(), Bytes(), Amount(), Count(0, 100)])
@pytest.mark.parametrize("text", ["", "x", "-1", "1x", "nan", "1e999", "101k0"])
def test_what_has_no_form_is_refused(kind: click.ParamType[float], text: str) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)


@pytest.mark.parametrize("text", ["200ms", "5s", "15m", "1h", "2d"])
def test_a_time_is_told_as_one_would_write_it(text: str) -> None:
    assert told_time(Seconds().convert(text, None, None)) == text


def test_options_of_scan_stand_in_one_section_each() -> None:
    assert len({option.name for option in ALL_OPTIONS}) == len(ALL_OPTIONS)
    assert isinstance(cli, Group)


@pytest.mark.parametrize("name", ["COLUMNS", "FORCE_COLOR"])
def test_a_zero_in_the_environment_is_nothing(name: str) -> None:
    """As containers and CI set it: the help is there, and without colours where nobody sees them."""
    code = "import sys; sys.argv = ['probemill', 'scan', '-h']; from engine.cli.start import main; main()"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=os.environ | {name: "0"})
    assert b"--ports" in said.stdout and b"\x1b" not in said.stdout
