"""Arrow in, Arrow out: the answers of `probemill match` in columns, and scans from and into record batches."""

import asyncio
import json
import pickle
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from loopback import Farm, config, database_file, greeting_after

from engine.databases import shared_matcher
from engine.offline.identify import Identifier
from engine.offline.stream import Chunk
from probemill import ConfigError, InputError, MatcherError, ScanConfig, match

pa = pytest.importorskip("pyarrow", reason="needs probemill[lake]")

from engine.offline import arrow as offline
from probemill import arrow

SAMPLES = [
    json.loads(line)
    for path in sorted((Path(__file__).parent.parent / "data" / "samples").glob("*.ndjson"))
    for line in path.read_text(encoding="utf-8").splitlines()
]
BUILTIN = {"probes": ("builtin",), "matcher": "re2"}
SSH = b"SSH-2.0-OpenSSH_9.6p1\r\n"
HTTP = b"HTTP/1.0 200 OK\r\nServer: nginx/1.22.1\r\n\r\n"


def samples() -> Any:
    rows = [(row["banner"].encode("latin-1"), row["probe"], row["proto"]) for row in SAMPLES]
    return pa.table([list(column) for column in zip(*rows, strict=True)], ["response", "probe", "proto"])


def matches(batches: Any, **options: Any) -> list[dict[str, Any] | None]:
    found = arrow.match_batches(batches, **{**BUILTIN, **options})
    return [row for batch in found for row in batch.column("match").to_pylist()]


def said(row: dict[str, Any] | None) -> dict[str, Any] | None:
    """A cell without what is null, as a line of `probemill match` has it."""
    return row and {name: value for name, value in row.items() if value is not None and value is not False}


def products(batches: Any, **options: Any) -> list[str | None]:
    return [row and row["product"] for row in matches(batches, **options)]


def one(response: Any = SSH, **columns: Any) -> Any:
    return pa.table({"response": [response], **{name: [value] for name, value in columns.items()}})


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    """What the offline matcher of the command writes for the samples."""
    identifier = Identifier(shared_matcher(BUILTIN["probes"], BUILTIN["matcher"]).matcher)  # type: ignore[arg-type]
    text = "".join(json.dumps(row) + "\n" for row in SAMPLES)
    return [json.loads(line) for line in identifier.answer(Chunk(text.encode(), 0, 0)).out.splitlines()]


def test_every_sample_is_answered_as_the_command_answers(lines: list[dict[str, Any]]) -> None:
    assert [said(row) for row in matches(samples())] == [line["match"] for line in lines]


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_where_batches_end_makes_no_difference(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those that come nor those that a large one is cut into."""
    table = samples().slice(0, 200 if rows == 1 else None)
    together = matches(table)
    assert matches(table.to_batches(rows)) == together
    monkeypatch.setattr(offline, "ROWS", rows)
    pieces = list(arrow.match_batches(table.combine_chunks(), **BUILTIN))
    assert max(piece.num_rows for piece in pieces) <= rows
    assert [row for piece in pieces for row in piece.column("match").to_pylist()] == together


def test_a_batch_comes_back_before_the_next_is_asked_for() -> None:
    """So that memory is flat, and a stream without an end is one like any other."""

    def endless() -> Iterator[Any]:
        while True:
            yield one().to_batches()[0]

    found = arrow.match_batches(endless(), **BUILTIN)
    assert [next(found).num_rows for _ in range(3)] == [1, 1, 1]


def test_a_stream_without_rows_keeps_its_columns() -> None:
    """An iterable without batches has none to keep; an empty batch is one as well."""
    schema = samples().schema
    empty = pa.RecordBatch.from_pylist([], schema)
    for batches in (schema.empty_table(), schema.empty_table().to_reader(), empty, [empty]):
        (batch,) = arrow.match_batches(batches, **BUILTIN)
        assert (batch.num_rows, batch.schema) == (0, arrow.match_schema(schema))
    assert len(list(arrow.match_batches([empty, empty], **BUILTIN))) == 2
    assert not list(arrow.match_batches([], **BUILTIN))


def test_the_schema_is_known_beforehand() -> None:
    """With its metadata; an old `match` goes, as it does for the command."""
    table = one(match="old", n=1).replace_schema_metadata({"a": "b"})
    (batch,) = arrow.match_batches(table, **BUILTIN)
    assert batch.schema.equals(arrow.match_schema(table.schema), check_metadata=True)
    assert batch.schema.names == ["response", "n", "match"]
    assert batch.schema.metadata == {b"a": b"b"}
    assert batch.column("n").to_pylist() == [1]


def test_nothing_is_null() -> None:
    """No response, no line that fits, no such probe, no such protocol; an empty response is a response."""
    table = pa.table(
        {
            "response": [SSH, None, b"", b"nobody knows this", SSH, SSH, HTTP],
            "probe": [None, "NULL", "NULL", "NULL", "NoSuchProbe", "NULL", "GetRequest"],
            "proto": [None, "tcp", "tcp", "tcp", "tcp", "sctp", "TCP"],
        }
    )
    assert products(table) == ["OpenSSH", None, None, None, None, None, "nginx"]


def test_what_a_match_leaves_empty_is_null() -> None:
    """But for the flag."""
    (row,) = matches(one(HTTP, probe="GetRequest"))
    assert row is not None
    assert (row["hostname"], row["file"], row["soft"], row["probe"]) == (None, None, False, "GetRequest")
    assert list(row) == [field.name for field in offline.MATCH] == list(offline.MatchRow.__struct_fields__)


@pytest.mark.parametrize(
    "kind",
    ["binary", "large_binary", "binary_view", "string", "large_string", "string_view", "dictionary", "dictionary text"],
)
def test_bytes_and_texts_of_any_width(kind: str) -> None:
    """And encoded as a dictionary, as Parquet files often are."""
    if kind.startswith("dictionary"):
        array = pa.array([SSH, SSH], pa.string() if kind.endswith("text") else pa.binary()).dictionary_encode()
    else:
        array = pa.array([SSH, SSH], getattr(pa, kind)())
    probes = pa.array(["NULL", None]).dictionary_encode()
    assert products(pa.table({"response": array, "probe": probes})) == ["OpenSSH"] * 2


def test_a_text_is_read_as_the_command_reads_a_banner() -> None:
    """Latin-1, and UTF-8 where that cannot be."""
    texts = ["SSH-2.0-OpenSSH_9.6p1\r\n", "\u0005\u00ff\u00fe", "220 caf\u00e9 \u20ac\r\n"]
    lines = "".join(json.dumps({"banner": text}) + "\n" for text in texts)
    identifier = Identifier(shared_matcher(BUILTIN["probes"], BUILTIN["matcher"]).matcher)  # type: ignore[arg-type]
    rows = [json.loads(line)["match"] for line in identifier.answer(Chunk(lines.encode(), 0, 0)).out.splitlines()]
    assert [said(row) for row in matches(pa.table({"response": texts}))] == rows


def test_columns_without_a_type_are_columns_of_nulls() -> None:
    """As frames of pandas have them where every cell is empty."""
    nulls = pa.nulls(2)
    assert products(pa.table({"response": [SSH, SSH], "probe": nulls, "proto": nulls})) == ["OpenSSH"] * 2
    assert products(pa.table({"response": nulls})) == [None, None]


def test_names_that_other_databases_give_to_a_question() -> None:
    """As for the command: Nmap's RTSPRequest is our RtspOptions."""
    response = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nServer: GStreamer RTSP server\r\n\r\n"
    (theirs, ours) = matches(pa.table({"response": [response] * 2, "probe": ["RTSPRequest", "RtspOptions"]}))
    assert theirs == ours
    assert ours is not None


def test_columns_by_other_names() -> None:
    """What is named has to be there; so has the column of responses."""
    table = pa.table({"banner": [HTTP], "question": ["GetRequest"], "transport": ["tcp"]})
    names = {"response": "banner", "probe": "question", "proto": "transport"}
    assert products(table, **names) == ["nginx"]
    for name in names:
        with pytest.raises(ConfigError, match=r"no column 'x' in the batch; it has: banner, question, transport"):
            matches(table, **{**names, name: "x"})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"data": [SSH]}), "no column 'response' in the batch; it has: data"),
        (pa.table([[SSH], [SSH]], ["response", "response"]), "more than one column 'response' in the batch; it has: "),
        (pa.table({"response": [1]}), "column 'response' is of type int64; expected binary or text"),
        (pa.table({"response": [[SSH]]}), "column 'response' is of type list<item: binary>; expected binary or text"),
        (pa.table({"response": pa.array([b"ab"], pa.binary(2))}), "column 'response' is of type fixed_size_binary[2]"),
        (one(probe=7), "column 'probe' is of type int64; expected text"),
        (one(proto=b"tcp"), "column 'proto' is of type binary; expected text"),
        ([1], "batches: int cannot be used; expected pyarrow.RecordBatch"),
        ([one()], "batches: Table cannot be used; expected pyarrow.RecordBatch"),
        (7, "batches: int cannot be used"),
        ("x", "batches: str cannot be used"),
        (pa.chunked_array([[1]]), "batches: ChunkedArray cannot be used: "),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_one_clear_error(table: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        matches(table)
    assert message in str(error.value)


def test_options_are_checked_at_once() -> None:
    """Before anything is asked for; an unusable database when it is."""
    with pytest.raises(ConfigError, match="probes: 'builtin' cannot be used; expected a tuple of texts"):
        arrow.match_batches([], probes="builtin")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="matcher: 'grep'"):
        arrow.match_batches([], matcher="grep")
    with pytest.raises(MatcherError, match="nowhere"):
        list(arrow.match_batches(one(), probes=("nowhere",)))


def test_the_database_is_compiled_once(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process, whoever asks: several threads at once, match, a scan."""
    opened: list[tuple[str, ...]] = []
    really = shared_matcher.__globals__["open_matcher"]

    def counted(probes: tuple[str, ...], engine: str) -> Any:
        opened.append(probes)
        time.sleep(0.05)
        return really(probes, engine)

    monkeypatch.setattr("engine.databases.open_matcher", counted)
    settings = config(database)
    table = pa.table({"response": [b"HELLO %d.0" % (number % 50) for number in range(2000)]})
    found: list[list[str | None]] = []

    def ask() -> None:
        versions = [row and row["version"] for row in matches(table, probes=(database,), matcher="reference")]
        found.append(versions)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[f"{number % 50}.0" for number in range(2000)]] * 4
    assert match(b"HELLO 1.0", config=settings) is not None
    with Farm(greeting_after(0.0)) as farm:
        assert len(rows_of(targets(farm, "127.7.0.1"), settings)) == 1
    assert opened == [(database,)]


@pytest.mark.parametrize("engine", ["hyperscan", "re2"])
def test_several_threads_get_the_same_answers(engine: str) -> None:
    """Also from responses that nobody has asked about before."""
    if engine == "hyperscan":
        pytest.importorskip("hyperscan")
    rows = [b"SSH-2.0-OpenSSH_%d.%dp1\r\n" % (number, number) for number in range(1500)]
    table = pa.table({"response": rows})
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(matches(table, matcher=engine)), daemon=True) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert found[0] == found[1] == found[2]
    assert [row["version"] for row in found[0]] == [f"{number}.{number}p1" for number in range(1500)]
    assert not shared_matcher(("builtin",), engine).matcher.stats.failures


def test_functions_travel() -> None:
    """With their options, to worker processes."""
    asked = pickle.loads(pickle.dumps(partial(arrow.match_batches, **BUILTIN)))
    assert [batch.column("match")[0]["product"].as_py() for batch in asked(one())] == ["OpenSSH"]
    assert pickle.loads(pickle.dumps(partial(arrow.scan_batches, config=ScanConfig()))).func is arrow.scan_batches
    assert pickle.loads(pickle.dumps(arrow.match_schema)) is arrow.match_schema


# --- scans -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> str:
    return database_file(tmp_path)


def targets(farm: Farm, *addresses: str, **columns: Any) -> Any:
    return pa.table({"ip": list(addresses), "port": [farm.port] * len(addresses), **columns})


def rows_of(batches: Any, settings: ScanConfig) -> list[dict[str, Any]]:
    found = pa.Table.from_batches(arrow.scan_batches(batches, settings), arrow.SCHEMA)
    return found.to_pylist()  # type: ignore[no-any-return]


def test_a_scan_of_batches(database: str) -> None:
    """A row for each target, with the columns of SCHEMA, over any number of batches."""
    with Farm(greeting_after(0.0)) as farm:
        table = targets(farm, *(f"127.7.1.{number}" for number in range(100)))
        rows = rows_of(table.to_batches(7), config(database))
    assert sorted(row["ip"] for row in rows) == sorted(table["ip"].to_pylist())
    assert {(row["product"], row["version"], row["verdict"]) for row in rows} == {("Hello", "1.0", "hardmatched")}


def test_rows_of_a_scan_can_be_scanned(database: str) -> None:
    """The open ones; their names and states go with them."""
    with Farm(greeting_after(0.0)) as farm:
        table = targets(farm, "127.7.2.1", "127.7.2.2", "127.7.2.3", host=["a.example", None, ""])
        states = ["open", "OPEN", "closed"]
        first = pa.Table.from_batches(
            arrow.scan_batches(table.append_column("state", [states]), config(database)), arrow.SCHEMA
        )
        assert sorted(zip(first["ip"].to_pylist(), first["host"].to_pylist(), strict=True)) == [
            ("127.7.2.1", "a.example"),
            ("127.7.2.2", None),
        ]
        again = rows_of(first, config(database))
    assert {(row["ip"], row["host"], row["state"]) for row in again} == {
        ("127.7.2.1", "a.example", "open"),
        ("127.7.2.2", None, "open"),
    }


def test_a_host_alone_is_an_address_or_a_name(database: str) -> None:
    with Farm(greeting_after(0.0)) as farm:
        table = pa.table({"host": ["127.7.2.9", "localhost"], "port": [farm.port] * 2})
        rows = rows_of(table, config(database))
    assert {(row["ip"] in ("127.0.0.1", "::1"), row["host"]) for row in rows} == {(False, None), (True, "localhost")}


def test_the_config_holds(database: str) -> None:
    """Lists and caps; workers are none."""
    with Farm(greeting_after(0.05)) as farm:
        table = targets(farm, *(f"127.7.3.{number}" for number in range(8)))
        settings = config(database, blocklist=("127.7.3.0/30",), max_inflight=1, workers=3)
        rows = rows_of(table, settings)
        assert sorted(row["ip"] for row in rows) == [f"127.7.3.{number}" for number in range(4, 8)]
        ends = sorted((visit.at, visit.busy_until) for visit in farm.visits)
        assert all(ends[at][1] <= ends[at + 1][0] for at in range(len(ends) - 1))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ip": ["127.7.4.1", "no host"], "port": [1, 1]}, "targets:2: "),
        ({"ip": ["127.7.4.1", None], "port": [1, 1]}, "targets:2: "),
        ({"ip": ["127.7.4.1", "127.7.4.2", "127.7.4.3"], "port": [1, None, 1]}, "targets:2: "),
        ({"ip": ["127.7.4.1"], "port": [65536]}, "targets:1: "),
        ({"ip": ["127.7.4.1"] * 2, "port": [1, 1], "proto": ["tcp", "sctp"]}, "targets:2: "),
        ({"ip": ["-", "127.7.4.1", "-"], "port": [0, 1, 0], "state": ["closed", "open", "open"]}, "targets:3: "),
    ],
    ids=str,
)
def test_a_row_that_is_no_target_is_named(database: str, columns: dict[str, list[Any]], message: str) -> None:
    """By its number over all batches; rows that are passed over count, too."""
    with pytest.raises(InputError) as error:
        rows_of(pa.table(columns).to_batches(1), config(database))
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"port": [1]}, "no column 'ip' in the batch; it has: port"),
        ({"ip": ["127.7.4.1"]}, "no column 'port' in the batch; it has: ip"),
        ({"ip": ["127.7.4.1"], "port": ["80"]}, "column 'port' is of type string; expected integers"),
        ({"ip": ["127.7.4.1"], "port": [80.0]}, "column 'port' is of type double; expected integers"),
        ({"ip": [b"\x7f\0\0\1"], "port": [80]}, "column 'ip' is of type binary; expected text"),
    ],
    ids=str,
)
def test_columns_that_are_no_targets(database: str, columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        rows_of(pa.table(columns), config(database))
    assert str(error.value) == message


def test_what_the_input_raises_comes_behind_the_rows_before_it(database: str) -> None:
    """And what cannot be obeyed before any."""

    def broken(farm: Farm) -> Iterator[Any]:
        yield targets(farm, "127.7.5.1").to_batches()[0]
        raise ZeroDivisionError("told so")

    with Farm(greeting_after(0.1)) as farm:
        rows: list[Any] = []
        with pytest.raises(ZeroDivisionError, match="told so"):
            rows.extend(arrow.scan_batches(broken(farm), config(database)))
        with pytest.raises(ConfigError, match="no post-processing module"):
            rows_of(targets(farm, "127.7.5.2"), config(database, post=("nothing",)))
        with pytest.raises(MatcherError, match="nowhere"):
            rows_of(targets(farm, "127.7.5.2"), config("nowhere"))
        assert set(farm.per_address) == {"127.7.5.1"}


def test_no_targets_are_no_rows(database: str) -> None:
    """Nor is an empty batch the end."""
    with Farm(greeting_after(0.0)) as farm:
        table = targets(farm, "127.7.6.1")
        empty = table.slice(0, 0).to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]
        assert rows_of([*empty, *table.to_batches(), *empty], config(database))[0]["ip"] == "127.7.6.1"
        assert not rows_of(empty, config(database))
        assert not rows_of([], config(database))


def test_a_scan_where_a_loop_is_running(database: str) -> None:
    """Of a notebook, or an actor."""

    async def run(farm: Farm) -> list[dict[str, Any]]:
        return rows_of(targets(farm, "127.7.7.1"), config(database))

    with Farm(greeting_after(0.0)) as farm:
        assert [row["product"] for row in asyncio.run(run(farm))] == ["Hello"]


def scanning() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "probemill scan"]


def test_leaving_early_ends_the_scan(database: str) -> None:
    """Nothing is connected to, and no thread is there, when the iterator has been closed."""
    taken = 0

    def endless(farm: Farm) -> Iterator[Any]:
        nonlocal taken
        while True:
            taken += 1
            yield targets(farm, *(f"127.7.8.{number}" for number in range(1, 20))).to_batches()[0]

    with Farm(greeting_after(0.0)) as farm:
        found = arrow.scan_batches(endless(farm), config(database, max_inflight=20, batch_rows=1))
        assert next(found).num_rows >= 1
        assert scanning()
        found.close()  # type: ignore[attr-defined]
        assert not scanning()
        visits, batches = -1, taken
        deadline = time.monotonic() + 10
        while len(farm.visits) != visits:  # the farm may be behind
            assert time.monotonic() < deadline
            visits = len(farm.visits)
            time.sleep(0.3)
        assert taken == batches


def test_a_scan_waits_for_who_takes_its_rows(database: str) -> None:
    """What is read, and held, is bounded however long nobody asks; then all rows come."""
    taken = 0

    def counted(farm: Farm) -> Iterator[Any]:
        nonlocal taken
        for third in range(40):
            taken += 1
            yield targets(farm, *(f"127.8.{third}.{number}" for number in range(50))).to_batches()[0]

    with Farm(greeting_after(0.0)) as farm:
        settings = config(database, max_inflight=10, batch_rows=5)
        found = arrow.scan_batches(counted(farm), settings)
        rows = next(found).num_rows
        time.sleep(0.5)
        assert taken < 20
        rows += sum(batch.num_rows for batch in found)
    assert (rows, taken) == (2000, 40)
    assert not scanning()


def test_batches_are_asked_for_in_the_callers_thread(database: str) -> None:
    """Cursors of databases and readers of engines belong to it."""
    threads = set()

    def watched(farm: Farm) -> Iterator[Any]:
        for number in range(3):
            threads.add(threading.get_ident())
            yield targets(farm, f"127.7.9.{number}").to_batches()[0]

    with Farm(greeting_after(0.0)) as farm:
        assert len(rows_of(watched(farm), config(database))) == 3
    assert threads == {threading.get_ident()}
