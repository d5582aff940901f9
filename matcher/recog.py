"""Recog fingerprints: a folder of XML files by which short texts of services (a banner, a header) are told apart.

Contract: `load_recog(folder)` reads every file; `Recog.identify(key, text)` gives the first fingerprint that fits, in
the order of the files' preference and then of the file, with its parameters filled in as Recog itself fills them. `key`
says what the text is, in Recog's words: `ssh.banner`, `http_header.server`. A fingerprint whose pattern cannot be taken
is left out and listed in `skipped`; so is one that cannot decide on its own examples within the bounds of
patterns/pcre.py, under which all patterns run, behind the same sets as those of a probe database. Files are bounded in
size and depth and declare no entities, and their texts are such as can be shown.
The files are Rapid7's, under a BSD licence; none of them is part of this project.
Source: the documentation in Recog's README and in its schema, fingerprints.xsd.
"""

import math
import re
from base64 import b64decode
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from urllib.parse import quote
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

import msgspec
from msgspec import Struct

from matcher.errors import DatabaseError, MatcherError, UnsupportedPattern
from matcher.matcher import Matcher
from matcher.model import Match, Probe, ProbeDatabase, Signature, SignatureId
from matcher.outside import MIB, read_file, shown
from matcher.patterns import bindings, cache, pcre
from matcher.regex.ruby import pcre_pattern

# Of a fingerprint. Recog knows those with REG_; files for its other readers have the names that Ruby and Java use.
CASELESS = frozenset(("REG_ICASE", "ICASE", "IGNORECASE", "CASE_INSENSITIVE"))
DOTALL = frozenset(("REG_DOT_NEWLINE", "REG_LINE_ANY_CRLF", "REG_MULTILINE", "DOT_NEWLINE", "MULTILINE", "DOTALL"))
PREFERENCE = 0.10  # of a file that does not say; higher counts first
PRIORITY = 100.0  # as older files say the same; lower counts first
MAX_TEXT = 8192  # bytes of a text that are looked at
NOT_SAID = "-"  # a CPE's version where the text does not tell it
MAX_SIZE = 4 * MIB  # of a file; the largest of Recog's has 0.3
MAX_DEPTH = 16  # of elements in a file; Recog's have three
MAX_PATTERN = 8191  # characters, about what a line of a probe database may have
MAX_EXAMPLES = 8  # of a fingerprint that are tried
MAX_VALUE = 1024  # characters of a parameter's value as it is written
TOO_LONG = "reaches the match limit on an example of its own"

_REFERENCE = re.compile(r"\{([^\s{}]+)\}")
_POSITION = re.compile("[0-9]{1,3}")
_SEPARATORS = re.compile(r"[\s,|]+")
_SOURCES = (
    "recog.py",
    "outside.py",
    "regex/ruby.py",
    "regex/translate.py",
    "patterns/pcre.py",
    "patterns/bindings.py",
)  # what parsed files depend on


class Parameter(Struct, frozen=True, array_like=True):
    """position: the group that holds the value; 0: it is `value`, in which {names} stand for other parameters."""

    name: str
    position: int
    value: str


class Fingerprint(Struct, frozen=True, array_like=True):
    """pattern: for PCRE2. file: its name without folders."""

    key: str
    file: str
    description: str
    pattern: bytes
    caseless: bool
    dotall: bool
    parameters: tuple[Parameter, ...]


class Skipped(Struct, frozen=True, array_like=True):
    file: str
    description: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.description} ({self.reason})"


class RecogMatch(Struct, frozen=True):
    """fields: Recog's names (`service.product`, `os.cpe23`) -> text, as Recog gives it.

    cpe: those of them that are CPE names, with what the text told fit for one: in lower case, its blanks as
    underscores, other signs escaped.
    """

    file: str
    description: str
    fields: dict[str, str]
    cpe: dict[str, str]

    @property
    def source(self) -> str:
        """The fingerprint's name as it stands in an evidence."""
        return f"{self.file}: {self.description}"


class _File(Struct, frozen=True, array_like=True):
    fingerprints: tuple[Fingerprint, ...]
    skipped: tuple[Skipped, ...]
    preference: float
    priority: float


class Recog:
    """Fingerprints ready to be asked. skipped: those that are not among them."""

    def __init__(self, fingerprints: Collection[Fingerprint], skipped: tuple[Skipped, ...] = ()) -> None:
        self.skipped = skipped
        self.size = len(fingerprints)
        keys = dict.fromkeys(fingerprint.key for fingerprint in fingerprints)
        ordered = {key: [one for one in fingerprints if one.key == key] for key in keys}
        probes = tuple(_as_probe(index, key, ordered[key]) for index, key in enumerate(ordered))
        self._fingerprints = ordered
        self._probes = {probe.name: probe for probe in probes}
        self._matcher = Matcher(ProbeDatabase("recog", "", probes))
        self._matcher.compile_all()

    @property
    def keys(self) -> Collection[str]:
        return self._probes.keys()

    def identify(self, key: str, text: bytes) -> RecogMatch | None:
        """The first fingerprint for such a text that fits."""
        probe = self._probes.get(key)
        text = text[:MAX_TEXT]
        match = self._matcher.match(probe, text) if probe is not None else None
        return self._filled(key, match, text) if match is not None else None

    def _filled(self, key: str, match: Match, text: bytes) -> RecogMatch | None:
        position = int(match.signature.id)
        fingerprint = self._fingerprints[key][position]
        line = self._matcher.line(match.probe.index, position)
        found = line.search(text, pcre.Patience())
        if found is None:
            return None
        groups = line.groups()
        values: dict[str, str] = {}
        for parameter in fingerprint.parameters:
            if parameter.position == 0:
                values[parameter.name] = parameter.value
            elif parameter.position <= groups:
                start, end = pcre.span(found, text, parameter.position)
                if start >= 0:
                    values[parameter.name] = _decoded(text[start:end])
        cpe: dict[str, str] = {}
        for parameter in fingerprint.parameters:
            if parameter.position == 0 and "{" in parameter.value:
                if _is_cpe(parameter):
                    cpe[parameter.name] = _interpolated(parameter, values, _cpe_part)
                values[parameter.name] = _interpolated(parameter, values)
            elif _is_cpe(parameter):
                cpe[parameter.name] = values.get(parameter.name, "")
        return RecogMatch(fingerprint.file, fingerprint.description, _told(values), _told(cpe))


def _as_probe(index: int, key: str, fingerprints: list[Fingerprint]) -> Probe:
    """The fingerprints of one key as the lines of a probe, the position in its list as id."""
    lines = [
        Signature(SignatureId(at), one.file, 0, key, False, one.pattern, one.caseless, one.dotall)
        for at, one in enumerate(fingerprints)
    ]
    return Probe(index, key, "tcp", key.encode(), tuple(lines), lists=(index,))


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _told(values: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}


def _is_cpe(parameter: Parameter) -> bool:
    return parameter.name.endswith((".cpe23", ".cpe"))


def _cpe_part(value: str) -> str:
    return quote(value.lower().replace(" ", "_"), safe="")


def _interpolated(parameter: Parameter, values: dict[str, str], fit: Callable[[str], str] = str) -> str:
    """The value with its {names} replaced; empty where one of them is not known, except for the version in a CPE."""
    pieces: list[str] = []
    at = 0
    for reference in _REFERENCE.finditer(parameter.value):
        value = values.get(reference[1])
        if _is_cpe(parameter) and not value:
            if not reference[1].endswith("version"):
                return ""
            value = NOT_SAID
        elif value is None:
            return ""
        pieces += (parameter.value[at : reference.start()], fit(value))
        at = reference.end()
    return "".join(pieces) + parameter.value[at:]


def load_recog(folder: Path, keys: Collection[str] | None = None) -> Recog:
    """The fingerprints of a folder's XML files, or those of its folder `xml`, as in Recog's source tree.

    keys: take only these. Raises MatcherError where there are none, DatabaseError for a file that cannot be read.
    """
    paths = sorted(folder.glob("*.xml")) or sorted(folder.glob("xml/*.xml"))
    if not folder.is_dir():
        raise MatcherError(f"{shown(str(folder))}: not a folder of Recog's XML files")
    files = []
    for path in paths:
        try:
            data = read_file(path, MAX_SIZE)
        except OSError as error:
            raise MatcherError(f"{shown(str(path))}: cannot be read: {error.strerror}") from error
        files.append(_read(path, data))
    files.sort(key=lambda file: (-file.preference, file.priority))
    found = [one for file in files for one in file.fingerprints if keys is None or one.key in keys]
    if not found:
        raise MatcherError(f"{shown(str(folder))}: no Recog fingerprints (expected XML files such as ssh_banners.xml)")
    return Recog(found, tuple(one for file in files for one in file.skipped))


def _read(path: Path, data: bytes) -> _File:
    """A file, parsed once and then kept on disk: every worker reads the same ones."""
    name = cache.key("recog", cache.code(*_SOURCES), bindings.LIBPCRE2, shown(path.name), data)
    return cache.kept(name, lambda: msgspec.msgpack.encode(parse_recog(data, str(path))), _stored)


def _stored(data: bytes) -> _File:
    try:
        return msgspec.msgpack.decode(data, type=_File)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error


class _Refused(Exception):  # noqa: N818 - well-formed, but not what such a file holds
    """args[0]: why."""


class _Builder(TreeBuilder):
    """Builds what a file of fingerprints may hold."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def doctype(self, *_: str | None) -> None:
        """Told before the first entity could be declared."""
        raise _Refused("a document type is declared; such files have none")

    def start(self, tag: str, attributes: dict[str, str]) -> Element:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _Refused(f"elements are nested more than {MAX_DEPTH} deep")
        return super().start(tag, attributes)

    def end(self, tag: str) -> Element:
        self._depth -= 1
        return super().end(tag)


def _parsed(data: bytes, path: str) -> Element:
    parser = XMLParser(target=_Builder())
    try:
        parser.feed(data)
        root: Element = parser.close()
    except ParseError as error:
        line, column = error.position
        raise DatabaseError(path, line, column + 1, "not XML: " + str(error).partition(":")[0]) from error
    except (_Refused, LookupError, ValueError) as error:  # the latter two: an encoding that nobody knows
        raise DatabaseError(path, 1, 1, f"cannot be taken: {error}") from error
    return root


def parse_recog(data: bytes, path: str) -> _File:
    """The fingerprints of one file; none where it holds something else. Raises DatabaseError where it is no XML."""
    root = _parsed(data, path := shown(path))
    file, key = Path(path).name, shown(root.get("matches") or Path(path).stem)
    fingerprints, skipped = [], []
    for element in root.iter("fingerprint") if root.tag == "fingerprints" else ():
        description = shown(" ".join((element.findtext("description") or "").split()))
        try:
            fingerprints.append(_fingerprint(element, key, file, description))
        except UnsupportedPattern as error:
            skipped.append(Skipped(file, description, error.feature))
    return _File(
        tuple(fingerprints),
        tuple(skipped),
        _number(root.get("preference"), PREFERENCE),
        _number(root.get("priority"), PRIORITY),
    )


def _number(text: str | None, default: float) -> float:
    try:
        value = float(text) if text else default
    except ValueError:
        return default
    return value if math.isfinite(value) else default


def _fingerprint(element: Element, key: str, file: str, description: str) -> Fingerprint:
    """Raises UnsupportedPattern."""
    written = element.get("pattern", "")
    if len(written) > MAX_PATTERN:
        raise UnsupportedPattern(written.encode(), f"longer than {MAX_PATTERN} characters")
    caseless = dotall = False
    for flag in filter(None, _SEPARATORS.split(element.get("flags", ""))):
        if flag not in CASELESS | DOTALL:
            raise UnsupportedPattern(written.encode(), f"flag {shown(flag)}")
        caseless |= flag in CASELESS
        dotall |= flag in DOTALL
    pattern = pcre_pattern(written)
    if fault := pcre.check_pattern(pattern, caseless, dotall):
        raise UnsupportedPattern(pattern, fault[0])
    code = pcre.compile_pattern(pattern, caseless=caseless, dotall=dotall)
    if not all(_decides(code, example) for example in islice(_examples(element), MAX_EXAMPLES)):
        raise UnsupportedPattern(pattern, TOO_LONG)
    return Fingerprint(key, file, description, pattern, caseless, dotall, tuple(_parameters(element)))


def _examples(element: Element) -> Iterator[bytes]:
    for example in element.iter("example"):
        text = (example.text or "").encode()
        with suppress(ValueError):
            yield b64decode(text) if example.get("_encoding") == "base64" else text


def _decides(code: bindings.Code, text: bytes) -> bool:
    """Whether a pattern comes to an end on a text within its limits, be it with a match or without."""
    text = text[:MAX_TEXT]
    try:
        pcre.match(code, text, len(text), 0, pcre.CONTEXT)
    except pcre.LibraryError:
        return False
    return True


def _parameters(element: Element) -> Iterator[Parameter]:
    """Those that can be obeyed."""
    for parameter in element.iter("param"):
        position, value = parameter.get("pos", "0"), shown(parameter.get("value", ""))
        if _POSITION.fullmatch(position) and len(value) <= MAX_VALUE:
            yield Parameter(shown(parameter.get("name", "")), int(position), value)
