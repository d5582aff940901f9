"""Recog fingerprints: their dialect, their files, which texts they are asked about, and what of their answers is taken.

All fingerprints here are made up for these tests.
"""

import asyncio
import hashlib
import logging
import random
import sys
from asyncio import StreamReader, StreamWriter
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest
from msgspec.structs import replace
from peers import HOST, row, tcp_peer

from engine.api import make_runner, scan
from engine.cli.main import main
from engine.conversation.fingerprint import Fingerprint
from engine.model import Evidence, ScanConfig, ServiceResult, TlsFacts, Tunnel, Verdict
from engine.post.base_texts import KEYS, readings
from engine.post.recog_opinion import RecogOpinion, open_opinion
from matcher import DatabaseError, MatcherError, Recog, UnsupportedPattern, load_recog
from matcher.patterns import pcre
from matcher.regex.ruby import pcre_pattern

ICON = b"an icon"
ICON_MD5 = hashlib.md5(ICON, usedforsecurity=False).hexdigest()

# -- Ruby's dialect


def matches(pattern: str, text: bytes, *, dotall: bool = False) -> bool:
    compiled = pcre.Pattern(pcre_pattern(pattern), caseless=False, dotall=dotall)
    return compiled.search(text, pcre.Patience()) is not None


@pytest.mark.parametrize(
    ("pattern", "fits", "fails"),
    [
        (r"^b$", b"a\nb\nc", b"ab"),  # lines
        (r"\Ab", b"b\na", b"a\nb"),
        (r"b\Z", b"a\nb\n", b"b\na"),
        (r"b\z", b"a\nb", b"b\n"),
        (r"a.b", b"a-b", b"a\nb"),
        (r"(?m)a.b", b"a\nb", b"ab"),
        (r"(?m:a.)b.c", b"a\nb-c", b"a\nb\nc"),
        (r"(?mi-x:A.B)", b"a\nb", b"a\n c"),
        (r"(?-mi:a.b)", b"a-b", b"a\nb"),
        (r"\A(?i)x+$", b"xX", b"yX"),
        (r"^a(?i)b|c$", b"aC", b"xC"),
        (r"^(?:a(?i)b|c)d$", b"aCd", b"aCD"),
        (r"^(?a)a(?# a\) comment)b$", b"ab", b"a"),
        (r"^\h\h:\H$", b"fA:g", b"fg:g"),
        (r"^[\h:]+$", b"0a:F", b"0a:G"),
        (r"^[^\h]$", b"g", b"a"),
        (r"^\v$", b"\x0b", b"\x0c"),
        (r"^\Q.\E$", b"QxE", b"."),
        (r"^a{,2}$", b"aa", b"aaa"),
        (r"^a{x$", b"a{x", b"ax"),
        (r"^[]a]+$", b"]a", b"b"),
        (r"^[[:alpha:]]+$", b"ab", b"a1"),
        (r"^caf\u00e9?$", b"caf\xc3\xa9", b"caf\xc3"),
        ("^é+$", b"\xc3\xa9\xc3\xa9", b"\xc3\xa9\xa9"),
        (r"^\u{61 62}\u0024$", b"ab$", b"ab"),
        ("^a\n$", b"a\n", b"a"),
        (r"(?<=x)y(?!z)", b"xya", b"xyz"),
        ("^^(?:a)?b$$", b"ab", b"aab"),
    ],
)
def test_patterns_mean_what_they_mean_in_ruby(pattern: str, fits: bytes, fails: bytes) -> None:
    assert matches(pattern, fits)
    assert not matches(pattern, fails)


def test_named_groups_turn_numbered_ones_off() -> None:
    """Parameter 1 is then the first group that has a name."""
    pattern = pcre.Pattern(pcre_pattern(r"(a)(?<version>\d)(?<rest>.)"), caseless=False, dotall=False)
    found = pattern.search(b"a1x", pcre.Patience())
    assert pattern.groups() == 2
    assert pcre.span(found, b"a1x", 1) == (1, 2)


@pytest.mark.parametrize(
    "pattern",
    [r"[a[bc]]", r"[a-z&&[^b]]", r"[a&&b]", "[é]", r"[\H]", r"a{2}+", r"\cA", r"\C-a", r"(?q)a", r"\u{110000}"],
)
def test_what_cannot_be_carried_over_is_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedPattern):
        pcre_pattern(pattern)


# -- files


def fingerprint(pattern: str, description: str = "", flags: str = "", /, **parameters: str | int) -> str:
    """Names are written with `__` for a dot; a number is the group that holds the value."""
    lines = [
        f'<param pos="{value}" name="{name}"/>'
        if isinstance(value, int)
        else f'<param pos="0" name="{name}" value={quoteattr(value)}/>'
        for name, value in ((name.replace("__", "."), value) for name, value in parameters.items())
    ]
    attributes = f"pattern={quoteattr(pattern)}" + f' flags="{flags}"' * bool(flags)
    example = '<example service.version="1">never read</example>'
    return f"<fingerprint {attributes}><description>{description}</description>{example}{''.join(lines)}</fingerprint>"


def write(folder: Path, name: str, attributes: str, *fingerprints: str) -> Path:
    text = (
        f'<?xml version="1.0"?>\n<!-- ours -->\n<fingerprints {attributes}>\n{"".join(fingerprints)}</fingerprints>\n'
    )
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A small folder of fingerprints."""
    folder = tmp_path / "recog"
    write(
        folder,
        "ssh.xml",
        'matches="ssh.banner" protocol="ssh" database_type="service" preference="0.90"',
        fingerprint("^nothing$", "says nothing", service__certainty="0.0", service__product="Nothing"),
        fingerprint(
            r"^Acme_(\d[\w.]*)?(?: (.*))?$",
            "Acme\n   SSH",
            "REG_ICASE",
            service__version=1,
            service__vendor="Acme",
            service__product="Shell Server",
            service__cpe23="cpe:/a:acme:shell:{service.version}",
            os__product="Linux",
            os__version=2,
            os__cpe23="cpe:/o:acme:{os.version}",
            host__name="{no.such}",
            acme__lost=7,
        ),
    )
    write(
        folder,
        "http.xml",
        'matches="http_header.server"',
        fingerprint(
            r"^Wing(?:/([\d.]+))?",
            "Wing",
            service__vendor="Wing",
            service__product="HTTPD",
            service__version=1,
            service__cpe23="cpe:/a:wing:wing_httpd:{service.version}",
        ),
        fingerprint("^Other$", "Other", os__family="OtherOS", os__device="General"),
    )
    write(
        folder,
        "html_title.xml",
        'protocol="http"',
        fingerprint(
            "^Boxen (.+)$",
            "Boxen",
            hw__vendor="Boxen",
            hw__product="Boxen {hw.model}",
            hw__model=1,
            hw__device="Router",
            hw__cpe23="cpe:/h:boxen:{hw.model}:-",
        ),
    )
    write(
        folder,
        "x509.xml",
        'matches="x509.subject"',
        fingerprint("^CN=Boxen,O=Boxen$", "Boxen certificate", hw__vendor="Boxen", hw__product="B1", hw__device="WAP"),
    )
    write(
        folder,
        "favicons.xml",
        'matches="favicon.md5"',
        fingerprint(f"^{ICON_MD5}$", "Icon", service__product="Iconic"),
    )
    return folder


def test_a_fingerprint_fills_its_parameters(ours: Path) -> None:
    """Groups, constants, and names in braces; a name that nothing filled takes the parameter with it."""
    match = load_recog(ours).identify("ssh.banner", b"ACME_2.1 pre")
    assert match is not None
    assert match.source == "ssh.xml: Acme SSH"
    assert match.fields == {
        "service.version": "2.1",
        "service.vendor": "Acme",
        "service.product": "Shell Server",
        "service.cpe23": "cpe:/a:acme:shell:2.1",
        "os.product": "Linux",
        "os.version": "pre",
        "os.cpe23": "cpe:/o:acme:pre",
    }


def test_in_a_cpe_a_version_that_is_not_told_is_a_hyphen_and_text_is_escaped(ours: Path) -> None:
    recog = load_recog(ours)
    nameless = recog.identify("ssh.banner", b"Acme_")
    odd = recog.identify("ssh.banner", b"Acme_1 A:b c")
    assert nameless is not None and nameless.fields["service.cpe23"] == "cpe:/a:acme:shell:-"
    assert odd is not None and odd.cpe["os.cpe23"] == "cpe:/o:acme:a%3Ab_c"
    assert odd.fields["os.cpe23"] == "cpe:/o:acme:A:b c"  # as Recog gives it


def test_files_come_in_the_order_of_preference_and_fingerprints_in_that_of_the_file(tmp_path: Path) -> None:
    one = fingerprint("^x", "first"), fingerprint("^xy", "second")
    write(tmp_path, "a.xml", 'matches="k"', *one)
    write(tmp_path, "b.xml", 'matches="k" priority="10"', *one)
    write(tmp_path, "c.xml", 'matches="k" preference=".8"', *one)
    write(tmp_path, "d.xml", 'matches="k" preference="0.3"', *one)

    def winner() -> str:
        match = load_recog(tmp_path).identify("k", b"xyz")
        assert match is not None
        return match.source

    for name in "cdba":
        assert winner() == f"{name}.xml: first"
        (tmp_path / f"{name}.xml").write_text("<fingerprints/>")
        write(tmp_path, "z.xml", 'matches="other"', *one)


def test_a_file_without_a_key_is_known_by_its_name_and_other_xml_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "xml", "telnet_banners.xml", 'protocol="telnet"', fingerprint("^x", "x"))
    (tmp_path / "xml" / "page.xml").write_text("<html><fingerprint pattern='x'/></html>")
    recog = load_recog(tmp_path)  # the folder that holds `xml`, as in Recog's source tree
    assert set(recog.keys) == {"telnet_banners"}
    assert recog.identify("telnet_banners", b"x") is not None
    assert recog.identify("ssh.banner", b"x") is None
    with pytest.raises(MatcherError, match="no Recog fingerprints"):
        load_recog(tmp_path, {"ssh.banner"})


def test_patterns_that_cannot_be_taken_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(
        tmp_path,
        "ssh.xml",
        'matches="ssh.banner"',
        fingerprint("[a[b]]", "nested"),
        fingerprint("a", "flagged", "REG_NOVEL"),
        fingerprint("(a", "open"),
        fingerprint("^a", "fine"),
    )
    recog = load_recog(tmp_path)
    assert [(one.description, one.reason) for one in recog.skipped[:2]] == [
        ("nested", "a class in a class"),
        ("flagged", "flag REG_NOVEL"),
    ]
    assert [one.description for one in recog.skipped] == ["nested", "flagged", "open"]
    assert recog.size == 1 and recog.identify("ssh.banner", b"ab") is not None
    with caplog.at_level(logging.INFO):
        open_opinion(str(tmp_path))
    assert "1 fingerprints, 3 skipped" in caplog.text and "ssh.xml: nested (a class in a class)" in caplog.text


@pytest.mark.parametrize(
    ("flags", "fits"),
    [
        ("", []),
        ("IGNORECASE", [b"A-B"]),
        ("CASE_INSENSITIVE", [b"A-B"]),
        ("MULTILINE", [b"a\nb"]),
        ("DOTALL", [b"a\nb"]),
        ("REG_ICASE, REG_DOT_NEWLINE", [b"A-B", b"a\nb", b"A\nB"]),
        ("REG_LINE_ANY_CRLF|IGNORECASE", [b"A-B", b"a\nb", b"A\nB"]),
    ],
)
def test_flags_are_known_by_the_names_that_recogs_readers_know(tmp_path: Path, flags: str, fits: list[bytes]) -> None:
    write(tmp_path, "a.xml", 'matches="k"', fingerprint("^a.b$", "x", flags))
    recog = load_recog(tmp_path)
    texts = [b"a-b", b"A-B", b"a\nb", b"A\nB"]
    assert [text for text in texts if recog.identify("k", text)] == [b"a-b", *fits]


def test_a_pattern_that_cannot_decide_on_its_own_example_is_told(tmp_path: Path) -> None:
    """An example that does not match is its author's affair; one at which the match limit is reached is ours."""
    endless = fingerprint("^(?:(?:a+)+)+b$", "endless").replace("never read", "a" * 200 + "!b")
    write(tmp_path, "a.xml", 'matches="k"', endless, fingerprint("^aa", "calm"))
    recog = load_recog(tmp_path)
    assert [str(one) for one in recog.skipped] == ["a.xml: endless (reaches the match limit on an example of its own)"]
    assert recog.size == 1


def test_a_pattern_that_would_never_end_is_no_match(tmp_path: Path) -> None:
    write(tmp_path, "a.xml", 'matches="k"', fingerprint(r"^(?:(?:a+)+)+$", "hostile"), fingerprint("^aa", "calm"))
    match = load_recog(tmp_path).identify("k", b"a" * 4000 + b"!")
    assert match is not None and match.description == "calm"


@pytest.mark.parametrize("kind", ["missing", "empty", "file", "other"])
def test_a_folder_without_fingerprints_is_an_error(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "f"
    if kind == "file":
        folder.write_text("x")
    elif kind != "missing":
        folder.mkdir()
    if kind == "other":
        (folder / "a.xml").write_text("<html/>")
    with pytest.raises(MatcherError, match=str(folder)):
        load_recog(folder)


def test_a_broken_file_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<fingerprints>\n<fingerprint></fingerprints>")
    with pytest.raises(DatabaseError, match=r"a\.xml:2:\d+: not XML"):
        load_recog(tmp_path)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_command_line_says_so_in_one_line(
    tmp_path: Path, workers: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["probemill", "scan", "127.0.0.1:1", "--workers", workers, "--recog", str(tmp_path / "none")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"probemill: {tmp_path}/none: not a folder of Recog's XML files\n"


# -- which texts


PAGE = (
    b"HTTP/1.1 401 No\r\nSet-Cookie: a=1; Path=/\r\nSERVER:Wing/2 \r\nWWW-Authenticate: Basic realm=\"x\"\r\n"
    b"set-cookie: b=2\r\nX-Powered-By: P\r\n\r\n<title>T\n t</title>\nServer: body"
)  # fmt: skip
READINGS = [
    ("unknown", b"SSH-2.0-Acme_1 x\r\nmore", [("ssh.banner", b"Acme_1 x")]),
    ("ssh", b"SSH-1.99-A\n", [("ssh.banner", b"A")]),
    (
        "http",
        PAGE,
        [
            ("http_header.server", b"Wing/2"),
            ("http_header.wwwauth", b'Basic realm="x"'),
            ("http_header.x-powered-by", b"P"),
            ("http_header.cookie", b"a=1; Path=/"),
            ("http_header.cookie", b"b=2"),
            ("html_title", b"T\n t"),
            ("html_title", b"T t"),
        ],
    ),
    ("rtsp", b"RTSP/1.0 200 OK\r\nServer: R\r\n\r\n", [("rtsp_header.server", b"R")]),
    (
        "sip",
        b"SIP/2.0 200 OK\r\nUser-Agent: U\r\nServer: S\r\n\r\n",
        [("sip_header.server", b"S"), ("sip_header.user_agent", b"U")],
    ),
    ("ftp", b"220 Acme ready.\r\n", [("ftp.banner", b"Acme ready.")]),
    ("ftp", b"220----A\r\n220 B\r\n", [("ftp.banner", b"---A"), ("ftp.banner", b"----A"), ("ftp.banner", b"B")]),
    ("submission", b"220 host Acme\r\n", [("smtp.banner", b"host Acme")]),
    ("pop3", b"+OK Acme <1@h>\r\n", [("pop3.banner", b"Acme <1@h>")]),
    ("imap", b"* OK Acme\r\n", [("imap4.banner", b"Acme")]),
    ("imaps", b"* OK [CAP X] Acme\r\n", [("imap4.banner", b"Acme"), ("imap4.banner", b"[CAP X] Acme")]),
    ("nntp", b"201 Acme\r\n", [("nntp.banner", b"Acme")]),
    ("mysql", b"\x4a\0\0\0\x0a5.7.1-x\0\x01\x02", [("mysql.banners", b"5.7.1-x")]),
    ("mysql", b"\x10\0\0\0\xff\x6a\x04Host no", [("mysql.error", b"Host no")]),
    (
        "telnet",
        b"\xff\xfd\x18\xff\xfa\x18\x01\xff\xf0\r\nBox\r\nlogin: ",
        [("telnet.banner", b"Box\r\nlogin:"), ("telnet_banners", b"Box\r\nlogin:")],
    ),
    (
        "snmp",
        b"0..\x06\x08+\x06\x01\x02\x01\x01\x01\0\x04\x03Box..",
        [("snmp.sys_description", b"Box"), ("snmp.sys_object_id", b"Box")],
    ),
    (
        "snmp",
        b"\x06\x08+\x06\x01\x02\x01\x01\x01\0\x04\x82\0\x04Boxe..",
        [("snmp.sys_description", b"Boxe"), ("snmp.sys_object_id", b"Boxe")],
    ),
    ("ntp", b"\x16\x82" + b"\0" * 10 + b'version="n"\r\n\0', [("ntp.readvar", b'version="n"\r\n')]),
    (
        "domain",
        b"\0\x06\x85\0\0\1\0\1\0\0\0\0\x07version\x04bind\0\0\x10\0\x03\xc0\x0c\0\x10\0\x03\0\0\0\0\0\x04\x03B-1tail",
        [("dns.versionbind", b"B-1")],
    ),
    ("ftp", b"+OK no greeting", []),
    ("ntp", b"\x24\x01" + b"\0" * 46, []),
    ("unknown", b"220 who knows\r\n", []),
    ("http", b"", []),
]


@pytest.mark.parametrize(
    ("service", "response", "expected"), READINGS, ids=[f"{name}-{at}" for at, (name, *_) in enumerate(READINGS)]
)
def test_the_text_a_key_means(service: str, response: bytes, expected: list[tuple[str, bytes]]) -> None:
    found = list(readings(service, "tcp", response))
    assert found == expected
    assert {key for key, _ in found} <= KEYS


def test_an_answer_over_udp_in_http_is_ssdp() -> None:
    assert next(readings("upnp", "udp", PAGE)) == ("ssdp_header.server", b"Wing/2")


def test_no_bytes_harm_the_readings() -> None:
    """Answers cut short and answers with bytes changed."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for service, response, _ in READINGS:
        for cut in range(len(response)):
            list(readings(service, "tcp", response[:cut]))
        for _ in range(200):
            changed = bytearray(response)
            for _ in range(min(3, len(changed))):
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            list(readings(service, "tcp", bytes(changed)))


# -- what is taken

SSH = b"SSH-2.0-Acme_2.1 pre\r\n"
WING = b"HTTP/1.1 200 OK\r\nServer: Wing/2.0\r\n\r\n<title>Boxen 7</title>"
LINE = Evidence("NULL", 12, soft=True)


@pytest.fixture
def opinion(ours: Path) -> RecogOpinion:
    return RecogOpinion(load_recog(ours, KEYS))


def service(name: str, **fields: Any) -> ServiceResult:
    """A row of a port whose service is known by its line, but not its product."""
    return row(name, 22, **{"evidence": LINE} | fields)


def test_a_softmatch_gets_its_product(opinion: RecogOpinion) -> None:
    """It is then recognised as by a line, and the evidence names both."""
    result = opinion.on(service("ssh", verdict=Verdict.SOFTMATCHED), SSH)
    assert (result.name, result.product, result.version) == ("ssh", "Acme Shell Server", "2.1")
    assert (result.ostype, result.cpe) == ("Linux", ("cpe:/a:acme:shell:2.1", "cpe:/o:acme:pre"))
    assert result.verdict is Verdict.HARDMATCHED
    assert result.evidence == replace(LINE, recog="ssh.xml: Acme SSH")


def test_what_nothing_recognised_is_named_by_the_text(opinion: RecogOpinion) -> None:
    unknown = service("unknown", verdict=Verdict.NOMATCH, evidence=None)
    result = opinion.on(unknown, SSH)
    assert (result.name, result.method, result.conf, result.verdict) == ("ssh", "probed", 10, Verdict.HARDMATCHED)
    assert result.evidence == Evidence("", 0, recog="ssh.xml: Acme SSH")


def test_a_copy_in_the_fingerprint_serves_as_well(opinion: RecogOpinion) -> None:
    collected = Fingerprint(22, "tcp", version="0", intensity=7, platform="x")
    collected.add("NULL", SSH, 0.0)
    unknown = service("unknown", verdict=Verdict.NOMATCH, evidence=None, fingerprint=collected.text)
    assert opinion.on(unknown, b"").product == "Acme Shell Server"


def test_what_a_line_said_stays(opinion: RecogOpinion) -> None:
    """Only empty fields are filled, and one CPE for each part."""
    known = service("ssh", product="ACME Shell", version="9", cpe=(), ostype="")
    result = opinion.on(known, SSH)
    assert (result.product, result.version, result.ostype) == ("ACME Shell", "9", "Linux")
    assert result.cpe == ("cpe:/a:acme:shell:2.1", "cpe:/o:acme:pre")
    half = opinion.on(service("ssh", cpe=("cpe:/a:x:y",)), SSH)
    assert half.cpe == ("cpe:/a:x:y", "cpe:/o:acme:pre")


@pytest.mark.parametrize(
    "fields",
    [
        {"product": "Acme Shell Server", "cpe": ("cpe:/a:x:y",)},
        {"product": "Dropbear sshd"},
        {"product": "Acme Router"},  # the same vendor, another product
        {"product": "Server"},
        {"verdict": Verdict.TCPWRAPPED},
        {"verdict": Verdict.INCOMPLETE},
    ],
    ids=str,
)
def test_rows_that_are_left_alone(opinion: RecogOpinion, fields: dict[str, Any]) -> None:
    """Complete ones, opinions on another product, and conversations that were not held."""
    result = service("ssh", **fields)
    assert opinion.on(result, SSH) is result


def test_a_product_with_a_common_name_is_known_by_its_vendor(opinion: RecogOpinion) -> None:
    assert opinion.on(service("http", product="Wing httpd"), WING).cpe == ("cpe:/a:wing:wing_httpd:2.0",)
    other = service("http", product="nginx httpd")
    assert opinion.on(other, WING) is other


def test_the_first_text_that_names_a_product_wins(opinion: RecogOpinion) -> None:
    """A header that tells only the operating system waits for the title."""
    assert opinion.on(service("http"), WING).product == "Wing HTTPD"
    device = opinion.on(service("http"), WING.replace(b"Wing/2.0", b"Other"))
    assert (device.product, device.devicetype, device.cpe) == ("Boxen 7", "router", ("cpe:/h:boxen:7",))
    system = opinion.on(
        service("http", verdict=Verdict.SOFTMATCHED), WING.replace(b"Wing/2.0", b"Other").replace(b"Boxen", b"")
    )
    assert (system.product, system.ostype, system.devicetype, system.verdict) == (
        "",
        "OtherOS",
        "",
        Verdict.SOFTMATCHED,
    )
    assert system.evidence == replace(LINE, recog="http.xml: Other")


def test_a_version_that_is_not_told_leaves_the_cpe_open(opinion: RecogOpinion) -> None:
    assert opinion.on(service("http"), b"HTTP/1.0 200 OK\r\nServer: Wing\r\n\r\n").cpe == ("cpe:/a:wing:wing_httpd",)


def test_a_fingerprint_that_asserts_nothing_fills_nothing(opinion: RecogOpinion) -> None:
    result = service("ssh")
    assert opinion.on(result, b"SSH-2.0-nothing\r\n") is result


def test_a_certificate_tells_the_device_but_not_the_service(opinion: RecogOpinion) -> None:
    tls = TlsFacts(subject="CN=Boxen,O=Boxen")
    unknown = service("unknown", verdict=Verdict.NOMATCH, evidence=None, tls=tls, tunnel=Tunnel.SSL)
    result = opinion.on(unknown)
    assert (result.product, result.devicetype) == ("Boxen B1", "WAP")
    assert (result.name, result.method, result.verdict) == ("unknown", "table", Verdict.NOMATCH)


def test_post_processing_gives_texts(opinion: RecogOpinion) -> None:
    assert opinion.on(service("http", post={"http": {"title": "Boxen 9"}})).product == "Boxen 9"


# -- in a scan

DATABASE = """\
Probe TCP NULL q||
softmatch ssh m|^SSH-|
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_a_scan_asks_for_the_second_opinion(tmp_path: Path, ours: Path, workers: int) -> None:
    """Off by default; with it on, a row is filled in before it is written."""
    database = tmp_path / "probes"
    database.write_text(DATABASE)

    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(SSH)
        await reader.read()

    async def scanned(recog: str) -> ServiceResult:
        config = ScanConfig(probes=(str(database),), recog=recog, workers=workers, matcher="re2", post=())
        async with tcp_peer(talk) as port:
            (result,) = [found async for found in scan([f"{HOST}:{port}"], config)]
            return result

    plain = asyncio.run(scanned(""))
    filled = asyncio.run(scanned(str(ours)))
    assert (plain.product, plain.verdict) == ("", Verdict.SOFTMATCHED)
    assert (filled.product, filled.cpe[0]) == ("Acme Shell Server", "cpe:/a:acme:shell:2.1")
    assert filled.evidence == Evidence("NULL", 2, soft=True, recog="ssh.xml: Acme SSH")


def test_what_post_processing_fetched_counts_too(tmp_path: Path, ours: Path) -> None:
    """The icon is there only after the scan."""
    database = tmp_path / "probes"
    database.write_text("Probe TCP GetRequest q|GET / HTTP/1.0\\r\\n\\r\\n|\nsoftmatch http m|^HTTP/|\n")

    async def talk(reader: StreamReader, writer: StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        body = ICON if b"favicon" in request else b"a page"
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def scanned() -> ServiceResult:
        config = ScanConfig(probes=(str(database),), recog=str(ours), matcher="re2", post=("web",))
        async with tcp_peer(talk) as port:
            (result,) = [found async for found in scan([f"{HOST}:{port}"], config)]
            return result

    result = asyncio.run(scanned())
    assert (result.name, result.product) == ("http", "Iconic")
    assert result.evidence is not None and result.evidence.recog == "favicons.xml: Icon"


def test_the_python_api_refuses_a_folder_at_once(tmp_path: Path) -> None:
    with pytest.raises(MatcherError, match="not a folder"):
        make_runner(ScanConfig(recog=str(tmp_path / "none"), workers=2))


def test_recog_can_be_built_by_hand() -> None:
    assert Recog([]).identify("ssh.banner", b"x") is None
