"""A folder of responses as people keep them: samples, captures, rows of any form, and files that are one response.

A file whose lines are rows that `probemill match` reads gives those; a row may say what it is by `expect`, and where it
comes from by `source`. Any other file is one response as it came. The probe that it answers is the first word of its
name, where the database has a probe of that name (`GetRequest-shelf.raw`, `SNMPv1Public.bin`); else GetRequest, where
it begins as HTTP does; else NULL.

Contract: `read_folder` gives every response with its place, in the order of paths, within MOST_RESPONSES; what cannot
be used is in `faults`. Links are not followed, nor names that begin with a dot. No file is read that is no regular one.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.offline.records import LineReader
from matcher import Probe, ProbeDatabase, Proto, read_file, shown
from matcher.database.samples import FIELDS, MAX_SIZE, Expected, SampleFault

MOST_RESPONSES = 50_000
LONGEST = 1 << 20  # bytes of a file that is one response
MOST_TOLD = 2000  # characters of what a row expects
_NAME = re.compile(r"[!-~]{1,100}")
_WORD = re.compile(r"[A-Za-z0-9]+")


class Stored(Struct, frozen=True):
    """One response. place: `path:line`, or the path. expect: what it says it is, None where nobody does."""

    place: str
    probe: Probe
    data: bytes
    expect: Expected | None
    source: str


class _Said(Struct):
    expect: Expected | None = None
    source: str = ""


_decode = msgspec.json.Decoder(_Said).decode


class Folder(Struct):
    """What was read. left: responses beyond MOST_RESPONSES."""

    responses: list[Stored]
    faults: list[SampleFault]
    files: int = 0
    left: int = 0


def read_folder(paths: Iterable[Path], database: ProbeDatabase) -> Folder:
    """The responses of files, and of folders with all that is in them."""
    folder = Folder([], [])
    for path in _files(paths):
        folder.files += 1
        name = shown(str(path))
        try:
            data = read_file(path, MAX_SIZE)
        except OSError as error:
            folder.faults.append(SampleFault(name, 0, f"cannot be read: {error.strerror}"))
            continue
        for one in _of_file(path, name, data, database, folder.faults):
            if len(folder.responses) < MOST_RESPONSES:
                folder.responses.append(one)
            else:
                folder.left += 1
    return folder


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for inside in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in inside.relative_to(path).parts)
            if not hidden and not inside.is_symlink() and not inside.is_dir():
                yield inside


def _of_file(
    path: Path, name: str, data: bytes, database: ProbeDatabase, faults: list[SampleFault]
) -> Iterator[Stored]:
    reader = LineReader()
    found = []
    for number, line in enumerate(data.split(b"\n"), 1):
        for row in reader.read(line):
            probe = _known(database, row.proto, row.probes)
            if probe is None:
                faults.append(SampleFault(name, number, f"no probe is named {shown(' or '.join(row.probes))}"))
            elif row.data:
                said = _said(line)
                if said.expect is not None and not _can_be_given(said.expect):
                    faults.append(SampleFault(name, number, "'expect' holds what no line can give"))
                    continue
                found.append(Stored(f"{name}:{number}", probe, bytes(row.data), said.expect, said.source))
    found += (
        Stored(name, probe, bytes(row.data), None, "")
        for row in reader.close()
        if row.data and (probe := _known(database, row.proto, row.probes)) is not None
    )
    if found or reader.faults.count or not data:
        yield from found
        faults += (SampleFault(name, line, shown(reason)) for line, reason in reader.faults.first)
    elif len(data) > LONGEST:
        faults.append(SampleFault(name, 0, f"holds no rows, and is longer than a response of {LONGEST:,} bytes"))
    elif (probe := _answered(path, data, database)) is not None:
        yield Stored(name, probe, data, None, "")
    else:
        faults.append(SampleFault(name, 0, "the database has no probe that this answers"))


def _said(line: bytes) -> _Said:
    try:
        return _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Said()


def _can_be_given(expect: Expected) -> bool:
    """Whether templates can hold it."""
    texts = [expect.name, *(getattr(expect, name) for name in FIELDS), *expect.cpe]
    return (
        _NAME.fullmatch(expect.name) is not None
        and all(map(str.isprintable, texts))
        and sum(map(len, texts)) < MOST_TOLD
    )


def _known(database: ProbeDatabase, proto: str, names: Iterable[str]) -> Probe | None:
    kind: Proto = "udp" if proto == "udp" else "tcp"
    return next(filter(None, (database.probe(name, kind) for name in names)), None)


def _answered(path: Path, data: bytes, database: ProbeDatabase) -> Probe | None:
    word = _WORD.match(path.name)
    names = [word[0] if word else "", "GetRequest" if data.startswith(b"HTTP/") else "NULL"]
    return _known(database, "tcp", names[:1]) or _known(database, "udp", names[:1]) or _known(database, "tcp", names)
