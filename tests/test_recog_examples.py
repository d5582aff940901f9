"""Every example of Recog's own files: as a text, and in the answer of a service that would say it.

The files are not part of this project; without ../shared/data/recog, or the folder in PROBEMILL_RECOG, these tests are
skipped.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from peers import row

from bench.coverage import FOLDER, PLACES, Example, ber, examples, http, snmp
from engine.model import ServiceResult, TlsFacts
from engine.post.base_texts import KEYS, readings, surroundings
from matcher import Recog, load_recog

RECOG = Path(os.environ.get("PROBEMILL_RECOG", FOLDER))
pytestmark = pytest.mark.skipif(not RECOG.is_dir(), reason="Recog's files are not there")

WRONG = {  # file and description: why such an example is not identified
    "smtp_banners.xml: Norton Antivirus for Internet Email Gateways (becomes NAVGW in 2.1)": (
        "`(.+)*` before a literal: PCRE tries every way to cut the text, and reaches the match limit"
    ),
}
NOT_HELD = {  # key: why no row has such a text
    "architecture": "a table of words to look up in what another fingerprint gave; it matches within any text",
    "h323_callresp": "no probe sets up a call",
    "smtp_debug": "no probe sends DEBUG",
    "smtp_expn": "no probe sends EXPN",
    "smtp_mailfrom": "no probe begins a mail",
    "smtp_noop": "no probe sends NOOP",
    "smtp_rcptto": "no probe begins a mail",
    "smtp_rset": "no probe sends RSET",
    "smtp_turn": "no probe sends TURN",
    "smtp_vrfy": "no probe sends VRFY",
}


@pytest.fixture(scope="module")
def recog() -> Recog:
    return load_recog(RECOG)


@pytest.fixture(scope="module")
def all_examples() -> list[Example]:
    return list(examples(RECOG))


def expected(example: Example) -> dict[str, str]:
    """What the fingerprint says of its example: constants without references, and what the example adds."""
    return {name: value for name, value in example.said.items() if value and "{" not in value}


def test_every_example_is_identified_as_recog_does(recog: Recog, all_examples: list[Example]) -> None:
    """By its own fingerprint, with every field that the files tell of it."""
    assert len(all_examples) > 1000
    wrong: Counter[str] = Counter()
    for example in all_examples:
        match = recog.identify(example.key, example.text)
        if match is None or " ".join(example.where.split()) != match.source:
            wrong[example.where] += 1
        elif differences := expected(example).items() - match.fields.items():
            wrong[f"{example.where}: {dict(differences)}"] += 1
    assert dict.fromkeys(WRONG, 1) == wrong


def test_what_cannot_be_used_is_told(recog: Recog) -> None:
    assert [str(one).rpartition(" (")[0] for one in recog.skipped] == list(WRONG)


# -- in its place


def in_header(response: bytes) -> tuple[str, str, bytes]:
    return "http", "tcp", response


def mdns(label: bytes, text: bytes) -> bytes:
    name = b"\x03box" + bytes((len(label),)) + label + b"\x04_tcp\x05local\0"
    question = name + b"\0\x10\0\x01"
    strings = bytes((len(text),)) + text
    record = b"\xc0\x0c\0\x10\0\x01\0\0\0\x0a" + len(strings).to_bytes(2, "big") + strings
    return b"pm\x84\0\0\x01\0\x01\0\0\0\0" + question + record


def dhcp(text: bytes) -> bytes:
    options = b"\x35\x01\x05\0" + bytes((60, len(text))) + text + b"\xff"
    return b"\x02\x01\x06\0" + bytes(232) + b"\x63\x82\x53\x63" + options


def object_id(text: bytes) -> bytes:
    """The description stands behind the number, or alone."""
    if not text[:1].isdigit():
        return snmp(text)
    number, _, description = text.partition(b" ")
    first, second, *rest = map(int, number.split(b"."))
    encoded = bytes((40 * first + second,))
    for value in rest:
        digits = [value & 0x7F]
        while value := value >> 7:
            digits.append(value & 0x7F | 0x80)
        encoded += bytes(reversed(digits))
    return snmp(description, encoded)


OTHERS: dict[str, Callable[[bytes], tuple[str, str, bytes]]] = {  # key -> service, protocol, response
    "apache_os": lambda text: in_header(
        http(b"Server: " + (text if b"Apache" in text else b"Apache (%b)" % text) + b"\r\n")
    ),
    "apache_modules": lambda text: in_header(http(b"Server: Apache/2.4 (Unix) " + text + b" x/1\r\n")),
    "ldap.search_result": lambda text: ("ldap", "tcp", ber(0x30, text)),
    "rsh_resp": lambda text: ("shell", "tcp", text),
    "hp_pjl_id": lambda text: ("hp-pjl", "tcp", b'@PJL INFO ID\r\n"' + text + b'"\r\n\x0c'),
    "mdns.device-info.txt": lambda text: ("mdns", "udp", mdns(b"_device-info", text)),
    "mdns.workstation.txt": lambda text: ("mdns", "udp", mdns(b"_workstation", text)),
    "dhcp_vendor_class": lambda text: ("dhcps", "udp", dhcp(text)),
    "snmp.sys_object_id": lambda text: ("snmp", "udp", object_id(text)),
    "smtp_help": lambda text: ("smtp", "tcp", b"220 host\r\n" + text + b"\r\n"),
    "smtp_ehlo": lambda text: ("smtp", "tcp", b"220 host\r\n" + text + b"\r\n"),
    "smtp_quit": lambda text: ("smtp", "tcp", b"220 host\r\n" + text + b"\r\n"),
}
NAMES = {
    "snmp": "snmp",
    "ssh": "ssh",
    "ftp": "ftp",
    "smtp": "smtp",
    "pop3": "pop3",
    "imap4": "imap",
    "nntp": "nntp",
} | {
    "mysql": "mysql",
    "dns": "domain",
    "ntp": "ntp",
    "smb": "microsoft-ds",
    "x11": "X11",
    "telnet_banners": "telnet",
}
ROW = row("http", 80)
SURROUNDINGS: dict[str, Callable[[str], ServiceResult]] = {
    "x509.subject": lambda text: replace(ROW, tls=TlsFacts(subject=text)),
    "x509.issuer": lambda text: replace(ROW, tls=TlsFacts(issuer=text)),
    "favicon.md5": lambda text: replace(ROW, post={"favicon": {"md5": text}}),
    "tls.jarm": lambda text: replace(ROW, post={"jarm": text}),
    "operating_system.name": lambda text: replace(ROW, ostype=text),
}


def texts(example: Example) -> Iterator[tuple[str, bytes]]:
    """What is read of the answer, or of the row, that holds the example."""
    if around := SURROUNDINGS.get(example.key):
        yield from surroundings(around(example.text.decode()))
    elif place := OTHERS.get(example.key):
        yield from readings(*place(example.text))
    else:
        proto, _, make = PLACES[example.key]
        yield from readings(NAMES.get(example.key.partition(".")[0], ""), proto, make(example.text))


def test_every_example_is_found_in_its_place(recog: Recog, all_examples: list[Example]) -> None:
    """An answer that holds the text gives the same opinion as the text alone."""
    wrong: list[str] = []
    for example in all_examples:
        if example.key in NOT_HELD or example.where in WRONG:
            continue
        found = [recog.identify(key, text) for key, text in texts(example) if key == example.key]
        sources = {match.source: match for match in found if match is not None}
        match = sources.get(" ".join(example.where.split()))
        if match is None or expected(example).items() - match.fields.items():
            wrong.append(f"{example.where}: {example.text!r}")
    print(*wrong, sep="\n")
    assert wrong == []


def test_every_file_is_used_or_named(all_examples: list[Example], recog: Recog) -> None:
    assert set(recog.keys) - KEYS == set(NOT_HELD) & set(recog.keys)
