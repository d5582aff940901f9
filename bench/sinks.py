"""What sinks cost: `python -m bench.sinks [--rows N] [--rate N] [--quick]`, or `make bench-sinks`.

A million rows of 200 shapes (bench/shapes.py) go into each sink, in a process of its own, on the local disk and into an
S3 API on loopback; the same rows as plain NDJSON stand beside it. What a reader finds there (count, sum of ports, set
of keys) is compared with the NDJSON before a time counts; DuckDB and polars count as well where they can read it.

Then scans of a loopback farm with a state folder, alone and with each sink, in turn, three times: how much slower the
whole command is. Segments are closed every three seconds, so that as in a long scan most rows are brought on while
others are scanned. `--quick` does a tenth.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median

import pyarrow.json
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from bench.kafka_broker import Broker
from bench.lake_contents import SCHEMA, Summary, keys, summary
from bench.native import CompilerError, addresses, compiled, farm
from bench.object_store import BUCKET, object_store
from bench.postgres_server import MISSING, PASSWORD, Postgres
from bench.shapes import blobs
from engine.results.lake import Batch, Delivery, open_lake
from engine.results.sinks import Run, open_sink
from engine.results.sinks import Summary as Ending

ROWS = 1_000_000
SCANNED = 400_000
HOSTS = 2000
ROUNDS = 3


class Cost(Struct):
    """seconds: from the first row to the last one visible; peak: resident memory in bytes."""

    seconds: float
    cpu_s: float
    peak: int


def measure(url: str, rows: Path, staging: Path) -> Cost:
    """In a process of its own."""
    command = [sys.executable, "-m", "bench.sinks", "--write", url, "--from", str(rows), "--staging", str(staging)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Cost(**json.loads(done.stdout.splitlines()[-1]))


def write(url: str, rows: Path, staging: Path) -> Cost:
    """All rows, in batches as `Delivery` closes them, and their commit."""
    began, cpu = time.monotonic(), time.process_time()
    if url.startswith("-o "):
        sink = open_sink("ndjson", url.removeprefix("-o "), Run("", "", 0.0))
        for blob in _blobs(rows):
            sink.write(blob, blob.count(b"\n"))
        sink.close(Ending(0.0))
    else:
        delivery = Delivery("0123456789abcdef", "bench", str(staging))
        lake = open_lake(url, delivery)
        batch = Batch(1, 1)
        for blob in _blobs(rows):
            lake.write(blob)
            if lake.size >= delivery.size:
                lake.commit(batch)
                batch = Batch(batch.first + 1, batch.last + 1)
        if lake.size:
            lake.commit(batch)
        lake.close()
    seconds, spent = time.monotonic() - began, time.process_time() - cpu
    return Cost(seconds, spent, _peak())


def _peak() -> int:
    """Bytes of resident memory at most. getrusage tells the parent's, where that was larger."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def _blobs(rows: Path) -> Iterator[bytes]:
    """As segments are read: about 4 MB of whole lines."""
    rest = b""
    with rows.open("rb") as file:
        while block := file.read(4 << 20):
            block = rest + block
            cut = block.rfind(b"\n") + 1
            yield block[:cut]
            rest = block[cut:]


def reference(rows: Path) -> Summary:
    options = pyarrow.json.ParseOptions(explicit_schema=SCHEMA, unexpected_field_behavior="ignore")
    return summary(pyarrow.json.read_json(rows, parse_options=options))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check(what: str, found: Summary, wanted: Summary) -> None:
    if found != wanted:
        raise SystemExit(f"{what}: {found}, and not {wanted}")


def check_engines(url: str, count: int) -> None:
    """DuckDB and polars count what there is, where they can read it without an extension."""
    form, _, where = url.partition(":")
    if "://" in where or form not in {"parquet", "ndjson+zstd", "delta"}:
        return
    import duckdb
    import polars as pl

    glob = f"{where}/**/*.{'ndjson.zst' if form == 'ndjson+zstd' else 'parquet'}"
    reader = f"read_json('{glob}', format='newline_delimited')" if form == "ndjson+zstd" else f"read_parquet('{glob}')"
    found = {"DuckDB": duckdb.sql(f"SELECT count(*) FROM {reader}").fetchall()[0][0]}
    if form == "parquet":
        found["polars"] = pl.scan_parquet(glob).select(pl.len()).collect().item()
    elif form == "delta":
        found["polars"] = pl.scan_delta(where).select(pl.len()).collect().item()
    for engine, rows in found.items():
        if rows != count:
            raise SystemExit(f"{engine} finds {rows} rows in {url}, and not {count}")


def writing(console: Console, folder: Path, count: int, remote: bool) -> None:
    rows = folder / "rows.ndjson"
    with rows.open("wb") as file:
        for blob in blobs(count):
            file.write(blob)
    wanted = reference(rows)
    table = Table(box=None)
    for column in ("sink", "rows/s", "CPU us/row", "bytes/row", "peak MB"):
        table.add_column(column, justify="left" if column == "sink" else "right")

    def add(name: str, url: str, stored: Callable[[], int] | None = None) -> None:
        staging = folder / "staging"
        staging.mkdir(exist_ok=True)
        cost = measure(url, rows, staging)
        if not url.startswith("-o "):
            check(name, summary(keys(url)), wanted)
            check_engines(url, count)
        bytes_a_row = f"{stored() / count:.0f}" if stored else ""
        speed, cpu = f"{count / cost.seconds:,.0f}", f"{cost.cpu_s / count * 1e6:.2f}"
        table.add_row(name, speed, cpu, bytes_a_row, f"{cost.peak / 1e6:.0f}")

    plain = folder / "plain.ndjson"
    add("-o rows.ndjson", f"-o {plain}", lambda: plain.stat().st_size)
    plain.unlink()
    for name, url in local_sinks(folder).items():
        add(name, url, lambda name=name: size_of(folder / name))  # type: ignore[misc]
        shutil.rmtree(folder / name, ignore_errors=True)
    with server_sinks() as sinks:
        for name, url in sinks.items():
            add(name, url)
    if remote:
        with object_store() as store:
            os.environ.update(store.environment)
            for name, url in remote_sinks(folder).items():
                add(name, url)
    console.print(table)


def local_sinks(folder: Path) -> dict[str, str]:
    """By the name of their folder."""
    catalog = folder / "iceberg"
    catalog.mkdir(exist_ok=True)
    iceberg = f"iceberg:local/scans.services?uri=sqlite:///{catalog}/catalog.db&warehouse=file://{catalog}/warehouse"
    return {form: f"{form}:{folder / form}" for form in ("parquet", "ndjson+zstd", "delta")} | {"iceberg": iceberg}


@contextmanager
def server_sinks() -> Iterator[dict[str, str]]:
    """A private PostgreSQL, where there is one, and a broker of Kafka in this process, as long as the block."""
    with ExitStack() as running:
        broker = Broker({"services": 4})
        running.callback(broker.down)
        found = {"kafka": f"kafka:{broker.address}/services"}
        if MISSING is None:
            place = Path(running.enter_context(tempfile.TemporaryDirectory()))
            place.chmod(0o711)  # the server may run as another user
            server = Postgres(place / "postgres")
            running.callback(server.close)
            os.environ["PGPASSWORD"] = PASSWORD
            found["postgres"] = f"postgres://probe@127.0.0.1:{server.port}/postgres?table=services"
        yield found


def remote_sinks(folder: Path) -> dict[str, str]:
    catalog = f"sqlite:///{folder}/remote.db"
    iceberg = f"iceberg:remote/scans.services?uri={catalog}&warehouse=s3://{BUCKET}/iceberg"
    found = {f"{form}, S3": f"{form}:s3://{BUCKET}/{form}" for form in ("parquet", "ndjson+zstd", "delta")}
    return found | {"iceberg, S3": iceberg}


def scanning(console: Console, folder: Path, total: int, rate: str) -> None:
    """Seconds of whole commands, in turn, so that the machine's moods meet all of them."""
    with _farm(folder) as port:
        hosts = addresses(HOSTS)
        targets = folder / "targets"
        targets.write_text("".join(f"{hosts[number % HOSTS]}:{port}\n" for number in range(total)))
        taken: dict[str, list[float]] = {}
        for number in range(ROUNDS):
            for name in ("", *local_sinks(folder)):
                state, place = folder / f"state-{number}-{name}", folder / f"scan-{number}-{name}"
                place.mkdir()
                url = local_sinks(place)[name] if name else ""
                command = [
                    sys.executable,
                    "-m",
                    "probemill",
                    "scan",
                    "-q",
                    "--probes",
                    "builtin",
                    "--reset",
                    "-i",
                    targets,
                ]
                command += [
                    "--max-inflight",
                    "1000",
                    "--segment-seconds",
                    "3",
                    "--rate",
                    rate,
                    "--state",
                    state,
                    *(["--sink", url] if url else []),
                ]
                began = time.monotonic()
                subprocess.run(command, check=True)
                taken.setdefault(name or "--state alone", []).append(time.monotonic() - began)
                if url and keys(url).num_rows != total:
                    raise SystemExit(f"{name}: {keys(url).num_rows} rows of a scan of {total}")
                shutil.rmtree(state)
                shutil.rmtree(place)
    table = Table(box=None)
    for column in ("scan with", "services/s", "slower by"):
        table.add_column(column, justify="left" if column == "scan with" else "right")
    alone = median(taken["--state alone"])
    for name, seconds in taken.items():
        table.add_row(name, f"{total / median(seconds):,.0f}", f"{median(seconds) / alone - 1:.0%}")
    console.print(table)


@contextmanager
def _farm(folder: Path) -> Iterator[int]:
    with farm(compiled("farm", folder), "banner") as port:
        yield port


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rate", default="0", help="of the scans, services per second; as fast as can be by default")
    parser.add_argument("--no-remote", action="store_true")
    parser.add_argument("--no-scan", action="store_true")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--from", dest="source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--staging", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        cost = write(options.write, options.source, options.staging)
        print(json.dumps({name: getattr(cost, name) for name in cost.__struct_fields__}))
        return 0
    console = Console()
    machine = f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, Python {platform.python_version()}"
    parts = ", ".join(
        f"{part} {version(part)}" for part in ("probemill", "pyarrow", "deltalake", "pyiceberg", "obstore")
    )
    console.print(f"{machine}, {parts}, load {os.getloadavg()[0]:.1f}", soft_wrap=True)
    share = 10 if options.quick else 1
    with tempfile.TemporaryDirectory() as name:
        writing(console, Path(name), options.rows // share, not options.no_remote)
        if not options.no_scan:
            try:
                scanning(console, Path(name), SCANNED // share, options.rate)
            except CompilerError as reason:
                console.print(f"no scan was measured: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
