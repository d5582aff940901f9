r"""Propose a match line from a sample response: literals escaped, what looks like a version captured.

    SSH-2.0-dropbear_2022.83\r\n   ->   match ssh m|^SSH-2\.0-dropbear_([\w.+~-]+)\r\n| p/Dropbear sshd/ v/$1/

A place to begin, not the end: a person decides what of a response is the product, and what only this one copy of it.
Contract: the proposed line matches its sample, and gives the fields that the sample expects wherever their text stands
in the response or needs none. `propose` says by the result's `answer` what it really gives.
"""

import re
from collections.abc import Callable

from msgspec import Struct

from matcher.database.load import parse_database
from matcher.database.samples import Expected, Sample, answer
from matcher.model import Probe
from matcher.patterns import pcre
from matcher.tools.explain import try_line

FIRST_LINE_MOST = 160  # bytes of a text line that go into a pattern
BINARY_MOST = 48  # bytes of a response that is no text
_FLAGS = {"product": b"p", "version": b"v", "extrainfo": b"i", "hostname": b"h", "ostype": b"o", "devicetype": b"d"}
_VERSION = rb"[\w.+~-]+"
_LOOKS_LIKE_VERSION = re.compile(rb"(?<![\w.])v?(\d+(?:\.\d+)+[\w.+~-]*)")
_VARIES = re.compile(  # what another copy of the same program would say differently
    rb"(?P<address>\d{1,3}(?:\.\d{1,3}){3})|(?P<hex>(?=\w*\d)(?=\w*[a-f])[0-9a-f]{8,})|(?P<number>\d{2,})"
)
_VARYING = {"address": rb"[\d.]+", "hex": b"[0-9a-f]+", "number": rb"\d+"}
_HTTP = re.compile(rb"HTTP/1\.[01] \d\d\d[^\r\n]*\r?\n")
_HTTP_HEAD = rb"^HTTP/1\.[01] \d\d\d[^\r\n]*\r?\n(?:[^\r\n]+\r?\n)*?"
_TITLE = re.compile(rb"<title>[^<]{3,80}</title>", re.IGNORECASE)
_REPLY_CODE = re.compile(rb"\d{3}(?=[ -])")  # of FTP, SMTP and their kin; it means something and stays as it is


class Proposal(Struct, frozen=True):
    """line: for the database; answer: what it gives for the sample; None if it does not even match."""

    line: str
    answer: Expected | None

    def fits(self, response: bytes) -> bool:
        return fitter(self.line.encode("latin-1"))(response)


def propose(sample: Sample, service: str = "") -> Proposal:
    """A line for one sample. service: the name to give where the sample expects none."""
    expect = sample.expect or Expected(name=service or "unknown")
    head, text, flags = _telling_part(sample.response, expect.version.encode("latin-1", "replace"))
    fields = {name: getattr(expect, name).encode("latin-1", "replace") for name in _FLAGS}
    pattern, templates = _generalised(text, fields)
    line = written(expect, head + pattern, flags, templates)
    return Proposal(line.decode("latin-1"), given(line, sample.response))


def given(line: bytes, response: bytes) -> Expected | None:
    """What a line gives a response; None where it does not fit. Raises DatabaseError for what is no line."""
    probe = _probe(line)
    fit = try_line(probe.signatures[0], probe, response)
    return None if fit is None else answer(fit.match)


def fitter(line: bytes) -> Callable[[bytes], bool]:
    """Whether a line fits a response, for who asks it many times. Raises DatabaseError for what is no line."""
    one = _probe(line).signatures[0]
    pattern = pcre.Pattern(one.pattern, caseless=one.caseless, dotall=one.dotall)
    return lambda response: pattern.search(response, pcre.Patience()) is not None


def _probe(line: bytes) -> Probe:
    return parse_database(b"Probe TCP NULL q||\n" + line + b"\n", "proposal").probes[0]


def _telling_part(response: bytes, version: bytes) -> tuple[bytes, bytes, bytes]:
    """(beginning of the pattern, the bytes that tell what this is, flags)."""
    if status := _HTTP.match(response):
        headers, _, _ = response[status.end() :].partition(b"\r\n\r\n")
        lines = headers.split(b"\r\n")
        telling = [line for line in lines if version and version in line]
        telling += [line for line in lines if line.lower().startswith(b"server:")]
        if telling:
            return _HTTP_HEAD, telling[0] + b"\r\n", b""
        if title := _TITLE.search(response):
            return rb"^HTTP/1\.[01] \d\d\d.*?", title[0], b"s"
    end = response.find(b"\n") + 1 or len(response)
    if _is_text(response[:end]):
        code = _REPLY_CODE.match(response)
        start = code.end() if code else 0
        return b"^" + escaped(response[:start]), response[start : min(end, FIRST_LINE_MOST)], b""
    return b"^", response[:BINARY_MOST], b""


def _is_text(data: bytes) -> bool:
    return all(0x20 <= code < 0x7F or code in b"\t\r\n" for code in data)


def _generalised(text: bytes, fields: dict[str, bytes]) -> tuple[bytes, dict[str, bytes]]:
    """The text as a pattern, and the templates: expected fields that stand in it are captured there."""
    places: dict[int, tuple[int, str]] = {}  # start -> (end, field)
    version = _LOOKS_LIKE_VERSION.search(text)
    for name in ("version", "hostname"):
        value = fields[name]
        at = text.find(value) if value else -1
        if at >= 0:
            places[at] = (at + len(value), name)
        elif name == "version" and not value and version and not _is_address(version[1]):
            places[version.start(1)] = (version.end(1), name)
    templates = {name: value for name, value in fields.items() if value}
    pattern = b""
    at = group = 0
    for start, (end, name) in sorted(places.items()):
        if start < at:
            continue
        group += 1
        pattern += _varying(text[at:start]) + b"(%b)" % (rb"[\w.-]+" if name == "hostname" else _group(text[start:end]))
        templates[name] = b"$%d" % group
        at = end
    return pattern + _varying(text[at:]), templates


def _is_address(text: bytes) -> bool:
    return re.fullmatch(rb"\d{1,3}(?:\.\d{1,3}){3}", text) is not None


def _group(value: bytes) -> bytes:
    return _VERSION if re.fullmatch(_VERSION, value) else rb"[^\r\n]+"


def _varying(text: bytes) -> bytes:
    """Literal text, but for what looks like an address, a number or an identifier of this one copy."""
    pattern = b""
    at = 0
    for found in _VARIES.finditer(text):
        pattern += escaped(text[at : found.start()]) + _VARYING[found.lastgroup or "number"]
        at = found.end()
    return pattern + escaped(text[at:])


def escaped(text: bytes) -> bytes:
    """`text` as a pattern that matches it alone, in printable ASCII."""
    named = {0x0D: b"\\r", 0x0A: b"\\n", 0x09: b"\\t"}
    pieces = []
    for code in text:
        if code in named:
            pieces.append(named[code])
        elif not 0x20 <= code < 0x7F:
            pieces.append(b"\\x%02x" % code)
        else:
            pieces.append(b"\\" * (code in b"\\^$.|?*+()[]{}") + bytes((code,)))
    return b"".join(pieces)


def written(expect: Expected, pattern: bytes, flags: bytes, templates: dict[str, bytes]) -> bytes:
    """The line of a database that says so of what a pattern fits. templates: of the fields, groups in them."""
    delimiter = _delimiter(pattern, b"|=%@~!")
    line = b"softmatch " if expect.soft else b"match "
    line += expect.name.encode("latin-1", "replace") + b" m" + delimiter + pattern + delimiter + flags
    for name, letter in _FLAGS.items():
        if name in templates:
            around = _delimiter(templates[name], b"/|=%@")
            line += b" " + letter + around + templates[name] + around
    for cpe in expect.cpe:
        text = cpe.encode("latin-1", "replace")
        if expect.version and templates.get("version", b"").startswith(b"$"):
            text = text.replace(b":" + expect.version.lower().encode(), b":" + templates["version"])
        line += b" " + text + b"/"
    return line


def _delimiter(text: bytes, choices: bytes) -> bytes:
    """The first of `choices` that does not occur in `text`."""
    return next((bytes((code,)) for code in choices if code not in text), b"\x01")
