"""How much of what servers say our own database can name.

`python -m bench.coverage [--general] [--missed KEY] [FOLDER]`

Recog's examples (../shared/data/recog, or FOLDER) are short texts of real servers together with what they tell. Each
is put where its protocol has it (a greeting, a header of a whole HTTP response, an SNMP answer with that sysDescr) and
given to the lines of the probe that would get it. Per kind of text, of those whose product, maker or device is known:

* right: the row's product, operating system, kind of device or CPE shares a distinctive word with Recog's names, or has
  another name of the same thing (SAME);
* wrong: it names a product where Recog names another one;
* version: of those with a version, how many rows have it.

`--general` leaves only the lines whose product is a text out of the response: what is named of servers that nobody has
written a line for. `--missed KEY` lists what is not right; KEY may be `all` or `wrong`. Exit code 1 below the floors.
"""

import base64
import re
import struct
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from msgspec import Struct

from matcher import Match, Matcher, ProbeDatabase, Proto, load_database, parse_database
from matcher.confidence import ROLE

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT.parent / "shared" / "data" / "recog"
RIGHT, WRONG, VERSION = 0.65, 0.002, 0.70  # the floors

GENERAL = re.compile(rb" p/\$\d(?:%b)?/" % ROLE.encode())
THINGS = ("service", "os", "hw", "service.component")
# Words that name no product by themselves.
COMMON = frozenset(
    {
        "and",
        "the",
        "for",
        "of",
        "server",
        "service",
        "web",
        "http",
        "https",
        "ftp",
        "smtp",
        "pop",
        "imap",
        "ssh",
        "telnet",
    }
    | {"snmp", "sip", "dns", "mail", "system", "systems", "inc", "ltd", "corp", "corporation", "project", "software"}
    | {"technologies", "technology", "networks", "network", "communications", "group", "company", "co", "international"}
    | {"device", "devices", "router", "switch", "printer", "gateway", "firewall", "general", "linux", "unix", "access"}
    | {"point", "series"}
)
SAME = {"httpd": "apache", "x": "mac"}  # Recog's words, ours: checked by hand


class Example(Struct, frozen=True):
    """text: what the server says. said: the fields that Recog gives. where: file and line of thought, for people."""

    key: str
    text: bytes
    said: dict[str, str]
    where: str


def examples(folder: Path) -> Iterator[Example]:
    for path in sorted(folder.glob("*.xml")):
        root = ElementTree.parse(path).getroot()
        key = root.get("matches") or path.stem
        for fingerprint in root.iter("fingerprint"):
            fixed = {p.get("name", ""): p.get("value", "") for p in fingerprint.iter("param") if p.get("pos") == "0"}
            where = f"{path.name}: {fingerprint.findtext('description')}"
            for example in fingerprint.iter("example"):
                text = (example.text or "").encode()
                if example.get("_encoding") == "base64":
                    text = base64.b64decode(text)
                given = {name: value for name, value in example.attrib.items() if not name.startswith("_")}
                yield Example(key, text, {**fixed, **given}, where)


# -- each text in its place


def http(head: bytes, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def ber(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    return (bytes((tag, 0x81, size)) if size < 0x100 else struct.pack(">BBH", tag, 0x82, size)) + content


def snmp(text: bytes, number: bytes = b"\x2b\x06\x01\x04\x01\xce\x0f\x01") -> bytes:
    """number: sysObjectID, of nobody."""

    def variable(last: int, value: bytes) -> bytes:
        return ber(0x30, ber(6, b"\x2b\x06\x01\x02\x01\x01" + bytes((last, 0))) + value)

    variables = variable(1, ber(4, text)) + variable(2, ber(6, number)) + variable(5, ber(4, b"box"))
    pdu = ber(0xA2, ber(2, b"pmsn") + ber(2, b"\0") + ber(2, b"\0") + ber(0x30, variables))
    return ber(0x30, ber(2, b"\0") + ber(4, b"public") + pdu)


def version_bind(text: bytes) -> bytes:
    question = b"\x07version\x04bind\0\0\x10\0\x03"
    text = text[:255]
    answer = b"\xc0\x0c\0\x10\0\x03\0\0\0\0" + struct.pack(">HB", len(text) + 1, len(text)) + text
    authority = b"\xc0\x0c\0\x02\0\x03\0\0\0\0\0\x02\xc0\x0c"  # as BIND adds it, up to 9.11
    return b"pm\x85\0\0\x01\0\x01\0\x01\0\0" + question + answer + authority


def mysql(text: bytes) -> bytes:
    salt = b"\x08\0\0\0" + b"abcdefgh\0" + b"\xff\xf7\x08\x02\0\xff\x81\x15" + bytes(10) + b"abcdefghijkl\0"
    packet = b"\x0a" + text + b"\0" + salt + b"mysql_native_password\0"
    return struct.pack("<I", len(packet))[:3] + b"\0" + packet


def mysql_error(text: bytes) -> bytes:
    packet = b"\xff\x6a\x04" + text
    return struct.pack("<I", len(packet))[:3] + b"\0" + packet


def ntp(text: bytes) -> bytes:
    return b"\x16\x82\0\x01\x06\x18\0\0\0\0" + struct.pack(">H", len(text)) + text


def sip(header: bytes) -> Callable[[bytes], bytes]:
    def answer(text: bytes) -> bytes:
        via = b"Via: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKprobemill;rport=40000\r\n"
        names = b"From: <sip:probemill@127.0.0.1>;tag=probemill\r\nTo: <sip:probemill@127.0.0.1>;tag=as1\r\n"
        rest = b"Call-ID: probemill@127.0.0.1\r\nCSeq: 1 OPTIONS\r\n" + header + b": " + text + b"\r\n"
        return b"SIP/2.0 200 OK\r\n" + via + names + rest + b"Content-Length: 0\r\n\r\n"

    return answer


def greeting(before: bytes) -> Callable[[bytes], bytes]:
    def answer(text: bytes) -> bytes:
        lines = text.replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")
        return b"".join(before + line.rstrip(b"\r") + b"\r\n" for line in lines)

    return answer


def smb(text: bytes, of_lan_manager: bool = False) -> bytes:
    """Session setup's answer (MS-CIFS 2.2.4.53.2) behind negotiation's."""
    native_os, manager = (b"Unix", text) if of_lan_manager else (text, b"Samba 3.0.0")
    strings = b"".join(name + b"\0" for name in (native_os, manager, b"WORKGROUP"))
    negotiated = b"\x11\0\0\x032\0\1\0\4A\0\0\0\0\1\0\x1d\x16\0\0\xfd\xe3\0\0" + bytes(10) + b"\x08\x08\0abcdefgh"
    session = b"\x03\xff\0\0\0\1\0" + struct.pack("<H", len(strings)) + strings
    return smb_message(b"r", negotiated) + smb_message(b"s", session)


def smb_message(command: bytes, rest: bytes) -> bytes:
    message = b"\xffSMB" + command + bytes(4) + b"\x88\x01\x40" + bytes(14) + b"mp\0\0\0\0" + rest
    return struct.pack(">I", len(message)) + message


def x11(text: bytes) -> bytes:
    """A setup that succeeded (X Window System Protocol, appendix B), little-endian."""
    padded = text + bytes(-len(text) % 4)
    body = struct.pack(
        "<IIIIHHBBBBBBBB4x", 12101004, 0x200000, 0x1FFFFF, 256, len(text), 65535, 1, 1, 0, 0, 32, 32, 8, 255
    )
    body += padded + struct.pack("<BBB5x", 1, 1, 32)
    return struct.pack("<BxHHH", 1, 11, 0, len(body) // 4) + body


def rtsp(text: bytes) -> bytes:
    return b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nServer: " + text + b"\r\nPublic: DESCRIBE, SETUP, TEARDOWN, PLAY\r\n\r\n"


PLACES: dict[str, tuple[Proto, str, Callable[[bytes], bytes]]] = {  # key -> protocol, probe, the response
    "snmp.sys_description": ("udp", "SNMPv1Public", snmp),
    "http_header.server": ("tcp", "GetRequest", lambda text: http(b"Server: " + text + b"\r\n")),
    "html_title": (
        "tcp",
        "GetRequest",
        lambda text: http(
            b"", b"<!DOCTYPE html>\n<html><head><title>" + text + b"</title></head><body></body></html>\n"
        ),
    ),
    "http_header.cookie": ("tcp", "GetRequest", lambda text: http(b"Set-Cookie: " + text + b"\r\n")),
    "http_header.wwwauth": (
        "tcp",
        "GetRequest",
        lambda text: http(b"WWW-Authenticate: " + text + b"\r\n").replace(b"200 OK", b"401 Unauthorized", 1),
    ),
    "ssh.banner": ("tcp", "NULL", greeting(b"SSH-2.0-")),
    "ftp.banner": ("tcp", "NULL", greeting(b"220 ")),
    "smtp.banner": ("tcp", "NULL", greeting(b"220 ")),
    "pop3.banner": ("tcp", "NULL", greeting(b"+OK ")),
    "imap4.banner": ("tcp", "NULL", greeting(b"* OK ")),
    "nntp.banner": ("tcp", "NULL", greeting(b"200 ")),
    "telnet_banners": ("tcp", "NULL", lambda text: text),
    "mysql.banners": ("tcp", "NULL", mysql),
    "mysql.error": ("tcp", "NULL", mysql_error),
    "dns.versionbind": ("udp", "DNSVersionBind", version_bind),
    "ntp.readvar": ("udp", "NTPReadVar", ntp),
    "sip_header.server": ("udp", "SIPOptionsUDP", sip(b"Server")),
    "sip_header.user_agent": ("udp", "SIPOptionsUDP", sip(b"User-Agent")),
    "rtsp_header.server": ("tcp", "RtspOptions", rtsp),
    "smb.native_os": ("tcp", "SMB1Session", smb),
    "smb.native_lm": ("tcp", "SMB1Session", lambda text: smb(text, of_lan_manager=True)),
    "x11.vendor": ("tcp", "X11Setup", x11),
}


# -- what counts


def words(*texts: str) -> set[str]:
    return {word for text in texts for word in re.findall(r"[a-z0-9]+", text.lower()) if len(word) > 1} - COMMON


def named(said: dict[str, str]) -> set[str]:
    """The distinctive words of product, family and maker; empty where Recog names nobody."""
    values = [said.get(f"{thing}.{field}", "") for thing in THINGS for field in ("product", "vendor", "family")]
    return words(*(value for value in values if value not in ("Unknown", "")))


def told(match: Match) -> set[str]:
    info = match.info
    cpe = [name.replace("_", " ").replace(":", " ") for name in info.cpe]
    found = words(info.product, info.ostype, info.devicetype, *cpe)
    return found | {SAME[word] for word in found & SAME.keys()}


def joined(texts: set[str]) -> str:
    return " ".join(sorted(texts))


def agrees(ours: set[str], theirs: set[str]) -> bool:
    """Share a word, or one is spelled together in the other: `big ip`, `bigip`."""
    return bool(ours & theirs) or any(len(a) > 3 and (a in b or b in a) for a in ours for b in theirs if len(b) > 3)


def versions(said: dict[str, str]) -> set[str]:
    return {said[f"{thing}.version"] for thing in THINGS if said.get(f"{thing}.version")}


def has_version(match: Match, wanted: set[str]) -> bool:
    info = match.info
    return any(version in text for version in wanted for text in (info.version, info.extrainfo, info.ostype, *info.cpe))


def main(arguments: list[str]) -> int:
    database = general() if "--general" in arguments else load_database("builtin")
    arguments = [argument for argument in arguments if argument != "--general"]
    wanted = ""
    if "--missed" in arguments:
        at = arguments.index("--missed")
        wanted = arguments[at + 1]
        del arguments[at : at + 2]
    folder = Path(arguments[0]) if arguments else FOLDER
    if not folder.is_dir():
        print(f"{folder} is not there")
        return 0
    matcher = Matcher(database)
    probes = {(probe.proto, probe.name): probe for probe in database.probes}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for example in examples(folder):
        place = PLACES.get(example.key)
        theirs = named(example.said)
        if place is None or not theirs:
            continue
        proto, probe, make = place
        response = make(example.text)
        match = matcher.match(probes[proto, probe], response)
        ours = told(match) if match else set()
        count = counts[example.key]
        count["all"] += 1
        right = agrees(ours, theirs)
        count["right"] += right
        spoken = bool(match and match.info.product and example.said.get("service.product"))
        wrong = spoken and not right
        count["wrong"] += wrong
        if known := versions(example.said):
            count["versioned"] += 1
            got = bool(match and has_version(match, known))
            count["version"] += got
        else:
            got = True
        if (wanted in (example.key, "all") and not (right and got)) or (wanted == "wrong" and wrong):
            line = f"line {match.signature.line}: {match.info.product!r} {match.info.version!r}" if match else "nothing"
            mark = "wrong" if wrong else "missed" if not right else "version"
            print(f"{mark:8} {example.key} {example.text[:150]!r} -> {line}; Recog: {joined(theirs)} {known or ''}")
    return table(counts)


def general() -> ProbeDatabase:
    """Our own database without the lines that know a product by its name."""
    lines = (ROOT / "data" / "service-probes").read_bytes().split(b"\n")
    kept = [line for line in lines if not line.startswith(b"match ") or GENERAL.search(line)]
    return parse_database(b"\n".join(kept), "general")


def table(counts: dict[str, Counter[str]]) -> int:
    total: Counter[str] = sum(counts.values(), Counter())
    print("| text | with a product | right | wrong | with a version | right |\n|---|---|---|---|---|---|")
    for key, count in [*sorted(counts.items(), key=lambda item: -item[1]["all"]), ("all", total)]:
        print(
            "| {} | {} | {} | {} | {} | {} |".format(
                key, *(count[n] for n in ("all", "right", "wrong", "versioned", "version"))
            )
        )
    right, wrong = total["right"] / total["all"], total["wrong"] / total["all"]
    version = total["version"] / total["versioned"]
    print(f"right {right:.1%} (floor {RIGHT:.0%}), wrong {wrong:.2%} (at most {WRONG:.1%})")
    print(f"version {version:.1%} (floor {VERSION:.0%})")
    return 0 if right >= RIGHT and wrong <= WRONG and version >= VERSION else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
