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
from engine.errors import EngineError
from engine.offline import identify as offline
from engine.offline import workers
from engine.offline.identify import identify
from engine.offline.stream import Chunk
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
