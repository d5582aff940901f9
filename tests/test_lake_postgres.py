"""A table of PostgreSQL as a lake, against a server of the test's own."""

import json
import random
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from streams import LEAST, Writer, deliver, key, lines, rows

from bench.postgres_server import MISSING, PASSWORD, Postgres
from engine.errors import ConfigError, OutputError
from engine.model import ServiceResult
from engine.results.lake.base import Batch, Delivery, Unavailable
from engine.results.table import COLUMNS, Kind, full_rows

pytest.importorskip("psycopg", reason="needs probemill[lake]")
pytest.importorskip("pyarrow", reason="needs probemill[lake]")

import psycopg

from engine.results.lake.postgres import PostgresLake

pytestmark = [
    pytest.mark.skipif(MISSING is not None, reason=MISSING or ""),
    pytest.mark.xdist_group("postgres"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the server is another user's
        postgres = Postgres(Path(folder) / "server")
        yield postgres
        postgres.close()


@pytest.fixture
def target(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty schema of its own for each test."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    ask(server, "CREATE SCHEMA lake")
    yield f"//probe@127.0.0.1:{server.port}/postgres?table=lake.services"
    ask(server, "DROP SCHEMA IF EXISTS lake CASCADE")


def ask(server: Postgres, question: str) -> list[tuple[Any, ...]]:
    told = f"host=127.0.0.1 port={server.port} user=probe dbname=postgres"
    with psycopg.connect(told, password=PASSWORD) as connection:
        cursor = connection.execute(question)
        return cursor.fetchall() if cursor.description else []


def count(server: Postgres) -> tuple[Any, ...]:
    return ask(server, "SELECT count(*), sum(port), count(DISTINCT (ip, port, proto)) FROM lake.services")[0]


def counted(made: list[ServiceResult]) -> tuple[int, int, int]:
    return len(made), sum(row.port for row in made), len({key(row) for row in made})


def expected(row: dict[str, Any], kind: Kind, name: str) -> Any:
    """The value of a column, from a full row."""
    value = row.get(name)
    if kind is Kind.TIMESTAMP:
        return datetime.fromisoformat(value)
    if kind in {Kind.TEXT, Kind.TEXTS, Kind.JSON, Kind.STRUCT} and value is not None:
        text = json.dumps(value).replace("\\\\", "\ue000").replace("\\u0000", "\\ufffd").replace("\ue000", "\\\\")
        return json.loads(text)
    return value


def trimmed(value: Any) -> Any:
    """Without what an object leaves out in a lean row."""
    return {name: one for name, one in value.items() if one not in (None, False)} if isinstance(value, dict) else value


@pytest.mark.parametrize("full", [False, True])
def test_columns_hold_what_the_rows_say(server: Postgres, target: str, full: bool) -> None:
    """Value for value, whether absent fields were left out or not; only NUL becomes U+FFFD."""
    made = rows(3000)
    blob = lines(made)
    lake = PostgresLake(target, Delivery("a", "nig\\ht", ""))
    assert deliver(lake, Batch(1, 1), full_rows(blob) if full else blob)
    lake.close()
    names = [column.name for column in COLUMNS if not column.derived]
    picked = ", ".join(f'"{name}"' for name in names)
    found = ask(server, f"SELECT {picked} FROM lake.services ORDER BY ip, port, proto, host")
    wanted = sorted(map(json.loads, full_rows(blob).splitlines()), key=lambda row: [row["ip"].encode(), row["port"]])
    found.sort(key=lambda row: [row[0].encode(), row[names.index("port")]])
    for values, row in zip(found, wanted, strict=True):
        got = {name: trimmed(value) for name, value in zip(names, values, strict=True)}
        assert got == {c.name: trimmed(expected(row, c.kind, c.name)) for c in COLUMNS if not c.derived}
    assert count(server) == counted(made)
    beside = ask(server, "SELECT DISTINCT scan, date - (started AT TIME ZONE 'UTC')::date FROM lake.services")
    assert beside == [("nig\\ht", 0)]
    v4 = ask(server, "SELECT DISTINCT octet_length(ip_bytes), ip_bytes IS NULL, ip = '' FROM lake.services ORDER BY 2")
    assert v4 == [(16, False, False), (None, True, True)]


def test_a_batch_twice_is_a_batch_once(server: Postgres, target: str) -> None:
    """By asking first, and also where a writer did not ask: the second one takes its rows back."""
    blob = lines(rows(100))
    lake = PostgresLake(target, Delivery("a", "night", ""))
    assert not lake.holds(Batch(1, 3))
    assert deliver(lake, Batch(1, 3), blob[: blob.index(b"\n") + 1], blob[blob.index(b"\n") + 1 :])
    assert not deliver(lake, Batch(1, 3), blob)
    other = PostgresLake(target, Delivery("a", "night", ""))
    other.write(blob)
    other.commit(Batch(1, 3))
    assert other.holds(Batch(1, 3)) and not other.holds(Batch(4, 4))
    another = PostgresLake(target, Delivery("b", "night", ""))
    assert not another.holds(Batch(1, 1))
    assert count(server)[0] == 100
    for one in (lake, other, another):
        one.close()
        one.close()


def test_of_two_writers_one_wins(server: Postgres, target: str) -> None:
    """Both have written the batch when the first commits it: the second adds nothing."""
    first, second = (PostgresLake(target, Delivery("a", "night", "")) for _ in range(2))
    for lake in (first, second):
        lake.write(lines(rows(50)))
    first.commit(Batch(1, 1))
    second.commit(Batch(1, 1))
    assert count(server)[0] == 50
    first.close()
    second.close()


def test_what_is_discarded_was_never_there(server: Postgres, target: str) -> None:
    """And nobody sees a batch before it is committed; the lake goes on after it."""
    lake = PostgresLake(target, Delivery("a", "night", ""))
    lake.discard()
    assert not lake.holds(Batch(1, 1))
    lake.write(lines(rows(2000)))
    assert lake.size > 100_000
    assert count(server)[0] == 0
    lake.discard()
    lake.discard()
    assert lake.size == 0
    assert deliver(lake, Batch(1, 1), lines(rows(10)))
    assert (lake.size, count(server)[0]) == (0, 10)
    lake.close()


def test_a_batch_may_be_empty(server: Postgres, target: str) -> None:
    """Its mark is set all the same."""
    lake = PostgresLake(target, Delivery("a", "night", ""))
    assert deliver(lake, Batch(1, 1))
    assert lake.holds(Batch(1, 1))
    assert count(server)[0] == 0
    lake.close()


def test_a_killed_writer_leaves_every_row_once(server: Postgres, target: str) -> None:
    """SIGKILL at random moments, and the same batches again."""
    chance = random.Random(5)
    for done in range(1, 6):
        writer = Writer(PostgresLake, target, "a", 6, 3000)
        assert [writer.committed() for _ in range(done)] == list(range(1, done + 1))
        time.sleep(chance.random() * 0.1)
        writer.kill()
    last = Writer(PostgresLake, target, "a", 6, 3000)
    assert [last.committed() for _ in range(7)] == [1, 2, 3, 4, 5, 6, None]
    assert last.wait() == 0
    assert count(server) == counted([row for number in range(1, 7) for row in rows(3000, number)])


def test_a_server_that_comes_back(server: Postgres, target: str) -> None:
    """It goes away in the middle of a batch: for now there is no writing, then the batch arrives once."""
    lake = PostgresLake(target, Delivery("a", "night", ""))
    lake.write(lines(rows(500)))
    server.stop()
    try:
        with pytest.raises(Unavailable, match="postgres:"):
            while True:  # the first pieces may still go into the buffer of the socket
                lake.write(lines(rows(500)))
        lake.discard()
        with pytest.raises(Unavailable):
            lake.holds(Batch(1, 1))
        lake.discard()
    finally:
        server.start()
    assert deliver(lake, Batch(1, 1), lines(rows(500)))
    server.stop()
    server.start()
    with pytest.raises(Unavailable):  # a connection that nobody knew to be lost
        lake.holds(Batch(1, 1))
    lake.discard()
    assert lake.holds(Batch(1, 1))
    assert count(server)[0] == 500
    lake.close()


def test_columns_are_added_to_an_older_table(server: Postgres, target: str) -> None:
    """What else it has stays, and a column may have a type that takes the value."""
    ask(server, "CREATE TABLE lake.services (ip text, port varchar(9), mine text DEFAULT 'x')")
    lake = PostgresLake(target, Delivery("a", "night", ""))
    assert deliver(lake, Batch(1, 1), lines([LEAST]))
    lake.close()
    assert ask(server, "SELECT port, mine, verdict FROM lake.services") == [("1", "x", "nomatch")]


def test_names_are_quoted(server: Postgres, target: str) -> None:
    """Whatever signs they have."""
    lake = PostgresLake(target.replace("services", quote('Se"lect; ')), Delivery("a", "night", ""))
    assert deliver(lake, Batch(1, 1), lines([LEAST]))
    lake.close()
    assert ask(server, 'SELECT port FROM lake."Se""lect; "') == [(1,)]


def test_a_user_needs_no_more_than_to_insert(server: Postgres, target: str) -> None:
    """Where the tables are there; without the right it is an error that stays."""
    lake = PostgresLake(target, Delivery("a", "night", ""))
    assert deliver(lake, Batch(1, 1), lines([LEAST]))
    lake.close()
    ask(server, f"CREATE ROLE small LOGIN PASSWORD '{PASSWORD}'")
    small = PostgresLake(target.replace("//probe", "//small"), Delivery("b", "night", ""))
    with pytest.raises(OutputError, match=r"permission denied.*grant") as refused:
        small.holds(Batch(1, 1))
    assert not isinstance(refused.value, Unavailable)
    small.discard()
    ask(server, "GRANT USAGE ON SCHEMA lake TO small")
    ask(server, "GRANT INSERT ON lake.services TO small")
    ask(server, "GRANT SELECT, INSERT, UPDATE ON lake.probemill_deliveries TO small")
    assert deliver(small, Batch(1, 1), lines([LEAST]))
    small.close()
    assert count(server)[0] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("lake.services", "nowhere.services"), "create the schema"),
        (("lake.services", "lake.view"), "view"),
        (("lake.services", "lake.other"), "other"),
        (("probe@", "nobody@"), "authentication failed"),
        (("/postgres", "/nothing"), "does not exist"),
    ],
)
def test_what_will_not_pass_is_said_so(server: Postgres, target: str, change: tuple[str, str], message: str) -> None:
    """Where, what and how to mend, in one line; and never the password."""
    ask(server, "CREATE VIEW lake.view AS SELECT 1 AS port")
    ask(server, "CREATE TABLE lake.other (port boolean)")
    lake = PostgresLake(target.replace(*change), Delivery("a", "night", ""))
    with pytest.raises(OutputError, match=message) as refused:
        deliver(lake, Batch(1, 1), lines(rows(10)))
    assert not isinstance(refused.value, Unavailable)
    assert str(refused.value).startswith(lake.name)
    assert "\n" not in str(refused.value) and PASSWORD not in str(refused.value)
    lake.discard()
    lake.close()


def test_nobody_there_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that nobody listens on; and the environment says where."""
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", "1")
    lake = PostgresLake("services?user=probe", Delivery("a", "night", ""))
    with pytest.raises(Unavailable, match=r"^postgres:services: "):
        lake.write(lines([LEAST]))
    lake.discard()
    lake.close()


def test_a_service_file_names_the_server(
    server: Postgres, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for every program of libpq."""
    monkeypatch.delenv("PGPASSWORD")
    (tmp_path / "services").write_text(
        f"[here]\nhost=127.0.0.1\nport={server.port}\nuser=probe\ndbname=postgres\npassword={PASSWORD}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    lake = PostgresLake("lake.services?service=here", Delivery("a", "night", ""))
    assert deliver(lake, Batch(1, 1), lines([LEAST]))
    lake.close()


def test_lines_that_are_no_rows_are_refused(target: str) -> None:
    lake = PostgresLake(target, Delivery("a", "night", ""))
    with pytest.raises(OutputError, match="rows"):
        lake.write(b"{}\n")
    lake.discard()
    lake.close()


@pytest.mark.parametrize(
    "target", [f"//probe:{quote(PASSWORD, '')}@h:1/db?table=a.b&sslmode=require", "//probe@h:1/db?table=a.b"]
)
def test_the_name_has_no_password(target: str) -> None:
    """It is shown to people."""
    assert PostgresLake(target, Delivery("a", "night", "")).name == "postgres://probe@h:1/db?table=a.b"


@pytest.mark.parametrize(
    "target", ["//u:s3cr3t/x@h/db", "//u@h/db?table=a.b.c", "//u@h/db?table=", "//u@h/db?colour=red", "//u:s3cr3t%zz@h"]
)
def test_a_target_that_cannot_be_read(target: str) -> None:
    """And what is said of it repeats no secret."""
    with pytest.raises(ConfigError) as refused:
        PostgresLake(target, Delivery("a", "night", ""))
    assert "s3cr3t" not in str(refused.value)
