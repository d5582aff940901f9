"""`probemill convert` into files: every input into every output, damage, refusals, exit codes."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import zstandard

from engine import __version__
from engine.model import Batch
from engine.results.sinks import Run, Summary, open_sink
from engine.results.table import full_rows, lean_rows
from engine.state.attempt import Attempt
from engine.state.digest import Position
from engine.state.journal import Journal, read_journal
from engine.state.segments import SegmentSink
from tests.rows import LINES, varied
from tests.test_journal import rewritten

ROOT = Path(__file__).resolve().parent.parent
ROWS = varied(300)
COUNT = 300
SUMMARY = Summary(0.0)
needs_arrow = pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs probemill[lake]")


def command(*given: object, data: bytes = b"", **environment: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "probemill", *map(str, given)],
        input=data,
        capture_output=True,
        check=False,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
    )


def convert(*given: object, data: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    done = command("convert", *given, data=data)
    assert done.returncode == 0, done.stderr
    return done


def state(folder: Path, rows: bytes = ROWS, segments: int = 3) -> Path:
    """A state folder with the rows in several segments."""
    sink = SegmentSink(Journal.open(folder, {}), size=1, seconds=0)
    lines = rows.splitlines(keepends=True)
    step = -(-len(lines) // segments)
    for at in range(0, len(lines), step):
        some = lines[at : at + step]
        sink.take(Batch(b"".join(some), len(some), list(range(at, at + len(some))), {}))
    sink.close(SUMMARY)
    return folder


def written(form: str, path: Path, rows: bytes = ROWS) -> Path:
    sink = open_sink(form, str(path), Run("1", "x", 0.0))
    sink.write(rows, rows.count(b"\n"))
    sink.close(SUMMARY)
    return path


def packed(path: Path, data: bytes) -> Path:
    data = zstandard.ZstdCompressor().compress(data) if path.suffix == ".zst" else data
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def hive(folder: Path) -> Path:
    for at, day in enumerate(("scan=a%20b/date=2026-11-21", "scan=c/date=2026-11-22")):
        (folder / day).mkdir(parents=True)
        lines = ROWS.splitlines(keepends=True)
        written("parquet", folder / day / "part-1.parquet", b"".join(lines[at * 150 : at * 150 + 150]))
    (folder / "_delivered").mkdir()
    (folder / "_delivered" / "x.parquet").write_bytes(b"not to be read")
    return folder


def delta(folder: Path) -> Path:
    deltalake = pytest.importorskip("deltalake", reason="needs probemill[lake]")
    from engine.results.arrow import batch_of

    deltalake.write_deltalake(str(folder), batch_of(ROWS), partition_by=["proto"])
    return folder


INPUTS: dict[str, Callable[[Path], Path]] = {
    "state": lambda place: state(place / "state"),
    "lean": lambda place: packed(place / "rows.ndjson", ROWS),
    "full": lambda place: packed(place / "full.jsonl", full_rows(ROWS)),
    "zst": lambda place: packed(place / "rows.ndjson.zst", ROWS),
    "gz": lambda place: packed(place / "rows.ndjson.gz", full_rows(ROWS)),
    "parquet": lambda place: written("parquet", place / "rows.parquet"),
    "hive": lambda place: hive(place / "hive"),
    "delta": lambda place: delta(place / "delta"),
}
OUTPUTS = ["out.ndjson", "out.ndjson.zst", "out.ndjson.gz", "out.parquet", "out.csv", "out.xml", "out.txt", "out.gnmap"]


def content(path: Path) -> list[str]:
    """What a file says, without what tells when it was made, in some order of its own."""
    if path.suffix == ".parquet":
        from pyarrow import parquet

        return sorted(map(str, parquet.read_table(path, partitioning=None).to_pylist()))
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    return sorted(
        line
        for line in data.decode().splitlines()
        if not any(word in line for word in ("probemill", "nmaprun", "<finished"))
    )


@needs_arrow
@pytest.mark.parametrize("given", INPUTS)
def test_every_input_into_every_output(tmp_path: Path, given: str) -> None:
    """The rows are those that the sink itself writes from them; NDJSON is the same to the byte."""
    source = INPUTS[given](tmp_path)
    (tmp_path / "should").mkdir()
    for name in OUTPUTS:
        form = {"ndjson": "ndjson", "txt": "text", "gnmap": "grepable"}.get(name.split(".")[1], name.split(".")[1])
        convert("-q", source, tmp_path / name)
        assert content(tmp_path / name) == content(written(form, tmp_path / "should" / name)), name
    if given not in {"delta"}:  # which lies in folders by protocol here
        assert (tmp_path / "out.ndjson").read_bytes() == ROWS
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@needs_arrow
def test_there_and_back(tmp_path: Path) -> None:
    """Through Parquet, full rows, CSV left out: the original bytes."""
    packed(tmp_path / "a.ndjson", LINES)
    convert("-q", tmp_path / "a.ndjson", tmp_path / "b.parquet")
    convert("-q", "--rows", "full", tmp_path / "b.parquet", tmp_path / "c.ndjson.gz")
    convert("-q", tmp_path / "c.ndjson.gz", tmp_path / "d.parquet")
    convert("-q", tmp_path / "d.parquet", tmp_path / "e.ndjson")
    assert (tmp_path / "e.ndjson").read_bytes() == LINES
    assert gzip.decompress((tmp_path / "c.ndjson.gz").read_bytes()) == full_rows(LINES)


def test_pipes_and_several_inputs(tmp_path: Path) -> None:
    """From standard input to standard output; the inputs in their order; told on the side."""
    packed(tmp_path / "a.ndjson.zst", LINES)
    done = convert(tmp_path / "a.ndjson.zst", "-", "-", data=ROWS)
    assert done.stdout == LINES + ROWS
    assert b"303 rows" in done.stderr
    assert convert("-", "-", data=b"").stdout == b""


def test_xml_of_old_scans(tmp_path: Path) -> None:
    """Packed or not, from a pipe, too; what it says can be written as XML again."""
    report = written("xml", tmp_path / "old.xml")
    convert("-q", report, tmp_path / "rows.ndjson")
    packed(tmp_path / "old.xml.gz", report.read_bytes())
    convert("-q", tmp_path / "old.xml.gz", tmp_path / "again.xml")
    assert convert("-q", "-", "-", data=report.read_bytes()).stdout == (tmp_path / "rows.ndjson").read_bytes()
    convert("-q", tmp_path / "again.xml", tmp_path / "again.ndjson")
    again = (tmp_path / "again.ndjson").read_bytes().replace(f'"nmap {__version__}"'.encode(), b'"nmap 1"')
    assert again == (tmp_path / "rows.ndjson").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "rows.ndjson").read_bytes().splitlines()]
    given = [json.loads(line) for line in ROWS.splitlines()]
    assert sorted((row["ip"], row["port"], row["proto"]) for row in rows) == sorted(
        (row["ip"], row["port"], row["proto"])
        for row in given
        if row["ip"] and row.get("reason") not in ("cancelled", "proxy")
    )


BAD = [
    b"{",
    b"[1]",
    b'{"ip":"192.0.2.1"}',
    ROWS.splitlines()[5].replace(b'"port":', b'"port":9'),
    ROWS.splitlines()[5].replace(b'"verdict":"', b'"verdict":"x'),
    ROWS.splitlines()[5].replace(b'"ip":"', b'"ip":"x'),
    ROWS.splitlines()[5].replace(b'"started":"2026', b'"started":"26'),
    b"\xff\xfe\xfd",
]


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
def test_a_bad_line_costs_nothing_but_itself(tmp_path: Path, bad: bytes) -> None:
    """It is told with its number."""
    if bad == BAD[3]:
        bad = bad.replace(b'"port":9', b'"port":99999')
    lines = ROWS.splitlines(keepends=True)
    packed(tmp_path / "a.ndjson", b"".join([*lines[:9], bad + b"\n", *lines[9:]]))
    done = command("convert", tmp_path / "a.ndjson", tmp_path / "b.ndjson")
    assert done.returncode == 1
    assert f"{tmp_path}/a.ndjson:10: ".encode() in done.stderr
    assert b"1 line skipped" in done.stderr
    assert (tmp_path / "b.ndjson").read_bytes() == ROWS


def test_many_bad_lines_are_counted(tmp_path: Path) -> None:
    """The first are shown."""
    done = command("convert", "-q", "-", "-", data=b"x\n" * 1000 + LINES)
    assert (done.returncode, done.stdout) == (1, LINES)
    assert len(done.stderr.splitlines()) == 21
    assert b"980 more lines" in done.stderr


@needs_arrow
def test_rows_of_a_table_that_are_none(tmp_path: Path) -> None:
    """Are told by their number, whoever wrote the table."""
    import pyarrow as pa
    from pyarrow import parquet

    from engine.results.arrow import batch_of

    table = pa.Table.from_batches([batch_of(ROWS)]).drop_columns(["ip_bytes", "pseudo", "schema_version"])
    wrong = table.set_column(0, "ip", pa.array(["nonsense", None, *table.column("ip").to_pylist()[2:]]))
    verdicts = wrong.column("verdict").to_pylist()
    wrong = wrong.set_column(wrong.schema.get_field_index("verdict"), "verdict", pa.array([*verdicts[:-1], "x"]))
    wrong = wrong.set_column(1, "port", wrong.column("port").cast(pa.int64()))
    parquet.write_table(wrong, tmp_path / "a.parquet")
    done = command("convert", tmp_path / "a.parquet", tmp_path / "b.ndjson")
    assert done.returncode == 1
    for said in (b":1: `ip` is no address", b":2: has no `ip`", b":300: `verdict` is none that is known"):
        assert b"a.parquet" + said in done.stderr
    assert (tmp_path / "b.ndjson").read_bytes().count(b"\n") == 297
    parquet.write_table(pa.table({"ip": pa.array([{"x": 1}])}), tmp_path / "c.parquet")
    done = command("convert", tmp_path / "c.parquet", tmp_path / "d.ndjson")
    assert (done.returncode, (tmp_path / "d.ndjson").exists()) == (2, False)


def halves(place: Path) -> dict[str, Path]:
    """Inputs that are cut."""
    noise = b"".join(
        line.replace(b'"sha256":"00"', b'"sha256":"%s"' % os.urandom(500).hex().encode())
        for line in varied(2000).splitlines(keepends=True)
    )
    found = {}
    for name in ("a.ndjson", "a.ndjson.zst", "a.ndjson.gz"):
        data = packed(place / name, noise).read_bytes()
        found[name] = place / name
        found[name].write_bytes(data[: len(data) * 2 // 3])
    report = written("xml", place / "a.xml", noise).read_bytes()
    found["a.xml"] = place / "a.xml"
    found["a.xml"].write_bytes(report[: len(report) * 2 // 3])
    return found


@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.zst", "a.ndjson.gz", "a.xml"])
def test_what_precedes_damage_is_converted(tmp_path: Path, name: str) -> None:
    """One line tells of it, or two: the cut, and the line it cuts. What follows in other inputs is converted, too."""
    cut = halves(tmp_path)[name]
    packed(tmp_path / "more.ndjson", LINES)
    done = command("convert", "-q", cut, tmp_path / "more.ndjson", tmp_path / "b.ndjson")
    assert done.returncode == 1
    assert 1 <= len(done.stderr.splitlines()) <= 2
    rows = (tmp_path / "b.ndjson").read_bytes()
    assert rows.endswith(LINES)
    assert 800 < rows.count(b"\n") < 1999
    assert lean_rows(rows) == rows


@needs_arrow
def test_half_a_parquet_file(tmp_path: Path) -> None:
    """Its end tells where things are: nothing can be read of it, and of the others everything."""
    folder = hive(tmp_path / "hive")
    half = folder / "scan=c" / "date=2026-11-22" / "part-0.parquet"
    data = (half.parent / "part-1.parquet").read_bytes()
    half.write_bytes(data[: len(data) // 2])
    done = command("convert", "-q", folder, tmp_path / "b.ndjson")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert b"part-0.parquet: cannot be read as Parquet" in done.stderr
    assert (tmp_path / "b.ndjson").read_bytes() == ROWS


def test_a_segment_that_is_gone(tmp_path: Path) -> None:
    """Is told; the others are converted."""
    folder = state(tmp_path / "state")
    (folder / "part-000002.ndjson.zst").unlink()
    done = command("convert", "-q", folder, tmp_path / "b.ndjson")
    assert done.returncode == 1
    assert b"part-000002.ndjson.zst: No such file" in done.stderr
    assert (tmp_path / "b.ndjson").read_bytes().count(b"\n") == 200


def test_a_segment_that_has_changed(tmp_path: Path) -> None:
    """Is told, although it can be read."""
    folder = state(tmp_path / "state")
    packed(folder / "part-000003.ndjson.zst", LINES)
    done = command("convert", "-q", folder, tmp_path / "b.ndjson")
    assert done.returncode == 1
    assert b"part-000003.ndjson.zst: has changed since it was committed" in done.stderr


def state_elsewhere(folder: Path) -> Path:
    """A state folder whose segments lie in another one beside it."""
    journal = Journal.open(folder, {}, segments=str(folder.with_suffix(".segments")))
    lines = ROWS.splitlines(keepends=True)
    for at in range(0, len(lines), 100):
        made = Attempt()
        some = lines[at : at + 100]
        made.write(b"".join(some), len(some), range(at, at + len(some)))
        assert journal.commit(made.put(journal.staging), Position())
    journal.close()
    return folder


def test_segments_that_lie_elsewhere(tmp_path: Path) -> None:
    """Are read where they are, and verified as others are; `probemill state` says where."""
    folder = state_elsewhere(tmp_path / "state")
    assert convert("-q", folder, "-").stdout == ROWS
    facts = json.loads(command("state", folder).stdout)
    assert facts["segments_in"] == f"{tmp_path}/state.segments"
    assert json.loads(command("state", state(tmp_path / "plain")).stdout)["segments_in"] == f"{tmp_path}/plain"
    _, records = read_journal(folder)
    packed(tmp_path / "state.segments" / records[1].key, LINES)
    (tmp_path / "state.segments" / records[2].key).unlink()
    done = command("convert", "-q", folder, tmp_path / "b.ndjson")
    assert done.returncode == 1
    assert f"{records[1].key}: has changed since it was committed" in done.stderr.decode()
    assert f"{records[2].key}: No such file" in done.stderr.decode()


def test_a_place_of_segments_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, not one for each segment, and no file: what could be read is not all there is."""
    pytest.importorskip("obstore", reason="needs probemill[lake]")
    folder = state_elsewhere(tmp_path / "state")
    rewritten(folder / "journal", 0, lambda header: {**header, "segments": "s3://bucket/x"})
    for name, value in {"ENDPOINT_URL": "http://127.0.0.1:1", "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    done = command("convert", "-q", folder, tmp_path / "b.ndjson")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert b"s3://bucket/x/segment-" in done.stderr
    assert not (tmp_path / "b.ndjson").exists()


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """Nothing is written over where nothing could be used; a link leads where it led."""
    (tmp_path / "real.ndjson").write_bytes(b"before")
    (tmp_path / "b.ndjson").symlink_to("real.ndjson")
    done = command("convert", "-q", "-", tmp_path / "b.ndjson", data=b"nonsense\n")
    assert done.returncode == 2
    assert (tmp_path / "b.ndjson").read_bytes() == b"before"
    convert("-q", "-", tmp_path / "b.ndjson", data=LINES)
    assert (tmp_path / "real.ndjson").read_bytes() == LINES
    assert (tmp_path / "b.ndjson").is_symlink()


def test_what_is_no_file_is_written_to_as_it_is() -> None:
    """A pipe, whose name tells no form."""
    assert convert("-q", "-", "/dev/stdout", data=LINES).stdout == LINES


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a.ndjson"], b"name what to read"),
        (["a.ndjson", "a.ndjson"], b"would be lost"),
        (["folder", "folder/sub/b.ndjson"], b"lies in"),
        (["folder", "ndjson+zstd:folder"], b"lies in"),
        (["ndjson+zstd:folder", "ndjson+zstd:folder/sub"], b"lies in"),
        (["a.ndjson", "b.docx"], b"tells no form"),
        (["a.ndjson", "s3://lake/x"], b"tells no form"),
        (["gone.ndjson", "b.ndjson"], b"No such file"),
        (["http://x/", "b.ndjson"], b"cannot be read from"),
        (["empty", "b.ndjson"], b"holds no rows"),
        (["--scan-name", "x", "a.ndjson", "b.ndjson"], b"is for sinks"),
        (["--scan-name", "a/b", "a.ndjson", "ndjson+zstd:lake"], b"letters, digits"),
        (["-", "ndjson+zstd:lake"], b"a pipe cannot be told"),
        (["--from", "state", "folder", "b.ndjson"], b"holds no run"),
    ],
    ids=str,
)
def test_what_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], said: bytes) -> None:
    """Is said before anything is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    packed(tmp_path / "folder" / "a.ndjson", LINES)
    packed(tmp_path / "a.ndjson", LINES)
    before = sorted(tmp_path.rglob("*"))
    done = command("convert", *given)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


PEAK = """
import resource, sys
from engine.cli.main import cli
cli.main(standalone_mode=False)
sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10))
"""


@pytest.mark.slow
@needs_arrow
@pytest.mark.parametrize(
    ("given", "out"), [("rows.ndjson.zst", "out.parquet"), ("rows.xml", "out.ndjson"), ("rows.parquet", "out.ndjson")]
)
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, given: str, out: str) -> None:
    """Half a million rows take what twenty thousand take, but for what a row group of Parquet may take."""
    from pyarrow import parquet

    from engine.results.arrow import SCHEMA, batch_of

    rows = varied(10_000)
    peaks = []
    for times in (2, 50):
        source = tmp_path / given
        if given == "rows.xml":
            source.write_bytes(written("xml", tmp_path / "one.xml", rows).read_bytes() * times)
        elif given == "rows.parquet":
            batch = batch_of(rows)
            with parquet.ParquetWriter(source, SCHEMA) as writer:
                for _ in range(times):
                    writer.write_batch(batch)
        else:
            packed(source, rows * times)
        line = [sys.executable, "-c", PEAK, "convert", "-q", str(source), str(tmp_path / out)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(line, capture_output=True, check=True, timeout=300, env=environment)
        peaks.append(int(done.stdout))
    few, many = peaks
    assert many < few + 300, "MiB"


def test_an_address_may_have_a_zone(tmp_path: Path) -> None:
    """As a scan of `fe80::1%eth0` writes it."""
    row = LINES.splitlines(keepends=True)[1].replace(b'"ip":"2001:db8::1"', b'"ip":"fe80::1%eth0"')
    assert b"%eth0" in row
    (tmp_path / "rows.ndjson").write_bytes(row)
    assert convert(tmp_path / "rows.ndjson", tmp_path / "out.ndjson").returncode == 0
    assert (tmp_path / "out.ndjson").read_bytes() == row
