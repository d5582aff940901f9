"""Whether two answers speak of one program: the service, the product and the CPE that each gives.

Names of products are nobody's standard, so this errs on the side of one program. Where both name an application's CPE,
its vendor and product decide; else the words of the product's name, without those that many share. `Postfix smtpd` and
`Postfix` are one program, so are `mpd` and `Music Player Daemon`, and `nginx` whoever its vendor is.
"""

import re
from collections.abc import Iterable

from msgspec import Struct

LEAST_WORD = 3  # characters, for a word that may stand inside another, or in a response

# Words that many products share: they do not make two names the same product.
_COMMON = frozenset(
    {"admin", "agent", "and", "application", "bytes", "camera", "client", "config", "configuration", "console"}
    | {"control", "daemon", "debian", "device", "directory", "dns", "embedded", "first", "for", "from", "ftp"}
    | {"ftpd", "http", "http2", "httpd", "https", "imap", "imapd", "interface", "internet", "linux", "mail"}
    | {"management", "media", "network", "nntp", "ntp", "open", "pop", "pop3", "pop3d", "print", "printer"}
    | {"proxy", "real", "remote", "router", "rtsp", "rtspd", "secure", "server", "service", "sip", "smtp"}
    | {"smtpd", "snmp", "software", "ssh", "sshd", "status", "storage", "switch", "system", "telnet", "telnetd"}
    | {"the", "ubuntu", "unix", "version", "web", "windows", "with"}
)
_WORD = re.compile(r"[a-z][a-z0-9]+")
_PROTOCOL = re.compile(r"(?:tls|ssl|snmp|smb|http|imap|pop)v?\d")


class Said(Struct, frozen=True):
    """An answer. source: where somebody wrote down who gave the response, and the answer itself names nobody."""

    name: str
    product: str = ""
    cpe: tuple[str, ...] = ()
    source: str = ""

    @property
    def service(self) -> str:
        """Without the tunnel that some lines write before it."""
        return self.name.rpartition("/")[2]


def akin(said: Said, known: Said, response: bytes = b"") -> bool | None:
    """Whether `said` may be of the program that `known` is; None where `known` tells no more than the same service.

    response: of that program; a name that it spells itself is its own.
    """
    mine, theirs = _applications(said), _applications(known) if known.product else set()
    named = bool(mine and theirs)
    if not named:
        mine |= _words(said.product)
        theirs |= _words(known.product, known.source)
        named = bool(theirs)
        theirs |= _words(known.name)
        mine -= _words(said.name) if said.name == known.name else set()
    if not mine:
        return said.service == known.service or None
    if mine & theirs or _one_name(said.product, known.product):
        return True
    if any(one in other or other in one for one in _long(mine) for other in _long(theirs)):
        return True
    lower = response.lower()
    if any(word.encode() in lower for word in _long(mine)):
        return True
    return None if not named and said.service == known.service else False


def _words(*texts: str) -> set[str]:
    found = {word for text in texts for word in _WORD.findall(text.lower())}
    return {word for word in found - _COMMON if not _PROTOCOL.fullmatch(word)}


def _applications(said: Said) -> set[str]:
    """Vendor and product of the application's CPE."""
    return _words(*(" ".join(cpe.split(":")[2:4]).replace("_", " ") for cpe in said.cpe if cpe.startswith("cpe:/a")))


def _long(words: Iterable[str]) -> list[str]:
    return [word for word in words if len(word) >= LEAST_WORD]


def _one_name(one: str, other: str) -> bool:
    """Whether the word that one name begins with stands in the other, or one is the initials of the other."""
    for first, second in ((one.lower(), other.lower()), (other.lower(), one.lower())):
        words, others = _WORD.findall(first), _WORD.findall(second)
        if words and others and (words[0] in others or "".join(word[0] for word in words) in others):
            return True
    return False
