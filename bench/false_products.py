"""Does our own database ever name a wrong product? `python -m bench.false_products`

Every sample, and every `mutated` response of the golden corpus (../shared/golden, where present), is tried with the
lines of every probe of its protocol, whatever it was an answer to. A product is right when it is the one expected, or
when the pair stands in CHECKED, or when nothing is expected of the response (a mutation broke the line that named it)
and the response still spells a distinctive word of the product. Everything else is wrong.

Prints the table of docs/fidelity.md. Exit code 1 when a product is wrong.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator

from msgspec import Struct

from bench.corpora import GOLDEN, SAMPLES, golden_rows
from matcher import Match, Matcher, Proto, load_database
from matcher.confidence import ROLE
from matcher.database.samples import read_samples

CHECKED = {  # (service found, a word of the product expected or "" for none, product found): why both are true
    ("http", "PHP", "Roundcube webmail"): "Roundcube runs on PHP's server",
    ("smtp", "", "Courier smtpd"): "Courier's wording; the answer is the same to two probes",
    ("smtp", "Dovecot", "Dovecot"): "the greeting alone, before the answer",
    ("vnc", "", "VNC"): "the protocol's own name",
    ("telnet", "APC", "APC PDU or UPS or Windows CE telnetd"): "wording",
    ("pop3", "Domino", "Domino pop3d"): "wording",
    ("http", "Zeus", "Zeus httpd"): "the server, without its role",
    ("http", "IP_SHARER", "Netgear WPn8 httpd"): "the realm says NETGEAR",
    ("http-proxy", "", "HAProxy"): "its own 503 page, word by word",
    ("http", "", "Plesk sw-cp-server httpd"): "the Server header says sw-cp-server",
    ("http", "Netgear", "Netgear DG25r httpd"): "the realm says NETGEAR",
    ("http-proxy", "Polipo", "Polipo"): "wording",
    ("http-proxy", "Varnish", "Varnish"): "wording",
    ("http", "ZNC", "ZNC webadmin"): "wording",
    ("http", "Linksys", "Linksys WRTbb httpd"): "the realm says WRTbb",
    ("http", "Linksys", "Linksys WRT54GS httpd"): "wording",
    ("http", "", "Dell PowerVault 124T"): "its own title",
    ("http", "MS", "Microsoft .NET Remoting httpd"): "wording",
    ("http", "Netscape", "Netscape FastTrack httpd"): "wording",
    ("pop3pw", "ApplePasswordServer", "Apple Open Directory password server"): "whose ApplePasswordServer is",
    ("http", "", "Eaton ConnectUPS httpd"): "the Server header says UPS_Server",
    ("http", "", "Imperva Incapsula CDN"): "its own X-Iinfo header",
    ("http", "", "Citrix NetScaler Gateway"): "its own redirect, with its own spelling of Moved",
    ("sip", "AVM", "AVM FRITZ!Box SIP"): "the family, without its model",
}
COMMON = {"http", "httpd", "https", "proxy", "server", "service", "console", "daemon", "admin", "config", "interface"}
_WORD = re.compile(r"[a-z0-9]{3,}")
_ROLE = re.compile(ROLE + "$")


class Response(Struct, frozen=True):
    """Something heard. service, product: what is expected of it; empty where nothing is."""

    kind: str
    proto: Proto
    data: bytes
    service: str = ""
    product: str = ""


class Finding(Struct, frozen=True):
    """A product that is not the expected one, found with a probe's lines. verdict: checked, quoted, spelled, wrong."""

    response: Response
    probe: str
    match: Match
    verdict: str

    def __str__(self) -> str:
        expected = " ".join(filter(None, (self.response.service, self.response.product))) or "nothing"
        found = f"{self.match.service} {self.match.info.product}"
        line = self.match.signature.line
        return f"{self.verdict}: {self.probe} line {line}: {found}, expected {expected}: {self.response.data[:60]!r}"


def of_samples() -> list[Response]:
    samples, _ = read_samples([SAMPLES])
    return [
        Response("sample", sample.proto, sample.response)
        if sample.expect is None
        else Response("sample", sample.proto, sample.response, sample.expect.name, sample.expect.product)
        for sample in samples
    ]


def of_golden() -> Iterator[Response]:
    for row in golden_rows():
        if row.kind == "mutated":
            named = (row.expect.name, row.expect.product) if row.expect else ("", "")
            yield Response("mutated", row.proto, row.data, *named)


def judged(response: Response, match: Match) -> str:
    product = match.info.product
    words_expected = response.product.split() or [""]
    if any((match.service, word, product) in CHECKED for word in words_expected):
        return "checked"
    if _ROLE.sub("", product).lower().encode() in response.data.lower():
        return "quoted"
    words = set(_WORD.findall(product.lower())) - COMMON
    if response.kind == "mutated" and not response.product and any(w.encode() in response.data.lower() for w in words):
        return "spelled"
    return "wrong"


def findings(responses: Iterable[Response], matcher: Matcher) -> Iterator[Finding]:
    """One finding per response and unexpected product; the products as expected give none."""
    probes = matcher.database.probes
    for response in responses:
        seen = {response.product, ""}
        for probe in probes:
            match = matcher.match(probe, response.data) if probe.proto == response.proto else None
            if match is not None and match.info.product not in seen:
                seen.add(match.info.product)
                yield Finding(response, probe.name, match, judged(response, match))


def main() -> int:
    database = load_database("builtin")
    matcher = Matcher(database, "auto")
    probes = Counter(probe.proto for probe in database.probes)
    corpora = {"samples": of_samples(), "golden, mutated": list(of_golden()) if GOLDEN.exists() else []}
    wrong = 0
    print("| responses | how many | times tried | other words, checked | quoted | broken, still spelled | wrong |")
    print("|---|---|---|---|---|---|---|")
    listed = []
    for name, responses in corpora.items():
        found = list(findings(responses, matcher))
        verdicts = Counter(finding.verdict for finding in found)
        tried = sum(probes[response.proto] for response in responses)
        counts = (len(responses), tried, *(verdicts[name] for name in ("checked", "quoted", "spelled", "wrong")))
        print(f"| {name} | " + " | ".join(f"{count:,}" for count in counts) + " |")
        wrong += verdicts["wrong"]
        listed += found
    print()
    for finding in listed:
        print(finding)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
