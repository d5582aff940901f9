r"""Sample responses: NDJSON files that say what a database must answer.

    {"probe": "NULL", "proto": "tcp", "banner": "SSH-2.0-x\r\n", "source": "handmade", "expect": {"name": "ssh"}}

`banner` is text, one character per byte (Latin-1); `data` is base64 and may stand in its place. `expect` holds `name`
and each of `product version extrainfo hostname ostype devicetype cpe` that is not empty, `"soft": true` for a
softmatch; null: no line may match. `source`: `real: ...`, `document: ...` or `handmade`. Unknown keys are allowed.

Contract: `read_samples` gives every sample that can be used, and a fault with its place for every line that cannot.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import UNSET, Struct, UnsetType

from matcher.errors import MatcherError
from matcher.model import Match, Probe, Proto
from matcher.outside import MIB, read_file, shown

MAX_SIZE = 64 * MIB  # of one file of samples
FIELDS = ("product", "version", "extrainfo", "hostname", "ostype", "devicetype")
_SOURCE = re.compile(r"(?:real|document): \S|handmade\b")


class Expected(Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """What must come out: Nmap's names; the empty text means absent."""

    name: str
    product: str = ""
    version: str = ""
    extrainfo: str = ""
    hostname: str = ""
    ostype: str = ""
    devicetype: str = ""
    cpe: tuple[str, ...] = ()
    soft: bool = False


class Sample(Struct, frozen=True):
    """One response with its expected answer. path, line: where it stands."""

    path: str
    line: int
    probe: str
    proto: Proto
    response: bytes
    expect: Expected | None
    source: str = ""

    @property
    def source_is_valid(self) -> bool:
        return _SOURCE.match(self.source) is not None


class SampleFault(Struct, frozen=True):
    """A line that is no sample."""

    path: str
    line: int
    reason: str


class _Row(Struct):
    expect: Expected | UnsetType | None = UNSET
    probe: str = "NULL"
    proto: Proto = "tcp"
    banner: str | None = None
    data: bytes | None = None
    source: str = ""


_decode = msgspec.json.Decoder(_Row).decode


def sample_files(paths: Iterable[Path]) -> Iterator[Path]:
    """The files themselves, and the `*.ndjson` of folders in the order of their names."""
    for path in paths:
        yield from sorted(path.glob("*.ndjson")) if path.is_dir() else (path,)


def read_samples(paths: Iterable[Path]) -> tuple[list[Sample], list[SampleFault]]:
    """The samples of files and folders. Raises MatcherError for a file that cannot be read."""
    samples: list[Sample] = []
    faults: list[SampleFault] = []
    for path in sample_files(paths):
        name = shown(str(path))
        try:
            lines = read_file(path, MAX_SIZE).split(b"\n")
        except OSError as error:
            raise MatcherError(f"{name}: cannot be read: {error.strerror}") from error
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                samples.append(_sample(name, number, line))
            except (ValueError, RecursionError, msgspec.MsgspecError) as error:
                faults.append(SampleFault(name, number, shown(str(error))))
    return samples, faults


def _sample(path: str, number: int, line: bytes) -> Sample:
    row = _decode(line)
    if row.expect is UNSET:
        raise ValueError("'expect' is missing; write null where no line may match")
    if row.data is not None:
        response = row.data
    elif row.banner is not None:
        try:
            response = row.banner.encode("latin-1")
        except UnicodeEncodeError as error:
            character = row.banner[error.start]
            raise ValueError(f"character {character!r} in 'banner' is no byte; write its UTF-8 bytes") from None
    else:
        raise ValueError("neither 'banner' nor 'data'")
    if not response:
        raise ValueError("an empty response cannot match anything")
    expect = row.expect or Expected(name="")
    for text in (row.probe, row.source, *(getattr(expect, name) for name in ("name", *FIELDS)), *expect.cpe):
        if shown(text) != text:
            raise ValueError(f"control character in {text!r}; only a response may hold one")
    return Sample(path, number, row.probe, row.proto, response, row.expect, row.source)


def sample_row(probe: Probe, response: bytes, source: str, expect: Expected | None) -> dict[str, object]:
    """A sample as a file of them has it, for whoever writes JSON."""
    return {
        "probe": probe.name,
        "proto": probe.proto,
        "banner": response.decode("latin-1"),
        "source": source,
        "expect": expect,
    }


def answer(match: Match | None) -> Expected | None:
    """What a matcher said, in the form of `expect`."""
    if match is None:
        return None
    info = match.info
    return Expected(
        name=match.service,
        product=info.product,
        version=info.version,
        extrainfo=info.extrainfo,
        hostname=info.hostname,
        ostype=info.ostype,
        devicetype=info.devicetype,
        cpe=info.cpe,
        soft=match.soft,
    )


def differences(expected: Expected, got: Expected) -> list[str]:
    """One text per field that is not as expected."""
    names = ("name", *FIELDS, "cpe", "soft")
    return [
        f"{name} is {_shown(getattr(got, name))}, expected {_shown(getattr(expected, name))}"
        for name in names
        if getattr(got, name) != getattr(expected, name)
    ]


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(value) or "absent"
    if isinstance(value, bool):
        return "hard" if not value else "soft"
    return repr(value) if value else "absent"
