"""Compressed outputs: what is written can be read at once, and as far as it came when a run ends by force."""

import gzip
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from test_sinks import ALL, RUN, SF, SSH, SUMMARY, blob, row

from engine.errors import OutputError
from engine.offline.stream import Source
from engine.results.sinks import SINKS, STDOUT, SinkClosed, open_sink
from engine.results.suffixes import FORMS, Name, read_name
from engine.unpack import unpacked

PACKED = [".zst", ".gz"]
ROOT = Path(__file__).resolve().parent.parent


def readable(path: Path) -> tuple[bytes, bool]:
    """What can be unpacked of a file, and whether it has a proper end."""
    faults: list[str] = []
    text = b"".join(unpacked([path.read_bytes()], faults.append))
    return text, not faults


def unpack(path: Path) -> bytes:
    """The content of a whole file, checked by its checksum."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data)
    assert zstandard.get_frame_parameters(data).has_checksum
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    text = unpacker.decompress(data)
    assert unpacker.eof
    assert not unpacker.unused_data
    return text


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("form", SINKS)
def test_every_form_is_the_same_inside(tmp_path: Path, form: str, suffix: str) -> None:
    """Packed or not; a run without rows leaves a whole file too."""
    for rows in (ALL, []):
        for path in (tmp_path / "rows", tmp_path / f"rows{suffix}"):
            sink = open_sink(form, str(path), RUN)
            if rows:
                sink.write(blob(rows), len(rows))
            sink.close(SUMMARY)
        assert unpack(tmp_path / f"rows{suffix}") == (tmp_path / "rows").read_bytes()


@pytest.mark.parametrize("suffix", PACKED)
def test_what_was_written_can_be_read_at_once(tmp_path: Path, suffix: str) -> None:
    """Rows are never held back for those behind them, and yet each shares what is alike with those before it."""
    path = tmp_path / f"rows.ndjson{suffix}"
    sink = open_sink("ndjson", str(path), RUN)
    rows = [row(f"127.0.{n >> 8}.{n & 255}", name="http", product="nginx", elapsed_ms=n) for n in range(1000)]
    for at, each in enumerate(rows):
        sink.write(blob([each]), 1)
        if at % 100 == 0:
            assert readable(path) == (blob(rows[: at + 1]), False)
    sink.close(SUMMARY)
    assert unpack(path) == blob(rows)
    assert path.stat().st_size < len(blob(rows)) / 5


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file may grow above this many bytes, which is how a full disk looks to a writer."""
    limit = 10_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("suffix", PACKED)
def test_a_full_disk_leaves_what_was_accepted(tmp_path: Path, small_files: int, suffix: str) -> None:
    """One line; the file unpacks to exactly the rows that were accepted, and nothing later spoils it."""
    path = tmp_path / f"rows.ndjson{suffix}"
    sink = open_sink("ndjson", str(path), RUN)
    accepted = b""
    with pytest.raises(OutputError, match=rf"^{re.escape(str(path))}: File too large$"):
        for number in range(small_files):
            piece = blob([row(port=number, fingerprint=os.urandom(200).hex())] * 2)
            sink.write(piece, 2)
            accepted += piece
    assert readable(path) == (accepted, False)
    resource.setrlimit(resource.RLIMIT_FSIZE, resource.getrlimit(resource.RLIMIT_FSIZE)[1:] * 2)  # there is room again
    sink.write(blob([SSH]), 1)
    sink.close(SUMMARY)
    assert readable(path) == (accepted, False)


@pytest.mark.parametrize("suffix", PACKED)
def test_a_disk_that_is_full_at_the_end(tmp_path: Path, suffix: str) -> None:
    """Is told of, though only the checksum did not fit."""
    path = tmp_path / f"rows.ndjson{suffix}"
    sink = open_sink("ndjson", str(path), RUN)
    sink.write(blob(ALL), len(ALL))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, before[1]))
    try:
        with pytest.raises(OutputError, match="File too large"):
            sink.close(SUMMARY)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert readable(path) == (blob(ALL), False)


@pytest.mark.parametrize("suffix", PACKED)
def test_a_packed_pipe_whose_reader_goes_away(tmp_path: Path, suffix: str) -> None:
    """Is closed, and silent from then on."""
    path = tmp_path / f"pipe{suffix}"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = open_sink("ndjson", str(path), RUN)
    sink.write(blob([SSH]), 1)
    os.close(reader)
    with pytest.raises(SinkClosed):
        sink.write(blob([SSH]), 1)
    sink.write(blob([SSH]), 1)
    sink.close(SUMMARY)


@pytest.mark.parametrize("suffix", PACKED)
def test_a_scan_that_is_killed_leaves_its_rows(tmp_path: Path, suffix: str) -> None:
    """By SIGKILL, with nobody left to close anything; the tools that people have print the rows."""
    path = tmp_path / f"rows.ndjson{suffix}"
    (tmp_path / "probes").write_text("Probe TCP NULL q||\nmatch hello m|^HELLO|\n")
    command = [sys.executable, "-m", "probemill", "scan", "-q", "--no-post", "--workers", "0", "--matcher", "reference"]
    command += ["--probes", str(tmp_path / "probes"), "-i", "-", "-o", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(b"127.0.0.1:9\n127.0.0.2:9\n")
        process.stdin.flush()
        ends = time.monotonic() + 30
        while time.monotonic() < ends and not (path.exists() and readable(path)[0].count(b"\n") == 2):
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    assert readable(path)[0].count(b"\n") == 2
    tool = shutil.which({".zst": "zstd", ".gz": "gzip"}[suffix])
    if tool is not None:
        printed = subprocess.run([tool, "-dc", path], capture_output=True, check=False)
        assert printed.stdout == readable(path)[0]


def test_what_we_write_we_read(tmp_path: Path) -> None:
    """As stored responses, line for line."""
    for suffix in PACKED:
        path = tmp_path / f"rows{suffix}"
        sink = open_sink("ndjson", str(path), RUN)
        sink.write(blob(ALL), len(ALL))
        sink.close(SUMMARY)
        with Source(str(path)) as source:
            assert b"".join(chunk.data for chunk in source.chunks()) == blob(ALL)
            assert not source.faults


def test_fingerprints_are_packed_too(tmp_path: Path) -> None:
    sink = open_sink("fingerprints", str(tmp_path / "sf.gz"), RUN)
    sink.write(blob(ALL), len(ALL))
    sink.close(SUMMARY)
    assert SF.encode() in gzip.decompress((tmp_path / "sf.gz").read_bytes())


# names


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("rows.ndjson", Name(".ndjson", "ndjson", "")),
        ("a.b/rows.jsonl.zst", Name(".jsonl", "ndjson", "zstd")),
        ("ROWS.XML.GZ", Name(".xml", "xml", "gzip")),
        ("rows.zst", Name("", "", "zstd")),
        ("rows.json", Name(".json", "", "")),
        ("rows.json.gz", Name(".json", "", "gzip")),
        ("rows.zst.gz", Name(".zst", "", "gzip")),
        ("rows", Name("", "", "")),
        ("a.xml/rows", Name("", "", "")),
        (".zst", Name("", "", "")),
        (STDOUT, Name("", "", "")),
        ("/dev/fd/63", Name("", "", "")),
    ],
)
def test_names(path: str, said: Name) -> None:
    assert read_name(path) == said


def test_every_form_that_a_name_can_say_is_one() -> None:
    assert set(FORMS.values()) == (SINKS.keys() | {"parquet"}) - {"fingerprints"}


def scan(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    (folder / "probes").write_text("Probe TCP NULL q||\nmatch hello m|^HELLO|\n")
    command = [sys.executable, "-m", "probemill", "scan", "-q", "--no-post", "--workers", "0", "--probes", "probes"]
    return subprocess.run(
        [*command, "127.0.0.1:9", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("bad", ["rows.json", "rows.parquett", "rows.json.gz", "2026.11.21", "x" * 5000 + ".y"])
def test_a_suffix_that_nobody_knows_is_refused(tmp_path: Path, bad: str) -> None:
    """In one line that says which are known, before anything is opened."""
    done = scan(tmp_path, "-o", "whole.xml", "-o", bad)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    suffix = read_name(bad).suffix
    assert re.search(rf"no form is known by {re.escape(suffix)}; known are \.ndjson, .*; or .* --format", done.stderr)
    assert not (tmp_path / "whole.xml").exists()


def test_who_says_the_form_may_take_any_name(tmp_path: Path) -> None:
    """And a name without a suffix, a pipe or a device needs nobody to."""
    os.mkfifo(tmp_path / "pipe.fifo")
    reader = os.open(tmp_path / "pipe.fifo", os.O_RDONLY | os.O_NONBLOCK)
    assert scan(tmp_path, "-o", "pipe.fifo", "-o", "plain").returncode == 0
    assert os.read(reader, 1) == b"{"
    os.close(reader)
    assert (tmp_path / "plain").read_text()[0] == "{"
    assert scan(tmp_path, "-o", "rows.json.gz", "-o", "rows.xml", "--format", "ndjson").returncode == 0
    assert unpack(tmp_path / "rows.json.gz")[:1] == b"{"
    assert (tmp_path / "rows.xml").read_text()[0] == "<"
    assert scan(tmp_path, "--fingerprints", "unknown.sf", "-o", "/dev/null").returncode == 0
