r"""The SF-Port text of a service that answered and was not recognised: what every probe got back, in printable form.

    SF-Port8080-TCP:V=0.1.0%I=7%D=11/21%Time=6B013C55%P=x86_64-pc-linux-gnu%r(
    SF:NULL,9,"unk\0\x01\x20\"x\"");

Pure: the time is an argument. When a fingerprint is given out is the scan's rule, not ours; this is only its text.
Follows the format that Nmap prints and that its submission page and other tools read, byte for byte.
"""

import re
from collections.abc import Iterator
from datetime import datetime

from engine.model import Tunnel
from matcher import Proto

COPIED_BYTES = 900  # of each response; Nmap's figure
COPIED_BYTES_DEBUG = 1300
FULL_LENGTH = 2200  # characters of text; once it is longer no further response is taken in
FULL_LENGTH_DEBUG = 10_000
LINE_WIDTH = 74  # characters of every line but the last, which also holds the final `;`
CONTINUATION = "\nSF:"

_NAMED = {ord("\0"): r"\0", ord("\r"): r"\r", ord("\n"): r"\n", ord("\t"): r"\t"}
_BACKSLASHED = rb'\?"[]().*+$^|'
_DIGITS = frozenset(b"0123456789")
_ESCAPED = re.compile(rb"\\(x[0-9A-Fa-f]{2}|.)", re.DOTALL)
_SHORT = {text[1:].encode(): bytes((byte,)) for byte, text in _NAMED.items()}
_RESPONSE = re.compile(rb'%r\((\w+),[0-9A-F]+,"((?:[^"\\]|\\.)*)"')


def _escape(byte: int) -> str:
    if byte in _NAMED:
        return _NAMED[byte]
    if byte in _BACKSLASHED:
        return "\\" + chr(byte)
    return chr(byte) if 0x20 < byte < 0x7F else f"\\x{byte:02x}"


_ESCAPES = tuple(map(_escape, range(256)))


def escape(data: bytes) -> str:
    r"""`data` as it stands between the quotes. A NUL before a digit is `\x00`, because `\01` would be read as octal."""
    text = [_ESCAPES[byte] for byte in data]
    nul = data.find(b"\0")
    while nul >= 0:
        if nul + 1 < len(data) and data[nul + 1] in _DIGITS:
            text[nul] = r"\x00"
        nul = data.find(b"\0", nul + 1)
    return "".join(text)


def wrap(text: str) -> str:
    """A fingerprint that is one line, broken into lines of 74 characters, the further ones behind `SF:`."""
    body = text.removesuffix(";")
    first, rest = body[:LINE_WIDTH], body[LINE_WIDTH:]
    step = LINE_WIDTH - len("SF:")
    lines = CONTINUATION.join([first, *(rest[at : at + step] for at in range(0, len(rest), step))])
    return lines + text[len(body) :]


def unwrap(text: str) -> str:
    """The text as one line, which is the form of XML's `servicefp`."""
    return text.replace(CONTINUATION, "")


def unescape(text: bytes) -> bytes:
    """What `escape` made of a response, the response again."""
    return _ESCAPED.sub(_unescaped, text)


def _unescaped(found: re.Match[bytes]) -> bytes:
    body = found[1]
    return bytes((int(body[1:], 16),)) if len(body) == 3 else _SHORT.get(body, body)


def responses(text: str) -> Iterator[bytes]:
    """The responses that a fingerprint holds copies of; that to a plain GET first."""
    for _, response in sorted(answers(text), key=lambda answer: answer[0] != "GetRequest"):
        yield response


def answers(text: str) -> Iterator[tuple[str, bytes]]:
    """The responses that a fingerprint holds copies of, each with the name of its probe, in order."""
    for name, body in _RESPONSE.findall(unwrap(text).encode("latin-1", "replace")):
        yield name.decode(), unescape(body)


class Fingerprint:
    """Responses of one service, collected in the order in which the probes ended."""

    def __init__(
        self,
        port: int,
        proto: Proto,
        *,
        version: str,
        intensity: int,
        platform: str,
        tunnel: Tunnel = Tunnel.NONE,
        debug: bool = False,
    ) -> None:
        """version: the program's; platform: the triplet of the machine it runs on; debug: copy more (trace mode)."""
        ssl = "%T=SSL" if tunnel is Tunnel.SSL else ""
        self._before = f"SF-Port{port}-{proto.upper()}:V={version}{ssl}%I={intensity}"
        self._after = f"%P={platform}"
        self._copied = COPIED_BYTES_DEBUG if debug else COPIED_BYTES
        self._full = FULL_LENGTH_DEBUG if debug else FULL_LENGTH
        self._taken: list[tuple[str, int, bytes]] = []  # probe, bytes of the response, what is copied of it
        self._size = 0  # of all copies; the text is no shorter
        self._began = 0.0

    def add(self, probe: str, response: bytes, now: float) -> None:
        """Take in what `probe` got back, all of it. now: seconds since the epoch; the first item dates the whole.

        An empty response is no item, and a text that is long enough takes no more.
        """
        if not response or self._size > self._full:
            return
        if not self._taken:
            self._began = now
        copied = response[: self._copied]
        self._taken.append((probe, len(response), copied))
        self._size += len(copied)

    @property
    def text(self) -> str:
        """Lines of 74 characters, the further ones behind `SF:`; empty when nothing ever answered.

        Made when it is asked for: most services that answer a probe in vain are recognised by a later one.
        """
        if not self._taken:
            return ""
        day = datetime.fromtimestamp(self._began)  # the local date, as people read it
        text = f"{self._before}%D={day.month}/{day.day}%Time={int(self._began):X}{self._after}"
        for number, (probe, size, copied) in enumerate(self._taken):
            if number and _wrapped_length(len(text)) > self._full:
                break
            text += f'%r({probe},{size:X},"{escape(copied)}")'
        return wrap(text + ";")


def _wrapped_length(length: int) -> int:
    """How long a text of `length` characters is with its line breaks."""
    step = LINE_WIDTH - len("SF:")
    return length + len(CONTINUATION) * max(0, -(-(length - LINE_WIDTH) // step))
