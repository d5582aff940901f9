"""Processes that answer chunks: what they share, and that they change nothing but the time."""

import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.databases import open_matcher
from engine.errors import EngineError, ReadError
from engine.offline import identify as offline
from engine.offline import stream as stream_module
from engine.offline import workers
from engine.offline.identify import identify
from engine.offline.stream import Chunk, Source
from engine.offline.workers import AREA_BYTES, CHUNKS_PER_WORKER, _Area

DATABASE = b"Probe TCP NULL q||\nmatch ssh m|^SSH-([\\d.]+)-(\\w+)| p/$2/ v/$1/\n"
SLOW = rb"""Probe TCP NULL q||
match slow m@^(?:a|a)*(?![0-9])\d@
"""
SOON_S = 5.0  # for what takes a fiftieth of it on a machine that has nothing else to do
SIZES = (0, 1, AREA_BYTES - 1, AREA_BYTES, AREA_BYTES + 1, 3 * AREA_BYTES)


def test_two_processes_find_in_an_area_what_the_other_put_there() -> None:
    """Whatever the sizes, and whoever has mapped how much of it before; what a long text took is given back."""
    chance = random.Random(1)
    file = os.memfd_create("test")
    ours, theirs = _Area(file), _Area(file)
    for _ in range(60):
        there, back = (chance.randbytes(1) * chance.choice(SIZES) for _ in range(2))
        ours.put(there)
        assert theirs.get(len(there)) == there
        theirs.put(back)
        assert ours.get(len(back)) == back
        ours.give_back()
        assert os.fstat(file).st_size <= max(AREA_BYTES, len(back))
    ours.put(b"")
    os.close(file)


def chunks() -> Iterator[Chunk]:
    """Of a few bytes and of megabytes; some are answered with more than they hold."""
    line = 0
    for number in range(60):
        pad = "x" * (3 * AREA_BYTES if number % 7 == 3 else number)
        short = '{"banner":""}\n' * (40_000 if number % 20 == 9 else 1)
        text = f'{{"n":{number},"pad":"{pad}","banner":"SSH-{number}-é"}}\n{short}bad\n'.encode()
        yield Chunk(text, line, number)
        line += text.count(b"\n")


def stream(count: int) -> Iterator[Chunk]:
    """Chunks of different sizes, so that they are not answered in their order."""
    line = 0
    for number in range(count):
        size = 1 + number * 7919 % 1000
        text = b"".join(b'{"banner":"SSH-%d.%d-x"}\n' % (number, row) for row in range(size)) + b"bad\n"
        line += size + 1
        yield Chunk(text, line - size - 1, number)


_is_ready = offline.Crew.is_ready


def _waited(crew: offline.Crew) -> bool:
    while not _is_ready(crew):
        time.sleep(0.01)
    return True


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> "list[subprocess.Popen[bytes]]":
    """The processes that are started."""
    processes: list[subprocess.Popen[bytes]] = []
    begin = subprocess.Popen

    def followed(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        processes.append(begin(*args, **options))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", followed)
    return processes


@pytest.fixture
def early_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """They answer all but the first chunk."""
    monkeypatch.setattr(offline, "INLINE_BYTES", 1)
    monkeypatch.setattr(offline.Crew, "is_ready", _waited)


@pytest.mark.slow
@pytest.mark.usefixtures("early_workers")
def test_chunks_of_any_size_are_answered_in_order(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_bytes(DATABASE)
    alone = list(identify(chunks(), open_matcher([str(path)], "reference"), [str(path)], 1))
    together = list(identify(chunks(), open_matcher([str(path)], "reference"), [str(path)], 2))
    assert [(one.out, one.tally, one.faults, one.position) for one in together] == [
        (one.out, one.tally, one.faults, one.position) for one in alone
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("early_workers")
def test_workers_give_the_same_second_opinion(tmp_path: Path) -> None:
    path = tmp_path / "db"
    path.write_bytes(b"Probe TCP NULL q||\nsoftmatch ssh m|^SSH-|\n")
    recog = tmp_path / "recog"
    recog.mkdir()
    (recog / "ssh.xml").write_text(
        '<fingerprints matches="ssh.banner"><fingerprint pattern="^(.+)$"><description>made up</description>'
        '<param pos="1" name="os.product"/></fingerprint></fingerprints>'
    )
    alone = list(identify(chunks(), open_matcher([str(path)], "reference"), [str(path)], 1, recog=str(recog)))
    together = list(identify(chunks(), open_matcher([str(path)], "reference"), [str(path)], 2, recog=str(recog)))
    assert [one.out for one in together] == [one.out for one in alone]
    assert b'"recog":"ssh.xml: made up"' in together[-1].out


@pytest.mark.slow
@pytest.mark.usefixtures("early_workers")
def test_many_workers_answer_in_order(tmp_path: Path) -> None:
    """Processes change nothing but the time; line numbers of faults count from the beginning of the input."""
    path = tmp_path / "db"
    path.write_bytes(DATABASE)
    alone = list(identify(stream(40), open_matcher([str(path)], "reference"), [str(path)], 1))
    together = list(identify(stream(40), open_matcher([str(path)], "reference"), [str(path)], 3))
    assert [(one.out, one.faults, one.position) for one in together] == [
        (one.out, one.faults, one.position) for one in alone
    ]
    assert len(together) == 40


@pytest.mark.slow
@pytest.mark.usefixtures("early_workers")
def test_a_worker_that_dies_is_an_error_not_a_silence(tmp_path: Path, started: list["subprocess.Popen[bytes]"]) -> None:
    path = tmp_path / "db"
    path.write_bytes(DATABASE)
    answers = identify(stream(4000), open_matcher([str(path)], "reference"), [str(path)], 2)
    assert [next(answers), next(answers)]
    started[1].kill()
    with pytest.raises(EngineError, match=r"a worker \(pid \d+\) died with status -9"):
        list(answers)
    assert None not in [process.poll() for process in started]


@pytest.mark.slow
@pytest.mark.usefixtures("early_workers")
@pytest.mark.parametrize("there", [DATABASE.replace(b"ssh", b"new"), b"Probe TCP NULL q||\nmatch ssh m|^(|\n", None])
def test_one_database_answers_the_whole_input(
    there: bytes | None, tmp_path: Path, started: list["subprocess.Popen[bytes]"]
) -> None:
    """The one that was loaded first, alone where workers find another one, a broken one, or none."""
    path = tmp_path / "db"
    path.write_bytes(DATABASE)
    alone = list(identify(stream(40), open_matcher([str(path)], "reference"), [str(path)], 1))
    answers = identify(stream(40), open_matcher([str(path)], "reference"), [str(path)], 2)
    first = next(answers)
    assert not started
    if there is None:
        path.unlink()
    else:
        path.write_bytes(there)
    assert [first, *answers] == alone
    assert [process.poll() is None for process in started] == [False, False]


@pytest.mark.slow
@pytest.mark.usefixtures("early_workers")
def test_no_more_is_read_than_is_in_flight(tmp_path: Path) -> None:
    """Memory is flat: the reader runs ahead of the writer by a bounded number of chunks."""
    path = tmp_path / "db"
    path.write_bytes(DATABASE)
    given = 0

    def counted() -> Iterator[Chunk]:
        nonlocal given
        for chunk in stream(200):
            given += 1
            yield chunk

    for written, _ in enumerate(identify(counted(), open_matcher([str(path)], "reference"), [str(path)], 2)):
        assert given - written <= 2 * CHUNKS_PER_WORKER + 2


@pytest.mark.slow
@pytest.mark.usefixtures("early_workers")
def test_workers_end_when_nobody_wants_more(
    tmp_path: Path, started: list["subprocess.Popen[bytes]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By themselves, where they are given the time."""
    monkeypatch.setattr(workers, "GRACE_S", SOON_S)
    path = tmp_path / "db"
    path.write_bytes(DATABASE)
    answers = identify(stream(200), open_matcher([str(path)], "reference"), [str(path)], 2)
    assert [next(answers), next(answers)]
    assert [process.poll() for process in started] == [None, None]
    answers.close()
    assert [process.poll() for process in started] == [0, 0]


@pytest.mark.slow
@pytest.mark.usefixtures("early_workers")
def test_workers_end_in_the_middle_of_a_chunk(tmp_path: Path, started: list["subprocess.Popen[bytes]"]) -> None:
    """Nobody waits for lines that take minutes."""
    path = tmp_path / "db"
    path.write_bytes(SLOW)
    slow = b"".join(b'{"banner":"%b%d"}\n' % (b"a" * 20, number) for number in range(10_000))
    texts = [b'{"banner":"b"}\n'] * 2 + [slow] * 4
    source = (Chunk(text, 0, number) for number, text in enumerate(texts))
    answers = identify(source, open_matcher([str(path)], "reference"), [str(path)], 2)
    assert [next(answers), next(answers)]
    began = time.monotonic()
    answers.close()
    assert time.monotonic() - began < SOON_S
    assert None not in [process.poll() for process in started]


@pytest.mark.slow
def test_while_workers_start_the_caller_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that never gets ready holds up nothing."""
    monkeypatch.setattr(offline, "INLINE_BYTES", 1)
    monkeypatch.setattr(offline.Crew, "is_ready", lambda crew: False)
    path = tmp_path / "db"
    path.write_bytes(DATABASE)
    answers = list(identify(stream(40), open_matcher([str(path)], "reference"), [str(path)], 2))
    assert [one.position for one in answers] == [*range(40)]


# -- files that workers read themselves

RECORDS = [b'{"n":%d,"pad":"%b","banner":"SSH-%d.0-x"}\n' % (at, b"x" * (at * 31 % 90), at) for at in range(600)]
FINGERPRINT = b"""\
SF-Port7-TCP:V=7.93%I=7%D=1/1%Time=650E2D2B%P=x86_64%r(NULL,9,"SSH-5\\.0-x")
SF:%r(GenericLines,9,"SSH-6\\.0-y");
"""
FILES = {
    "records": b"".join(RECORDS),
    "faults": b"".join(b"bad\n\n" + record if at % 9 == 4 else record for at, record in enumerate(RECORDS)),
    "report": b"Nmap scan report for x\n" + FINGERPRINT * 9 + b"".join(RECORDS) + FINGERPRINT * 100,
    "no end": b"".join(RECORDS)[:-1],
    "a long line": b"".join([*RECORDS[:300], b'{"banner":"%b"}\n' % (b"y" * 30_000), b"bad\n", *RECORDS[300:], b"bad"]),
    "too long a line": b"".join([*RECORDS[:300], b"x" * 70_000, b"\n{\n", *RECORDS, b"y" * 66_000, b"\n", RECORDS[0]]),
    "just as long a line": b"".join([*RECORDS, b"\n" * 9, b'{"banner":"%b"}\n' % (b"y" * 65_521), *RECORDS]),
    "blank lines": b"".join([*RECORDS[:200], b"\n" * 20_000, *RECORDS[200:]]),
    "not ASCII": b"".join(record.replace(b'"pad":"', '"pad":"é'.encode()) for record in RECORDS),
}
Said = tuple[bytes, list[tuple[int, str]], int, str]


def answered(file: Path, database: Path, count: int) -> Said:
    """What comes out, the faults, how many there are, and what ended it."""
    out, faults, number, damage = b"", [], 0, ""
    with Source(str(file)) as source:
        matcher = open_matcher([str(database)], "reference")
        try:
            for answer in identify(source.chunks(), matcher, [str(database)], count, file=source):
                out += answer.out
                faults += answer.faults.first
                number += answer.faults.count
        except ReadError as error:
            damage = str(error)
        faults += [(fault.line, fault.reason) for fault in source.faults]
    return out, faults, number, damage


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "READ_SIZE", 4096)
    monkeypatch.setattr(stream_module, "TAIL", 512)
    monkeypatch.setattr(stream_module, "MAX_LINE", 1 << 16)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "db"
    path.write_bytes(DATABASE)
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("early_workers", "small_pieces")
@pytest.mark.parametrize("name", FILES)
def test_a_file_is_answered_alike_whoever_reads_it(name: str, tmp_path: Path, database: Path) -> None:
    """Also where the parent has to read the rest, because no record ends where one is looked for."""
    file = tmp_path / "rows"
    file.write_bytes(FILES[name])
    alone = answered(file, database, 1)
    assert answered(file, database, 2) == alone
    assert alone[0].count(b'"match":{') >= 600


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("name", FILES)
def test_places_are_all_of_the_rest(name: str, tmp_path: Path) -> None:
    """Each byte once, in order; a place ends in a record."""
    file = tmp_path / "rows"
    file.write_bytes(FILES[name])
    with Source(str(file)) as source:
        assert source.is_plain()
        first = next(source.chunks())
        found = [first, *source.places(len(first.data), first.data.count(b"\n"))]
    text = FILES[name]
    read = [text[at : at + size] for at, size in (chunk.place for chunk in found if chunk.place)]
    assert len(read) > 1
    assert all(piece.endswith(b"}\n") for piece in read)
    given = b"".join(read[found.index(chunk) - 1] if chunk.place else chunk.data for chunk in found)
    assert given == (
        text
        if name != "too long a line"
        else text.replace(b"x" * 70_000 + b"\n", b"").replace(b"y" * 66_000 + b"\n", b"")
    )
    assert [chunk.position for chunk in found] == sorted(chunk.position for chunk in found)
    assert found[-1].position == len(text)


@pytest.mark.slow
@pytest.mark.usefixtures("early_workers", "small_pieces")
def test_a_file_that_shrinks_is_damaged(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows"
    file.write_bytes(FILES["records"])
    places = Source.places

    def cut(source: Source, taken: int, line: int) -> Iterator[Chunk]:
        for number, chunk in enumerate(places(source, taken, line)):
            if number == 1:
                os.truncate(file, 10_000)
            yield chunk

    monkeypatch.setattr(Source, "places", cut)
    out, faults, _, damage = answered(file, database, 2)
    assert FILES["records"][:10_000].count(b"\n") == out.count(b"\n")
    assert "it has become shorter" in damage and len(faults) <= 1


@pytest.mark.slow
@pytest.mark.usefixtures("early_workers", "small_pieces")
def test_what_a_worker_cannot_read_is_said(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptor it has is of something that cannot be read; what came before has been answered."""
    file = tmp_path / "rows"
    file.write_bytes(FILES["records"])
    folder = os.open(tmp_path, os.O_RDONLY)
    begin = offline.Crew.__init__

    def begun(crew: offline.Crew, function: str, setup: bytes, count: int, shared: list[int]) -> None:
        before = os.dup(shared[0])
        os.dup2(folder, shared[0])
        begin(crew, function, setup, count, shared)
        os.dup2(before, shared[0])
        os.close(before)

    monkeypatch.setattr(offline.Crew, "__init__", begun)
    monkeypatch.setattr(Source, "places", lambda source, taken, line: iter([Chunk(b"", line, taken, (taken, 100))]))
    out, _, _, damage = answered(file, database, 2)
    os.close(folder)
    assert out.count(b"\n") == FILES["records"][:4096].count(b"\n")
    assert "cannot be read: Is a directory" in damage


@pytest.mark.parametrize("opening", [b"\xff\xfe", b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"])
def test_what_has_to_be_undone_is_not_plain(opening: bytes, tmp_path: Path) -> None:
    file = tmp_path / "rows"
    file.write_bytes(opening + bytes(100))
    with Source(str(file)) as source:
        assert not source.is_plain()
    with Source("/dev/null") as source:
        assert not source.is_plain()


def test_standard_input_may_begin_anywhere_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows"
    file.write_bytes(b"\x1f\x8b\x08\x00" + b"".join(RECORDS))
    with file.open("rb", buffering=0) as opened:
        opened.seek(4)
        monkeypatch.setattr("sys.stdin", opened)
        with Source("-") as source:
            assert source.is_plain()
            chunk = next(source.places(len(RECORDS[0]), 1))
    assert chunk.data == b"".join(RECORDS[1:])  # too short for a place


@pytest.mark.slow
@pytest.mark.usefixtures("early_workers")
def test_what_was_read_before_an_error_is_answered(database: Path) -> None:
    """However many chunks are on their way to workers when it comes."""

    def damaged() -> Iterator[Chunk]:
        yield from stream(30)
        raise ReadError("x", 0, "cannot be read: no")

    for count in (1, 2, 3):
        answers = identify(damaged(), open_matcher([str(database)], "reference"), [str(database)], count)
        found = []
        with pytest.raises(ReadError):
            found.extend(iter(answers.__next__, None))
        assert len(found) == 30
