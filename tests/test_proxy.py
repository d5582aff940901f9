"""What is said to proxies and made of their answers: the handshakes by themselves, without sockets."""

from collections.abc import Sequence
from errno import ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import HOST, row

from engine.cli.settings import proxy_chain
from engine.errors import ConfigError
from engine.model import Reason, ScanConfig, ServiceResult, Target, Verdict
from engine.pool.descriptors import MAX_INFLIGHT_PROXY, inflight_limit
from engine.pool.patience import FIRST_S, GIVE_UP_S, IN_A_ROW, LONGEST_S, Patience
from engine.pool.proxied import Proxied
from engine.text import without_logins
from engine.transports.base import HopError
from engine.transports.base_proxy import HEAD, Handshake, parse_proxies, route

SECRET = "s3cr%40t"  # as a URL has s3cr@t
V5_OK = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x04\x38"
V4_OK = b"\x00\x5a\x04\x38\x7f\x00\x00\x01"


def handshake(url: str, host: str = "192.0.2.7", port: int = 22) -> Handshake:
    return route(parse_proxies([url]), host, port)[0]


def talk(hand: Handshake, answers: Sequence[bytes]) -> list[bytes]:
    """What is said at first and after each answer."""
    return [hand.feed(answer) for answer in (b"", *answers)]


CONVERSATIONS = {
    "socks5": (
        *("socks5://p:1", "192.0.2.7", [b"\x05\x01\x00", b"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x16", b""]),
        [b"\x05\x00", V5_OK],
    ),
    "socks5 over IPv6": (
        *(
            "socks5://[::1]:1",
            "2001:db8::7",
            [b"\x05\x01\x00", b"\x05\x01\x00\x04 \x01\r\xb8" + bytes(11) + b"\x07\0\x16"],
        ),
        [b"\x05\x00"],
    ),
    "socks5 with a login": (
        f"socks5://joe:{SECRET}@p:1",
        "192.0.2.7",
        [b"\x05\x02\x00\x02", b"\x01\x03joe\x06s3cr@t", b"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x16", b""],
        [b"\x05\x02", b"\x01\x00", V5_OK],
    ),
    "socks5 whose login is not wanted": (
        f"socks5://joe:{SECRET}@p:1",
        "192.0.2.7",
        [b"\x05\x02\x00\x02", b"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x16"],
        [b"\x05\x00"],
    ),
    "socks5 and a name": (
        *("socks5h://p:1", "a.example", [b"\x05\x01\x00", b"\x05\x01\x00\x03\x09a.example\x00\x16", b""]),
        [b"\x05\x00", b"\x05\x00\x00\x03\x04gate\x04\x38"],
    ),
    "socks4": ("socks4://joe@p:1", "192.0.2.7", [b"\x04\x01\x00\x16\xc0\x00\x02\x07joe\x00", b""], [V4_OK]),
    "socks4a": (
        *("socks4a://p:1", "a.example", [b"\x04\x01\x00\x16\x00\x00\x00\x01\x00a.example\x00", b""]),
        [V4_OK],
    ),
    "http": (
        "http://p:1",
        "192.0.2.7",
        [b"CONNECT 192.0.2.7:22 HTTP/1.1\r\nHost: 192.0.2.7:22\r\n\r\n", b""],
        [b"HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\n"],
    ),
    "http with a login, over IPv6": (
        f"http://joe:{SECRET}@p:1",
        "2001:db8::7",
        [
            b"CONNECT [2001:db8::7]:22 HTTP/1.1\r\nHost: [2001:db8::7]:22\r\n"
            b"Proxy-Authorization: Basic am9lOnMzY3JAdA==\r\n\r\n",
            b"",
        ],
        [b"HTTP/1.1 200 OK\r\n\r\n"],
    ),
}


@pytest.mark.parametrize(("url", "host", "said", "answers"), CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_a_handshake(url: str, host: str, said: list[bytes], answers: list[bytes]) -> None:
    """What is said, in the protocol's own bytes; it does not matter where the answers are cut."""
    hand = handshake(url, host)
    assert talk(hand, answers) == said
    finished = said[-1] == b""
    assert hand.asked
    assert hand.done == finished
    again = handshake(url, host)
    pieces = [again.feed()] + [again.feed(bytes([byte])) for answer in answers for byte in answer]
    assert b"".join(pieces) == b"".join(said)
    assert again.done == finished


@pytest.mark.parametrize(("url", "answers"), [("socks5://p:1", [b"\x05\x00", V5_OK]), ("socks4://p:1", [V4_OK])])
def test_what_comes_behind_a_handshake_is_the_other_ends(url: str, answers: list[bytes]) -> None:
    hand = handshake(url)
    *others, last = answers
    talk(hand, [*others, last + b"220 hello\r\n"])
    assert hand.rest == b"220 hello\r\n"


@pytest.mark.parametrize(
    ("url", "answers", "number"),
    [
        *(
            ("socks5://p:1", [b"\x05\x00", bytes([5, code, 0, 1])], n)
            for code, n in ((3, ENETUNREACH), (4, EHOSTUNREACH), (5, ECONNREFUSED), (6, ETIMEDOUT))
        ),
        ("socks4://p:1", [b"\x00\x5b" + bytes(6)], EHOSTUNREACH),
        ("http://p:1", [b"HTTP/1.1 504 Gateway Timeout\r\n\r\n"], ETIMEDOUT),
        ("http://p:1", [b"HTTP/1.1 502 Bad Gateway\r\n\r\n"], EHOSTUNREACH),
        ("http://p:1", [b"HTTP/1.1 500 Unable to connect\r\n\r\n"], EHOSTUNREACH),
        ("http://p:1", [b"HTTP/1.1 503 No\r\nX-Squid-Error: ERR_CONNECT_FAIL 111\r\nA: b\r\n\r\n"], ECONNREFUSED),
        ("http://p:1", [b"HTTP/1.1 503 No\r\nX-Squid-Error: ERR_CONNECT_FAIL 9999\r\nA: b\r\n\r\n"], EHOSTUNREACH),
    ],
)
def test_what_a_proxy_says_of_its_destination(url: str, answers: list[bytes], number: int) -> None:
    with pytest.raises(OSError) as told:
        talk(handshake(url), answers)
    assert not isinstance(told.value, HopError)
    assert told.value.errno == number


@pytest.mark.parametrize(
    ("url", "answers", "why", "gone"),
    [
        ("socks5://p:1", [b"HTTP/1.1 400 Bad Request\r\n\r\n"], "does not answer as a SOCKS 5", True),
        ("socks5://p:1", [b"\x04\x00"], "does not answer as a SOCKS 5", True),
        ("socks5://p:1", [b"\x05\x02"], "wants a user and a password", True),
        ("socks5://p:1", [b"\x05\xff"], "wants a user and a password", True),
        ("socks5://a:b@p:1", [b"\x05\xff"], "wants another login", True),
        ("socks5://a:b@p:1", [b"\x05\x02", b"\x01\x01"], "refuses the user or the password", True),
        ("socks5://p:1", [b"\x05\x00", b"\x05\x01\x00\x01"], "does not say why", False),
        ("socks5://p:1", [b"\x05\x00", b"\x05\x02\x00\x01"], "rules forbid", False),
        ("socks5://p:1", [b"\x05\x00", b"\x05\x63\x00\x01"], "unknown code 99", False),
        ("socks5://p:1", [b"\x05\x00", b"\x05\x00\x00\x07"], "does not answer as a SOCKS 5", True),
        ("socks4://p:1", [b"\x05\x5a" + bytes(6)], "does not answer as a SOCKS 4", True),
        ("socks4://p:1", [b"\x00\x5d" + bytes(6)], "refuses the user", True),
        ("http://p:1", [b"SSH-2.0-x\r\n\r\n"], "does not answer as an HTTP", True),
        ("http://p:1", [b"HTTP/1.1 407 x\r\n\r\n"], "wants a user and a password", True),
        ("http://a:b@p:1", [b"HTTP/1.1 407 x\r\n\r\n"], "refuses the user or the password", True),
        ("http://p:1", [b"HTTP/1.1 403 x\r\n\r\n"], "rules forbid", False),
        ("http://p:1", [b"HTTP/1.1 302 x\r\n\r\n"], "status 302", False),
        ("http://p:1", [b"HTTP/1.1 200 OK\r\nX: " + b"x" * HEAD], "without an end", True),
    ],
)
def test_a_proxys_own_failures(url: str, answers: list[bytes], why: str, gone: bool) -> None:
    """They are told apart from the target's, and say which hop of the chain, without its login."""
    with pytest.raises(HopError, match=why) as told:
        talk(handshake(url), answers)
    assert told.value.hop == 1
    assert told.value.at == url.replace("a:b@", "")
    assert told.value.gone == gone


def test_socks4_and_ipv6() -> None:
    with pytest.raises(HopError, match="knows no IPv6"):
        handshake("socks4://p:1", "::1").feed()


def test_a_route() -> None:
    """Each proxy is told of the next one, the last of the target."""
    chain = parse_proxies(["socks5h://one:1", "http://two:2", "socks4://192.0.2.9:3"])
    first, second, third = route(chain, "192.0.2.7", 22)
    assert talk(first, [b"\x05\x00"])[1].endswith(b"\x03\x03two\x00\x02")
    assert second.feed().startswith(b"CONNECT 192.0.2.9:3 ")
    assert third.feed() == b"\x04\x01\x00\x16\xc0\x00\x02\x07\x00"
    assert [hand.hop for hand in (first, second, third)] == [1, 2, 3]


ANY = st.binary(max_size=64)
LIKELY = st.sampled_from(
    [b"\x05\x00", b"\x05\x02", b"\x01\x00", V5_OK, V4_OK, b"HTTP/1.1 200 OK\r\n", b"\r\n", b"\r\n\r\n"]
)


@given(
    url=st.sampled_from(["socks5h://p:1", "socks5://a:b@p:1", "socks4a://p:1", "socks4://a@p:1", "http://a:b@p:1"]),
    host=st.sampled_from(["192.0.2.7", "2001:db8::7", "a.example"]),
    answers=st.lists(ANY | LIKELY | st.just(b"x" * 5000), max_size=12),
)
def test_whatever_a_proxy_says(url: str, host: str, answers: list[bytes]) -> None:
    """It ends as done, as an error of one of the two kinds, or waits; and keeps no more than an answer may have."""
    hand = handshake(url, host)
    try:
        hand.feed()
        for answer in answers:
            if hand.done:
                break
            hand.feed(answer)
            assert hand.done or len(hand.rest) < HEAD
    except OSError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("urls", "why"),
    [
        ([f"ftp://joe:{SECRET}@p:1"], "begins with none of"),
        ([f"joe:{SECRET}@p:1"], "begins with none of"),
        ([f"socks5://joe:{SECRET}@p"], "write socks5://"),
        ([f"socks5://joe:{SECRET}@p:99999"], "not a URL"),
        ([f"socks5://joe:{SECRET}@p:x"], "not a URL"),
        ([f"socks5://joe:{SECRET}@[::1:5"], "not a URL"),
        ([f"http://joe:{SECRET}/@p:1"], "not a URL"),
        ([f"http://joe:{SECRET}@p:1/path"], "write http://"),
        ([f"http://joe:{SECRET}@p q:1"], "neither an address nor a name"),
        ([f"socks4://joe:{SECRET}@p:1"], "no password"),
        ([f"http://:{SECRET}@p:1"], "a password needs a user"),
        ([f"socks5://joe:{SECRET * 50}@p:1"], "255 bytes"),
        (["socks5://p:1", "socks5://two:2"], "proxy 2, socks5://two:2: socks5:// before it takes no names"),
    ],
)
def test_a_chain_that_cannot_be_used(urls: list[str], why: str) -> None:
    """One line says why, and tells no password."""
    with pytest.raises(ConfigError, match=why) as told:
        parse_proxies(urls)
    assert "s3cr" not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_config_that_cannot_be_used_tells_no_password() -> None:
    """As is easily written from Python: a text in place of a tuple."""
    with pytest.raises(ConfigError, match="proxy: its value cannot be used; expected a tuple of texts") as told:
        ScanConfig(proxy=f"socks5://joe:{SECRET}@p:1")  # type: ignore[arg-type]
    assert "s3cr" not in str(told.value)


def test_a_proxys_text_tells_no_login_and_its_url_is_read_again() -> None:
    url = f"socks5h://j%3Aoe:{SECRET}@[2001:db8::1]:1080"
    (proxy,) = parse_proxies([url])
    assert (proxy.user, proxy.password, proxy.host) == ("j:oe", "s3cr@t", "2001:db8::1")
    assert str(proxy) == repr(proxy) == "socks5h://[2001:db8::1]:1080"
    assert parse_proxies([proxy.url]) == (proxy,)


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("socks5://joe:a@b@p:1", "socks5://***@p:1"),
        ("--proxy=http://joe:pa/ss@p:1", "--proxy=http://***@p:1"),
        ("SOCKS5://joe:pass@p:1", "SOCKS5://***@p:1"),
        ("socks5://p:1", "socks5://p:1"),
        ("user@host", "user@host"),
    ],
)
def test_a_command_line_is_shown_without_logins(word: str, shown: str) -> None:
    assert without_logins(word) == shown


def test_where_a_chain_is_read_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file or a variable, so that a password need not stand on the command line."""
    path = tmp_path / "chain"
    path.write_text("# mine\n\nsocks5://a:b@p:1\n  http://q:2\n", encoding="utf-8")
    monkeypatch.setenv("MY_CHAIN", "socks4://r:3 http://s:4")
    chain = proxy_chain(["http://o:0", f"@{path}", "env:MY_CHAIN"])
    assert chain == ("http://o:0", "socks5://a:b@p:1", "http://q:2", "socks4://r:3", "http://s:4")
    for missing in ("@/nowhere/at/all", "env:NO_SUCH_THING", f"@{tmp_path}"):
        with pytest.raises(ConfigError, match="--proxy"):
            proxy_chain([missing])


@pytest.mark.parametrize(
    ("host", "name", "address"),
    [
        ("192.0.2.7", "", "192.0.2.7"),
        ("192.0.2.7", "a.example", "192.0.2.7"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.7"),  # as some scanners name a host
        ("2001:db8::7", "2001:db8::7", "2001:db8::7"),
        ("", "a.example", ""),
        ("a.example", "a.example", ""),
        ("a7", "a7", ""),
    ],
)
def test_the_address_that_a_row_has(host: str, name: str, address: str) -> None:
    assert Target(0, host, 22, "tcp", name).address == address


# -- patience with proxies that fail


def test_a_few_failures_are_no_trouble() -> None:
    patience = Patience()
    for _ in range(IN_A_ROW - 1):
        patience.failed(0.0)
    assert patience.room(0.0, 256) == 256
    patience.passed()
    for _ in range(IN_A_ROW - 1):
        patience.failed(1.0)
    assert patience.room(1.0, 256) == 256


def test_in_trouble_one_begins_at_a_time_and_ever_more_rarely() -> None:
    patience = Patience()
    for _ in range(IN_A_ROW):
        patience.failed(10.0)
    now, pauses = 10.0, []
    for _ in range(6):
        assert patience.room(patience.begins_at - 0.001, 256) == 0
        pauses.append(patience.begins_at - now)
        now = patience.begins_at
        assert patience.room(now, 256) == 1
        patience.began(now)
        patience.failed(now)
    assert pauses == [FIRST_S, 1.0, 2.0, 4.0, LONGEST_S, LONGEST_S]
    assert not patience.given_up
    patience.passed()
    assert patience.room(now, 256) == 256


def test_it_gives_up_at_last() -> None:
    patience = Patience()
    for _ in range(IN_A_ROW):
        patience.failed(10.0)
    patience.failed(10.0 + GIVE_UP_S - 1)
    assert not patience.given_up
    patience.failed(10.0 + GIVE_UP_S)
    assert patience.given_up


# -- results and the proxies that they came through


GONE = HopError(2, "http://q:2", "connection refused")
FORBIDS = HopError(1, "socks5://p:1", "its rules forbid the destination", gone=False)
TARGET = Target(0, HOST, 22, "tcp", state="open")


def test_a_row_says_at_which_proxy_it_failed() -> None:
    result = row("", 22, verdict=Verdict.INCOMPLETE, reason=Reason.PROXY)
    judged = Proxied().judged(result, GONE, 0.0)
    assert judged.post == {"proxy": {"hop": 2, "at": "http://q:2", "why": "connection refused"}}


@pytest.mark.parametrize(
    ("lost", "lost_at", "verdict"),
    [
        (GONE, 9.6, Verdict.INCOMPLETE),
        (GONE, 10.4, Verdict.INCOMPLETE),
        (GONE, 9.4, Verdict.TCPWRAPPED),
        (FORBIDS, 10.1, Verdict.TCPWRAPPED),
        (None, 10.1, Verdict.TCPWRAPPED),
    ],
)
def test_a_tcp_wrapper_is_in_doubt_until_the_proxies_are_seen_to_live(
    lost: HopError | None, lost_at: float, verdict: Verdict
) -> None:
    """A proxy that dies ends conversations as a wrapper does: then nothing is claimed of the target."""
    wrapped = row("tcpwrapped", 22, verdict=Verdict.TCPWRAPPED)
    proxied = Proxied()
    assert proxied.doubts(proxied.judged(wrapped, None, 10.0))
    assert not proxied.doubts(row("ssh", 22))
    if lost is not None:
        proxied.judged(row("", 23, verdict=Verdict.INCOMPLETE, reason=Reason.PROXY), lost, lost_at)
    settled = proxied.settled(TARGET, wrapped, 10.0)
    assert settled.verdict is verdict
    if verdict is Verdict.INCOMPLETE:
        assert (settled.reason, settled.state, settled.name, settled.conf) == (Reason.PROXY, "open", "", 0)
        assert settled.post == {
            "proxy": {"hop": 2, "at": "http://q:2", "why": "it failed while the target was listened to"}
        }


@pytest.mark.parametrize(
    ("result", "passed"),
    [
        (row("ssh", 22), True),
        (row("", 22, verdict=Verdict.NOMATCH), True),
        (row("", 22, verdict=Verdict.INCOMPLETE, reason=Reason.REFUSED), True),
        (row("", 22, verdict=Verdict.INCOMPLETE, reason=Reason.TIMEOUT), False),
        (row("", 22, verdict=Verdict.INCOMPLETE, reason=Reason.CANCELLED), False),
        (row("", 22, verdict=Verdict.TCPWRAPPED), False),
    ],
)
def test_what_shows_that_the_proxies_live(result: ServiceResult, passed: bool) -> None:
    proxied = Proxied()
    for _ in range(IN_A_ROW):
        proxied.judged(row("", 23, verdict=Verdict.INCOMPLETE, reason=Reason.PROXY), GONE, 0.0)
    proxied.judged(result, None, 0.1)
    assert proxied.patience.room(0.1, 256) == (256 if passed else 0)


def test_one_proxy_has_fewer_conversations_at_once() -> None:
    """Where the user does not say how many; over all workers."""
    through = ScanConfig(proxy=("socks5://p:1",), workers=2)
    assert inflight_limit(through) == MAX_INFLIGHT_PROXY // 2
    assert inflight_limit(ScanConfig(proxy=("socks5://p:1",), max_inflight=12)) == 12
