"""What a scripted server does next, whatever world it lives in.

`play` turns the steps of a case into requests, and is answered only where it asked for something to read. Two worlds
obey the requests: scripted.py with sockets and real time, replay.py without either.
"""

from collections.abc import Generator, Sequence

from msgspec import Struct

from cases import Step, octets


class Write(Struct, frozen=True):
    """Send `data` (udp: one datagram, perhaps an empty one)."""

    data: bytes


class Sleep(Struct, frozen=True):
    seconds: float


class Read(Struct, frozen=True):
    """Answer with what arrives, b"" when the peer has left or `seconds` have passed (None: any time)."""

    seconds: float | None = None


class StartTls(Struct, frozen=True):
    """Be a TLS server from here on; answer b"" if the handshake fails, anything else if it succeeds."""


class HalfClose(Struct, frozen=True):
    """Send FIN and go on reading."""


class Hang(Struct, frozen=True):
    """Close the connection, or reset it. The script is over."""

    reset: bool = False


Request = Write | Sleep | Read | StartTls | HalfClose | Hang
Play = Generator[Request, bytes | None, bool]


def play(steps: Sequence[Step]) -> Play:
    """The requests of one connection; the last one is a Hang. The returned value means: hung up already."""
    if not (yield from _steps(steps)):
        yield Hang()
    return True


def _steps(steps: Sequence[Step]) -> Play:
    for step in steps:
        if step == "tls":
            if not (yield StartTls()):
                return False
        elif step == "fin":
            yield HalfClose()
        elif step in ("close", "rst"):
            yield Hang(reset=step == "rst")
            return True
        elif step == "hold":
            while (yield Read()):
                pass
        elif isinstance(step, str):
            raise ValueError(step)
        elif step.send is not None:
            yield Write(octets(step.send))
        elif step.wait is not None:
            yield Sleep(step.wait)
        elif step.recv is not None:
            yield Read(step.recv)
        elif step.on is not None:
            while data := (yield Read()):
                reply = next((r for prefix, r in step.on.items() if data.startswith(prefix.encode("latin-1"))), None)
                if isinstance(reply, list):
                    if (yield from _steps(reply)):
                        return True
                elif reply is not None:
                    yield Write(octets(reply))
    return False
