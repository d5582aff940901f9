"""The farm and the grabber written in C (farm.c, grab.c): compiled where there is a compiler, and run."""

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.spent import Spent, spent

GRAB_INFLIGHT = 500  # more makes it slower
HERE = Path(__file__).resolve().parent


class CompilerError(Exception):
    """There is no C compiler, or it cannot compile a program here; the text is one line."""


def addresses(count: int) -> list[str]:
    """The addresses that grab.c visits, in its order."""
    return [f"127.{1 + number // 64000}.{number // 250 % 256}.{number % 250 + 1}" for number in range(count)]


def compiled(name: str, folder: Path) -> Path:
    """The program made from bench/NAME.c. Raises CompilerError."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise CompilerError("no C compiler; with Debian: apt-get install gcc libc6-dev")
    program = folder / name
    done = subprocess.run(
        [compiler, "-O2", "-o", program, HERE / f"{name}.c"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CompilerError(f"{compiler} cannot compile {name}.c: {done.stderr.partition(chr(10))[0]}")
    return program


@contextlib.contextmanager
def farm(program: Path, mode: str, ports: Sequence[int] = ()) -> Iterator[int]:
    """A farm as long as the block; gives its port, which is the first free one of `ports`, or any."""
    port = first_free(ports)
    with subprocess.Popen([program, mode, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.wait()


def first_free(ports: Sequence[int]) -> int:
    """The first of these ports that nobody uses; 0, which is any, where there is none."""
    return next(filter(_is_free, ports), 0)


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("", port))
        except OSError:
            return False
    return True


def grab(program: Path, mode: str, port: int, *, hosts: int, total: int, ending: str = "rst") -> Spent:
    """What the grabber takes. ending: `rst` or `fin`. Raises CalledProcessError when a connection brought nothing."""
    return spent([program, mode, *map(str, (port, hosts, total, GRAB_INFLIGHT)), ending])
