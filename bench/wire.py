"""A network of the bench's own, and what passes over it.

A network namespace has a loopback device for itself: nothing of what others send is counted, the usual ports are free,
and its MTU can be Ethernet's, so that packets are as long as on a wire. Needs root, or a machine that lets users have
namespaces.
"""

import ctypes
import fcntl
import os
import socket
import struct
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

MTU, SEGMENT, HEADERS = 1500, 1448, 52  # bytes; of a packet, of its data, of IPv4 and TCP with timestamps
WATCH_SYN_S = 20.0
BUFFER = 256 << 20  # bytes, of packets that nobody has looked at yet
SO_RCVBUFFORCE = 33
SIOCSIFFLAGS, UP_AND_RUNNING = 0x8914, 0x41
SIOCSIFMTU = 0x8922
NEW_USER, NEW_NET = 0x10000000, 0x40000000  # of unshare(2)
ETH_P_IP = 0x0800
WIRE = ("packets_sent", "packets_received", "bytes_sent", "bytes_received")


class MeasureError(Exception):
    """This machine does not allow it; the text is one line."""


def own_network() -> None:
    """From here on this process and its children have a network for themselves. Raises MeasureError."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(NEW_NET | (NEW_USER if user else 0)):
        raise MeasureError(f"no network namespace: {os.strerror(ctypes.get_errno())}; root may have one")
    try:
        if user:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            fcntl.ioctl(sock, 0x8922, struct.pack("16sI12x", b"lo", MTU))  # SIOCSIFMTU
            fcntl.ioctl(sock, 0x8914, struct.pack("16sH14x", b"lo", 0x41))  # SIOCSIFFLAGS: up, running
    except OSError as error:
        raise MeasureError(f"no network namespace: {error.strerror}; root may have one") from error


class Packets:
    """What passes over lo to or from a port: counted when it is over. Raises MeasureError."""

    def __init__(self, port: int) -> None:
        self._port = port
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
            self._socket.setsockopt(socket.SOL_SOCKET, 33, 256 << 20)  # SO_RCVBUFFORCE
        except OSError:
            with suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 256 << 20)
        self._socket.bind(("lo", ETH_P_IP))

    def counted(self) -> Counter[str]:
        """Those of WIRE."""
        counts = Counter[str]()
        self._socket.setblocking(False)
        with self._socket, suppress(BlockingIOError):
            while True:
                packet = self._socket.recv(1 << 17)
                start = (packet[0] & 15) * 4
                source, target = struct.unpack_from("!HH", packet, start)
                if packet[9] != socket.IPPROTO_TCP or self._port not in (source, target):
                    continue
                direction = "sent" if target == self._port else "received"
                data = len(packet) - start - (packet[start + 12] >> 4) * 4
                segments = max(1, -(-data // SEGMENT))  # what the kernel passes on whole, a wire would not
                counts[f"packets_{direction}"] += segments
                counts[f"bytes_{direction}"] += len(packet) + (segments - 1) * HEADERS
        return counts


def syn_times(port: int) -> tuple[float, ...]:
    """When a connection that is ignored asks, seconds from its start; the farm `unanswered` must be there."""
    began, times = time.monotonic(), []
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
    sniffer.bind(("lo", ETH_P_IP))
    with sniffer, socket.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.2", port))
        while (left_s := began + WATCH_SYN_S - time.monotonic()) > 0:
            sniffer.settimeout(left_s)
            with suppress(TimeoutError):
                packet = sniffer.recv(1 << 16)
                if struct.unpack_from("!H", packet, (packet[0] & 15) * 4 + 2)[0] == port:
                    times.append(round(time.monotonic() - began, 1))
    return tuple(times)


def octets() -> int:
    """Bytes that this network has carried so far, IP headers included."""
    names, values = (
        line.split() for line in Path("/proc/self/net/netstat").read_text().splitlines() if line.startswith("IpExt:")
    )
    return int(values[names.index("OutOctets")])
