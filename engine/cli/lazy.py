"""Commands that are imported when they are asked for: who wants the version, or a completion, waits for none of them.

Contract: `Commands` is what click takes for the commands of a group; `about` tells what each does without importing it.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from importlib import import_module
from typing import NamedTuple

import click


class Place(NamedTuple):
    """where: `module:name`; about: the first sentence of the command's help."""

    where: str
    about: str


class Commands(MutableMapping[str, click.Command]):
    """By name, in the order in which they were added."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self._places: dict[str, Place | click.Command] = dict(places)

    def about(self, name: str) -> str | None:
        """None for a command that is there itself, and can say so."""
        place = self._places[name]
        return place.about if isinstance(place, Place) else None

    def __getitem__(self, name: str) -> click.Command:
        place = self._places[name]
        if isinstance(place, Place):
            module, _, attribute = place.where.partition(":")
            command = getattr(import_module(module), attribute)
            assert isinstance(command, click.Command)
            return command
        return place

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._places[name] = command

    def __delitem__(self, name: str) -> None:
        del self._places[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
