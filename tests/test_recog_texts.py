"""The texts that a second opinion reads beside banners and headers, and what a row keeps of it.

All fingerprints here are made up for these tests.
"""

import struct
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from peers import row
from test_fuzz_post import check_row
from test_recog import fingerprint, write
from test_recog_examples import dhcp, mdns

from bench.coverage import ber, http, smb, smb_message, snmp, x11
from engine.model import Evidence, ServiceResult, TlsFacts, Verdict
from engine.post.base_texts import KEYS, SERVICES, distinguished_name, readings, surroundings
from engine.post.recog_opinion import RecogOpinion
from matcher import Recog, load_recog

NET_SNMP = b"\x2b\x06\x01\x04\x01\xbf\x08\x03\x02\x0a"  # 1.3.6.1.4.1.8072.3.2.10


def smb_unicode(native_os: str, manager: str, blob: bytes = b"\x01\x02\x03") -> bytes:
    """Session setup with a security blob ([MS-SMB] 2.2.4.6.2): an odd place wants a byte before the names."""
    at = 32 + 1 + 8 + 2 + len(blob)
    names = "\0".join((native_os, manager, "")).encode("utf-16-le") + b"\0\0"
    rest = b"\x04\xff\0\0\0\0\0" + struct.pack("<H", len(blob))
    content = blob + bytes(at % 2) + names
    message = bytearray(smb_message(b"s", rest + struct.pack("<H", len(content)) + content))
    message[4 + 5 : 4 + 9] = b"\x16\0\0\xc0"
    message[4 + 10 : 4 + 12] = b"\x01\xc8"
    return bytes(message)


RECORDS: list[tuple[str, bytes, list[tuple[str, bytes]]]] = [
    (
        "snmp",
        snmp(b"Box", NET_SNMP),
        [
            ("snmp.sys_description", b"Box"),
            ("snmp.sys_object_id", b"Box"),
            ("snmp.sys_object_id", b"1.3.6.1.4.1.8072.3.2.10 Box"),
            ("snmp.sys_object_id", b"1.3.6.1.4.1.8072.3.2.10"),
        ],
    ),
    ("mdns", mdns(b"_device-info", b"model=Box"), [("mdns.device-info.txt", b"model=Box")]),
    ("mdns", mdns(b"_other", b"model=Box"), []),
    ("dhcps", dhcp(b"PXE"), [("dhcp_vendor_class", b"PXE")]),
    ("X11", x11(b"A vendor"), [("x11.vendor", b"A vendor")]),
    ("X11", b"\0" + x11(b"A vendor")[1:], []),
    ("netbios-ssn", smb(b"Box OS"), [("smb.native_lm", b"Samba 3.0.0"), ("smb.native_os", b"Box OS")]),
    ("microsoft-ds", smb_unicode("Ö 1", "M 2"), [("smb.native_lm", b"M 2"), ("smb.native_os", "Ö 1".encode())]),
    ("login", b"\x01Permission denied", [("rsh_resp", b"\x01Permission denied")]),
    ("hp-pjl", b'@PJL INFO ID\r\n"A PRINTER 9"\r\n\x0c', [("hp_pjl_id", b"A PRINTER 9")]),
    ("ldap", b"0\x03abc", [("ldap.search_result", b"0\x03abc")]),
    (
        "smtp",
        b"220 a\r\n214-help\r\n214 end\r\n500 what\r\n221 bye\r\n250 fine\r\n",
        [
            ("smtp.banner", b"a"),
            ("smtp_help", b"214-help"),
            ("smtp_help", b"214 end"),
            ("smtp_ehlo", b"500 what"),
            ("smtp_help", b"500 what"),
            ("smtp_quit", b"221 bye"),
        ],
    ),
    (
        "http",
        http(b"Server: Apache/2.4 (Box) PHP/8 mod_x/1\r\n", "<title> Sign in · ä </title>".encode()),
        [
            ("http_header.server", b"Apache/2.4 (Box) PHP/8 mod_x/1"),
            ("apache_os", b"Apache/2.4 (Box) PHP/8 mod_x/1"),
            ("apache_modules", b"(Box)"),
            ("apache_modules", b"PHP/8"),
            ("apache_modules", b"mod_x/1"),
            ("html_title", " Sign in · ä ".encode()),
            ("html_title", "Sign in · ä".encode()),
        ],
    ),
    ("http", http(b"", b"<title>\xe4</title>"), [("html_title", "ä".encode())]),
]


@pytest.mark.parametrize(("service", "response", "expected"), RECORDS)
def test_the_text_a_key_means(service: str, response: bytes, expected: list[tuple[str, bytes]]) -> None:
    """Titles are UTF-8 with their white space, and once more without it; records are taken apart."""
    assert list(readings(service, "tcp", response)) == expected
    assert {key for key, _ in expected} <= KEYS


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("CN=a,O=b\\, Inc.,C=US", "CN=a,O=b\\, Inc.,C=US"),
        ("2.5.4.5=SN 1,CN=a", "SERIALNUMBER=SN 1,CN=a"),
        ("CN=a,OU=second,OU=first,O=b", "CN=a,OU=first+OU=second,O=b"),
        ("CN=a,OU=one+OU=two,O=b", "CN=a,OU=one+OU=two,O=b"),
        ("CN=a,1.2.840.113549.1.9.1=x@y", "CN=a,1.2.840.113549.1.9.1=#0c03784079"),
        ("1.2.3=a\\,b", "1.2.3=#1303612c62"),
        ("1.2.3=" + "a" * 200, "1.2.3=#138200c8" + "61" * 200),
        ("1.2.3=#0500", "1.2.3=#0500"),
        ("DC=b,DC=a", "DC=b,DC=a"),
        ("", ""),
        ("\\", ""),
    ],
)
def test_names_as_recog_writes_them(name: str, written: str) -> None:
    assert distinguished_name(name) == written


def test_a_name_is_read_both_ways() -> None:
    tls = TlsFacts(subject="CN=a,OU=2,OU=1", issuer="CN=b")
    assert list(surroundings(row("http", 443, tls=tls))) == [
        ("x509.subject", b"CN=a,OU=1+OU=2"),
        ("x509.subject", b"CN=a,OU=2,OU=1"),
        ("x509.issuer", b"CN=b"),
    ]


# -- what is taken


def opinion(folder: Path, key: str, *fingerprints: str) -> RecogOpinion:
    write(folder, f"{key}.xml", f'matches="{key}"', *fingerprints)
    return RecogOpinion(load_recog(folder, KEYS))


BOX = fingerprint(
    r"^Box (\S+)",
    "Box",
    hw__vendor="Acme",
    hw__product="Box",
    hw__device="Router",
    os__vendor="Acme",
    os__product="BoxOS",
    os__version=1,
    os__cpe23="cpe:/o:acme:boxos:{os.version}",
    service__component__product="Bolt",
)


@pytest.mark.parametrize("product", ["SNMPv1 server", "net-snmp", ""])
def test_a_device_that_describes_itself_is_heard_whatever_agent_it_runs(tmp_path: Path, product: str) -> None:
    """The product stays the line's; what it says of the system is taken, and its version where there is room."""
    known = row("snmp", 161, "udp", product=product, cpe=(), evidence=Evidence("SNMPv1public", 7))
    result = opinion(tmp_path, "snmp.sys_description", BOX).on(known, snmp(b"Box 7.1B rev"))
    assert (result.product, result.ostype, result.devicetype) == (product or "Acme Box", "BoxOS", "router")
    assert (result.extrainfo, result.cpe) == ("Acme BoxOS 7.1B", ("cpe:/o:acme:boxos:7.1b",))
    assert result.evidence == Evidence("SNMPv1public", 7, recog="snmp.sys_description.xml: Box")
    assert result.post == {
        "recog": {
            "snmp.sys_description": {
                "fingerprint": "snmp.sys_description.xml: Box",
                "hw.vendor": "Acme",
                "hw.product": "Box",
                "hw.device": "Router",
                "os.vendor": "Acme",
                "os.product": "BoxOS",
                "os.version": "7.1B",
                "os.cpe23": "cpe:/o:acme:boxos:7.1B",
                "service.component.product": "Bolt",
            }
        }
    }


def test_a_row_that_lacks_but_its_system_gets_that(tmp_path: Path) -> None:
    """With product and CPE at hand only texts about the system are looked up; with all three, none."""
    asked = opinion(tmp_path, "snmp.sys_description", BOX)
    known = row("snmp", 161, "udp", product="net-snmp", cpe=("cpe:/a:net-snmp:net-snmp",))
    result = asked.on(known, snmp(b"Box 7 rev"))
    assert (result.product, result.ostype, result.devicetype) == ("net-snmp", "BoxOS", "router")
    assert result.cpe == ("cpe:/a:net-snmp:net-snmp", "cpe:/o:acme:boxos:7")
    whole = replace(known, ostype="Linux", cpe=("cpe:/o:linux:linux_kernel",))
    assert asked.on(whole, snmp(b"Box 7 rev")) is whole


def test_other_texts_about_another_product_are_not_heard(tmp_path: Path) -> None:
    known = row("ftp", 21, product="vsftpd")
    assert opinion(tmp_path, "ftp.banner", BOX).on(known, b"220 Box 1\r\n") is known


def test_an_apache_tells_its_system_and_its_modules(tmp_path: Path) -> None:
    """Beside the opinion on the server itself."""
    modules = fingerprint(r"^(PHP)/(\S+)$", "m", service__component__product=1, service__component__version=2)
    system = fingerprint(r"\(Acme\)", "s", os__product="Acme Linux", os__cpe23="cpe:/o:acme:linux:-")
    write(tmp_path, "m.xml", 'matches="apache_modules"', modules)
    write(tmp_path, "s.xml", 'matches="apache_os"', system)
    server = fingerprint(r"^Apache/(\S+)", "a", service__product="Apache httpd", service__version=1)
    result = opinion(tmp_path, "http_header.server", server).on(
        row("http", 80), http(b"Server: Apache/2.4 (Acme) PHP/8.1 Other\r\n")
    )
    assert (result.product, result.version, result.ostype) == ("Apache httpd", "2.4", "Acme Linux")
    assert result.cpe == ("cpe:/o:acme:linux",)
    assert result.evidence == Evidence("", 0, recog="http_header.server.xml: a")
    assert result.post is not None
    assert result.post["recog"]["apache_modules"] == [
        {"service.component.product": "PHP", "service.component.version": "8.1"}
    ]
    assert result.post["recog"]["apache_os"]["os.cpe23"] == "cpe:/o:acme:linux:-"


def test_what_has_no_field_is_kept_in_recogs_words(tmp_path: Path) -> None:
    """Without evidence, because it filled nothing in."""
    known = row("ftp", 21)
    result = opinion(tmp_path, "ftp.banner", fingerprint("^A", "v", hw__vendor="Acme")).on(known, b"220 A\r\n")
    assert result == replace(
        known, post={"recog": {"ftp.banner": {"fingerprint": "ftp.banner.xml: v", "hw.vendor": "Acme"}}}
    )


def test_the_system_that_a_line_named_gets_its_cpe(tmp_path: Path) -> None:
    known = row("http", 80, product="x", ostype="BoxOS")
    system = fingerprint("^BoxOS$", "s", os__product="BoxOS", os__cpe23="cpe:/o:acme:boxos:-")
    assert opinion(tmp_path, "operating_system.name", system).on(known).cpe == ("cpe:/o:acme:boxos",)


# -- whatever a peer says


@pytest.fixture(scope="module")
def credulous(tmp_path_factory: pytest.TempPathFactory) -> Recog:
    """Every text is a product, a version, a host and a system."""
    folder = tmp_path_factory.mktemp("credulous")
    said = dict.fromkeys(("service.product", "service.version", "host.name", "os.product", "os.version"), 1)
    takes_all = fingerprint("(?m)^(.*)$", "all", **{name.replace(".", "__"): group for name, group in said.items()})
    for key in KEYS:
        write(folder, f"{key}.xml", f'matches="{key}"', takes_all)
    return load_recog(folder, KEYS)


SEEDS = [(service, response) for service, response, _ in RECORDS]
NAMES = sorted({service for service, _ in SEEDS} | {*SERVICES.values()})


@st.composite
def answers(draw: st.DrawFn) -> tuple[str, bytes]:
    """Of a well-behaved peer, with some bytes changed and cut; or any bytes."""
    if draw(st.booleans()):
        return draw(st.sampled_from(NAMES)), draw(st.binary(max_size=300))
    service, response = draw(st.sampled_from(SEEDS))
    data = bytearray(response)
    for at, value in draw(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=4)):
        data[at] = value
    return service, bytes(data[draw(st.integers(0, 8)) : draw(st.integers(0, len(data)))] or data)


@settings(max_examples=300, deadline=None)
@given(answers(), st.sampled_from(["tcp", "udp"]), st.text(max_size=60))
def test_no_bytes_harm_a_row(credulous: Recog, answer: tuple[str, bytes], proto: Any, name: str) -> None:
    """No exception, a bounded number of texts, and a row that every sink can write."""
    service, response = answer
    texts = list(readings(service, proto, response))
    assert len(texts) <= 400 and {key for key, _ in texts} <= KEYS
    known: ServiceResult = row(service, 80, proto, verdict=Verdict.SOFTMATCHED, tls=TlsFacts(subject=name))
    check_row(replace(RecogOpinion(credulous).on(known, response), tls=None))


def test_records_that_promise_much_hold_little() -> None:
    """Counts and lengths of strangers bound nothing by themselves."""
    loop = b"pm\x84\0" + b"\xff" * 8 + b"\xc0\x0c" * 200
    endless: Iterator[tuple[str, bytes]] = chain(
        readings("mdns", "udp", loop),
        readings("mdns", "udp", mdns(b"_device-info", b"")[:-3] + b"\xff\xff" + bytes(65_535)),
        readings("dhcps", "udp", dhcp(b"x")[:240] + b"\x3c\x01a" * 10_000),
        readings("snmp", "udp", snmp(b"x", b"\xff" * 100 + b"\x01")),
        readings("ldap", "tcp", ber(0x30, b"x" * 60_000)),
    )
    assert len(list(endless)) < 200
