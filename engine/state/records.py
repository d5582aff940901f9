"""The lines of a journal: a header, then a record for every committed segment, and how the run ended, if it did.
docs/state.md describes them.

Contract: `parse_journal` gives what `line_of` wrote, and an OutputError with the number of the line for whatever else
has the right checksum: no name in it leads out of the folder, and no number or set of ordinals is out of bounds.
"""

import binascii
import re
import zlib
from collections.abc import Mapping
from secrets import token_hex
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from engine.errors import ConfigError, OutputError
from engine.results.ending import Ending
from engine.state.digest import Count, Position
from engine.state.folder import STAGED
from engine.state.frame import SUFFIX
from engine.state.ordinals import OrdinalSet

FORM = 1  # of the journal; a change that older programs would misread gets the next number
FORM_ELSEWHERE = 2  # of one whose segments lie elsewhere
PART = "part-"
KEY = "segment-"
UNFINISHED = "."  # in front of the name of a file that is being written elsewhere

Plan = Mapping[str, Any]
"""What decides which target has which ordinal, apart from the bytes of the inputs: JSON values by option."""

_Plain = bool | int | float | str | None
_STAGED = re.escape(STAGED) + "[A-Za-z0-9_.-]{1,200}"
_ATTEMPT = re.escape(STAGED) + f"[0-9a-f]{{16}}[.]{re.escape(SUFFIX)}"
_PART = PART + "[0-9]{1,15}[.][A-Za-z0-9_.-]{0,200}"
_RUN = "[0-9a-f]{16}"
_KEY = f"{KEY}({_RUN})-[0-9a-f]{{16}}[.]{re.escape(SUFFIX)}"
_MOMENT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"
_PLACE = r"(/|[a-z][a-z0-9]*://)[^\x00-\x1f\x7f\ud800-\udfff]*"


class Manifest(Struct, frozen=True):
    """A segment offered for commit. staged: its file in the folder, `.tmp-*.SUFFIX`; none if there are no rows.

    key: its name in the place of segments, where it lies there. size and sha256: of the file. done: the ordinals, as
    `OrdinalSet.encode` packs them: one for every row, and those of targets that were passed over and have no row.
    """

    done: bytes
    rows: int = 0
    staged: str = ""
    size: int = 0
    sha256: str = ""
    key: str = ""


class End(Ending, frozen=True, kw_only=True):
    """How a run ended. at: when, RFC 3339. Its numbers are those of the whole folder: done are rows in segments."""

    at: Annotated[str, Meta(pattern=rf"\A{_MOMENT}\Z")]


class Record(Struct, frozen=True, omit_defaults=True):
    """A committed segment, or the end of the run. name: of its file, empty if it has none.

    key: its name in the place of segments, where it lies there; then no file in the folder bears `name`, which only
    numbers it. staged, done and read are there until the journal is written anew: then the file bears its name for
    certain, and the header has taken over the rest. end: of the run, unless another record follows; it stands alone.
    """

    name: Annotated[str, Meta(pattern=rf"\A({_PART})?\Z")] = ""
    rows: Count = 0
    size: Count = 0
    sha256: str = ""
    staged: Annotated[str, Meta(pattern=rf"\A({_STAGED})?\Z")] = ""
    done: OrdinalSet | None = None
    read: Position = Position()
    key: Annotated[str, Meta(pattern=rf"\A({_KEY})?\Z")] = ""
    end: End | None = None


class Header(Struct, frozen=True, omit_defaults=True):
    """The first record of a journal. done and read: the sum of the records that have none of their own.

    segments: the canonical place of segments that lie elsewhere; run: by which their names tell them from others'.
    """

    form: int
    plan: dict[str, _Plain | list[_Plain | list[_Plain]]]  # as deep as plans are
    done: OrdinalSet
    read: Position
    segments: Annotated[str, Meta(pattern=rf"\A({_PLACE})?\Z")] = ""
    run: Annotated[str, Meta(pattern=rf"\A({_RUN})?\Z")] = ""

    @classmethod
    def begun(cls, plan: dict[str, Any], segments: str = "", run: str = "") -> "Header":
        """Of a run that has done nothing. run: of an earlier one like it, whose leavings are ours to remove."""
        form = FORM_ELSEWHERE if segments else FORM
        return cls(form, plan, OrdinalSet(), Position(), segments, (run or token_hex(8)) if segments else "")


class _Form(Struct):
    form: Count


def segment_number(name: str) -> int:
    """Of a committed segment, by its name."""
    return int(name.removeprefix(PART).partition(".")[0])


def is_staged(name: str) -> bool:
    """Whether a staged segment may be called so."""
    return re.fullmatch(_STAGED, name) is not None


def is_attempt(name: str) -> bool:
    """Whether a file in the state folder is a segment that waits for its commit."""
    return re.fullmatch(_ATTEMPT, name) is not None


def key_of(run: str, token: str) -> str:
    """The name of a segment that lies elsewhere. token: 16 hexadecimal digits that no other one has."""
    return f"{KEY}{run}-{token}.{SUFFIX}"


def is_key(name: str, run: str) -> bool:
    """Whether a segment of the run may be called so elsewhere."""
    found = re.fullmatch(_KEY, name)
    return found is not None and found[1] == run


def is_place(where: str) -> bool:
    """Whether a journal can say that segments lie there."""
    return re.fullmatch(_PLACE, where) is not None


def line_of(record: Header | Record) -> bytes:
    body = msgspec.json.encode(record, enc_hook=OrdinalSet.encode)
    return b"%08x %s\n" % (zlib.crc32(body), body)


def parse_journal(data: bytes, path: str) -> tuple[Header, list[Record]]:
    """What a journal says. path: how errors call it.

    A record that was not written to its end, which only the last one can be, is left out. Raises OutputError when
    others are damaged, ConfigError for a form of another time.
    """
    lines = data.split(b"\n")
    bodies = [_body(line) for line in lines[:-1]]  # behind the last line end is nothing, or half a record
    while bodies and bodies[-1] is None:
        bodies.pop()
    number = 1
    try:
        if not bodies:
            raise ValueError("no record")
        if (form := _form(bodies[0] or b"").form) not in {FORM, FORM_ELSEWHERE}:
            raise ConfigError(
                f"{path}: has form {form}, and this program knows form {FORM} and {FORM_ELSEWHERE}; "
                "use the program that wrote it"
            )
        header = _header(bodies[0] or b"")
        if not (bool(header.segments) == bool(header.run) == (form == FORM_ELSEWHERE)):
            raise ValueError("a place of segments in another form than its own")
        records = []
        for body in bodies[1:]:
            number += 1
            records.append(_checked(_record(body or b""), header.run))
    except (ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise OutputError(f"{path}: line {number} is damaged; restore it from a copy") from error
    return header, records


def summed(header: Header, records: list[Record]) -> tuple[OrdinalSet, Position]:
    """All that is done, and how far the inputs were read."""
    done, read = header.done, header.read
    for record in records:
        if record.done is not None:
            done |= record.done
            read = max(read, record.read, key=lambda position: position.bytes)
    return done, read


def ended(records: list[Record]) -> End | None:
    """How the run ended; None where it goes on, or was killed."""
    return records[-1].end if records else None


def _body(line: bytes) -> bytes | None:
    """The JSON of a record's line, None if its checksum is wrong."""
    checksum, _, body = line.partition(b" ")
    return body if checksum == b"%08x" % zlib.crc32(body) else None


def _checked(record: Record, run: str) -> Record:
    """Raises ValueError for a segment elsewhere that is none of the run's."""
    if record.key and (not is_key(record.key, run) or not record.name or record.staged):
        raise ValueError("not a segment of this run")
    return record


def _decoded(kind: type, value: object) -> OrdinalSet:
    """Base64, as msgspec writes bytes."""
    if kind is not OrdinalSet or not isinstance(value, str):
        raise ValueError("not a set of ordinals")
    return OrdinalSet.decode(binascii.a2b_base64(value, strict_mode=True))


_form = msgspec.json.Decoder(_Form).decode
_header = msgspec.json.Decoder(Header, dec_hook=_decoded).decode
_record = msgspec.json.Decoder(Record, dec_hook=_decoded).decode
