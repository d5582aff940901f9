"""Fuzz the readers of target files: `python tests/fuzz_targets.py [libFuzzer options]` with atheris.

The rules, checked by `check` here and on mutated files in test_fuzz_targets.py, for every reader and any bytes:
no exception; the same items however the bytes are cut; ordinals without gap; targets that can be connected to; errors
of one short line that any terminal can show. `-max_total_time=60` bounds a run.
"""

import sys
import tempfile
from itertools import islice
from pathlib import Path

from engine.errors import InputError
from engine.model import Target
from engine.targets import FORMATS, Item, PortSpec, TargetSpec, canonical_address, parse_name, target_reader

MAX_BYTES = 4096
SEEDS = Path(__file__).parent / "inputs"


def read(data: bytes, form: str, cut: int, ports: PortSpec | None = None) -> tuple[list[Item], int, int]:
    """What a reader says, how many targets it has counted, and how many lines. cut: bytes of a piece."""
    reader = target_reader("in", form, ports, 7)
    items = [item for at in range(0, len(data), cut) for item in reader.feed(data[at : at + cut])]
    items += reader.close()
    return items, reader.ordinal, reader.line


def check(data: bytes) -> None:
    data = data[:MAX_BYTES]
    for form in ("auto", *FORMATS):
        for ports in (None, PortSpec([80])) if form in ("auto", "plain") else (PortSpec([80]),):
            whole = read(data, form, len(data) + 1, ports)
            check_items(whole[0], whole[1])
            for cut in (1, 7):
                pieces = read(data, form, cut, ports)
                assert shown(pieces[0]) == shown(whole[0]), (form, cut)
                assert pieces[1:] == whole[1:], (form, cut)


def shown(items: list[Item]) -> list[object]:
    """Errors compare by their text."""
    return [str(item) if isinstance(item, InputError) else item for item in items]


def check_items(items: list[Item], end: int) -> None:
    ordinal = 7
    for item in items:
        if isinstance(item, InputError):
            text = str(item)
            assert len(text) < 300, text
            assert text.isprintable(), text
            assert item.line >= 1, text
            continue
        assert item.ordinal == ordinal, item
        ordinal += 1 if isinstance(item, Target) else item.count
        assert not item.name or parse_name(item.name) == item.name, item
        if isinstance(item, TargetSpec):
            targets = list(islice((item.resolved("192.0.2.1") if item.is_name else item).targets(), 3))
            targets.append((item.resolved("192.0.2.1") if item.is_name else item).at(item.count - 1))
        else:
            targets = [item]
        for target in targets:
            assert canonical_address(target.host) == target.host, target
            assert 0 < target.port <= 65535, target
            assert target.proto in ("tcp", "udp"), target
            assert target.state in ("", "open", "open|filtered"), target
    assert ordinal == end


def main() -> None:
    import atheris

    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as found:  # libFuzzer writes what it finds into the first folder
        atheris.Setup([*sys.argv, found, str(SEEDS)], check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
