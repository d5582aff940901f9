"""Texts within answers that are records, not lines: SNMP, DNS, DHCP, SMB and X11. For the second opinion.

Contract: each reader yields `Reading`s of whatever bytes it is given, at most a few dozen, and none where they are cut
or are something else; it may raise IndexError or struct.error for what breaks off within a record.
Source: RFC 3416 and 3418 (SNMP, its system group), RFC 1035 (DNS), RFC 2132 (DHCP options), RFC 6763 (TXT records),
[MS-CIFS] 2.2.4.53.2 and [MS-SMB] 2.2.4.6.2 (session setup), X Window System Protocol, section 8.
"""

import re
import struct
from collections.abc import Iterator

Reading = tuple[str, bytes]
"""A text and its key, which says in Recog's words what the text is."""

RECORDS = 64  # of a DNS message, strings of one, or options of a DHCP message, that are looked at
LABELS = 64  # of a name
TXT = 16

_SYS_DESCR = re.compile(rb"\x06\x08\x2b\x06\x01\x02\x01\x01\x01\0\x04")  # the object's name, then a string
_SYS_OBJECT_ID = re.compile(rb"\x06\x08\x2b\x06\x01\x02\x01\x01\x02\0\x06")  # then an object identifier
_VERSION_BIND = re.compile(  # the end of the question, then the answer's name, type, class, time to live and sizes
    rb"\0\x10\0\x03(?:\xc0.|\x07version\x04bind\0)\0\x10\0\x03.{6}(.)", re.DOTALL | re.IGNORECASE
)
_TXT_KEYS = {b"_device-info": "mdns.device-info.txt", b"_workstation": "mdns.workstation.txt"}
_DHCP_COOKIE, _DHCP_OPTIONS, _DHCP_CLASS = b"\x63\x82\x53\x63", 240, 60
_SMB_SESSION = re.compile(rb"\xffSMB\x73(?:\0\0\0\0|\x16\0\0\xc0)")  # a setup that succeeded, or that goes on
_SMB_FLAGS, _SMB_HEADER, _UNICODE = 10, 32, 0x8000
_X11_SUCCESS, _X11_VENDOR = b"\x01", 40  # bytes before the vendor's name


def snmp(response: bytes) -> Iterator[Reading]:
    description = _value(_SYS_DESCR, response)
    if description:
        yield "snmp.sys_description", description
        yield "snmp.sys_object_id", description  # the file has fingerprints for either, and for both together
    if number := _dotted(_value(_SYS_OBJECT_ID, response)):
        if description:
            yield "snmp.sys_object_id", number + b" " + description
        yield "snmp.sys_object_id", number


def _value(name: re.Pattern[bytes], response: bytes) -> bytes:
    """The value that stands behind a variable's name, as far as it came."""
    found = name.search(response)
    if found is None or found.end() >= len(response):
        return b""
    at = found.end()
    size, at = response[at], at + 1
    if size >= 0x80:  # BER's long form: so many bytes of length follow
        size, at = int.from_bytes(response[at : at + size - 0x80], "big"), at + size - 0x80
    return response[at : at + size]


def _dotted(identifier: bytes) -> bytes:
    """An object identifier in digits: seven bits a byte, and the first two numbers in one (X.690 8.19)."""
    if not identifier or len(identifier) > 128 or identifier[-1] & 0x80:
        return b""
    numbers, number = [], 0
    for byte in identifier:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    first = min(2, numbers[0] // 40)
    return b".".join(b"%d" % each for each in (first, numbers[0] - 40 * first, *numbers[1:]))


def domain(response: bytes) -> Iterator[Reading]:
    if found := _VERSION_BIND.search(response):
        yield "dns.versionbind", response[found.end() : found.end() + found[1][0]]


def mdns(response: bytes) -> Iterator[Reading]:
    """The strings of TXT records that tell of the device."""
    questions, *counts = struct.unpack_from(">4H", response, 4)
    at = 12
    for _ in range(min(questions, RECORDS)):
        at = _name(response, at)[1] + 4
    for _ in range(min(sum(counts), RECORDS)):
        name, at = _name(response, at)
        kind, _, _, size = struct.unpack_from(">HHIH", response, at)
        at += 10
        key = next((key for label, key in _TXT_KEYS.items() if label in name), None)
        if key and kind == TXT:
            yield from ((key, text) for text in _strings(response[at : at + size]))
        at += size


def _name(response: bytes, at: int) -> tuple[list[bytes], int]:
    """The labels of a name in lower case, and where the next field begins."""
    labels: list[bytes] = []
    following = 0
    for _ in range(LABELS):
        size = response[at]
        if size >= 0xC0:  # the rest stands elsewhere
            following = following or at + 2
            at = (size & 0x3F) << 8 | response[at + 1]
        elif size:
            labels.append(response[at + 1 : at + 1 + size].lower())
            at += 1 + size
        else:
            break
    return labels, following or at + 1


def _strings(data: bytes) -> Iterator[bytes]:
    at = 0
    for _ in range(RECORDS):
        if at >= len(data):
            return
        yield data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]


def dhcp(response: bytes) -> Iterator[Reading]:
    """The vendor class, which a server repeats for those that boot from it."""
    at = _DHCP_OPTIONS
    if response[at - 4 : at] != _DHCP_COOKIE:
        return
    for _ in range(RECORDS):
        code = response[at]
        if code == 0xFF:
            return
        if code == 0:  # padding, without a length
            at += 1
            continue
        if code == _DHCP_CLASS:
            yield "dhcp_vendor_class", response[at + 2 : at + 2 + response[at + 1]]
        at += 2 + response[at + 1]


def smb(response: bytes) -> Iterator[Reading]:
    """What SMB1's session setup says of the system and of its LAN manager."""
    if (found := _SMB_SESSION.search(response)) is None:
        return
    message = response[found.start() :]
    words = message[_SMB_HEADER]
    at = _SMB_HEADER + 1 + 2 * words + 2
    if words == 4:  # a security blob stands before the names
        at += int.from_bytes(message[at - 4 : at - 2], "little")
    if int.from_bytes(message[_SMB_FLAGS : _SMB_FLAGS + 2], "little") & _UNICODE:
        names = message[at + at % 2 :].decode("utf-16-le", "replace").split("\0")[:2]
    else:
        names = message[at:].decode("latin-1").split("\0")[:2]
    for key, name in reversed(list(zip(("smb.native_os", "smb.native_lm"), names, strict=False))):
        yield key, name.encode()  # the manager first: it has a version more often


def x11(response: bytes) -> Iterator[Reading]:
    """The vendor of a display that lets us in; its answer is in the order of bytes that was asked for: either one."""
    if response[:1] == _X11_SUCCESS:
        size = min(int.from_bytes(response[24:26], order) for order in ("little", "big"))
        yield "x11.vendor", response[_X11_VENDOR : _X11_VENDOR + size]
