"""NDJSON lines that somebody gives us as rows, looked at: what passes, every form of output can hold.

Pure: lines in, lines and faults out.
"""

import re
from datetime import date
from functools import lru_cache

import msgspec

from engine.model import ServiceResult
from engine.offline.faults import Faults
from engine.results.rows import TextRows
from engine.results.table import address_bytes, lean_rows
from engine.text import first_line

_INT32 = range(-(2**31), 2**31)
_INT64 = range(-(2**63), 2**63)
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3])(?::[0-5][0-9]){2}(?:\.[0-9]{1,6})?Z")

_decode = msgspec.json.Decoder(ServiceResult).decode_lines


def checked(text: bytes, before: int) -> tuple[TextRows, Faults]:
    """NDJSON rows of either form as lean ones, and the lines that are none. before: how many lines precede them."""
    try:
        lines = lean_rows(text)
        rows = _decode(lines)
        if not any(map(_problem, rows)):
            return TextRows(lines, len(rows)), Faults()
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        pass
    kept: list[bytes] = []
    faults = Faults()
    for number, line in enumerate(text.split(b"\n"), before + 1):
        if not line.strip():
            continue
        try:
            lean = lean_rows(line + b"\n")
            (row,) = _decode(lean)
            if problem := _problem(row):
                faults.add(number, problem)
            else:
                kept.append(lean)
        except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError) as error:
            faults.add(number, f"no result row: {first_line(error)}")
    return TextRows(b"".join(kept), len(kept)), faults


def _problem(row: ServiceResult) -> str:
    """Why no table could hold a row; empty where one can. As quick as can be: rows come by the million."""
    if not 0 <= row.port <= 65535:
        return "`port` is none"
    try:
        address_bytes(row.ip)
    except (OSError, UnicodeError, ValueError):
        return "`ip` is no address"
    if not _is_moment(row.started):
        return "`started` is no time in UTC as RFC 3339 has it"
    if row.tls and not all(_is_moment(time) for time in (row.tls.not_before, row.tls.not_after) if time):
        return "a time in `tls` is none in UTC as RFC 3339 has it"
    if row.confidence is not None and not 0 <= row.confidence <= 1:
        return "`confidence` is none"
    fits = (
        row.conf in _INT32
        and row.connections in _INT32
        and row.elapsed_ms in _INT64
        and row.bytes in _INT64
        and (row.evidence is None or row.evidence.line in _INT32)
        and (row.also is None or row.also.line in _INT32)
        and (row.pseudo is None or row.pseudo.ports in _INT32)
    )
    return "" if fits else "a number is too large"


def _is_moment(text: str) -> bool:
    return _MOMENT.fullmatch(text) is not None and _is_day(text[:10])


@lru_cache
def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
