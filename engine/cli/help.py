"""How a command describes itself: options in sections, an example for each, a short form and the whole.

Contract: `-h` shows the options that matter most and `--help` all, where a command has many; else both show the same.
Docs, man pages and help say an option's words by `words`. What renders help is imported when somebody asks for it
(rendering.py), so that commands start without it.
"""

import inspect
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import click
from click.shell_completion import CompletionItem
from msgspec import Struct

from engine.cli.lazy import Commands

LONG_CHOICES = 14  # characters; longer lists of choices stand in the text


class Section(Struct, frozen=True):
    """Options that belong together. example: a command line that uses some of them."""

    title: str
    options: tuple[click.Option, ...]
    example: str = ""


class HelpOption(click.Option):
    """`-h` and `--help`, which may tell different things: the value is the form that was asked for."""

    def __init__(self) -> None:
        super().__init__(
            ["-h", "--help"],
            is_flag=True,
            flag_value="all",
            type=click.UNPROCESSED,
            is_eager=True,
            expose_value=False,
            callback=self._show,
            help="Show this message and exit.",
        )

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        for opt, form in (("-h", "brief"), ("--help", "all")):
            parser.add_option(obj=self, opts=[opt], dest=self.name, action="store_const", const=form, nargs=0)

    @staticmethod
    def _show(ctx: click.Context, _param: click.Parameter, form: object) -> None:
        if form in {"brief", "all"} and not ctx.resilient_parsing:
            from engine.cli.rendering import page

            click.echo(page(ctx, brief=form == "brief"), color=True)  # coloured or not is decided there
            ctx.exit()


class Described(click.Command):
    """sections: of its options; those that are in none come last. examples: command lines.

    brief: names of the options that `-h` shows; none for all.
    """

    def __init__(
        self,
        *args: Any,
        sections: Sequence[Section] = (),
        brief: Sequence[str] = (),
        examples: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections, self.brief, self.examples = tuple(sections), tuple(brief), tuple(examples)
        self._help = HelpOption()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx  # so that it can be said where help is
            raise

    def get_help_option(self, ctx: click.Context) -> click.Option:
        return self._help

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = super().shell_complete(ctx, incomplete)
        for item in found:
            item.help = first_sentence(item.help) if item.help else item.help
        return found

    def get_help(self, ctx: click.Context) -> str:
        from engine.cli.rendering import page

        return page(ctx)


class Command(Described):
    """A command of ours."""


class Group(Described, click.Group):
    """A command with commands under it, in the order in which they were added."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def about(self, ctx: click.Context) -> Iterator[tuple[str, str]]:
        """Each command and what it does; what is not imported yet is not for that."""
        for name in self.list_commands(ctx):
            said = self.commands.about(name) if isinstance(self.commands, Commands) else None
            if said is not None:
                yield name, said
            elif not (command := self.commands[name]).hidden:
                yield name, first_sentence(command.help or "")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(name, help=said) for name, said in self.about(ctx) if name.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]  # click's Group imports every command


def sections_of(command: click.Command, ctx: click.Context, *, brief: bool = False) -> Iterator[Section]:
    """The options to show, in order. brief: those that matter most, in one section."""
    options = [param for param in command.get_params(ctx) if isinstance(param, click.Option) and not param.hidden]
    if brief:
        wanted = getattr(command, "brief", ())
        yield Section("Options", tuple(option for name in wanted for option in options if option.name == name))
        return
    told: list[click.Option] = []
    for section in getattr(command, "sections", ()):
        told += section.options
        yield section
    if rest := tuple(option for option in options if option not in told):
        yield Section("Other" if told else "Options", rest)


def first_sentence(text: str) -> str:
    """Of a help text; of its first paragraph, that is."""
    paragraph = " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
    return re.split(r"(?<=[.;])\s", paragraph, maxsplit=1)[0].rstrip(";")


def names(option: click.Option) -> list[str]:
    """The names to show: `-i`, `--input`. Further ones for the same are in the words."""
    short = [name for name in option.opts if not name.startswith("--")]
    long = [name for name in option.opts if name.startswith("--")]
    return [*short[:1], *long[:1]]


def value(option: click.Option, ctx: click.Context) -> str:
    """What follows the name: `TIME`, `nmap|adaptive`; empty for a flag."""
    if option.is_flag or option.count:
        return ""
    if option.metavar is None and (choices := _choices(option)):
        return "|".join(choices) if _fits(choices) else "NAME"
    return option.make_metavar(ctx)


def words(option: click.Option, ctx: click.Context, *, brief: bool = False) -> str:
    """The help text, and behind it what may be said and what goes without saying: `[default: 5s]`."""
    facts = []
    if (choices := _choices(option)) and not (option.metavar is None and _fits(choices)):
        facts.append("one of: " + ", ".join(choices))
    if default := option.get_help_extra(ctx).get("default", "").removeprefix("(").removesuffix(")"):
        facts.append(f"default: {default}")
    if not brief and (others := [name for name in option.opts if name not in names(option)]):
        facts.append("also: " + ", ".join(others))
    text = option.help or ""
    return " ".join([first_sentence(text) if brief else text, *(f"[{fact}]" for fact in facts)])


def _choices(option: click.Option) -> tuple[str, ...]:
    return tuple(map(str, option.type.choices)) if isinstance(option.type, click.Choice) else ()


def _fits(choices: tuple[str, ...]) -> bool:
    return len("|".join(choices)) <= LONG_CHOICES


def coloured(stream: TextIO) -> bool:
    """Whether what is written there may have colours: on a terminal that has some, unless the user says otherwise."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")
