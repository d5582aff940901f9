"""Help as text, by rich-click: what fits the terminal, coloured on one, plain elsewhere. Imported when it is asked for.

The words come from help.py. Width: that of the terminal, else `$COLUMNS`, else 80; at most 110.
"""

import copy
import inspect
import sys
from collections.abc import Iterator

import click
from rich.console import RenderableType
from rich.padding import Padding
from rich.text import Text
from rich_click.rich_help_configuration import RichHelpConfiguration
from rich_click.rich_help_formatter import RichHelpFormatter
from rich_click.rich_panel import RichCommandPanel, RichOptionPanel

from engine.cli.help import Group, Section, coloured, names, sections_of, value, words

WIDEST = 110
TITLE = "bold green"
OPTION = "bold cyan"
VALUE = "cyan"
MUTED = "dim"
INDENT = (0, 0, 0, 2)


def page(ctx: click.Context, *, brief: bool = False) -> str:
    """The help of a context's command, without a newline behind it."""
    command, formatter = ctx.command, _formatter()
    short = brief and bool(getattr(command, "brief", ()))
    formatter.write_usage(ctx.command_path, " ".join(command.collect_usage_pieces(ctx)))
    for paragraph in _paragraphs(command, first=short):
        formatter.write("", paragraph, sep="\n")
    if isinstance(command, Group):
        _block(formatter, "Commands", _commands(formatter, command, ctx))
    for section in sections_of(command, ctx, brief=short):
        _block(formatter, section.title, _options(formatter, section, ctx, short))
        if section.example and not short:
            formatter.write("", Padding(Text.assemble(("Example: ", MUTED), section.example), INDENT), sep="\n")
    if examples := getattr(command, "examples", ()):
        _block(formatter, "Examples", Text("\n".join(examples)))
    if short:
        count = sum(isinstance(param, click.Option) for param in command.params)
        formatter.write("", Text(f"{ctx.command_path} --help shows all {count} options, in groups."), sep="\n")
    return "\n".join(line.rstrip() for line in formatter.getvalue().strip("\n").split("\n"))


def _formatter() -> RichHelpFormatter:
    config = RichHelpConfiguration(
        theme="default-nu",
        enable_theme_env_var=False,
        text_markup="ansi",
        max_width=WIDEST,
        color_system="standard" if coloured(sys.stdout) else None,
        force_terminal=None,
        style_option=OPTION,
        style_switch=OPTION,
        style_command=OPTION,
        style_metavar=VALUE,
        style_usage=TITLE,
        style_usage_command=OPTION,
        style_argument=VALUE,
        style_usage_separator=VALUE,
        padding_usage=0,
        delimiter_comma=", ",
        append_metavars_help_string="{}",
        options_table_column_types=["opt_all_metavar", "help"],
        options_table_help_sections=["help"],
    )
    return RichHelpFormatter(config=config, max_width=WIDEST)


def _block(formatter: RichHelpFormatter, title: str, content: RenderableType) -> None:
    formatter.write("", Text(title, style=TITLE), Padding(content, INDENT), sep="\n")


def _paragraphs(command: click.Command, *, first: bool) -> Iterator[Text]:
    """The command's text; the first paragraph alone, if that is asked for."""
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n")[: 1 if first else None]:
        as_it_is = paragraph.startswith("\b\n")
        yield Text(paragraph[2:] if as_it_is else " ".join(paragraph.split()))


def _options(formatter: RichHelpFormatter, section: Section, ctx: click.Context, brief: bool) -> RenderableType:
    shown: list[click.Parameter] = []
    for option in section.options:
        row = copy.copy(option)
        assert isinstance(row, click.Option)
        row.help = words(row, ctx, brief=brief)
        row.metavar = value(row, ctx) or None
        row.opts = names(row)
        shown.append(row)
    table = click.Command("shown", params=shown, add_help_option=False)
    panel = RichOptionPanel(section.title, options=[option.opts[0] for option in shown])
    return panel.get_table(table, ctx, formatter)  # type: ignore[arg-type]  # it needs no more than click's own


def _commands(formatter: RichHelpFormatter, group: Group, ctx: click.Context) -> RenderableType:
    shown = click.Group("shown")
    for name, text in group.about(ctx):
        shown.add_command(click.Command(name, short_help=text))
    panel = RichCommandPanel("Commands", commands=list(shown.commands))
    return panel.get_table(shown, ctx, formatter)  # type: ignore[arg-type]
