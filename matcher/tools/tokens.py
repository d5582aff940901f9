r"""A response cut into tokens: words and marks as they are, and by its kind what another copy says differently.

    220 ftp7.example ready at 10:22:01\r\n   ->   220  <host>  ready at  <date>  \r\n

Contract: `tokens` never fails, loses no byte, and takes time in proportion to the text, which is cut to LONGEST before.
`tellings` gives the parts of a response that tell what answered: the Server line of HTTP, the first lines of a text,
the first bytes of anything else. Pure. Source: the grammars of RFC 9110 (product/version), RFC 5321 and 959 (replies).
"""

import re
from typing import NamedTuple

LONGEST = 512  # bytes of a response that are looked at
BINARY_LONGEST = 96  # of one that is no text
LEAST_LETTERS = 4  # before the first byte that is no text; with fewer it all counts as binary
FEW_LETTERS = 16  # a first line with fewer says little; those behind it are taken, too
REPLY_CODE = re.compile(rb"\d{3}(?=[ -])")  # of FTP, SMTP and their kin; it means something and stays as it is
HTTP = re.compile(rb"(?:HTTP|RTSP)/1\.[01] \d\d\d([^\r\n]*)\r?\n")
HTTP_HEAD = {
    b"HTTP": rb"^HTTP/1\.[01] \d\d\d[^\r\n]*\r?\n(?:[^\r\n]+\r?\n)*?",
    b"RTSP": rb"^RTSP/1\.[01] \d\d\d[^\r\n]*\r?\n(?:[^\r\n]+\r?\n)*?",
}
TITLE_HEAD = rb"^HTTP/1\.[01] \d\d\d.*?"
TITLE = re.compile(rb"<title>[^<]{3,80}</title>", re.IGNORECASE)
MOST_HEADERS = 2048  # bytes of them that are looked through
_LINES = re.compile(rb"(?:[^\r\n]+\r?\n)*+(?:[^\r\n]+\r?)?")  # as HTTP_HEAD passes over them
_HEADERS = tuple(
    (form, re.compile(pattern, re.IGNORECASE | re.MULTILINE))
    for form, pattern in (
        ("server", rb"^((?:Server|User-Agent):[ \t]*)[^\r\n]*\r?\n?"),
        ("realm", rb"^(WWW-Authenticate:[ \t]*\w+ realm=)[^\r\n,]*"),
        ("maker", rb"^(X-Powered-By:[ \t]*)[^\r\n]*\r?\n?"),
        ("cookie", rb"^(Set-Cookie:[ \t]*)[^=;\r\n]{1,64}="),
    )
)
_TOKEN = re.compile(
    rb"""
      (?P<uuid>    [0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12} )
    | (?P<mac>     [0-9a-f]{2}(?:[:-][0-9a-f]{2}){5} (?![0-9a-f]) )
    | (?P<date>
          (?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6},?[ ])?
          (?: \d{4}[-/.]\d\d[-/.]\d\d (?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?
            | \d{1,2}[ -](?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}[ -]\d{2,4}
              (?:[ ]\d\d:\d\d(?::\d\d)?)?
            | (?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}[ ]{1,2}\d{1,2}
              (?:,?[ ]\d{4}|[ ]\d\d:\d\d:\d\d(?:[ ]\d{4})?)
            | \d{1,2}:\d\d:\d\d ) (?:[ ](?:GMT|UTC|[A-Z]{3,4}|[+-]\d{4})\b)? (?!\d) )
    | (?P<address> \d{1,3}(?:\.\d{1,3}){3} (?![\w.]) | \[?(?:[0-9a-f]{1,4}:){3,7}(?::?[0-9a-f]{1,4})?\]? )
    | (?P<version> \d{1,9}(?:\.\d{1,9}){1,5} (?:[a-z]\d{0,3}(?![a-z]))?
                   (?:[-+~.](?:rc|beta|alpha|pre|dev|deb|el|ubuntu|snapshot|release|final|build|git|r|p|b|v)?\d{1,9}
                      [a-z]?(?![a-z]) )* )
    | (?P<host>    (?:[a-z0-9-]{1,63}+\.){1,6}+[a-z]{2,24}+ (?![\w-]) )
    | (?P<hex>     [0-9a-f]{8,}(?![a-z]) )
    | (?P<base64>  [a-z0-9+/]{20,}={0,2} )
    | (?P<number>  \d+ )
    | (?P<word>    [a-z]+ )
    | (?P<blank>   [ \t]+ )
    | (?P<end>     \r?\n )
    | (?P<mark>    (?s:.) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LITERAL = frozenset(("word", "blank", "end", "mark"))
_ALPHABET = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_TEXT = bytes((*range(0x20, 0x7F), 0x09, 0x0D, 0x0A))


class Token(NamedTuple):
    """kind: `word blank end mark`, or what it is that varies. text: its bytes."""

    kind: str
    text: bytes

    @property
    def varies(self) -> bool:
        return self.kind not in _LITERAL

    @property
    def key(self) -> bytes:
        """What two tokens have in common that stand in the same place of two copies."""
        return b"<%b>" % self.kind.encode() if self.varies else self.text


class Telling(NamedTuple):
    """head: how the pattern begins, before `text`; flags: of the pattern.

    form: `server realm maker cookie title text` of HTTP, `line text` of other texts, `binary`.

    said, said_behind: bytes at the beginning and end of the text that the form puts there, whatever answers.
    """

    head: bytes
    text: bytes
    flags: bytes
    form: str
    said: int = 0
    said_behind: int = 0

    @property
    def own(self) -> "Telling":
        """What the form does not say by itself."""
        return self._replace(text=self.text[self.said :], said=0)


def tellings(response: bytes) -> list[Telling]:
    """The parts of a response that tell what answered, the most telling first; each of another form."""
    if status := HTTP.match(response):
        return _of_http(response, status)
    text = _text_only(response[:LONGEST])
    if len(text) < len(response[:LONGEST]) and _letters(text) < LEAST_LETTERS:
        return [Telling(b"^", response[:BINARY_LONGEST], b"s", "binary")]
    end = text.find(b"\n") + 1 or len(text)
    while end < len(text) and _letters(text[:end]) < FEW_LETTERS:
        end = text.find(b"\n", end) + 1 or len(text)
    first = Telling(b"^", text[:end], b"", "line")
    return [first, Telling(b"^", text, b"", "text")] if end < len(text) else [first]


def telling(response: bytes, form: str = "") -> Telling | None:
    """The part of one form, None where the response has none; the most telling one where no form is asked for."""
    return next((part for part in tellings(response) if form in {"", part.form}), None)


def _of_http(response: bytes, status: re.Match[bytes]) -> list[Telling]:
    """A header that names a program, a page's title; and all from the status on."""
    lines = _LINES.match(response, status.end(), status.end() + MOST_HEADERS)
    headers = lines[0] if lines else b""
    head = HTTP_HEAD[response[:4]]
    found = []
    for form, pattern in _HEADERS:
        if line := pattern.search(headers):
            found.append(Telling(head, line[0][:LONGEST], b"", form, line.end(1) - line.start()))
    if response.startswith(b"HTTP") and (title := TITLE.search(response)):
        found.append(Telling(TITLE_HEAD, title[0], b"s", "title", len(b"<title>"), len(b"</title>")))
    code = status.start(1)
    text = _text_only(response[code : code + LONGEST])
    return [*found, Telling(head[: head.index(rb"[^\r")], text, b"", "text", status.end() - code)]


def _letters(text: bytes) -> int:
    return len(text) - len(text.translate(None, _ALPHABET))


def _text_only(data: bytes) -> bytes:
    """Up to the first byte that is no text."""
    rest = data.translate(None, _TEXT)
    return data[: data.index(rest[:1])] if rest else data


def tokens(part: Telling) -> list[Token]:
    """The tokens of its text, in order. Of what is no text, letters that chance put side by side make no word."""
    text = part.text[:LONGEST]
    found = []
    start = 0
    if code := REPLY_CODE.match(text):
        found.append(Token("word", code[0]))
        start = code.end()
    for each in _TOKEN.finditer(text, start):
        kind, value = each.lastgroup or "mark", each[0]
        if part.form == "binary" and kind not in {"date", "version"}:
            found += [Token("mark", value[at : at + 1]) for at in range(len(value))]
            continue
        if kind == "hex" and value.isdigit():
            kind = "number"
        elif kind in {"hex", "base64"} and not (any(map(_is_digit, value)) and any(map(_is_letter, value))):
            kind = "word"
        found.append(Token(kind, value))
    return found


def _is_digit(code: int) -> bool:
    return 0x30 <= code <= 0x39


def _is_letter(code: int) -> bool:
    return not _is_digit(code)


def mask(found: list[Token]) -> bytes:
    """The text with what varies by its kind; equal for copies of one program."""
    return b"".join(token.key for token in found)
