"""Fuzz post-processing: `python tests/fuzz_post.py [libFuzzer options]` with atheris.

The first byte chooses a module and one of its services, the second the size of the reads, the rest is what the peer
says. The rules are those of test_fuzz_post.py: no exception but those of parsers of short bytes, and a row that every
sink can write. `-max_total_time=60` bounds a run.
"""

import sys
import tempfile

from test_fuzz_post import PEERS, SERVICES, _names, check_row, talk_to

from engine.model import Tunnel
from engine.post import READERS, PostProcessing, rpc

MAX_BYTES = 4096
CHOICES = [(module, service) for module in PEERS for service in SERVICES[module]]


def check(data: bytes) -> None:
    choice, size, said = (*data[:2], 0, 0)[0], (*data[:2], 0, 0)[1], data[2:MAX_BYTES]
    read_too(said)
    module, service = CHOICES[choice % len(CHOICES)]
    answers = iter([said[at : at + 512] for at in range(0, len(said), 512)])
    talk_to(module, service, lambda sent: next(answers, b""), [(0, 0, b"")], [size % 64 + 1] * 50)


def read_too(said: bytes) -> None:
    """The modules that read what the scan has got already see everything."""
    from peers import row

    post = PostProcessing(reader.name for reader in READERS)
    for name, port in (("http", 80), ("microsoft-ds", 445)):
        for tunnel in Tunnel:
            check_row(post.read(row(name, port, tunnel=tunnel), said))


def main() -> None:
    import atheris

    rpc.program_names = _names  # type: ignore[assignment]
    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as found:
        atheris.Setup([*sys.argv, found], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
