"""Rows of scans that are done, in DuckDB: a workspace that spills to disk, and what `convert` reads as tables there.

    def job(place):
        loaded = load_rows(place, "rows", ["scan.state", "old.ndjson.zst", "nmap.xml"], watch)
        return place.connection.execute("SELECT name, count(*) FROM rows GROUP BY name").fetchall()

    in_workspace("", job)

A table has the columns of `results.table.COLUMNS` that were asked for, REQUIRED at least, in the order of the inputs
(`rowid` numbers them), and `source`, the number of the input. Times are TIMESTAMP, in UTC; `post` is JSON text; texts
that a row leaves out are null.

Lines are looked at here, as by `convert`, because DuckDB bends what does not fit (22.7 becomes port 23). It is handed
many at a time and reads them in a thread, without the interpreter's lock, while the next are looked at.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from engine.errors import ConfigError, OutputError
from engine.extras import extra
from engine.offline.reading import Reading, Watch
from engine.offline.rows_in import is_state, open_inputs
from engine.offline.stream import MAX_LINE
from engine.results.dialects import LEFT_OUT, duckdb_type
from engine.results.rows import Rows
from engine.results.table import COLUMNS, address_bytes
from engine.text import first_line
from engine.threads import aside

Result = TypeVar("Result")

REQUIRED = ("ip", "ip_bytes", "port", "proto", "host", "verdict", "started")
"""Columns that every table has: what a row is known by, and how its target ended."""

MEMORY = 768 << 20  # bytes that DuckDB may take before it spills; Python and the page need theirs
SPOOL = 32 << 20  # bytes of lines that are handed to DuckDB at once
_TYPES = {column.name: duckdb_type(column).replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMP") for column in COLUMNS}
_READ = {column.name: _TYPES[column.name] for column in COLUMNS if not column.derived or column.name in LEFT_OUT}


class Workspace(Struct):
    """connection: DuckDB's. folder: for files that are gone when the workspace is closed."""

    connection: Any
    folder: Path


class Given(Struct):
    """One input. name: as it was given; rows: of it; state: whether it is a state folder; whole: nothing was amiss."""

    name: str
    rows: int = 0
    state: bool = False
    whole: bool = True


class Loaded(Struct):
    """What became of the inputs."""

    sources: list[Given]

    @property
    def rows(self) -> int:
        return sum(source.rows for source in self.sources)

    @property
    def whole(self) -> bool:
        return all(source.whole for source in self.sources)


def in_workspace(scratch: str, job: Callable[[Workspace], Result], memory: int = MEMORY) -> Result:
    """What `job` gives, run in a thread: DuckDB hears no signals. The workspace is gone when this returns or raises.

    scratch: where its folder is made; empty for the system's place. memory: in bytes, after which DuckDB spills.
    Raises ConfigError where the extra is missing, OutputError for a scratch folder that cannot be used or is full.
    """
    with _workspace(scratch, memory) as place:

        def prepared() -> Result:
            place.connection.create_function(
                "address", address_bytes, ["VARCHAR"], "BLOB", null_handling="special", exception_handling="return_null"
            )
            return job(place)

        try:
            return aside(prepared)
        except BaseException:
            place.connection.interrupt()
            raise


@contextmanager
def _workspace(scratch: str, memory: int) -> Iterator[Workspace]:
    with extra("probemill report and diff", "report"):
        import duckdb
    try:
        folder = Path(tempfile.mkdtemp(prefix="probemill-", dir=scratch or None))
    except OSError as error:
        raise ConfigError(
            f"{error.filename or scratch}: no scratch folder can be made there: {error.strerror}"
        ) from None
    try:
        limits = {"memory_limit": f"{memory >> 20}MiB", "temp_directory": str(folder / "spilt")}
        connection = duckdb.connect(str(folder / "rows.duckdb"), config=limits)
        try:
            yield Workspace(connection, folder)
        except (duckdb.Error, OSError) as error:
            if isinstance(error, OSError) and not str(error.filename or folder).startswith(str(folder)):
                raise  # of an input or an output
            said = error.strerror if isinstance(error, OSError) else first_line(error)
            raise OutputError(f"{folder.parent}: {said}; --scratch names another folder") from error
        finally:
            with suppress(duckdb.Error):
                connection.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def load_rows(
    place: Workspace, table: str, paths: Sequence[str], watch: Watch, columns: Sequence[str] | None = None
) -> Loaded:
    """Make `table` of all rows of `paths`. columns: wanted beside REQUIRED; None for all.

    What cannot be used is told to `watch`, as by `convert`. Raises ConfigError, InputError for what cannot be read at
    all, OutputError.
    """
    names = tuple(_TYPES) if columns is None else tuple(name for name in _TYPES if name in {*REQUIRED, *columns})
    fields = ", ".join(f"{name} {_TYPES[name]}" for name in names)
    place.connection.execute(f"CREATE TABLE {table} ({fields}, source INTEGER)")
    loading = _Loading(place, table, names, watch)
    return Loaded([loading.load(path, number) for number, path in enumerate(paths)])


class _Loading:
    def __init__(self, place: Workspace, table: str, names: tuple[str, ...], watch: Watch) -> None:
        self._connection = place.connection
        self._spool = place.folder / "lines.ndjson"
        self._names = names
        self._watch = watch
        self._table = table
        self._before = (0, 0)  # bytes, rows

    def load(self, path: str, number: int) -> Given:
        source = Given(path, state=is_state(path))
        for part in open_inputs(path):
            reading = Reading([part], self._watch, before=self._before)
            count = self._insert(reading.rows(), number)
            source.whole = source.whole and not reading.faults
            source.rows += count
            self._before = (self._before[0] + (part.size or 0), self._before[1] + count)
        return source

    def _insert(self, pieces: Iterator[Rows], number: int) -> int:
        """Rows in their order, tables as they are and lines together. -> how many"""
        count = size = 0
        lines: list[bytes] = []
        with ThreadPoolExecutor(1) as loader:
            loading = loader.submit(_nothing)
            for rows in pieces:
                count += rows.count
                if rows.table is None:
                    lines.append(rows.lines())
                    size += len(lines[-1])
                if lines and (rows.table is not None or size >= SPOOL):
                    loading.result()
                    loading = loader.submit(self._insert_lines, lines, number)
                    lines, size = [], 0
                if rows.table is not None:
                    loading.result()
                    self._insert_table(rows.table, number)
            loading.result()
        if lines:
            self._insert_lines(lines, number)
        return count

    def _insert_table(self, batch: Any, number: int) -> None:
        """An Arrow RecordBatch. DuckDB has time zones in an extension that may not be there: Arrow takes ours off."""
        import pyarrow as pa

        table = pa.Table.from_batches([batch])
        table = table.cast(pa.schema([pa.field(field.name, _without_zone(field.type)) for field in table.schema]))
        self._connection.register("batch", table)
        self._connection.execute(f"INSERT INTO {self._table} SELECT {', '.join(self._names)}, {number} FROM batch")
        self._connection.unregister("batch")

    def _insert_lines(self, lines: list[bytes], number: int) -> None:
        with self._spool.open("wb") as spool:
            spool.writelines(lines)
        read = ", ".join(f"{name}: '{kind}'" for name, kind in _READ.items())
        values = ", ".join(map(_value, self._names))
        self._connection.execute(
            f"INSERT INTO {self._table} SELECT {values}, {number} FROM read_json(?, format = 'newline_delimited', "
            f"compression = 'none', maximum_object_size = {MAX_LINE}, columns = {{{read}}})",
            [str(self._spool)],
        )


def _nothing() -> None: ...


def _without_zone(kind: Any) -> Any:
    """An Arrow type whose timestamps are no one's."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _without_zone(field.type)) for field in kind])
    return pa.timestamp("us") if pa.types.is_timestamp(kind) else kind


def _value(name: str) -> str:
    if name == "ip_bytes":
        return "address(ip)"
    if name in LEFT_OUT:
        return f"coalesce({name}, {LEFT_OUT[name]})"
    return name
