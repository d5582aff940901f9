"""Parquet and NDJSON in folders: what is seen of a batch, and when. On a disk, and on an S3 API on loopback."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from engine.errors import ConfigError, InputError, OutputError
from engine.results.lake import Batch, Delivery, Lake, Unavailable, open_lake
from engine.results.table import full_rows

pa = pytest.importorskip("pyarrow", reason="needs probemill[lake]")
import pyarrow.dataset

from bench.object_store import BUCKET, ObjectStore, object_store
from engine.results.arrow import SCHEMA
from engine.results.lake import base_place

ROOT = Path(__file__).resolve().parent.parent
RUN = "0123456789abcdef"
FORMS = ["parquet", "ndjson+zstd"]
OPEN: list[Lake] = []


def lines(first: int, count: int, day: str = "2026-11-21") -> bytes:
    """Rows whose address and port tell them apart."""
    return b"".join(
        b'{"ip":"10.0.%d.%d","port":%d,"proto":"tcp","verdict":"nomatch","database":{"name":"x","sha256":"00"},'
        b'"started":"%sT06:38:13.402Z","elapsed_ms":0,"connections":1,"bytes":%d}\n'
        % (number >> 8 & 255, number & 255, number, day.encode(), number)
        for number in range(first, first + count)
    )


def opened(form: str, where: Path | str, staging: Path, *, full: bool = False) -> Lake:
    staging.mkdir(exist_ok=True)
    lake = open_lake(f"{form}:{where}", Delivery(RUN, "a scan", str(staging), full))
    OPEN.append(lake)
    return lake


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def ports(folder: Path) -> Counter[int]:
    """Of every row that a reader finds, told by the suffixes of files alone."""
    found: Counter[int] = Counter()
    for path in folder.rglob("*.parquet"):
        found.update(pa.parquet.read_table(path, columns=["port"], partitioning=None).column("port").to_pylist())
    for path in folder.rglob("*.ndjson.zst"):
        text = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read()
        found.update(json.loads(line)["port"] for line in text.splitlines())
    return found


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_appears_whole(tmp_path: Path, form: str) -> None:
    """Nothing before `commit`, everything behind it, under names that tell scan and day."""
    lake = opened(form, tmp_path / "lake", tmp_path / "staging")
    batch = Batch(1, 3)
    assert not lake.holds(batch)
    lake.write(lines(0, 100) + lines(100, 50, "2026-11-22"))
    lake.write(lines(150, 10))
    assert not ports(tmp_path)
    lake.commit(batch)
    assert lake.holds(batch)
    assert ports(tmp_path) == Counter(range(160))
    folders = {str(path.parent.relative_to(tmp_path / "lake")) for path in (tmp_path / "lake").rglob("part-*")}
    assert folders == {"scan=a%20scan/date=2026-11-21", "scan=a%20scan/date=2026-11-22"}
    lake.close()
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(base_place.STAGED)]


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_that_comes_again_is_there_once(tmp_path: Path, form: str) -> None:
    """Also where only one of its days had arrived."""
    lake = opened(form, tmp_path / "lake", tmp_path / "staging")
    for _ in range(2):
        lake.write(lines(0, 10) + lines(10, 10, "2026-11-22"))
        lake.commit(Batch(1, 1))
    next((tmp_path / "lake").rglob("date=2026-11-22/part-*")).unlink()
    for path in (tmp_path / "lake" / "_delivered").iterdir():
        path.unlink()
    again = opened(form, tmp_path / "lake", tmp_path / "staging")
    assert not again.holds(Batch(1, 1))
    again.write(lines(0, 10) + lines(10, 10, "2026-11-22"))
    again.commit(Batch(1, 1))
    assert ports(tmp_path) == Counter(range(20))


@pytest.mark.parametrize("form", FORMS)
def test_what_is_discarded_leaves_nothing(tmp_path: Path, form: str) -> None:
    lake = opened(form, tmp_path / "lake", tmp_path / "staging")
    lake.write(lines(0, 10))
    lake.discard()
    lake.discard()
    lake.write(lines(10, 10))
    lake.commit(Batch(1, 1))
    assert ports(tmp_path) == Counter(range(10, 20))


@pytest.mark.parametrize("form", FORMS)
def test_what_a_killed_run_left_goes(tmp_path: Path, form: str) -> None:
    """With the next one of the same run."""
    opened(form, tmp_path / "lake", tmp_path / "staging").write(lines(0, 10))
    left = list((tmp_path / "lake").rglob("*.tmp"))
    assert left
    opened(form, tmp_path / "lake", tmp_path / "staging").write(lines(0, 10))
    assert not [path for path in left if path.exists()]


def test_both_forms_in_one_folder(tmp_path: Path) -> None:
    """Each with its own files and marks."""
    lakes = [opened(form, tmp_path / "lake", tmp_path / "staging") for form in FORMS]
    for lake in lakes:
        lake.write(lines(0, 10))
    for lake in lakes:
        assert not lake.holds(Batch(1, 1))
        lake.commit(Batch(1, 1))
    assert ports(tmp_path) == Counter([*range(10), *range(10)])


@pytest.mark.parametrize("form", FORMS)
def test_a_delta_table_is_no_folder_for_files(tmp_path: Path, form: str) -> None:
    """Nor the other way round: each reader would find the rows of the other."""
    staging = tmp_path / "staging"
    batch = Batch(1, 1)
    table = opened("delta", tmp_path / "table", staging)
    table.write(lines(0, 10))
    table.commit(batch)
    with pytest.raises(OutputError, match="is a Delta table"):
        opened(form, tmp_path / "table", staging).holds(batch)
    files = opened(form, tmp_path / "files", staging)
    files.write(lines(0, 10))
    files.commit(batch)
    table = opened("delta", tmp_path / "files", staging)
    table.write(lines(0, 10))
    with pytest.raises(OutputError, match="name another folder"):
        table.commit(batch)


def test_a_place_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is written: by it later runs know what it has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "lake").mkdir()
    (tmp_path / "link").symlink_to("lake")
    paths = ["lake", "lake/", "./link", "~/lake", f"file://{tmp_path}/lake", f"file://localhost{tmp_path}//lake"]
    assert {base_place.canonical(path) for path in paths} == {str(tmp_path / "lake")}
    assert {base_place.canonical(url) for url in ("s3://b/a/c", "s3://b//a/c/")} == {"s3://b/a/c"}
    assert base_place.canonical("s3://b/") == "s3://b"


@pytest.mark.parametrize(
    "where",
    *(["s3:/b/x", "s3:b", "s3://", "file://host/x", "s3://b/x?y=z", "s3://b/x#y", "ftp://b/x", "https://b/x"],),
)
def test_a_url_that_means_something_else_is_refused(where: str) -> None:
    """Nothing of it is passed over in silence."""
    with pytest.raises(ConfigError):
        base_place.open_place(where)


def test_a_secret_in_a_url_is_not_repeated() -> None:
    """It would stand in the state folder, in metrics and in messages."""
    with pytest.raises(ConfigError, match="credentials belong in the environment") as caught:
        base_place.open_place("s3://AKIA:secret@lake/x")
    assert "secret" not in str(caught.value)


def test_full_rows(tmp_path: Path) -> None:
    """Where they are asked for, byte for byte."""
    lake = opened("ndjson+zstd", tmp_path / "lake", tmp_path / "staging", full=True)
    lake.write(lines(0, 10))
    lake.commit(Batch(1, 1))
    path = next((tmp_path / "lake").rglob("*.zst"))
    assert zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read() == full_rows(lines(0, 10))


def test_a_dataset_has_our_types(tmp_path: Path) -> None:
    """And the partitions, by Hive's names."""
    lake = opened("parquet", tmp_path / "lake", tmp_path / "staging")
    lake.write(lines(0, 10))
    lake.commit(Batch(1, 1))
    dataset = pyarrow.dataset.dataset(tmp_path / "lake", format="parquet", partitioning="hive")
    assert [dataset.schema.field(field.name).type for field in SCHEMA] == [field.type for field in SCHEMA]
    assert dataset.to_table().column("scan").to_pylist() == ["a scan"] * 10


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("day", [b"../../etc/", b"", b"2026-13-01"], ids=str)
def test_a_row_names_no_folder_of_its_own(tmp_path: Path, form: str, day: bytes) -> None:
    """What is no day is no row."""
    lake = opened(form, tmp_path / "lake", tmp_path / "staging")
    with pytest.raises(InputError):
        lake.write(lines(0, 1).replace(b"2026-11-21", day))


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_that_cannot_be_is_said(tmp_path: Path, form: str) -> None:
    """Without an attempt to try it again: it will not pass by itself."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        opened(form, tmp_path / "file", tmp_path / "staging")
    lake = opened(form, tmp_path / "file" / "lake", tmp_path / "staging")
    with pytest.raises(OutputError, match="Not a directory") as caught:
        lake.write(lines(0, 1))
    assert not isinstance(caught.value, Unavailable)


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    pytest.importorskip("moto", reason="needs probemill[lakedev]")
    with object_store() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield store


def stored(prefix: str) -> Counter[int]:
    obstore = pytest.importorskip("obstore", reason="needs probemill[lake]")
    from obstore.store import from_url

    bucket = from_url(f"s3://{BUCKET}", client_options={"allow_http": True})
    found: Counter[int] = Counter()
    for chunk in obstore.list(bucket, prefix):
        for entry in chunk:
            data = bytes(obstore.get(bucket, entry["path"]).bytes())
            if entry["path"].endswith(".parquet"):
                found.update(pa.parquet.read_table(pa.BufferReader(data)).column("port").to_pylist())
            elif entry["path"].endswith(".zst"):
                text = zstandard.ZstdDecompressor().stream_reader(data).read()
                found.update(json.loads(line)["port"] for line in text.splitlines())
    return found


@pytest.mark.parametrize("form", FORMS)
def test_an_object_store(tmp_path: Path, store: ObjectStore, form: str) -> None:
    """The same batch twice is there once; while the store is away it is `Unavailable`, and works again afterwards."""
    lake = opened(form, f"s3://{BUCKET}/{form}", tmp_path / "staging")
    for _ in range(2):
        lake.write(lines(0, 100))
        lake.commit(Batch(1, 1))
    assert lake.holds(Batch(1, 1))
    lake.write(lines(100, 100))
    store.kill()
    with pytest.raises(Unavailable):
        lake.commit(Batch(2, 2))
    lake.discard()
    store.start()
    assert not lake.holds(Batch(2, 2))
    lake.write(lines(100, 100))
    lake.commit(Batch(2, 2))
    assert stored(form) == Counter(range(200))
    assert not list((tmp_path / "staging").iterdir())


def test_a_bucket_that_is_not_there_is_said(tmp_path: Path, store: ObjectStore) -> None:
    """Before anything is written."""
    with pytest.raises(OutputError, match="no such bucket"):
        opened("parquet", "s3://nothing/x", tmp_path / "staging")


WRITER = """
import sys
from tests.test_lake_folder import Batch, Path, lines, opened
form, where, staging = sys.argv[1:]
for number in range(1, 200):
    lake = opened(form, where, Path(staging))
    if not lake.holds(Batch(number, number)):
        lake.write(lines(number * 100, 100) + lines(number * 100 + 100_000, 100, "2026-11-22"))
        lake.commit(Batch(number, number))
    print(number, flush=True)
"""


@pytest.mark.parametrize("form", FORMS)
def test_kills(tmp_path: Path, form: str) -> None:
    """At any moment; whoever reads meanwhile sees whole files of whole batches, and none twice."""
    lake = tmp_path / "lake"
    for attempt in range(6):
        command = [sys.executable, "-c", WRITER, form, str(lake), str(tmp_path / "staging")]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True) as process:
            assert process.stdout is not None
            for _ in range((attempt + 1) * 4):
                process.stdout.readline()
            time.sleep(attempt * 0.003)
            os.killpg(process.pid, signal.SIGKILL)
        seen = ports(lake)
        assert set(seen.values()) == {1}
    reached = int(len(ports(lake)) / 200)
    again = opened(form, lake, tmp_path / "staging")
    for number in range(1, reached + 2):
        if not again.holds(Batch(number, number)):
            again.write(lines(number * 100, 100) + lines(number * 100 + 100_000, 100, "2026-11-22"))
            again.commit(Batch(number, number))
    wanted = {port for number in range(1, reached + 2) for port in range(number * 100, number * 100 + 100)}
    assert ports(lake) == Counter(wanted | {port + 100_000 for port in wanted})
