"""Man pages of the command, from the texts of its help: `python docs/man.py FOLDER` writes a page for each command.

The frame of a page is click-man's; options in their sections, examples and escaping are ours. Needs the extra `site`.
"""

import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
from click_man.man import ManPage

sys.path[:0] = [str(Path(__file__).resolve().parent.parent)]

from engine import __version__  # noqa: E402 - a checkout needs no installation
from engine.cli.help import Group, Section, first_sentence, names, sections_of, value, words  # noqa: E402
from engine.cli.main import cli  # noqa: E402

WIDTH = 72  # of lines, before `-` becomes `\\-`
EXIT_CODES = (
    ("0", "Everything was used and done."),
    ("1", "Something was skipped, or went wrong on the way."),
    ("2", "Nothing could be done: an option, a database or an input that cannot be used."),
    ("130", "Somebody ended it."),
)


def pages(command: click.Command = cli, parent: click.Context | None = None) -> Iterator[tuple[str, str]]:
    """The file name and the text of each command's page, those of a group's commands behind the group's."""
    ctx = click.Context(command, info_name=command.name, parent=parent)
    yield f"{ctx.command_path.replace(' ', '-')}.1", page(command, ctx)
    if isinstance(command, Group):
        for under in command.commands.values():
            if not under.hidden:
                yield from pages(under, ctx)


def page(command: click.Command, ctx: click.Context) -> str:
    """The page of a command in man(7)'s language."""
    frame = ManPage(ctx.command_path.replace(" ", "-"))
    frame.version = f"probemill {__version__}"
    frame.short_help = roff(first_sentence(command.help or "")).replace("\n", " ")
    lines = str(frame).partition("\n.SH SYNOPSIS")[0].splitlines()
    lines += [".SH SYNOPSIS", f".B {roff(ctx.command_path)}", roff(" ".join(command.collect_usage_pieces(ctx)))]
    lines += [".SH DESCRIPTION", *_description(command)]
    if isinstance(command, Group):
        lines.append(".SH COMMANDS")
        for name, about in command.about(ctx):
            lines += [".TP", rf"\fB{roff(ctx.command_path)}\-{roff(name)}\fP(1)", roff(about)]
    lines.append(".SH OPTIONS")
    sections = list(sections_of(command, ctx))
    for section in sections:
        lines += _section(section, ctx, titled=len(sections) > 1)
    if examples := getattr(command, "examples", ()):
        lines += [".SH EXAMPLES", *_verbatim(*examples)]
    lines.append(".SH EXIT STATUS")
    for code, meaning in EXIT_CODES:
        lines += [".TP", code, roff(meaning)]
    if ctx.parent is not None:
        lines += [".SH SEE ALSO", rf"\fB{roff(ctx.parent.command_path.replace(' ', '-'))}\fP(1)"]
    return "\n".join(lines) + "\n"


def roff(text: str) -> str:
    """Text that stands for itself, in lines that are not long: nothing in it is an instruction."""
    return "\n".join(map(_plain, textwrap.wrap(" ".join(text.split()), WIDTH, break_on_hyphens=False)))


def _plain(line: str) -> str:
    escaped = line.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{escaped}" if line.lstrip().startswith((".", "'")) else escaped


def _description(command: click.Command) -> Iterator[str]:
    for at, paragraph in enumerate(inspect.cleandoc(command.help or "").split("\n\n")):
        if at:
            yield ".PP"
        if paragraph.startswith("\b\n"):
            yield from _verbatim(*paragraph[2:].splitlines())
        else:
            yield roff(paragraph)


def _section(section: Section, ctx: click.Context, *, titled: bool) -> Iterator[str]:
    if titled:
        yield f".SS {roff(section.title)}"
    for option in section.options:
        told = ", ".join(rf"\fB{roff(name)}\fP" for name in names(option))
        if metavar := value(option, ctx):
            told += rf" \fI{roff(metavar)}\fP"
        yield from (".TP", told, roff(words(option, ctx)))
    if section.example:
        yield from (".PP", "Example:", *_verbatim(section.example))


def _verbatim(*lines: str) -> Iterator[str]:
    yield from (".nf", ".RS 4", *map(_plain, lines), ".RE", ".fi")


def main(folder: Path) -> None:
    """Write all pages."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
