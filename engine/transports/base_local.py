"""Where on this machine a connection begins: an address, a port, a network interface, or whatever the system chooses.

Contract: `settle` is called on a new socket, before it is connected. Source: ip(7), socket(7), tcp(7) of Linux.
"""

import socket
import struct
from typing import NamedTuple

IP_BIND_ADDRESS_NO_PORT = 24  # Linux; without it every bound socket takes a port of the whole host's range
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER 1,0


class Local(NamedTuple):
    """address: a literal one, or ""; port: 0 for any; interface: its name, or ""."""

    address: str = ""
    port: int = 0
    interface: str = ""

    def settle(self, sock: socket.SocketType) -> None:
        """Bind the socket. Raises OSError: no such address or interface, a port of somebody else's, no right to it.

        Many sockets have the same port, each with a peer of its own. A TCP connection that we end first would keep its
        pair of ports to itself for a minute after that (TIME_WAIT), unless it ends with RST.
        """
        if self.interface:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self.interface.encode() + b"\0")
        if self.port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sock.type & socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            any_address = "::" if sock.family == socket.AF_INET6 else ""
            sock.bind((self.address or any_address, self.port))
        elif self.address:
            if sock.type & socket.SOCK_STREAM:
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((self.address, 0))


ANYWHERE = Local()
