"""What the values of options may look like: times, sizes, counts, amounts, shares, endpoints.

Each kind says, where a value is none of it, which forms there are.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SPAN = re.compile(r"(?:\d{1,18}(?:\.\d{1,9})?(?:ms|s|m|h|d))+")
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30}
_POWERS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}

Parameter = click.Parameter | None
Context = click.Context | None
Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _seconds(span: str) -> float:
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([\d.]+)(ms|s|m|h|d)", span))


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For shells: complete names of files."""
    return [CompletionItem(incomplete, type="file")]


def folders(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For shells: complete names of folders."""
    return [CompletionItem(incomplete, type="dir")]


def one_of(words: Iterable[str]) -> Complete:
    """For shells: complete one of the words."""
    return lambda _ctx, _param, incomplete: [CompletionItem(word) for word in words if word.startswith(incomplete)]


def several_of(words: Iterable[str]) -> Complete:
    """For shells: complete one of the words behind others and a comma."""

    def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        before, comma, begun = incomplete.rpartition(",")
        return [CompletionItem(before + comma + word) for word in words if word.startswith(begun)]

    return complete


def told_time(seconds: float) -> str:
    """As one would write it: 200ms, 5s, 10m."""
    unit = next(unit for unit in ("d", "h", "m", "s", "ms") if seconds % _SECONDS[unit] == 0 or unit == "ms")
    return f"{seconds / _SECONDS[unit]:g}{unit}"


class Seconds(click.ParamType[float]):
    """A time as Nmap writes it: 500ms, 30s, 2m, 1h, 1d, 1h30m; a bare number is seconds. Gives seconds."""

    name = "time"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> float:
        if isinstance(value, float | int):
            return float(value)
        if re.fullmatch(r"\d{1,18}(?:\.\d{1,9})?", value):
            return float(value)
        if not _SPAN.fullmatch(value):
            self.fail(f"{value!r} is not a time; write 500ms, 30s, 2m, 1h, 1h30m or a number of seconds", param, ctx)
        return _seconds(value)


class Hours(click.ParamType[float]):
    """A longer time: 24, 24h, 90m, 2d; a bare number is hours. Gives hours, more than none."""

    name = "hours"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> float:
        if isinstance(value, float | int):
            return float(value)
        bare = re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", value)
        hours = float(value) if bare else _seconds(value) / 3600 if _SPAN.fullmatch(value) else 0.0
        if not hours > 0:
            self.fail(f"{value!r} is not a time; write 24, 24h, 90m or 2d: more than none", param, ctx)
        return hours


class Bytes(click.ParamType[int]):
    """A size: 65536, 64k, 8M, 1G, in powers of 1024; also 8MB, 8MiB. Gives bytes."""

    name = "size"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d{1,18})([kKmMgG]?)(?:i?[bB])?", value)
        if not found:
            self.fail(f"{value!r} is not a size; write 65536, 64k, 8M or 1G", param, ctx)
        return int(found[1]) << _SHIFTS[found[2].upper()]


class Amount(click.ParamType[float]):
    """A number, in thousands, millions or billions: 250, 62M, 1.5G. Gives the number."""

    name = "number"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> float:
        if isinstance(value, float | int):
            return float(value)
        found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?(?:e\d{1,2})?)([kKMG]?)", value)
        if not found:
            self.fail(f"{value!r} is not a number; write 250, 0.5, 40k, 62M or 1.5G", param, ctx)
        return float(found[1]) * _POWERS[found[2]]


class Count(click.IntRange):
    """A whole number within bounds, in thousands or millions if one likes: 500, 20k, 1M. Gives the number."""

    def convert(self, value: Any, param: Parameter, ctx: Context) -> int:
        found = re.fullmatch(r"(\d{1,18})([kKM])", value) if isinstance(value, str) else None
        number: int = super().convert(int(found[1]) * _POWERS[found[2]] if found else value, param, ctx)
        return number


class Share(click.ParamType[float]):
    """A share: 2%, 0.5%, or 0.02. Gives a number from 0 to 1."""

    name = "share"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> float:
        if isinstance(value, float | int):
            return float(value)
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(%?)", value)
        share = float(found[1]) / (100 if found[2] else 1) if found else -1.0
        if not 0 <= share <= 1:
            self.fail(f"{value!r} is not a share; write 2% or 0.02", param, ctx)
        return share


class Parts(click.ParamType[dict[str, float]]):
    """NAME=NUMBER,...; each name once. Gives the numbers by name."""

    name = "parts"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> dict[str, float]:
        if isinstance(value, dict):
            return value
        parts: dict[str, float] = {}
        for part in value.split(","):
            name, equals, number = part.partition("=")
            if not equals or not name or name in parts:
                self.fail(f"{part!r}: write NAME=NUMBER,..., each name once", param, ctx)
            parts[name] = Amount().convert(number, param, ctx)
        return parts


class Endpoint(click.ParamType[tuple[str, int]]):
    """Where to listen: PORT on loopback, ADDRESS:PORT, [IPV6]:PORT. Gives the address and the port."""

    name = "endpoint"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[str, int]:
        if isinstance(value, tuple):
            return value
        found = re.fullmatch(r"(?:(?:\[([^\[\]]*)\]|([^:\[\]]*)):)?([0-9]{1,5})", value)
        if not found or not 0 < int(found[3]) <= 0xFFFF:
            self.fail(f"{value!r} is no port, ADDRESS:PORT or [IPV6]:PORT; a port is 1 to 65535", param, ctx)
        try:
            if found[1] is not None:
                return str(ipaddress.IPv6Address(found[1])), int(found[3])
            return str(ipaddress.IPv4Address("127.0.0.1" if found[2] is None else found[2])), int(found[3])
        except ValueError:
            kind = "an IPv6" if found[1] is not None else "an IPv4"
            self.fail(
                f"{value!r}: what stands before the port is not {kind} address (names are not looked up)", param, ctx
            )
