"""A table of PostgreSQL as a lake. Needs the extra `lake`.

    postgres://user@host:5432/db?table=inventory.services     a URL of libpq, and the table
    postgres:services?service=production                      the table, and parameters of libpq

What is not said comes from where libpq looks for it: PGHOST, PGPASSWORD and the others, ~/.pgpass, the service file.
The table is `services` where none is said; it may have a schema before a dot. It is made if it is missing, with the
columns of `base_copy.TABLE`, and columns that are missing are added; others are left alone, and so are their types.

Exactly once: rows go through COPY in a transaction that is open from the first `write` to `commit`, and the last thing
in it is to move the run's row in `probemill_deliveries` (in the schema of the table) from an earlier segment to the
batch's last. Who finds it there already takes its own rows back: PostgreSQL lets the second of two writers wait for the
first, so not even a writer whose death nobody noticed yet can add a batch twice.
"""

import os
from contextlib import ExitStack, suppress
from typing import NoReturn
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from engine.errors import ConfigError, InputError, OutputError
from engine.results.lake.base import Batch, Delivery, Unavailable
from engine.results.lake.base_copy import TABLE, copy_lines
from engine.results.table import pieces

DEFAULT_TABLE = "services"
DELIVERIES = "probemill_deliveries"

_PIECE = 1 << 20  # bytes of NDJSON made into COPY lines at a time
# Of libpq, where nobody says otherwise: a server that is not there any more is noticed within a minute or two.
_PATIENCE = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
# Classes and codes of errors (appendix A of its manual) that may pass: of connections, conflicts, resources, shutdown.
_PASSING = ("08", "40", "53", "57", "55P03", "25P03", "25P04", "58000", "58030")
# libpq tells no code of a connection that was refused. Servers that speak another language: tried again for a while.
_LASTING = ("authentication failed", "does not exist", "pg_hba.conf", "no password supplied", "permission denied")


class PostgresLake:
    def __init__(self, target: str, delivery: Delivery) -> None:
        """target: what follows `postgres:`. Connects at the first use. Raises ConfigError."""
        self.name, self._table, self._conninfo = _read(target)
        self._delivery = delivery
        self._connection: psycopg.Connection | None = None
        self._copy: psycopg.Copy | None = None
        self._open = ExitStack()  # ends the COPY
        self._size = 0
        schema = self._table[:-1]
        self._rows = sql.Identifier(*self._table)
        self._marks = sql.Identifier(*schema, DELIVERIES)

    @property
    def size(self) -> int:
        """Full with its first row: a transaction that stays open holds up the server's tidying."""
        return self._delivery.size if self._size else 0

    def holds(self, batch: Batch) -> bool:
        try:
            with self._connected().transaction(), self._connected().cursor() as cursor:
                return self._delivered(cursor) >= batch.last
        except psycopg.Error as error:
            self._fail(error)

    def write(self, rows: bytes) -> None:
        try:
            copy = self._copy or self._begin()
            for piece in pieces(rows, _PIECE):
                lines = copy_lines(piece, self._delivery.scan)
                copy.write(lines)
                self._size += len(lines)
        except InputError as error:
            raise OutputError(f"{self.name}: {error}") from error
        except psycopg.Error as error:
            self._fail(error)

    def commit(self, batch: Batch) -> None:
        """A batch that the table has already is taken back instead."""
        try:
            connection = self._connected()
            self._open.close()
            self._copy = None
            with connection.cursor() as cursor:
                cursor.execute(
                    sql.SQL(
                        "INSERT INTO {marks} AS mark (run, segment, scan, at) VALUES (%s, %s, %s, now())"
                        " ON CONFLICT (run) DO UPDATE SET segment = excluded.segment, at = now()"
                        " WHERE mark.segment < excluded.segment"
                    ).format(marks=self._marks),
                    [self._delivery.run, batch.last, self._delivery.scan],
                )
                new = cursor.rowcount == 1
            if new:
                connection.commit()
            else:
                connection.rollback()
            self._size = 0
        except psycopg.Error as error:
            self._fail(error)

    def discard(self) -> None:
        """By closing the connection: the server takes back what was not committed, whatever state it is in."""
        connection, self._connection, self._copy = self._connection, None, None
        self._size = 0
        with suppress(psycopg.Error, OSError):
            if connection is not None:
                connection.close()
        with suppress(psycopg.Error, OSError):
            self._open.close()

    def close(self) -> None:
        self.discard()

    def _begin(self) -> psycopg.Copy:
        names = sql.SQL(", ").join(map(sql.Identifier, TABLE))
        command = sql.SQL("COPY {rows} ({names}) FROM STDIN").format(rows=self._rows, names=names)
        self._copy = self._open.enter_context(self._connected().cursor().copy(command))
        return self._copy

    def _connected(self) -> psycopg.Connection:
        """The connection, made at the first use, with the tables as they have to be."""
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self._conninfo)
            with self._connection.transaction(), self._connection.cursor() as cursor:
                self._prepare(cursor)
        return self._connection

    def _prepare(self, cursor: psycopg.Cursor) -> None:
        """Asks first: who may only insert needs no right to make tables that are there."""
        have = self._columns(cursor, self._rows)
        marks = self._columns(cursor, self._marks)
        if have >= TABLE.keys() and marks:
            return
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('probemill'))")  # runs that begin together take turns
        own = sql.SQL(", ").join(map(_definition, TABLE.items()))
        cursor.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(self._rows, own))
        for column in TABLE.items():
            if have and column[0] not in have:
                add = sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {}").format(self._rows, _definition(column))
                cursor.execute(add)
        cursor.execute(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} (run text PRIMARY KEY, segment bigint, scan text, at timestamptz)"
            ).format(self._marks)
        )

    def _columns(self, cursor: psycopg.Cursor, table: sql.Identifier) -> set[str]:
        cursor.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
            [table.as_string(cursor)],
        )
        return {name for (name,) in cursor}

    def _delivered(self, cursor: psycopg.Cursor) -> int:
        """The last segment that the table has of the run; 0 for none."""
        cursor.execute(sql.SQL("SELECT segment FROM {} WHERE run = %s").format(self._marks), [self._delivery.run])
        row = cursor.fetchone()
        return row[0] if row else 0

    def _fail(self, error: psycopg.Error) -> NoReturn:
        code = error.sqlstate or ""
        text = " ".join(str(error).split())
        lost = self._connection is None or self._connection.closed
        if code.startswith(_PASSING) or (lost and not any(mark in text for mark in _LASTING)):
            raise Unavailable(f"{self.name}: {text}") from error
        remedy = "check the user, the password and the database" if lost else _REMEDIES.get(code, _REMEDY)
        raise OutputError(f"{self.name}: {text}; {remedy}") from error


_REMEDY = "name another table, or give its columns the types that a new one gets"
_REMEDIES = {
    "42501": "grant the user CREATE in the schema, or INSERT on the table and SELECT, INSERT, UPDATE on " + DELIVERIES,
    "3F000": "create the schema first",
}


def _definition(column: tuple[str, str]) -> sql.Composable:
    return sql.SQL("{} {}").format(sql.Identifier(column[0]), sql.SQL(column[1]))


def _read(target: str) -> tuple[str, tuple[str, ...], str]:
    """The name to show, the table with its schema, what libpq is told. Raises ConfigError, which repeats no secret."""
    whole, _, query = target.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    is_url = whole.startswith("//")
    table = given.pop("table", DEFAULT_TABLE) if is_url else (whole or DEFAULT_TABLE)
    parts = tuple(table.split("."))
    if len(parts) > 2 or not all(parts):
        raise ConfigError(f"postgres: {table!r} is no table: say NAME or SCHEMA.NAME")
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()} | {"ssl"}
    if unknown := sorted(given.keys() - known):
        raise ConfigError(f"postgres: {', '.join(unknown)}: no parameter of libpq, nor `table`")
    try:
        if is_url:
            told = conninfo_to_dict(f"postgresql:{whole}" + (f"?{urlencode(given, quote_via=quote)}" if given else ""))
        else:
            told = conninfo_to_dict("", **given)
        shown = f"postgres:{_without_secret(whole)}?table={table}" if is_url else f"postgres:{table}"
        patience = {name: value for name, value in _PATIENCE.items() if name not in told}
        if "PGCONNECT_TIMEOUT" in os.environ:
            del patience["connect_timeout"]
        if "@" in urlsplit(whole).path:  # a password with a slash in it: libpq would take it for the rest
            raise ValueError
        return shown, parts, make_conninfo("", **{"application_name": "probemill", **patience, **told})
    except (psycopg.Error, ValueError):
        raise ConfigError(
            "postgres: cannot be read as a URL of libpq; say //USER@HOST:PORT/DB?table=NAME, with %XX for signs that"
            " mean something in a URL"
        ) from None


def _without_secret(whole: str) -> str:
    place = urlsplit(whole)
    user, at, host = place.netloc.rpartition("@")
    return f"//{user.partition(':')[0]}{at}{host}{place.path}"
