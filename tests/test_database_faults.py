"""Kinds of mistake that the database once made, one test each: what a response says is read, and no more than that.

The responses are written here from the protocols (RFC 1035, the MySQL handshake, RFC 5321, RFC 959), not recorded.
"""

from functools import cache

import pytest

from matcher import Match, Matcher, load_database

TEXT_PROBES = ("NULL", "GenericLines", "Help", "Ehlo", "TextVersion", "IrcRegister", "Socks5Greeting", "RPCVersions")
NSCA_GREETING = 132  # bytes: an initialization vector of 128, then the time


@cache
def matcher() -> Matcher:
    return Matcher(load_database("builtin"))


def read(probe: str, response: bytes, proto: str = "tcp") -> Match | None:
    (asked,) = (one for one in matcher().database.probes if (one.name, one.proto) == (probe, proto))
    return matcher().match(asked, response)


def named(probe: str, response: bytes, proto: str = "tcp") -> tuple[str, str, str]:
    """Service, product and version."""
    found = read(probe, response, proto)
    assert found is not None, response
    return found.service, found.info.product, found.info.version


def version_bind(text: str, authority: bool) -> bytes:
    """An answer to version.bind, with the NS record of `version.bind` that BIND up to 9.11 adds, or without it."""
    name = b"\xc0\x0c"
    record = name + b"\0\x10\0\3" + bytes(4) + (len(text) + 1).to_bytes(2, "big") + bytes([len(text)]) + text.encode()
    header = b"pm\x85\0\0\1\0\1" + (b"\0\1" if authority else b"\0\0") + b"\0\0"
    server = name + b"\0\2\0\3" + bytes(4) + b"\0\2" + name
    return header + b"\7version\4bind\0\0\x10\0\3" + record + (server if authority else b"")


def packet(payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + b"\0" + payload


def mysql_greeting(version: str) -> bytes:
    salt = b"abcdefgh\0" + b"\xff\xf7\x08\x02\0\xff\x81\x15" + bytes(10) + b"ijklmnopqrst\0"
    return packet(b"\x0a" + version.encode() + b"\0" + b"\x2a\0\0\0" + salt + b"mysql_native_password\0")


def mysql_error(number: int, text: str) -> bytes:
    return packet(b"\xff" + number.to_bytes(2, "little") + text.encode("latin-1"))


@pytest.mark.parametrize("authority", [False, True], ids=["answer alone", "with an authority record"])
@pytest.mark.parametrize(
    ("text", "product", "version"),
    [
        ("9.8.1-P1", "ISC BIND", "9.8.1-P1"),
        ("9.11.5-P4-5.1+deb10u5-Debian", "ISC BIND", "9.11.5-P4-5.1+deb10u5"),
        ("9.9.4-RedHat-9.9.4-61.el7", "ISC BIND", "9.9.4"),
        ("8.2.3-REL", "ISC BIND", "8.2.3-REL"),
        ("dnsmasq-2.80", "dnsmasq", "2.80"),
        ("unbound 1.9.0", "Unbound", "1.9.0"),
    ],
)
def test_what_follows_the_answer_of_a_name_server_hides_nothing(
    text: str, product: str, version: str, authority: bool
) -> None:
    """Records behind the TXT record leave product and version as they are, over UDP and over TCP."""
    answer = version_bind(text, authority)
    assert named("DNSVersionBind", answer, "udp") == ("domain", product, version)
    assert named("DNSVersionBindTCP", len(answer).to_bytes(2, "big") + answer) == ("domain", product, version)


@pytest.mark.parametrize(
    ("greeting", "product"),
    [
        ("8.0.36", "MySQL"),
        ("5.7.44-log", "MySQL"),
        ("5.0.51a-24+lenny2", "MySQL"),
        ("5.5.60-0+deb8u1", "MySQL"),
        ("5.5.30-1.1", "Percona Server"),
        ("5.6.20-68.0-56", "Percona Server"),
        ("5.6.17-65.0-587.trusty", "Percona Server"),
        ("5.7.23-23-57", "Percona Server"),
        ("8.0.36-28", "Percona Server"),
        ("5.5.5-10.4.10-4-MariaDB-enterprise-log", "MariaDB"),
        ("5.5.5-10.11.6-MariaDB-0+deb12u1", "MariaDB"),
        ("11.4.2-MariaDB-ubu2404", "MariaDB"),
        ("5.5.5-10.6.8-maxscale", "MariaDB MaxScale"),
        ("5.5.5-10.0.0 2.1.5-maxscale", "MariaDB MaxScale"),
    ],
)
def test_the_relatives_of_mysql_are_told_apart(greeting: str, product: str) -> None:
    """The version that a greeting says decides whose server it is, and it is read without the mask `5.5.5-`."""
    service, found, version = named("NULL", mysql_greeting(greeting))
    assert (service, found) == ("mysql", product)
    assert version and version[0].isdigit() and not version.startswith("5.5.5-")


@pytest.mark.parametrize(
    "text",
    [
        "Host '192.0.2.1' is not allowed to connect to this MySQL server",
        "L'h\xf4te '192.0.2.1' n'est pas authoris\xe9 \xe0 se connecter \xe0 ce serveur MySQL",
        "Host '192.0.2.1' hat keine Berechtigung, sich mit diesem MySQL-Server zu verbinden",
        "N\xe3o foi permitido conectar '192.0.2.1' neste servidor MySQL",
    ],
)
def test_mysql_refuses_in_many_languages(text: str) -> None:
    """An error of MySQL is one by its number, whatever language the text is in."""
    assert named("NULL", mysql_error(1130, text))[:2] == ("mysql", "MySQL")


@pytest.mark.parametrize(
    ("greeting", "service", "product", "version"),
    [
        (b"220 ProFTPD 1.3.0rc2 Server ready.\r\n", "ftp", "ProFTPD", "1.3.0rc2"),
        (b"220 VxWorks (VxWorks5.5.1) FTP server ready\r\n", "ftp", "VxWorks ftpd", "5.5.1"),
        (b"220 mail.test ESMTP Sendmail AIX4.2/UCB 8.7; Mon, 1 Jan 2001\r\n", "smtp", "Sendmail", "8.7"),
        (b"220 mail.test Sendmail AIX4.2/UCB 8.7/8.7 ready at Mon, 1 Jan 2001\r\n", "smtp", "Sendmail", "8.7"),
        (
            b"220 mail.test ESMTP MailEnable Service, Version: 9.00--9.00 ready at 01/01/20 00:00:00\r\n",
            "smtp",
            "MailEnable smtpd",
            "9.00",
        ),
        (b"220 mail.test ESMTP Haraka/3.3.4 ready (23B220)\r\n", "smtp", "Haraka smtpd", "3.3.4"),
    ],
)
def test_a_version_is_cut_where_it_begins_and_ends(greeting: bytes, service: str, product: str, version: str) -> None:
    """Neither the system's name before a version nor the second version behind it belongs to it."""
    assert named("NULL", greeting) == (service, product, version)


@pytest.mark.parametrize(
    ("agent", "product", "version"),
    [
        ("Acme-7.X/v2.0 foo", "Acme-7.X", "2.0"),
        ("Acme-PBX-1.2.3", "Acme-PBX", "1.2.3"),
        ("Acme UA 3.4/5", "Acme UA", "3.4"),
    ],
)
@pytest.mark.parametrize(("probe", "proto"), [("SIPOptionsTCP", "tcp"), ("SIPOptionsUDP", "udp")])
def test_a_number_in_a_phones_name_is_no_version(
    probe: str, proto: str, agent: str, product: str, version: str
) -> None:
    response = f"SIP/2.0 200 OK\r\nVia: SIP/2.0/{proto}\r\nUser-Agent: {agent}\r\n\r\n".encode()
    assert named(probe, response, proto) == ("sip", product, version)


@pytest.mark.parametrize(
    ("udp", "tcp", "prefix"),
    [("DNSVersionBind", "DNSVersionBindTCP", b".."), ("SIPOptionsUDP", "SIPOptionsTCP", b"")],
)
def test_what_is_known_over_udp_is_known_over_tcp(udp: str, tcp: str, prefix: bytes) -> None:
    """DNS has its length in front there."""
    database = matcher().database
    ours, theirs = database.probe(udp, "udp"), database.probe(tcp)
    assert ours is not None and theirs is not None
    expected = [(line.pattern.replace(b"^", b"^" + prefix, 1), line.templates) for line in ours.signatures]
    assert [(line.pattern, line.templates) for line in theirs.signatures] == expected


def test_a_version_does_not_end_in_a_separator() -> None:
    """The full stop behind a version in a header is no part of it."""
    for header in (b"Server: Foo/4.3.12.\r\n", b"Server: Linux/3.1, UPnP/1.0, Foo/4.3.12.\r\n"):
        found = read("GetRequest", b"HTTP/1.1 200 OK\r\n" + header + b"\r\n")
        assert found is not None and not found.info.version.endswith((".", "-", ","))


@pytest.mark.parametrize("masked", [b"*" * 28, b"*" * 46 + b"2" + b"*" * 8 + b"0**", b"********0*2******"])
def test_a_masked_greeting_is_a_firewall_before_a_mail_server(masked: bytes) -> None:
    """The stars that a firewall writes over a greeting are mail, and no more is said of the server behind it."""
    service, product, version = named("NULL", b"220 " + masked + b"\r\n")
    assert service == "smtp" and "firewall" in product and not version


@pytest.mark.parametrize(
    ("greeting", "service", "product"),
    [
        (b"* OK [CAPABILITY IMAP4rev1 LITERAL+ AUTH=PLAIN] Dovecot ready.\r\n", "imap", "Dovecot imapd"),
        (b"* OK [CAPABILITY IMAP4rev1 LITERAL+ AUTH=PLAIN] Dovecot DA ready.\r\n", "imap", "Dovecot imapd"),
        (b"+OK [XCLIENT] Dovecot ready.\r\n", "pop3", "Dovecot pop3d"),
        (b"+OK Dovecot (Ubuntu) ready.\r\n", "pop3", "Dovecot pop3d"),
        (b"220-Microsoft FTP Service\r\n220 Only for staff\r\n", "ftp", "Microsoft ftpd"),
        (b"220-host1 Microsoft FTP Service (Version 5.0).\r\n220 Only for staff\r\n", "ftp", "Microsoft ftpd"),
    ],
)
def test_what_stands_around_a_name_does_not_hide_it(greeting: bytes, service: str, product: str) -> None:
    """Capabilities before the name and further lines behind it leave it the same server."""
    assert named("NULL", greeting)[:2] == (service, product)


def test_text_is_no_nsca() -> None:
    """A random vector has bytes that no text has: 132 letters are no NSCA daemon."""
    for text in (
        b"A" * NSCA_GREETING,
        (b"a perfectly plain greeting of some service, " * 3).ljust(NSCA_GREETING, b"."),
    ):
        found = read("NULL", text)
        assert found is None or found.service != "nsca"


@pytest.mark.parametrize("probe", TEXT_PROBES)
def test_an_http_answer_to_another_question_is_http_or_nothing(probe: str) -> None:
    """A web server that refuses what was no request of HTTP is never taken for what the question was about."""
    for header in (b"", b"Server: nginx/1.22.1\r\n", b"Content-Type: text/plain; charset=utf-8\r\n"):
        found = read(probe, b"HTTP/1.1 400 Bad Request\r\n" + header + b"Connection: close\r\n\r\n400 Bad Request")
        assert found is None or found.service == "http"
