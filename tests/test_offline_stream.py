"""A stream of stored responses: unpacked, cut into chunks where nothing is cut that belongs together, and written."""

import gzip
import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard

from engine.errors import InputError, OutputError, SinkClosed
from engine.offline.identify import identify
from engine.offline.stream import LINES, READ_SIZE, Chunk, Destination, Source
from engine.unpack import PIECE, ZSTD_MAGIC, Damaged, unpacked
from matcher import compile_matcher, parse_database

MATCHER = compile_matcher(parse_database(b"Probe TCP NULL q||\nmatch a m|^a|\n", "db"), "reference", cache=False)


def chunks(path: Path) -> tuple[list[Chunk], Source]:
    with Source(str(path)) as source:
        return list(source.chunks()), source


def lines(count: int) -> bytes:
    return b"".join(b'{"banner":"%d"}\n' % number for number in range(count))


SKIPPED = b"\x50\x2a\x4d\x18\x05\0\0\0hello"  # a frame of zstd's that holds nothing
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "zstd": zstandard.compress,
    "zstd behind a skipped frame": lambda text: SKIPPED + zstandard.compress(text),
    "gzip": gzip.compress,
}


@pytest.mark.parametrize("pack", PACKERS.values(), ids=list(PACKERS))
@pytest.mark.parametrize("frames", [1, 3])
def test_chunks_hold_every_line_once_and_know_their_number(
    tmp_path: Path, pack: Callable[[bytes], bytes], frames: int
) -> None:
    """Plain or compressed, in one frame or several on end."""
    text = lines(60_000)
    path = tmp_path / "rows"
    step = len(text) // frames
    path.write_bytes(b"".join(pack(text[at : at + step]) for at in range(0, len(text), step)))
    found, source = chunks(path)
    assert b"".join(chunk.data for chunk in found) == text
    assert len(found) > 1
    for before, after in pairwise(found):
        assert before.data.endswith(b"\n")
        assert after.line == before.line + before.data.count(b"\n")
    assert found[-1].position == source.size == path.stat().st_size
    assert not source.faults


@pytest.mark.parametrize("coding", ["utf-16", "utf-8-sig"])
def test_text_of_another_coding_is_read(tmp_path: Path, coding: str) -> None:
    """What PowerShell and Notepad write, by its byte order mark."""
    path = tmp_path / "rows"
    path.write_bytes('{"banner":"é€😀"}\r\n{"banner":"b"}\r\n'.encode(coding))
    answers = list(identify(chunks(path)[0], MATCHER, (), 1))
    assert [json.loads(line)["banner"] for answer in answers for line in answer.out.splitlines()] == ["é€😀", "b"]
    assert not any(answer.faults.count for answer in answers)


def test_gzip_may_be_padded(tmp_path: Path) -> None:
    path = tmp_path / "rows.gz"
    path.write_bytes(gzip.compress(lines(3)) + b"\0" * 1000)
    found, source = chunks(path)
    assert b"".join(chunk.data for chunk in found) == lines(3)
    assert not source.faults


def test_a_compressed_input_is_unpacked_in_bounded_pieces(tmp_path: Path) -> None:
    for pack in (zstandard.compress, gzip.compress):
        packed = pack((b" " * 99 + b"\n") * 1_000_000)
        assert len(packed) < 2 * READ_SIZE, "all of it comes with two reads"
        size = 0
        for piece in unpacked([packed], pytest.fail):
            assert len(piece) <= PIECE
            size += len(piece)
        assert size == 100_000_000


def test_a_window_larger_than_memory_is_refused() -> None:
    """A frame says how much its reader must remember; nobody has to believe it."""
    for descriptor in (b"\0\xa8", b"\xe0" + (1 << 40).to_bytes(8, "little")):
        with pytest.raises(Damaged, match="too much memory"):
            list(unpacked([ZSTD_MAGIC + descriptor + b"\x09\0\0a"], pytest.fail))


def test_a_chunk_has_a_bounded_number_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    text = b"\n" * (3 * LINES + 7)
    path.write_bytes(text)
    found, _ = chunks(path)
    assert b"".join(chunk.data for chunk in found) == text
    assert [chunk.line for chunk in found] == [0, LINES, 2 * LINES, 3 * LINES]


@pytest.mark.parametrize("pack", [zstandard.compress, gzip.compress])
def test_a_cut_compressed_file_is_noticed(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "rows"
    whole = pack(lines(200_000))
    path.write_bytes(whole[: len(whole) // 2])
    found, source = chunks(path)
    assert sum(chunk.data.count(b"\n") for chunk in found) > 70_000
    assert "ends in the middle" in str(source.faults[0])


@pytest.mark.parametrize("pack", [zstandard.compress, gzip.compress])
def test_a_damaged_file_is_an_error_after_what_was_good(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """Down to the last line that had not ended when the damage came."""
    path = tmp_path / "rows"
    path.write_bytes(pack(b'{"banner":"a"}\n{"banner":"b"}') + b"garbage that is no frame")
    with Source(str(path)) as source:
        found = source.chunks()
        assert next(found).data == b'{"banner":"a"}\n'
        assert next(found).data == b'{"banner":"b"}'
        with pytest.raises(InputError, match="damaged"):
            list(found)


def test_a_chunk_never_ends_inside_a_wrapped_fingerprint(tmp_path: Path) -> None:
    wrapped = b'SF-Port1-TCP:V=1%r(NULL,5,"a\nSF:bc\nSF:de");\n'
    path = tmp_path / "nmap"
    path.write_bytes(b"SF-Port1-TCP:V=1\n" + wrapped * 20_000)
    found, _ = chunks(path)
    assert len(found) > 1
    assert all(chunk.data.startswith(b"SF-Port") and chunk.data.endswith(b'");\n') for chunk in found)


def test_a_line_without_end_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.offline.stream.MAX_LINE", 2 * READ_SIZE)
    path = tmp_path / "rows"
    path.write_bytes(b'{"banner":"a"}\n' + b"x" * 5 * READ_SIZE + b'\n{"banner":"b"}\n')
    found, source = chunks(path)
    assert [(chunk.data, chunk.line) for chunk in found] == [(b'{"banner":"a"}\n', 0), (b'{"banner":"b"}\n', 2)]
    assert [fault.line for fault in source.faults] == [2]


def test_a_pipe_is_read_as_it_comes(tmp_path: Path) -> None:
    """A whole line is passed on without waiting for the next one."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    with Source(str(path)) as source:
        found = source.chunks()
        os.write(writer, b'{"banner":"a"}\n{"banner"')
        assert next(found).data == b'{"banner":"a"}\n'
        os.write(writer, b':"b"}\n')
        assert next(found).data == b'{"banner":"b"}\n'
    os.close(writer)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no-such: cannot be read: No such file"):
        Source(str(tmp_path / "no-such"))
    path = tmp_path / "rows"
    path.write_bytes(b"keep")
    with Source(str(path)) as source:
        with pytest.raises(InputError, match="is the input, too"):
            Destination(str(path), source)
        with pytest.raises(OutputError):
            Destination(str(tmp_path / "no-folder" / "x"), source)
    assert path.read_bytes() == b"keep"


def test_a_destination_compresses_by_its_name(tmp_path: Path) -> None:
    with Source(os.devnull) as source:
        destination = Destination(str(tmp_path / "out.zst"), source)
    destination.write(b"one\n")
    destination.write(b"two\n")
    destination.close()
    unpacked = zstandard.ZstdDecompressor().decompressobj().decompress((tmp_path / "out.zst").read_bytes())
    assert unpacked == b"one\ntwo\n"


def test_nobody_reads(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with Source(os.devnull) as source:
        destination = Destination(str(pipe), source)
    os.close(reader)
    with pytest.raises(SinkClosed):
        destination.write(b"x" * 100_000)
