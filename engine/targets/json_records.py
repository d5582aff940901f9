"""JSON records: one a line, over many lines, or all in one array on one line; what they say stands in base_records.

Masscan, zmap, naabu, httpx, tlsx, dnsx, Shodan, Censys, ivre, our own NDJSON and result rows. Objects are read wherever
they begin; brackets, commas and blanks between them are passed over, so an array may lack its end, begin in the middle,
or be followed by another. Keys without quotes (masscan of 2014) are read where the record is one line.

Where an object breaks off, or goes over many lines and names no host, that is one error. Lines after its first one are
looked at again, each by itself: those that are whole records were swallowed by the broken one, and are read. Reading
goes on with the line that is wrong, or in a long line with the next element of the array. At most one record is held,
of RECORD_LIMIT characters.

A complete line with one object, the form of big files, is decoded by orjson; everything else by the decoder of the
standard library, which can begin anywhere in a text and tells where it ended. orjson refuses what the other takes (lone
surrogates, huge numbers), so the two agree wherever both answer.
"""

import json
import re
from typing import Any

import orjson

from engine.targets.base import LINE_LIMIT, Item, StreamReader
from engine.targets.base_ports import PortSpec, Unreadable
from engine.targets.base_records import can_be_read, names_a_host, read_record, shown
from engine.targets.base_text import is_status, reason_for, without_escapes

RECORD_LIMIT = 1 << 20  # characters; a record may carry a banner of 64 KiB with every byte escaped
DEPTH_LIMIT = 500  # brackets inside brackets; below what both decoders can do
_BLANKS = " \t\r,"
_BETWEEN = re.compile(r"(?:[\s,\]}]|\[(?![A-Za-z+-]))++")  # but `[INF] ...` and `[+] ...` are a scanner's messages
_LINE_END = re.compile(r"[\r\n]")
_NEXT = re.compile(r"[\r\n]|\}[ \t]?,[ \t]?(?=\{)")  # where reading can go on in a line that is wrong
_NEXT_LENGTH = 5  # of the longest beginning of _NEXT that may be cut, and its `{`
_NEXT_ELEMENT = re.compile(r",[ \t]?(?=\{)")
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'  # one without end goes to the end, once
_TOKENS = re.compile(rf"{_STRING}|([{{\[])|[}}\]]", re.DOTALL)
_BARE_KEYS = re.compile(rf"{_STRING}|([{{,]\s*)([A-Za-z_]\w*)(\s*:)", re.DOTALL)
_WINDOW = 4096  # characters in which most records end; an error costs as much as the text that it is found in
_UNFINISHED = 12  # an error so near the end of what has come may only be that more is to come: `tru`, `\u12`


def _integer(digits: str) -> int | float:
    """As orjson does it: what needs more than 64 bits is no integer."""
    if len(digits) > 20:
        return float(digits)
    number = int(digits)
    return number if -(1 << 63) <= number < 1 << 64 else float(digits)


_DECODER = json.JSONDecoder(parse_int=_integer)


class JsonReader(StreamReader):
    """JSON records."""

    def __init__(self, source: str, ports: PortSpec | None = None, ordinal: int = 0) -> None:
        super().__init__(source, ports, ordinal)
        self._held = ""  # from the beginning of what has not ended yet
        self._skipping = False  # inside a line that is wrong
        self._items: list[Item] = []

    def read_text(self, text: str) -> list[Item]:
        return self._read(self._held + text if self._held else text, final=False)

    def end(self) -> list[Item]:
        return self._read(self._held, final=True)

    def _read(self, text: str, *, final: bool) -> list[Item]:
        items = self._items = []
        at, length = 0, len(text)
        begins_line = True
        while 0 <= at < length:
            if begins_line and not self._skipping:
                end = text.find("\n", at)
                if end >= 0:
                    line = text[at:end].strip(_BLANKS)
                    record = _one_object(line) if line else None
                    if record is not None or not line:
                        if record is not None:
                            self._record(record)
                        at = end + 1
                        self.line += 1
                        if text.startswith(",\n", at):  # masscan's comma on a line of its own
                            at += 2
                            self.line += 1
                        continue
            step = self._step(text, at, final=final)
            if step < 0:
                break
            self.line += text.count("\n", at, step)
            begins_line = text[step - 1] == "\n"
            at = step
        self._held = text[at:]
        return items

    def _step(self, text: str, at: int, *, final: bool) -> int:
        """Read one thing that begins at `at`, and give where it ends; -1 where that has not come yet."""
        if self._skipping:
            return self._skip(text, at, final=final)
        if between := _BETWEEN.match(text, at):
            end = between.end()
            if end < len(text) or final or text[end - 1] != "[":
                return end
            return end - 1 if end - 1 > at else -1
        if text[at] == "{":
            return self._object(text, at, final=final)
        return self._noise(text, at, final=final)

    def _object(self, text: str, at: int, *, final: bool) -> int:
        record, end, unfinished = _decode(text[at : at + _WINDOW])
        if unfinished and len(text) - at > _WINDOW:
            record, end, unfinished = _decode(text[at:])
        end += at
        deep = _too_deep(text, at, min(end, at + RECORD_LIMIT))
        if deep >= 0:
            return self._broken(text, at, deep, f"brackets are nested more than {DEPTH_LIMIT} deep")
        if end - at > RECORD_LIMIT or (unfinished and len(text) - at > RECORD_LIMIT + _UNFINISHED):
            return self._broken(text, at, at + RECORD_LIMIT, f"a record is longer than {RECORD_LIMIT >> 10} KiB")
        if unfinished and not final:
            return -1
        if record is None and text[end : end + 1].isidentifier() and not text[at + 1 : end].strip():
            stop = text.find("\n", at, at + LINE_LIMIT)
            if stop < 0 and len(text) - at < LINE_LIMIT:
                if not final:
                    return -1
                stop = len(text)
            if stop >= 0:  # a record whose keys have no quotes
                record = _one_object(_BARE_KEYS.sub(_quoted, text[at:stop]).strip(_BLANKS))
                end = end if record is None else stop
        if record is None:
            return self._broken(text, at, end, _no_record(text[at : end + 1].partition("\n")[0]))
        if text.find("\n", at, end) >= 0 and not can_be_read(record):
            return self._broken(text, at, end, "no 'ip' and no 'host' in the record")
        self._record(record)
        return end

    def _record(self, record: dict[str, Any]) -> None:
        try:
            self._items += read_record(self, record)
        except Unreadable as reason:
            self._items.append(self.error(str(reason)))

    def _broken(self, text: str, at: int, wrong: int, reason: str) -> int:
        """Tell of an object that begins at `at` and cannot be one because of what stands at `wrong`; read on after."""
        self._items.append(self.error(reason))
        first_end = text.find("\n", at, wrong)
        if first_end < 0:
            self._skipping = True
            return max(wrong, at + 1)
        number, last = self.line, text.rfind("\n", at, wrong) + 1
        for line in text[first_end + 1 : last].split("\n"):
            self.line += 1
            record = _one_object(line.strip(_BLANKS))
            if record is not None and names_a_host(record):
                self._record(record)
        self.line = number
        return last

    def _skip(self, text: str, at: int, *, final: bool) -> int:
        found = _NEXT.search(text, at)
        if found is not None:
            self._skipping = False
            return found.end()
        if final:
            return len(text)
        rest = len(text) - _NEXT_LENGTH + 1
        return rest if rest > at else -1

    def _noise(self, text: str, at: int, *, final: bool) -> int:
        """What begins no object: to the end of its line, or to the next element of an array."""
        found = _LINE_END.search(text, at)
        end = found.start() if found else len(text)
        if end - at > RECORD_LIMIT:
            self._items.append(self.error(f"line is longer than {RECORD_LIMIT >> 10} KiB"))
            self._skipping = True
            return at + RECORD_LIMIT
        if found is None and not final:
            return -1
        line = without_escapes(text[at:end])
        if line.startswith("#") or is_status(line):
            return end
        element = _NEXT_ELEMENT.search(text, at, end)
        if element is not None:
            end = element.end()
        self._items.append(self.error(reason_for(line, _no_record(text[at:end]))))
        return end


def _decode(text: str) -> tuple[dict[str, Any] | None, int, bool]:
    """The object that begins a text, where it ends or cannot go on, and whether more text may mend that."""
    try:
        record, end = _DECODER.raw_decode(text)
    except json.JSONDecodeError as error:
        unfinished = error.msg.startswith("Unterminated string") or error.pos >= len(text) - _UNFINISHED
        return None, error.pos, unfinished
    except RecursionError:
        return None, len(text), False
    return record, end, False


def _one_object(line: str) -> dict[str, Any] | None:
    """The object that a line consists of, if it does."""
    if line[:1] != "{" or line[-1:] != "}" or len(line) > RECORD_LIMIT:
        return None
    try:
        record: dict[str, Any] = orjson.loads(line)
    except ValueError:
        return None
    return None if len(line) > DEPTH_LIMIT and _too_deep(line, 0, len(line)) >= 0 else record


def _too_deep(text: str, start: int, end: int) -> int:
    """Where brackets are nested too deep; -1 where they never are."""
    if text.count("{", start, end) + text.count("[", start, end) <= DEPTH_LIMIT:
        return -1
    depth = 0
    for token in _TOKENS.finditer(text, start, end):
        if token[1]:
            depth += 1
            if depth > DEPTH_LIMIT:
                return token.start()
        elif token[0][0] != '"':
            depth -= 1
    return -1


def _quoted(found: re.Match[str]) -> str:
    return f'{found[1]}"{found[2]}"{found[3]}' if found[2] else found[0]


def _no_record(line: str) -> str:
    try:
        value = _DECODER.decode(line.strip(_BLANKS))
    except (ValueError, RecursionError):
        return f"not a JSON record: {shown(line.strip())}"
    return f"expected a JSON object, not {shown(value)}"
