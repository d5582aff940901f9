"""Read a probe database: text in the nmap-service-probes format -> ProbeDatabase.

Contract: every error is a DatabaseError with path, 1-based line and 1-based column; nothing is skipped or repaired in
silence. Where the two Nmap generations differ, a file that either of them accepts is accepted, in the reading of the
one that accepts it. Pure: no file is opened here, and the regular expressions are judged by the `check` that the
caller passes, so that the parser knows no engine.
Source: the grammar of nmap-service-probes as observed on Nmap 7.93 and on the 2026 development head.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from typing import NoReturn

from msgspec import Struct

from matcher.database.ports import PortFault, ServiceRow, excluded, number, port_list
from matcher.errors import DatabaseError
from matcher.model import PortSet, Probe, ProbeDatabase, Proto, Signature, SignatureId, Templates

MAX_LINE = 8191  # bytes with the newline; Nmap's limit since 2026 (7.93: 2047)
MAX_FALLBACKS = 17
WAIT_MS = range(100, 300_001)  # what totalwaitms and tcpwrappedms may be

PatternCheck = Callable[[bytes, bool, bool], tuple[str, int] | None]
"""(pattern, caseless, dotall) -> None, or what is wrong and at which byte of the pattern."""

_BLANK = b" \t\n\v\f\r"
_ESCAPE = re.compile(rb"\\(x[0-9A-Fa-f]{2}|.|$)", re.DOTALL)
_LETTER_ESCAPES = {
    b"\\": b"\\",
    b"0": b"\0",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"v": b"\v",
}
_LEADING_INT = re.compile(rb"\s*([+-]?)(\d+)")
_OBEYED = re.compile(rb"[\x00-\x1f\x7f-\x9f\xad]")  # a terminal does not print these but obeys, or hides, them
_NAME_SEPARATOR = re.compile(rb"[\s,]+")
_TEMPLATE_FIELDS = {
    b"p": "product",
    b"v": "version",
    b"i": "extrainfo",
    b"h": "hostname",
    b"o": "ostype",
    b"d": "devicetype",
}


def unescape(text: bytes) -> bytes:
    r"""Probe-string escapes: `\\ \0 \n \r \t \xHH`, and as Nmap 7.93 does `\a \b \f \v` and backslash + punctuation.

    `\0` takes no further digits. Raises ValueError(reason, offset of the escape).
    """

    def one(found: re.Match[bytes]) -> bytes:
        body = found[1]
        if len(body) == 3:
            return bytes((int(body[1:], 16),))
        if body in _LETTER_ESCAPES:
            return _LETTER_ESCAPES[body]
        if body and not body.isalnum():
            return body
        reason = f"unknown escape {found[0].decode('latin-1')!r}" if body else "backslash at the end"
        raise ValueError(reason, found.start())

    return _ESCAPE.sub(one, text)


class _Block(Struct):
    """A probe while its directives are being read. fallback_line: where to report an unknown name."""

    name: str
    proto: Proto
    payload: bytes
    line: int
    signatures: list[Signature]
    ports: list[tuple[int, int]]
    sslports: list[tuple[int, int]]
    rarity: int = 5
    totalwait_s: float = 5.0
    tcpwrapped_s: float = 2.0
    fallback: tuple[str, ...] = ()
    fallback_line: int = 0


class _Parser:
    """One pass over the lines. `self.number` is the line being read; columns are 0-based inside, 1-based outside."""

    def __init__(self, path: str, check: PatternCheck | None, services: Iterable[ServiceRow]) -> None:
        self.path = path
        self.check = check
        self.services = services
        self.number = 0
        self.blocks: list[_Block] = []
        self.null: _Block | None = None
        self.exclude: tuple[PortSet, PortSet] | None = None
        self.next_id = 0
        self.directives: dict[bytes, Callable[[bytes, int], None]] = {
            b"Exclude": self.read_exclude,
            b"Probe": self.read_probe,
            b"match": lambda line, at: self.read_match(line, at, soft=False),
            b"softmatch": lambda line, at: self.read_match(line, at, soft=True),
            b"ports": lambda line, at: self.block(line).ports.extend(port_list(line, at)),
            b"sslports": lambda line, at: self.block(line).sslports.extend(port_list(line, at)),
            b"rarity": self.read_rarity,
            b"fallback": self.read_fallback,
            b"totalwaitms": self.read_totalwait,
            b"tcpwrappedms": self.read_tcpwrapped,
        }

    def fail(self, column: int, reason: str, line: int | None = None) -> NoReturn:
        raise DatabaseError(self.path, line or self.number, column + 1, reason)

    def feed(self, data: bytes) -> None:
        for line in data.splitlines(keepends=True) if b"\r" not in data else _physical_lines(data):
            self.number += 1
            if line in (b"\n", b"") or line.startswith(b"#"):
                continue
            if len(line) > MAX_LINE:
                self.fail(MAX_LINE, f"line of {len(line)} bytes; at most {MAX_LINE} are allowed")
            if (nul := line.find(b"\0")) >= 0:
                self.fail(nul, "NUL byte in the line; write \\0 or \\x00")
            if not line.strip():
                self.fail(0, "line of blanks; leave it empty or start it with #")
            self.read_line(line)

    def read_line(self, line: bytes) -> None:
        keyword, _, _ = line.partition(b" ")
        directive = self.directives.get(keyword)
        if directive is None or len(keyword) == len(line):
            known = ", ".join(name.decode() for name in self.directives)
            shown = line.split(maxsplit=1)[0].decode("latin-1") if line[:1] not in _BLANK.split() else ""
            if line[:1] in (b" ", b"\t"):
                self.fail(0, "a directive must start in the first column")
            if keyword.strip() in self.directives:
                self.fail(len(keyword.rstrip()), f"one space and an argument must follow {shown!r}")
            self.fail(0, f"unknown directive {shown!r}; expected one of {known}")
        try:
            directive(line, len(keyword) + 1)
        except PortFault as fault:
            reason, column = fault.args
            self.fail(column, reason)

    def block(self, line: bytes) -> _Block:
        if not self.blocks:
            self.fail(0, f"{line.split()[0].decode('latin-1')} before the first Probe")
        return self.blocks[-1]

    # -- directives: each gets the line and the index of its argument

    def read_exclude(self, line: bytes, at: int) -> None:
        if self.blocks:
            self.fail(0, "Exclude must come before the first Probe")
        if self.exclude is not None:
            self.fail(0, "second Exclude line; one is allowed")
        self.exclude = excluded(line, at, self.services)

    def read_probe(self, line: bytes, at: int) -> None:
        word, _, _ = line[at:].partition(b" ")
        if word not in (b"TCP", b"UDP"):
            self.fail(at, f"protocol {word.strip().decode('latin-1')!r}; expected TCP or UDP")
        at += 4
        name, separator, _ = line[at:].partition(b" ")
        if not name[:1].isalnum():
            self.fail(at, "the probe's name must begin with a letter or a digit, after exactly one space")
        if not separator:
            self.fail(at + len(name.rstrip()), "probe string missing; expected q|...| after the name")
        self.refuse_controls(name, at)
        at += len(name) + 1
        if line[at : at + 1] != b"q":
            self.fail(at, "probe string must begin with q and a delimiter, after exactly one space")
        text, _ = self.delimited(line, at + 1, "probe string")
        try:
            payload = unescape(text)
        except ValueError as error:
            reason, offset = error.args
            self.fail(at + 2 + offset, f"probe string: {reason}")
        proto: Proto = "tcp" if word == b"TCP" or not payload else "udp"
        block = _Block(name.decode("latin-1"), proto, payload, self.number, [], [], [])
        if not payload:
            if self.null is not None:
                self.fail(at, f"second probe with an empty string; the first is {self.null.name!r}")
            self.null = block
        self.blocks.append(block)

    def read_match(self, line: bytes, at: int, *, soft: bool) -> None:
        block = self.block(line)
        end = line.find(b" ", at)
        if end < 0:
            self.fail(len(line.rstrip()), "pattern missing; expected m|...| after the service name")
        self.refuse_controls(line[at:end], at)
        service = line[at:end].decode("latin-1")
        at = self.skip_blanks(line, end)
        if line[at : at + 1] != b"m":
            self.fail(at, "pattern must begin with m and a delimiter")
        pattern_at = at + 2
        pattern, at = self.delimited(line, at + 1, "pattern")
        flags_at = at
        while line[at : at + 1] not in (b"", *_BLANKS):
            flag = line[at : at + 1]
            if flag not in (b"i", b"s"):
                self.fail(at, f"unknown flag {flag.decode('latin-1')!r} after the pattern; expected i or s")
            at += 1
        flags = line[flags_at:at]
        caseless, dotall = b"i" in flags, b"s" in flags
        if self.check is not None and (wrong := self.check(pattern, caseless, dotall)) is not None:
            self.fail(pattern_at + wrong[1], f"pattern: {wrong[0]}")
        templates = self.templates(line, at)
        signature = Signature(
            SignatureId(self.next_id), self.path, self.number, service, soft, pattern, caseless, dotall, templates
        )
        self.next_id += 1
        block.signatures.append(signature)

    def read_rarity(self, line: bytes, at: int) -> None:
        block = self.block(line)
        value = self.integer(line, at)
        if not 1 <= value <= 9:
            self.fail(at, f"rarity {value}; expected 1 to 9")
        block.rarity = value

    def read_totalwait(self, line: bytes, at: int) -> None:
        self.block(line).totalwait_s = self.milliseconds(line, at)

    def read_tcpwrapped(self, line: bytes, at: int) -> None:
        self.block(line).tcpwrapped_s = self.milliseconds(line, at)

    def read_fallback(self, line: bytes, at: int) -> None:
        block = self.block(line)
        names = tuple(name.decode("latin-1") for name in _NAME_SEPARATOR.split(line[at:]) if name)
        if len(names) > MAX_FALLBACKS:
            self.fail(at, f"{len(names)} fallbacks; at most {MAX_FALLBACKS} are allowed")
        block.fallback, block.fallback_line = names, self.number

    # -- pieces

    def delimited(self, line: bytes, at: int, what: str) -> tuple[bytes, int]:
        """The text between the delimiter at `at` and its next occurrence, and the index after that."""
        delimiter = line[at : at + 1]
        if delimiter in (b"", *_BLANKS):
            self.fail(at, f"{what}: delimiter missing")
        end = line.find(delimiter, at + 1)
        if end < 0:
            self.fail(at, f"{what}: closing delimiter {delimiter.decode('latin-1')!r} missing")
        return line[at + 1 : end], end + 1

    @staticmethod
    def skip_blanks(line: bytes, at: int) -> int:
        while line[at : at + 1] in _BLANKS:
            at += 1
        return at

    def templates(self, line: bytes, at: int) -> Templates:
        fields: dict[str, bytes] = {}
        cpe: list[bytes] = []
        while (at := self.skip_blanks(line, at)) < len(line):
            start = at
            if line.startswith(b"cpe", at):
                # Without its colon a cpe template is read and ignored, as the newer Nmap does.
                counts = line[at + 3 : at + 4] == b":"
                text, at = self.delimited(line, at + 3 + counts, "cpe template")
                if counts:
                    cpe.append(b"cpe:/" + text)
            elif (field := _TEMPLATE_FIELDS.get(line[at : at + 1])) is not None:
                fields[field], at = self.delimited(line, at + 1, f"{field} template")
            else:
                word = line[at:].split(maxsplit=1)[0].decode("latin-1")
                self.fail(at, f"unknown template {word!r}; expected p v i h o d or cpe:")
            while line[at : at + 1].isalpha():
                at += 1  # letters behind the closing delimiter mean nothing, as in Nmap
            if line[at : at + 1] not in (b"", *_BLANKS):
                self.fail(at, f"a blank must follow the template that begins in column {start + 1}")
        if not fields and not cpe:
            return _NO_TEMPLATES
        return Templates(cpe=tuple(cpe), **fields)

    def refuse_controls(self, name: bytes, at: int) -> None:
        if found := _OBEYED.search(name):
            self.fail(at + found.start(), f"control character {found[0].decode('latin-1')!r} in a name")

    def integer(self, line: bytes, at: int) -> int:
        found = _LEADING_INT.match(line, at)
        return number(found[2]) * (-1 if found[1] == b"-" else 1) if found else 0

    def milliseconds(self, line: bytes, at: int) -> float:
        value = self.integer(line, at)
        if value not in WAIT_MS:
            self.fail(at, f"{value} ms; expected {WAIT_MS.start} to {WAIT_MS.stop - 1}")
        return value / 1000

    # -- the end

    def finish(self, digest: str) -> ProbeDatabase:
        indices = {id(block): index for index, block in enumerate(self.blocks)}
        first: dict[tuple[str, str], _Block] = {}  # by name and protocol, and by name with any
        for block in self.blocks:
            if block is not self.null:
                first.setdefault((block.name, block.proto), block)
                first.setdefault((block.name, ""), block)
        null_index = None if self.null is None else indices[id(self.null)]
        probes = []
        for index, block in enumerate(self.blocks):
            if index == null_index:
                lists = [index]
            else:
                lists = [index, *(indices[id(self.resolve(block, name, first))] for name in block.fallback)]
                if block.proto == "tcp" and null_index is not None:
                    lists.append(null_index)
            probes.append(
                Probe(
                    index=index,
                    name=block.name,
                    proto=block.proto,
                    payload=block.payload,
                    signatures=tuple(block.signatures),
                    ports=PortSet(tuple(block.ports)),
                    sslports=PortSet(tuple(block.sslports)),
                    rarity=block.rarity,
                    totalwait_s=block.totalwait_s,
                    tcpwrapped_s=block.tcpwrapped_s,
                    fallback=block.fallback,
                    lists=tuple(dict.fromkeys(lists)),
                    services=frozenset(signature.service for signature in block.signatures),
                    line=block.line,
                )
            )
        tcp, udp = self.exclude or (PortSet(), PortSet())
        return ProbeDatabase(self.path, digest, tuple(probes), null_index, tcp, udp)

    def resolve(self, block: _Block, name: str, first: dict[tuple[str, str], _Block]) -> _Block:
        """Which probe a fallback name means: NULL for a TCP probe, then the same protocol, then any."""
        if block.proto == "tcp" and self.null is not None and self.null.name == name:
            return self.null
        found = first.get((name, block.proto)) or first.get((name, ""))
        if found is None:
            self.fail(0, f"fallback of {block.name!r}: no probe is named {name!r}", block.fallback_line)
        return found


_BLANKS = tuple(bytes((code,)) for code in _BLANK)
_NO_TEMPLATES = Templates()


def _physical_lines(data: bytes) -> list[bytes]:
    """Lines end at LF only; bytes.splitlines would also end one at a lone CR."""
    return [line + b"\n" for line in data.split(b"\n")]


def parse_database(
    data: bytes, path: str, *, check: PatternCheck | None = None, services: Iterable[ServiceRow] = ()
) -> ProbeDatabase:
    """Parse `data`, naming it `path` in errors and in the result.

    check: judges each regular expression (none: they are taken on trust). services: the rows of a services table,
    consulted only where Exclude has names or [ranges]. Raises DatabaseError at the first fault.
    """
    parser = _Parser(path, check, services)
    parser.feed(data)
    return parser.finish(hashlib.sha256(data).hexdigest())
