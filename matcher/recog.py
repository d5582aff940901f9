"""Recog fingerprints: a folder of XML files by which short texts of services (a banner, a header) are told apart.

Contract: `load_recog(folder)` reads every file; `Recog.identify(key, text)` gives the first fingerprint that fits, in
the order of the files' preference and then of the file, with its parameters filled in. `key` says what the text is, in
Recog's words: `ssh.banner`, `http_header.server`. A fingerprint whose pattern cannot be taken is left out and listed in
`skipped`. Patterns run under the bounds of patterns/pcre.py, behind the same sets as those of a probe database.
The files are Rapid7's, under a BSD licence; none of them is part of this project.
Source: the documentation in Recog's README and in its schema, fingerprints.xsd.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote
from xml.etree.ElementTree import Element, ParseError, fromstring

import msgspec
from msgspec import Struct

from matcher.errors import DatabaseError, MatcherError, UnsupportedPattern
from matcher.matcher import Matcher
from matcher.model import Match, Probe, ProbeDatabase, Signature, SignatureId
from matcher.patterns import bindings, cache, pcre
from matcher.regex.ruby import pcre_pattern

FLAGS = {  # of a fingerprint: (caseless, a dot matches line ends); Recog gives the last three one meaning
    "REG_ICASE": (True, False),
    "REG_DOT_NEWLINE": (False, True),
    "REG_LINE_ANY_CRLF": (False, True),
    "REG_MULTILINE": (False, True),
}
PREFERENCE = 0.10  # of a file that does not say; higher counts first
PRIORITY = 100.0  # as older files say the same; lower counts first
MAX_TEXT = 8192  # bytes of a text that are looked at
NOT_SAID = "-"  # a CPE's version where the text does not tell it

_REFERENCE = re.compile(r"\{([^\s{}]+)\}")
_SOURCES = (  # what parsed files depend on
    "recog.py",
    "regex/ruby.py",
    "regex/translate.py",
    "patterns/pcre.py",
    "patterns/bindings.py",
)


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
    """fields: Recog's names (`service.product`, `os.cpe23`) -> text."""

    file: str
    description: str
    fields: dict[str, str]

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
        for parameter in fingerprint.parameters:
            if parameter.position == 0 and "{" in parameter.value:
                values[parameter.name] = _interpolated(parameter, values)
        fields = {name: value for name, value in values.items() if value}
        return RecogMatch(fingerprint.file, fingerprint.description, fields)


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


def _interpolated(parameter: Parameter, values: dict[str, str]) -> str:
    """The value with its {names} replaced; empty where one of them is not known, except for the version in a CPE."""
    is_cpe = ".cpe" in parameter.name
    pieces: list[str] = []
    at = 0
    for reference in _REFERENCE.finditer(parameter.value):
        value = values.get(reference[1])
        if is_cpe:
            if not value and not reference[1].endswith("version"):
                return ""
            value = quote(value.lower().replace(" ", "_"), safe="") if value else NOT_SAID
        elif value is None:
            return ""
        pieces += (parameter.value[at : reference.start()], value)
        at = reference.end()
    return "".join(pieces) + parameter.value[at:]


def load_recog(folder: Path, keys: Collection[str] | None = None) -> Recog:
    """The fingerprints of a folder's XML files, or those of its folder `xml`, as in Recog's source tree.

    keys: take only these. Raises MatcherError where there are none, DatabaseError for a file that cannot be read.
    """
    paths = sorted(folder.glob("*.xml")) or sorted(folder.glob("xml/*.xml"))
    if not folder.is_dir():
        raise MatcherError(f"{folder}: not a folder of Recog's XML files")
    files = []
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise MatcherError(f"{path}: {error.strerror}") from error
        files.append(_read(path, data))
    files.sort(key=lambda file: (-file.preference, file.priority))
    found = [one for file in files for one in file.fingerprints if keys is None or one.key in keys]
    if not found:
        raise MatcherError(f"{folder}: no Recog fingerprints (expected XML files such as ssh_banners.xml)")
    return Recog(found, tuple(one for file in files for one in file.skipped))


def _read(path: Path, data: bytes) -> _File:
    """A file, parsed once and then kept on disk: every worker reads the same ones."""
    name = cache.key("recog", cache.code(*_SOURCES), bindings.LIBPCRE2, path.name, data)
    return cache.kept(name, lambda: msgspec.msgpack.encode(parse_recog(data, str(path))), _stored)


def _stored(data: bytes) -> _File:
    try:
        return msgspec.msgpack.decode(data, type=_File)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error


def parse_recog(data: bytes, path: str) -> _File:
    """The fingerprints of one file; none where it holds something else. Raises DatabaseError where it is no XML."""
    try:
        root = fromstring(data)
    except ParseError as error:
        line, column = error.position
        raise DatabaseError(path, line, column + 1, "not XML: " + str(error).partition(":")[0]) from error
    file, key = Path(path).name, root.get("matches") or Path(path).stem
    fingerprints, skipped = [], []
    for element in root.iter("fingerprint") if root.tag == "fingerprints" else ():
        description = " ".join((element.findtext("description") or "").split())
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
        return float(text) if text else default
    except ValueError:
        return default


def _fingerprint(element: Element, key: str, file: str, description: str) -> Fingerprint:
    """Raises UnsupportedPattern."""
    written = element.get("pattern", "")
    caseless = dotall = False
    for flag in filter(None, map(str.strip, element.get("flags", "").split(","))):
        if flag not in FLAGS:
            raise UnsupportedPattern(written.encode(), f"flag {flag}")
        caseless |= FLAGS[flag][0]
        dotall |= FLAGS[flag][1]
    pattern = pcre_pattern(written)
    if fault := pcre.check_pattern(pattern, caseless, dotall):
        raise UnsupportedPattern(pattern, fault[0])
    return Fingerprint(key, file, description, pattern, caseless, dotall, tuple(_parameters(element)))


def _parameters(element: Element) -> Iterator[Parameter]:
    for parameter in element.iter("param"):
        position = parameter.get("pos", "0")
        if position.isdecimal():
            yield Parameter(parameter.get("name", ""), int(position), parameter.get("value", ""))
