"""Whatever a peer says to post-processing: no exception, and a row that every sink can write.

Every module gets the answers of a well-behaved peer with some bytes changed, cut, doubled or put in, in reads of any
size, through the real Stream but for its socket.
"""

import asyncio
import math
import ssl
import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peers import HOST, row, row_of
from test_ntlm import ENCODED, SERVER
from test_post import ENGINE, MYSQL, SMB1_ANSWER, SNMP_REPORT, XMPP_FEATURES, fingerprint, smb2_answer, table

from engine.model import ServiceResult, Tunnel, Verdict
from engine.post import ALL, ASKERS, READERS, PostProcessing, rpc
from engine.post.base import LARGEST, noted, text
from engine.post.base_ssh import KEXINIT, LISTS, packed, string, wanted
from engine.post.snmp import engine_facts
from engine.post.ssh_keys import REQUEST
from engine.text import one_line
from engine.transports.dial import DialError, Dialler, DialTimeoutError, Stream

SSH_LISTS = dict.fromkeys(LISTS, b"x") | {
    "kex": b"diffie-hellman-group-exchange-sha256",
    "host_key": b"ssh-ed25519,ssh-rsa,ssh-dss",
}
SPOOFS = "\x00\x07\x1b[2J\x7f\x85\x9b31m\xad\u200b\u202e\u2066\u2028\ufeff\ue000\U000e0041\ufdd0"

# -- what may stand in a row


def texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for key, item in value.items():
                yield key
                yield from texts(item)
        case list() | tuple():
            for item in value:
                yield from texts(item)
        case float():
            assert math.isfinite(value)
        case int():
            assert -(1 << 63) <= value < 1 << 63
        case _:
            assert value is None


def check_row(result: ServiceResult) -> None:
    """It can be written and read again, is no longer than a row should be, and no text in it steers a terminal."""
    encoded = msgspec.json.encode(result)
    again = msgspec.json.decode(encoded)
    assert len(msgspec.json.encode(again.get("post"))) <= LARGEST
    shown = {**again, "fingerprint": ""}  # which has line breaks of its own
    assert all(part.isprintable() for part in texts(shown))


def test_what_no_row_may_hold() -> None:
    """The one door for facts lets nothing else through, whatever a module does."""
    known = row("x", 1)
    for value in (1 << 63, -(1 << 63) - 1, math.inf, math.nan, b"", {1}, (1,), object(), "x" * LARGEST, [[]] * LARGEST):
        for facts in (value, {"a": value}, {"a": [1, {"b": value}]}):
            with pytest.raises(ValueError):
                noted(known, "x", facts)
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError):
        noted(known, "x", deep)
    whole = noted(known, "x", {"half": "y" * (LARGEST // 2)})
    with pytest.raises(ValueError):
        noted(whole, "other", {"half": "y" * (LARGEST // 2)})
    fine = {"a": [1, -1, 2**63 - 1, 1.5, True, None, "x", {}]}
    assert noted(known, "x", fine).post == {"x": fine}
    check_row(noted(known, "x", {SPOOFS: [SPOOFS]}))


def test_text_of_strangers_is_one_line_that_steers_nothing() -> None:
    """Controls and blanks are folded; what reorders, hides or is no character becomes a dot; the rest stays."""
    assert one_line("a\x00\x1b\x85\x9b\t b\u2028c\n", 99) == "a b c"
    assert one_line("a\u202eb\u200bc\u2066d\ufeffe\xadf\ue000g\U000e0041h\ud800i", 99) == "a.b.c.d.e.f.g.h.i"
    assert one_line("Grüße, 世界 👋", 99) == "Grüße, 世界 👋"
    assert text("\u202eé".encode()) == ".é"
    assert text(b"\x9b31m\xff") == "31mÿ"  # Latin-1's C1
    assert text("é".encode() * 300) == "é" * 256
    assert text("x é".encode() * 300, 1) == "x"
    assert text(b"x" + "é".encode() * 2, 1) == "x"


def test_a_number_of_snmp_has_32_bits() -> None:
    """One of thousands of digits would make a whole batch of rows unwritable."""
    from engine.post.snmp import INTEGER, OCTETS, _integer, _sequence, _tlv

    for longer in (_tlv(INTEGER, b"\x7f" * 2000), _tlv(INTEGER, b"\x7f" * 6), _tlv(INTEGER, b"")):
        security = _tlv(OCTETS, _sequence(_tlv(OCTETS, ENGINE), longer, _integer(7), *[_tlv(OCTETS, b"")] * 3))
        message = _sequence(_integer(3), _sequence(_integer(0x50726F62)), security, _sequence())
        with pytest.raises(DialError):
            engine_facts(message)


def test_an_identifier_and_a_sequence_of_snmp_are_bounded() -> None:
    from engine.post.snmp import OCTETS, _integer, _sequence, _tlv

    def message(engine: bytes, *more: bytes) -> bytes:
        security = _tlv(OCTETS, _sequence(_tlv(OCTETS, engine), _integer(0), _integer(7), *more))
        return _sequence(_integer(3), _sequence(_integer(0x50726F62)), security, _sequence())

    assert engine_facts(message(b"x" * 32))["engine_id"] == "78" * 32
    for bad in (message(b"x" * 33), message(b""), message(b"x", *[_integer(0)] * 9)):
        with pytest.raises(DialError):
            engine_facts(bad)


# -- peers whose bytes are changed

EDITS = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.sampled_from([0, 0, 1, 1, 2, 4, 16, 10_000]),
        st.one_of(
            st.binary(max_size=6),
            st.sampled_from(
                [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\x84\xff\xff\xff\xff", b"\r\n", b"<"]
            ),
            st.sampled_from(
                [SPOOFS.encode(), SPOOFS.encode("utf-16-le", "surrogatepass"), b"9" * 5000, b"\x30\x80" * 900]
            ),
        ),
    ),
    max_size=4,
)
SIZES = st.lists(st.integers(1, 200), max_size=6)
Answer = Callable[[bytes], bytes]


def edited(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    """edits: (where, how many bytes go, what comes in their place)."""
    for where, gone, new in edits:
        at = int(where * len(data))
        data = data[:at] + new + data[at + gone :]
    return data


class Socket:
    def close(self) -> None:
        pass


class Scripted(Stream):
    """A stream whose peer answers what is sent to it with the changed bytes, in reads of the given sizes, then ends."""

    def __init__(self, dial: "ScriptedDialler", *, datagrams: bool) -> None:
        super().__init__(Socket(), dial)  # type: ignore[arg-type]
        self._dial = dial
        self._waiting = b"" if datagrams else dial.said(b"")
        self._datagrams = datagrams

    async def _write(self, data: bytes, until: float) -> None:
        self._waiting += self._dial.said(data)

    async def _more(self, until: float) -> bytes:
        if self._datagrams and not self._waiting:
            raise DialTimeoutError("timed out")
        size = next(self._dial.sizes, 65536)
        data, self._waiting = self._waiting[:size], self._waiting[size:]
        if self._datagrams:
            self._waiting = b""
        self._dialler.count(len(data))
        return data

    async def start_tls(self, context: ssl.SSLContext | None = None) -> None:
        if not self._dial.transparent:
            raise DialError(f"TLS: {SPOOFS}")


class ScriptedDialler(Dialler):
    """transparent: TLS that is asked for changes nothing, rather than failing."""

    def __init__(
        self, answer: Answer, edits: list[tuple[float, int, bytes]], sizes: list[int], *, transparent: bool = False
    ) -> None:
        super().__init__(HOST, 1, None, asyncio.get_running_loop().time() + 5)  # type: ignore[arg-type]
        self.sizes = iter(sizes)
        self.transparent = transparent
        self._answer = answer
        self._edits = edits

    def said(self, sent: bytes) -> bytes:
        return edited(self._answer(sent), self._edits)

    async def open(
        self, proto: Literal["tcp", "udp"], tunnel: Tunnel = Tunnel.NONE, tls: ssl.SSLContext | None = None
    ) -> Stream:
        stream = Scripted(self, datagrams=proto == "udp")
        if tunnel is not Tunnel.NONE:
            await stream.start_tls(tls)
        return stream


def _frame(*frames: bytes) -> bytes:
    return b"".join(struct.pack(">BHI", 1, 0, len(frame)) + frame + b"\xce" for frame in frames)


def _amqp(sent: bytes) -> bytes:
    properties = table(product="RabbitMQ", version="3.10.8", platform="Erlang")
    start = struct.pack(">HHBBI", 10, 10, 0, 9, len(properties)) + properties
    return _frame(start + struct.pack(">I", 14) + b"PLAIN AMQPLAIN") if sent else b""


def _ssh(sent: bytes) -> bytes:
    lists = [b"kex1,kex2", b"ssh-ed25519", b"aes1", b"aes1,aes2", b"mac", b"mac", b"none", b"none", b"", b""]
    payload = b"\x14" + bytes(16) + b"".join(struct.pack(">I", len(one)) + one for one in lists) + bytes(5)
    return b"" if sent else b"SSH-2.0-x\r\n" + struct.pack(">IB", len(payload) + 5, 4) + payload + bytes(4)


def _ssh_keys(sent: bytes) -> bytes:
    """Identification and lists; a group; and a reply whose signature is none."""
    if len(sent) < 20 or sent[5] == KEXINIT:
        return b"" if sent else b"SSH-2.0-x\r\n" + packed(wanted(SSH_LISTS))
    if sent[5] == REQUEST:
        return packed(b"\x1f" + string(b"\0" + b"\xff" * 128) + string(b"\2"))
    key = string(b"ssh-rsa") + string(b"\3") + string(b"\0" + b"\xc5" * 128)
    return packed(b"\x21" + string(key) + string(b"\4" * 32) + string(string(b"ssh-rsa") + string(b"5" * 128)))


def _http(sent: bytes) -> bytes:
    page = b"<title>A page</title><link rel=icon href=/i>" if sent.startswith(b"GET / ") else b"ICON"
    return (
        b"HTTP/1.1 200 OK\r\nServer: s/1\r\nLocation: /x\r\nContent-Length: %d\r\n\r\n" % len(page) + page
        if sent
        else b""
    )


def _rpc(sent: bytes) -> bytes:
    """To all calls: the portmapper is here in two versions, nothing else is; and its list."""
    replies, at = [], 0
    framed = len(sent) > 40
    while at + 40 <= len(sent):
        at += 4 * framed
        xid, _, _, program, _, procedure = struct.unpack_from(">6I", sent, at)
        at += 40
        reply = struct.pack(">6I", xid, 1, 0, 0, 0, 0 if procedure else 2 if program == 100000 else 1)
        entries = [struct.pack(">5I", 1, 100000 + port, version, 6, port) for port in range(200) for version in (2, 3)]
        reply += (b"".join(entries) + bytes(4)) if procedure else struct.pack(">2I", 2, 4)
        replies.append((struct.pack(">I", rpc.LAST_FRAGMENT | len(reply)) if framed else b"") + reply)
    return b"".join(replies)


def _smb2(sent: bytes) -> bytes:
    return struct.pack(">I", len(smb2_answer())) + smb2_answer() if sent else b""


def _lines(sent: bytes) -> bytes:
    """A little of every protocol that upgrades to TLS."""
    return b"OK\r\n+OK 220 go\r\n220 go\r\n382\r\n* OK\r\na OK go\r\n:x 670 *\r\n234 go\r\nS" + bytes.fromhex(
        "300c02010178070a010004000400"
    )


def _mysql(sent: bytes) -> bytes:
    return b"" if sent else len(MYSQL).to_bytes(3, "little") + b"\0" + MYSQL


def _xmpp(sent: bytes) -> bytes:
    return b"<proceed/>" if b"<starttls" in sent else XMPP_FEATURES if sent else b""


def _ntlm(sent: bytes) -> bytes:
    """NTLM over lines: a greeting, what EHLO asks for, go on, and the CHALLENGE."""
    if b"TlRMTVNT" in sent:
        return b"334 " + ENCODED + b"\r\n"
    return b"250-x\r\n250 AUTH NTLM\r\n" if sent.startswith(b"EHLO") else b"334 \r\n" if sent else b"220 hi\r\n"


def _ntlm_http(sent: bytes) -> bytes:
    return b"HTTP/1.1 401 No\r\nWWW-Authenticate: NTLM " + ENCODED + b"\r\n\r\n" if sent else b""


def _rdp(sent: bytes) -> bytes:
    """It agrees to whatever is asked for, and to NLA with a CHALLENGE."""
    if b"NTLMSSP" in sent:
        return b"\x30\x82" + struct.pack(">H", len(SERVER)) + SERVER
    return bytes.fromhex("030000130ed0000012340002090800") + sent[-4:] if sent else b""


def _http2(sent: bytes) -> bytes:
    """To the first request: settings, a window, headers without compression, a page."""
    fields = b"".join(
        b"\x00%c%s%c%s" % (len(name), name, len(value), value)
        for name, value in ((b":status", b"200"), (b"server", b"s/1"), (b"content-type", b"text/html"))
    )
    page = b"<title>A page</title>"
    frames = [(4, 0, 0, bytes.fromhex("000300000064")), (8, 0, 0, bytes.fromhex("000f0001")), (4, 1, 0, b"")]
    frames += [(1, 4, 1, fields), (0, 1, 1, page)]
    parts = [struct.pack(">I", len(body))[1:] + struct.pack(">BBI", *head) + body for *head, body in frames]
    return b"".join(parts) if sent.startswith(b"PRI ") else b""


def _quic(sent: bytes) -> bytes:
    """To the query for versions: two of them."""
    versions = bytes.fromhex("00000001ff00001d")
    return b"\x80" + bytes(4) + sent[14:23] + sent[5:14] + versions if sent[1:5] == b"\x1a\x2a\x3a\x4a" else b""


def _server_hello(sent: bytes) -> bytes:
    """TLS 1.2, with ALPN and one more extension."""
    body = b"\x03\x03" + bytes(33) + bytes.fromhex("c02f00 000d 00170000 00100005 0003026832")
    message = b"\x02\0" + len(body).to_bytes(2, "big") + body + b"\x0b\0\0\0"
    return b"\x16\x03\x03" + len(message).to_bytes(2, "big") + message if sent else b""


PEERS: dict[str, Answer] = {
    "rpc": _rpc,
    "rpc-unknown": _rpc,
    "amqp": _amqp,
    "snmp": lambda sent: SNMP_REPORT,
    "murmur": lambda sent: bytes((0, 1, 3, 4)) + sent[4:] + struct.pack(">3I", 2, 500, 72000),
    "ssh": _ssh,
    "ssh-keys": _ssh_keys,
    "starttls": _lines,
    "rdp": _rdp,
    "ntlm": _ntlm,
    "smb2": _smb2,
    "http2": _http2,
    "quic": _quic,
    "web": _http,
    "jarm": _server_hello,
    "sharing": _http,
}
OF_THEIR_OWN: dict[tuple[str, str], Answer] = {  # services that speak otherwise than their module's others
    ("starttls", "mysql"): _mysql,
    **{("starttls", service): _xmpp for service in ("jabber", "xmpp", "xmpp-client", "xmpp-server")},
    ("ntlm", "ms-wbt-server"): _rdp,
    **{("ntlm", service): _ntlm_http for service in ("http", "https", "http-alt", "https-alt", "soap", "webdav")},
}


def test_every_module_has_a_peer() -> None:
    assert set(PEERS) == {module.name for module in ASKERS}
    assert {module.name for module in READERS} | set(PEERS) == set(ALL)


@cache
def _names() -> dict[int, str]:
    return {100000 + number: f"program{number}" for number in range(300)}


@pytest.fixture(autouse=True, scope="module")
def few_programs() -> Iterator[None]:
    """A table that one batch asks through: the fuzzer has better things to do."""
    before, rpc.program_names = rpc.program_names, _names  # type: ignore[assignment]
    yield
    rpc.program_names = before


def talk_to(module: str, service: str, answer: Answer, edits: list[tuple[float, int, bytes]], sizes: list[int]) -> None:
    """Let a module hold its conversation: of what it raises itself, only what parsers of short bytes raise is fair."""
    known = row_of(module, service, 1)
    asker = next(asker for asker in ASKERS if asker.name == module)
    assert PostProcessing((module,)).wants(known)

    async def ask() -> ServiceResult:
        try:
            dial = ScriptedDialler(answer, edits, sizes, transparent=module == "ntlm")
            return await asker.ask(known, b"", dial)
        except (DialError, struct.error, ValueError, IndexError):
            return known

    result = asyncio.run(ask())
    check_row(result)
    if not edits and not sizes and module not in ("starttls", "rpc-unknown"):
        assert result.post or result.version, "the peer is not as well-behaved as it should be"


SERVICES = {module.name: sorted(module.services) or [""] for module in ASKERS}
SERVICES["web"].remove("quic")  # test_quic_hostile.py changes what is said there
SERVICES["http2"] = ["grpc", "http2", "http", "imap"]  # most bytes to what is said outside TLS


@pytest.mark.parametrize("module", PEERS)
def test_a_well_behaved_peer(module: str) -> None:
    """Without this the others would say little."""
    for service in SERVICES[module]:
        talk_to(module, service, OF_THEIR_OWN.get((module, service), PEERS[module]), [], [])


@pytest.mark.parametrize("module", PEERS)
def test_changed_answers(module: str) -> None:
    @settings(max_examples=60, deadline=None)
    @given(service=st.sampled_from(SERVICES[module]), edits=EDITS, sizes=SIZES)
    def check(service: str, edits: list[tuple[float, int, bytes]], sizes: list[int]) -> None:
        talk_to(module, service, OF_THEIR_OWN.get((module, service), PEERS[module]), edits, sizes)

    check()


@pytest.mark.parametrize("module", PEERS)
def test_any_bytes(module: str) -> None:
    @settings(max_examples=30, deadline=None)
    @given(service=st.sampled_from(SERVICES[module]), answers=st.lists(st.binary(max_size=200)), sizes=SIZES)
    def check(service: str, answers: list[bytes], sizes: list[int]) -> None:
        left = iter(answers)
        talk_to(module, service, lambda sent: next(left, b""), [(0, 0, b"")], sizes)

    check()


@settings(max_examples=200, deadline=None)
@given(seed=st.sampled_from(["http", "smb", "fingerprint"]), edits=EDITS)
def test_what_the_scan_has_got_already(seed: str, edits: list[tuple[float, int, bytes]]) -> None:
    post = PostProcessing(("http", "smb"))
    if seed == "smb":
        check_row(post.read(row("microsoft-ds", 445), edited(SMB1_ANSWER, edits)))
        return
    answer = edited(_http(b"GET / "), edits)
    if seed == "http":
        check_row(post.read(row("http", 80), answer))
    else:
        guessed = row("http-alt", 8080, verdict=Verdict.NOMATCH, fingerprint=fingerprint(GetRequest=answer))
        check_row(post.read(guessed, b""))
