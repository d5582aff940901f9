"""Lines that fit more than they say: which known responses each line of a database wins, and whose they are.

A known response is a sample: it says who gave it, in `expect` or, for a real one, in `source`. Every line is asked
about every known response of its protocol, whatever probe that answered: a service that does not understand a probe
tends to say the same to all of them. What counts is the line that wins among the lines of its probe, because a general
line behind particular ones does no harm.

Who is another product (`related`): where both name an application's CPE, it is another one if they share neither vendor
nor product; else if the names of the products share no word but common ones. It never is where the response itself
spells such a word of the line's, nor where a known response names no product and its service is the line's. A line
without a product is asked about the service alone.

Contract: `known_wins` is pure, and its order is the file's. A wrong line may go unnoticed; few are accused that are right.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from matcher.database.samples import Expected, Sample, answer
from matcher.matcher import Matcher
from matcher.model import ProbeDatabase, Signature

SHOWN_VICTIMS = 3
LEAST_WORD = 3  # bytes, for a word that a response spells, or that another word contains

# Words that many products share: they do not make two names the same product.
_COMMON = frozenset(
    (
        "admin agent and application bytes camera client config configuration console control daemon debian device "
        "directory dns embedded first for from ftp ftpd http http2 httpd https imap imapd interface internet linux mail "
        "management media network nntp ntp open pop pop3 pop3d print printer proxy real remote router rtsp rtspd "
        "secure server service sip smtp smtpd snmp software ssh sshd status storage switch system telnet telnetd the "
        "ubuntu unix version web windows with"
    ).split()
)
_WORD = re.compile(r"[a-z][a-z0-9]+")
_PROTOCOL = re.compile(r"(?:tls|ssl|snmp|smb|http|imap|pop)v?\d")
_SOURCE = re.compile(r"real: ([^(,;]+)")


class Wins(Struct):
    """What a line wins of known responses. own: of its own product; others: each with what the line said of it."""

    signature: Signature
    own: int = 0
    others: list[tuple[Sample, Expected]] = []

    def __str__(self) -> str:
        victims = dict.fromkeys(_named(sample) for sample, _ in self.others)
        shown = ", ".join(list(victims)[:SHOWN_VICTIMS]) + (", ..." if len(victims) > SHOWN_VICTIMS else "")
        said = self.others[0][1]
        return (
            f"says {said.product or said.name} of {len(self.others)} known responses of others ({shown}),"
            f" and of {self.own} of its own"
        )


def known_wins(database: ProbeDatabase, samples: Sequence[Sample], engine: str = "auto") -> dict[int, Wins]:
    """By signature id, every line that wins a known response. samples: those that expect nothing are left out."""
    matcher = Matcher(database, engine)
    alone = [replace(probe, lists=(probe.index,)) for probe in database.probes]
    found: dict[int, Wins] = {}
    for sample in samples:
        if sample.expect is None:
            continue
        for probe in alone:
            match = matcher.match(probe, sample.response) if probe.proto == sample.proto else None
            if match is None:
                continue
            said = answer(match)
            wins = found.setdefault(match.signature.id, Wins(match.signature))
            kin = related(said, sample) if said else None
            if kin:
                wins.own += 1
            elif kin is False and said:
                wins.others.append((sample, said))
    return dict(sorted(found.items()))


def broad_lines(wins: Iterable[Wins]) -> Iterator[Wins]:
    """Those that win responses of others, most first."""
    yield from sorted((line for line in wins if line.others), key=lambda line: -len(line.others))


def related(said: Expected, sample: Sample) -> bool | None:
    """Whether what a line said of a sample is of the sample's own product; None where it cannot be told."""
    known = sample.expect
    assert known is not None
    mine, theirs = _applications(said), _applications(known) if known.product else set()
    named = bool(mine and theirs)
    if not named:
        mine |= _words(said.product)
        theirs |= _words(known.product, *_SOURCE.findall(sample.source))
        named = bool(theirs)
        theirs |= _words(known.name)
        mine -= _words(said.name) if said.name == known.name else set()
    if not mine:
        return _service(said) == _service(known) or None
    if mine & theirs or _one_name(said.product, known.product):
        return True
    if any(one in other or other in one for one in _long(mine) for other in _long(theirs)):
        return True
    response = sample.response.lower()
    if any(word.encode() in response for word in _long(mine)):
        return True
    return None if not named and _service(said) == _service(known) else False


def _words(*texts: str) -> set[str]:
    found = {word for text in texts for word in _WORD.findall(text.lower())}
    return {word for word in found - _COMMON if not _PROTOCOL.fullmatch(word)}


def _applications(said: Expected) -> set[str]:
    """Vendor and product of the application's CPE."""
    return _words(*(" ".join(cpe.split(":")[2:4]).replace("_", " ") for cpe in said.cpe if cpe.startswith("cpe:/a")))


def _long(words: set[str]) -> list[str]:
    return [word for word in words if len(word) >= LEAST_WORD]


def _one_name(one: str, other: str) -> bool:
    """Whether the word that one name begins with stands in the other, or one is the initials of the other."""
    for first, second in ((one.lower(), other.lower()), (other.lower(), one.lower())):
        words, others = _WORD.findall(first), _WORD.findall(second)
        if words and others and (words[0] in others or "".join(word[0] for word in words) in others):
            return True
    return False


def _service(said: Expected) -> str:
    return said.name.rpartition("/")[2]


def _named(sample: Sample) -> str:
    known = sample.expect
    assert known is not None
    source = _SOURCE.match(sample.source)
    return known.product or (source[1].strip() if source else known.name)
