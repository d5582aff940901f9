"""Bytes of an input -> text, and what in a text is talk of a program, not a row.

UTF-8 with or without a byte order mark; UTF-16 and UTF-32 by their mark, UTF-16 also without one where the first
characters are ASCII and so every other byte is NUL. Bytes that are no UTF-8 come out as lone surrogates: they spoil the
line in which they stand and nothing else. Byte order marks, which stand where files were joined, are left out anywhere.
"""

import codecs
import re

_MARKS = (  # the longer first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LONGEST_MARK = 4
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # colours of a terminal

# What scanners print beside their rows, for the case that somebody redirected both into one file. Sources: masscan's
# main.c and main-status.c, zmap's monitor.c and logger.c, the log labels of naabu, httpx and their family, Nmap.
_STATUS = re.compile(
    r"""\s*+(?:\^C)?(?:
        Starting\ masscan\b | Initiating\ .*(?:Scan|scan)\b | Scanning\ \d+\ hosts?\ \[ | rate:\s*[\d.,]+-kpps
      | waiting\ (?:several|\d+)\ sec | saving\ resume\ file | exiting\.\.\. | --\ forced\ options: | \[[+-]\]\ \S
      | Banner\ on\ port\ \d
      | (?:Starting\ Nmap|Nmap\ done|Read\ data\ files|Stats:|QUITTING!|RTTVAR\ has|Increasing\ send\ delay)
      | (?:WARNING|Warning|NOTE|Note|FAIL|\[hint\]):?\ \S
      | \d+:\d\d(?::\d\d)?\ \d+%
      | [A-Z][a-z]{2}\ +\d+\ [\d:.]+\ \[(?:DEBUG|INFO|WARN|ERROR|FATAL)\]
      | \[(?:INF|WRN|ERR|DBG|FTL|VER)\]\ | projectdiscovery\.io\s*$
      | (?=.*[_/\\])[\s_/\\|()`',.<>-]*+$  # a picture of letters
    )""",
    re.VERBOSE,
)

_ROW = re.compile(
    r"\s*+(?:\[?[\w.%:-]+\]?:\d+(?:/\w+)?|[\d.]{7,}(?:/\d+)?|[\da-fA-F]*:[\da-fA-F:]+|open (?:tcp|udp) \d.*|\{.*)\s*$"
)


class Decoder:
    """An input's text, piece by piece; where the bytes were cut makes no difference."""

    def __init__(self) -> None:
        self._opening = b""
        self._codec: codecs.IncrementalDecoder | None = None

    def decode(self, chunk: bytes, *, final: bool = False) -> str:
        """The text of the next bytes. final: no more will come."""
        if self._codec is None:
            chunk = self._opening + chunk
            if len(chunk) < _LONGEST_MARK and not final:
                self._opening = chunk
                return ""
            self._opening = b""
            encoding = _encoding(chunk)
            errors = "surrogateescape" if encoding == "utf-8" else "replace"
            self._codec = codecs.getincrementaldecoder(encoding)(errors)
        text = self._codec.decode(chunk, final)
        return text.replace("\ufeff", "") if "\ufeff" in text else text


def is_status(line: str) -> bool:
    """Whether a line is a scanner's message to its user: never a target, and no fault either."""
    return _STATUS.match(line) is not None


def may_be_row(line: str) -> bool:
    """Whether a line among text for people looks like a target or a row of another form."""
    return _ROW.match(line) is not None


def without_escapes(line: str) -> str:
    """A line without the colours it had on a terminal."""
    return _ESCAPES.sub("", line)


def reason_for(line: str, reason: str) -> str:
    """`reason`, or the better one where a line is in another encoding than the input's beginning."""
    if line.count("\0") * 3 >= len(line) > 0:
        return "UTF-16 text in the middle of other text; convert the input to UTF-8"
    return reason


def _encoding(opening: bytes) -> str:
    for mark, name in _MARKS:
        if opening.startswith(mark):
            return name
    match [byte == 0 for byte in opening[:_LONGEST_MARK]]:
        case [False, True, False, True]:
            return "utf-16-le"
        case [True, False, True, False]:
            return "utf-16-be"
    return "utf-8"
