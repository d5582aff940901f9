"""A second opinion from Recog's fingerprints, on what the probe database left open.

Contract: `RecogOpinion.on(result, response)` gives the result with product, version, host name, operating system,
kind of device and CPE filled in where they were empty, the fingerprint's name in the evidence, and all that it said
under `post`; or the result as it was. Nothing that a line of the database said is changed. Of an opinion on another
product than the line's nothing is taken, or what it says of the system where its text is about it; nobody is contacted.
Source: what the fingerprint files say of the texts they match.
"""

import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from msgspec.structs import replace

from engine.conversation.fingerprint import responses
from engine.conversation.opinion import is_judged, judged
from engine.model import Also, Evidence, Json, ServiceResult, Verdict
from engine.post.base import TEXT, identified, noted
from engine.post.base_records import Reading
from engine.post.base_texts import APACHE_MODULES, KEYS, OF_THE_SYSTEM, SERVICES, readings, surroundings
from engine.text import one_line
from matcher import Recog, RecogMatch, load_recog

log = logging.getLogger("probemill.recog")

SHOWN = 20  # skipped fingerprints that are named; the rest is counted
SYSTEM = ("extrainfo", "hostname", "ostype", "devicetype")  # fields that say nothing of the product
OPEN_VERDICTS = (Verdict.HARDMATCHED, Verdict.SOFTMATCHED, Verdict.NOMATCH)

# Words that many products share: they do not make two names the same product.
_COMMON = frozenset(
    {"and", "client", "daemon", "device", "directory", "dns", "ftp", "ftpd", "http", "httpd", "imap", "imapd", "linux"}
    | {"internet", "mail", "nntp", "ntp", "open", "pop", "pop3", "pop3d", "proxy", "rtsp", "rtspd", "secure", "server"}
    | {"service", "sip", "smtp", "smtpd", "snmp", "ssh", "sshd", "telnet", "telnetd", "the", "unix", "web", "windows"}
)
_WORD = re.compile(r"[a-z0-9]{2,}")


class RecogOpinion:
    """Fingerprints at hand; holds nothing of the results it is asked about."""

    def __init__(self, recog: Recog) -> None:
        self._recog = recog

    def on(self, result: ServiceResult, response: bytes = b"") -> ServiceResult:
        """The result with what was empty filled in. response: what the scan received last."""
        if result.verdict not in OPEN_VERDICTS or (result.product and result.cpe and _has_system(result)):
            return result
        try:
            return self._best(result, response)
        except Exception:  # whatever a hostile answer does to a parser: the row goes on as it was
            return result

    def _best(self, result: ServiceResult, response: bytes) -> ServiceResult:
        """By the first text that gives the product, else by the first that gives anything; then those on the system."""
        best = result
        decided = bool(result.product and result.cpe)
        heard: dict[str, RecogMatch] = {}
        modules: list[Json] = []
        for key, text in _readings(result, response):
            if decided and key not in OF_THE_SYSTEM and key != APACHE_MODULES:
                continue
            if (match := self._recog.identify(key, text)) is None:
                continue
            if key == APACHE_MODULES:
                modules.append(_texts(match))
                continue
            same = not result.product or _same_product(result.product, match.fields)
            if same or key in OF_THE_SYSTEM:
                heard.setdefault(key, match)
            if same and not decided:
                filled = _filled(result, key, match)
                if filled is not result and (filled.product or best is result):
                    best = filled
                    decided = bool(filled.product)
        for key, match in heard.items():
            if key in OF_THE_SYSTEM:
                best = _with_system(best, match)
        facts: dict[str, Json] = {key: _facts(match) for key, match in heard.items() if _says_something(match)}
        if modules:
            facts[APACHE_MODULES] = modules
        return _noted(best, facts) if facts else best


def _has_system(result: ServiceResult) -> bool:
    return bool(result.ostype) and any(name.startswith("cpe:/o:") for name in result.cpe)


def _readings(result: ServiceResult, response: bytes) -> Iterator[Reading]:
    """All texts there are."""
    copies = responses(result.fingerprint) if result.fingerprint else ()
    for data in (response, *copies):
        yield from readings(result.name, result.proto, data)
    yield from surroundings(result)


class Beside:
    """What the fingerprints say of a result, beside it instead of in it."""

    def __init__(self, opinion: RecogOpinion) -> None:
        self._opinion = opinion

    def on(self, result: ServiceResult, response: bytes = b"") -> ServiceResult:
        """The result with `also` and `reasons` as a second database would give them; as it was where nobody knows."""
        if result.also is not None or is_judged(result):
            return result
        bare = replace(result, product="", version="", cpe=())
        said = self._opinion.on(bare, response)
        if not said.product or said.evidence is None:
            return result
        source = said.evidence.recog
        also = Also(name=said.name, product=said.product, version=said.version, line=0, database="recog", recog=source)
        return judged(result, also, said.cpe)


@lru_cache(maxsize=2)
def open_opinion(folder: str) -> RecogOpinion:
    """The fingerprints of a folder, ready. Raises MatcherError. What had to be left out is said in one line."""
    recog = load_recog(Path(folder).expanduser(), KEYS)
    if recog.skipped:
        named = "; ".join(map(str, recog.skipped[:SHOWN]))
        more = f"; and {len(recog.skipped) - SHOWN} more" if len(recog.skipped) > SHOWN else ""
        log.info(
            "%s: %d fingerprints, %d skipped for their patterns: %s%s",
            folder,
            recog.size,
            len(recog.skipped),
            named,
            more,
        )
    return RecogOpinion(recog)


def _filled(result: ServiceResult, key: str, match: RecogMatch) -> ServiceResult:
    """The result with what the match says of its empty fields; the same object where that is nothing."""
    changes = {name: value for name, value in _opinion(match.fields).items() if value and not getattr(result, name)}
    filled = _changed(result, match, changes, ("service", "hw", "os"))
    if "product" not in changes or (result.method != "probed" and key not in SERVICES):
        return filled
    name = result.name if result.method == "probed" else SERVICES[key] or result.name
    return replace(filled, name=name, method="probed", conf=10, verdict=Verdict.HARDMATCHED, reason=None)


def _with_system(result: ServiceResult, match: RecogMatch) -> ServiceResult:
    """The result with what the match says of the system it runs on; the product stays as it is."""
    opinion = {name: value for name, value in _opinion(match.fields).items() if name in SYSTEM}
    changes = {name: value for name, value in opinion.items() if value and not getattr(result, name)}
    return _changed(result, match, changes, ("hw", "os"))


def _changed(
    result: ServiceResult, match: RecogMatch, changes: dict[str, str], things: tuple[str, ...]
) -> ServiceResult:
    """The result with these fields set, CPE names of these things, and the match in its evidence; else the same."""
    cpe = _joined(result.cpe, match, things)
    if not changes and cpe == result.cpe:
        return result
    evidence = result.evidence or Evidence("", 0)
    if "product" in changes or not evidence.recog:
        evidence = replace(evidence, recog=match.source)
    filled = replace(identified(result, **changes), cpe=cpe, evidence=evidence)
    return replace(filled, method=result.method, conf=result.conf, verdict=result.verdict, reason=result.reason)


def _says_something(match: RecogMatch) -> bool:
    """Some fingerprints are there only to keep others from a text that tells nothing."""
    return any(_known(match.fields, name) for name in match.fields if not name.endswith(".certainty"))


def _facts(match: RecogMatch) -> dict[str, Json]:
    return {"fingerprint": match.source, **_texts(match)}


def _texts(match: RecogMatch) -> dict[str, Json]:
    return {name: one_line(value, TEXT) for name, value in match.fields.items()}


def _noted(result: ServiceResult, facts: dict[str, Json]) -> ServiceResult:
    """The result with Recog's own words, where there is room for them."""
    with suppress(ValueError):
        return noted(result, "recog", facts)
    return result


def _opinion(said: dict[str, str]) -> dict[str, str]:
    """Nmap's fields out of Recog's. Where no software is named, the device is the product."""
    thing = "service" if _named(said, "service") else "hw"
    system = _known(said, "os.version") and _named(said, "os")
    return {
        "product": _named(said, thing),
        "version": said.get(f"{thing}.version", ""),
        "extrainfo": f"{system} {said['os.version']}" if system else "",
        "hostname": said.get("host.name", ""),
        "ostype": _known(said, "os.product") or _known(said, "os.family"),
        "devicetype": _device(_known(said, "hw.device") or _known(said, "os.device")),
    }


def _known(said: dict[str, str], name: str) -> str:
    """A value that is one, and that the fingerprint stands by."""
    value = said.get(name, "")
    return "" if _is_doubtful(said, name.partition(".")[0]) or value in ("Unknown", "General") else value


def _is_doubtful(said: dict[str, str], thing: str) -> bool:
    return said.get(thing + ".certainty") in ("0", "0.0")


def _named(said: dict[str, str], thing: str) -> str:
    """The product with its vendor before it: many of Recog's products are called no more than `HTTPD`."""
    product, vendor = _known(said, thing + ".product"), _known(said, thing + ".vendor")
    return product if not product or vendor.lower() in product.lower() else f"{vendor} {product}"


def _device(kind: str) -> str:
    """As Nmap writes kinds of devices: `router`, but `WAP`."""
    return kind if kind.isupper() else kind.lower()


def _joined(cpe: tuple[str, ...], match: RecogMatch, things: tuple[str, ...]) -> tuple[str, ...]:
    """One name for application, hardware and operating system each, the result's own first."""
    parts = {name[5]: name for name in cpe}
    for thing in things:
        name = match.cpe.get(thing + ".cpe23") or match.cpe.get(thing + ".cpe", "")
        if not _is_doubtful(match.fields, thing) and re.fullmatch(r"cpe:/[aho]:[\x21-\x7e]+", name):
            parts.setdefault(name[5], re.sub(r"(?::-?)+$", "", name))
    return tuple(parts[part] for part in "aho" if part in parts)


def _same_product(product: str, said: dict[str, str]) -> bool:
    """Whether the opinion is on the product that is known already: they share a word that means something."""
    thing = "service" if _named(said, "service") else "hw"
    words = _words(said, f"{thing}.product", f"{thing}.family") or _words(said, f"{thing}.vendor")
    return bool(words & set(_WORD.findall(product.lower())))


def _words(said: dict[str, str], *names: str) -> set[str]:
    return {word for name in names for word in _WORD.findall(said.get(name, "").lower())} - _COMMON
