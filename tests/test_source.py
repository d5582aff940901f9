"""From bytes to targets: files, pipes and names, as streams."""

import asyncio
import gzip
import os
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
import zstandard
from loopback import from_items

from engine.errors import InputError
from engine.model import Target
from engine.targets import Item, TargetSpec, parse_ports, target_reader
from engine.targets.plain import PlainReader
from engine.targets.source import CHUNK, QUEUED, READ_SIZE, TargetSource, read_chunks, read_items


def items_of(*lines: str, ports: str = "") -> list[Item]:
    reader = PlainReader("lines", parse_ports(ports) if ports else None)
    return [*reader.feed("\n".join(lines).encode()), *reader.close()]


def gather(items: Sequence[Item], **options: object) -> tuple[list[Target], list[InputError], TargetSource]:
    """Everything that a source yields, and what it complained of."""
    errors: list[InputError] = []

    async def run() -> tuple[list[Target], TargetSource]:
        source = TargetSource(from_items(items), errors.append, **options)  # type: ignore[arg-type]
        found: list[Target] = []
        async with asyncio.timeout(20):
            async for targets in source:
                assert 0 < len(targets) <= CHUNK
                found += targets
        return found, source

    found, source = asyncio.run(run())
    return found, errors, source


def read_all(path: str, form: str = "auto") -> list[Item]:
    async def run() -> list[Item]:
        async with asyncio.timeout(20):
            return [item async for items in read_items(path, target_reader(path, form)) for item in items]

    return asyncio.run(run())


# -- bytes


def test_a_file(tmp_path: Path) -> None:
    path = tmp_path / "targets"
    path.write_text("# a comment\n127.0.0.1:22\n\n127.0.0.2:53/udp\nnonsense:port\n127.0.0.3:80")
    first, second, wrong, third = read_all(str(path))
    assert (first, second, third) == (
        Target(0, "127.0.0.1", 22),
        Target(1, "127.0.0.2", 53, "udp"),
        Target(2, "127.0.0.3", 80),
    )
    assert isinstance(wrong, InputError)
    assert (wrong.source, wrong.line) == (str(path), 5)


def test_lines_across_reads(tmp_path: Path) -> None:
    """A line that lies on the border between two reads is whole."""
    path = tmp_path / "targets"
    count = 3 * READ_SIZE // 15
    path.write_text("".join(f"127.{n >> 16}.{n >> 8 & 255}.{n & 255}:{n % 60000 + 1}\n" for n in range(count)))
    found = read_all(str(path))
    assert [item.ordinal for item in found if isinstance(item, Target)] == list(range(count))


@pytest.mark.parametrize("path", ["/dev/null", "empty"])
def test_nothing(path: str, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert read_all(str(tmp_path / path)) == []


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing: cannot be read: No such file or directory"):
        read_all(str(tmp_path / "missing"))
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_all(str(tmp_path))


def test_named_pipe(tmp_path: Path) -> None:
    """Lines come out as they are written; waiting for the first writer stops nothing else, and can be given up."""
    path = tmp_path / "pipe"
    os.mkfifo(path)

    async def run() -> list[bytes]:
        seen = []
        chunks = read_chunks(str(path))
        first = asyncio.create_task(anext(chunks))
        await asyncio.sleep(0.05)
        assert not first.done()
        with await asyncio.to_thread(path.open, "wb", 0) as writer:
            for line in (b"one\n", b"two\n"):
                writer.write(line)
                seen.append(await asyncio.wait_for(first, 10))
                first = asyncio.create_task(anext(chunks))
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(first, 10)
        return seen

    async def give_up() -> None:
        waiting = asyncio.create_task(anext(read_chunks(str(path))))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    assert asyncio.run(run()) == [b"one\n", b"two\n"]
    asyncio.run(give_up())


@pytest.mark.parametrize("how", ["pipe", "file", "null"])
def test_standard_input(tmp_path: Path, how: str) -> None:
    program = (
        "import asyncio\n"
        "from engine.targets.source import read_chunks\n"
        "async def main():\n"
        "    async for chunk in read_chunks('-'): print(chunk.decode(), end='')\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program]
    text = "127.0.0.1:80\n"
    if how == "pipe":
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=True)
    else:
        (tmp_path / "in").write_text(text)
        with Path("/dev/null" if how == "null" else tmp_path / "in").open() as file:
            done = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == ("" if how == "null" else text)


# -- compressed bytes


@pytest.fixture(params=[zstandard.compress, gzip.compress], ids=["zstd", "gzip"])
def pack(request: pytest.FixtureRequest) -> Callable[[bytes], bytes]:
    return request.param  # type: ignore[no-any-return]


def lines_of(first: int, count: int) -> bytes:
    return b"".join(b"127.%d.%d.%d:80\n" % (n >> 16, n >> 8 & 255, n & 255) for n in range(first, first + count))


def test_a_compressed_file(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """Told by its first bytes, whatever it is called; several frames follow one another; text may be UTF-16."""
    path = tmp_path / "targets"
    path.write_bytes(pack(lines_of(0, 30_000)) + pack(lines_of(30_000, 10)))
    found = read_all(str(path))
    assert [item.ordinal for item in found if isinstance(item, Target)] == list(range(30_010))
    path.write_bytes(pack("127.0.0.1:80\n".encode("utf-16")))
    assert read_all(str(path)) == [Target(0, "127.0.0.1", 80)]


def test_every_form_may_be_compressed(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """The form is looked for in what was unpacked."""
    path = tmp_path / "targets"
    path.write_bytes(pack(b'[\n{"ip": "127.0.0.1", "ports": [{"port": 80, "proto": "tcp", "status": "open"}]}\n]\n'))
    (target,) = read_all(str(path))
    assert isinstance(target, Target)
    assert (target.host, target.port) == ("127.0.0.1", 80)


@pytest.mark.parametrize("begin", [b"1", b"(\xb5", b"\x1f\x8b", b"S*"])
def test_what_only_begins_like_a_compressed_file(tmp_path: Path, begin: bytes) -> None:
    """A file too short to tell is read as it is."""
    path = tmp_path / "targets"
    path.write_bytes(begin)
    (wrong,) = read_all(str(path))
    assert isinstance(wrong, InputError)
    assert "zstd" not in str(wrong)


def test_a_compressed_pipe_is_read_as_it_comes(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """What one write holds is there before the next one."""
    path = tmp_path / "pipe"
    os.mkfifo(path)

    async def run() -> list[Item]:
        seen: list[Item] = []
        items = read_items(str(path), target_reader(str(path), "plain"))
        first = asyncio.ensure_future(anext(items))
        with await asyncio.to_thread(path.open, "wb", 0) as writer:
            for number in range(3):
                writer.write(pack(lines_of(number, 1)))
                seen += await asyncio.wait_for(first, 10)
                assert len(seen) == number + 1
                first = asyncio.ensure_future(anext(items))
        first.cancel()
        return seen

    assert [item.ordinal for item in asyncio.run(run()) if isinstance(item, Target)] == [0, 1, 2]


@pytest.mark.parametrize("damage", ["cut", "garbage behind it", "garbage in it"])
@pytest.mark.parametrize("form", ["auto", "plain"])
def test_damage_is_one_error_behind_what_was_whole(
    tmp_path: Path, pack: Callable[[bytes], bytes], damage: str, form: str
) -> None:
    """With the line where it ended. The line that had begun is not guessed at: `:8` may have been `:80`."""
    packed = pack(lines_of(0, 100_000))
    path = tmp_path / "targets"
    if damage == "cut":
        path.write_bytes(packed[: len(packed) // 2])
    elif damage == "garbage in it":
        path.write_bytes(packed[: len(packed) // 2] + b"\xff" * 4096 + packed[len(packed) // 2 + 4096 :])
    else:
        path.write_bytes(pack(lines_of(0, 500) + b"127.0.0.1:8") + b"garbage that is no frame")
    watched: list[bytes] = []

    async def run() -> list[Item]:
        reader = target_reader(str(path), form)
        return [item async for items in read_items(str(path), reader, watched.append) for item in items]

    *found, error = asyncio.run(run())
    assert isinstance(error, InputError)
    assert (error.source, error.line) == (str(path), len(found) + 1)
    assert "damaged" in error.reason or "ends in the middle" in error.reason
    assert len(found) == 500 if damage == "garbage behind it" else len(found) > 20_000
    if damage != "garbage in it":  # which may come out as text before it is noticed
        assert [(item.host, item.port) for item in found if isinstance(item, Target)] == [
            (f"127.{n >> 16}.{n >> 8 & 255}.{n & 255}", 80) for n in range(len(found))
        ]
    assert b"".join(watched) == path.read_bytes(), "a digest of the input does not depend on where pipes were cut"


def test_a_cut_input_whose_form_was_not_known_yet(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """The lines that were held back until one tells the form are targets all the same."""
    path = tmp_path / "targets"
    path.write_bytes(pack(b"a.example 81\nb.example 82\nc.example 8") + b"garbage that is no frame")
    *found, error = read_all(str(path))
    assert [item.host for item in found if isinstance(item, TargetSpec)] == ["a.example", "b.example"]
    assert isinstance(error, InputError)
    assert error.line == 3


def test_a_bomb_takes_no_memory(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    """Half a gigabyte of nothing in a few hundred kilobytes."""
    path = tmp_path / "targets"
    path.write_bytes(pack(bytes(1 << 20)) * 512 + pack(b"\n127.0.0.1:80\n"))
    tracemalloc.start()
    found = read_all(str(path), "plain")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [item.port for item in found if isinstance(item, Target)] == [80]
    assert peak < 16 << 20


# -- targets


def test_order_and_ordinals() -> None:
    found, errors, _ = gather(items_of("127.0.0.1", "127.0.1.0/30:80", "127.0.0.9:9", ports="1-3"))
    assert not errors
    assert [target.ordinal for target in found] == list(range(8))
    assert [(target.host, target.port) for target in found if target.host.startswith("127.0.0.")] == [
        ("127.0.0.1", 1),
        ("127.0.0.1", 2),
        ("127.0.0.1", 3),
        ("127.0.0.9", 9),
    ]
    assert {target.host for target in found if target.port == 80} == {f"127.0.1.{last}" for last in range(4)}


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked up; the name stays with the target. Those that nobody knows are targets without a host."""
    monkeypatch.setattr(socket, "getaddrinfo", nobody_else(socket.EAI_NONAME))
    put_off: list[int] = []
    items = items_of("localhost:80", "no-such-host.invalid", "127.0.0.9:9", ports="1-3")
    found, errors, _ = gather(items, put_off=put_off.extend)
    by_ordinal = {target.ordinal: target for target in found}
    assert by_ordinal.keys() == {0, 1, 2, 3, 4}
    assert (by_ordinal[0].host in ("127.0.0.1", "::1"), by_ordinal[0].name) == (True, "localhost")
    assert [(by_ordinal[n].host, by_ordinal[n].name, by_ordinal[n].port) for n in (1, 2, 3)] == [
        ("", "no-such-host.invalid", port) for port in (1, 2, 3)
    ]
    assert by_ordinal[4] == Target(4, "127.0.0.9", 9)
    assert not errors
    assert not put_off


def nobody_else(fault: int) -> Callable[..., object]:
    """A resolver that knows localhost, and says `fault` of every other name."""
    known = socket.getaddrinfo

    def look_up(host: str, port: None, **options: int) -> object:
        if host != "localhost":
            raise socket.gaierror(fault, "told so")
        return known(host, port, **options)

    return look_up


@pytest.mark.parametrize("recovers", [True, False])
def test_a_name_server_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch, recovers: bool) -> None:
    """What stays unanswered is yielded without a host, and put off: it is not done for ever."""
    asked = []
    failing, known = nobody_else(socket.EAI_AGAIN), socket.getaddrinfo

    def look_up(host: str, port: None, **options: int) -> object:
        asked.append(host)
        if recovers and len(asked) == 3:
            return known("127.0.0.3", port, **options)
        return failing(host, port, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr("engine.targets.source.RETRY_S", (0.0, 0.0, 0.0))
    put_off: list[int] = []
    found, _, _ = gather(items_of("slow.example:80"), put_off=put_off.extend)
    assert [target.host for target in found] == ["127.0.0.3" if recovers else ""]
    assert len(asked) == (3 if recovers else 4)
    assert put_off == ([] if recovers else [0])


def test_a_slow_name_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    async def run() -> list[str]:
        source = TargetSource(from_items(items_of("slow.example:80", "127.0.0.1:80")), lambda error: None)
        hosts = []
        async with asyncio.timeout(20):
            async for targets in source:
                hosts += [target.host for target in targets]
                release.set()
        return hosts

    def slow_lookup(host: str, port: None, **options: object) -> list[tuple[object, ...]]:
        assert release.wait(10)
        return [(0, 0, 0, "", ("192.0.2.9", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", slow_lookup)
    assert asyncio.run(run()) == ["127.0.0.1", "192.0.2.9"]


def test_nobody_waits_for_a_resolver_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends leaves the look-up to its thread: neither the loop nor the program waits for it."""
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait(30))

    async def run() -> None:
        source = aiter(TargetSource(from_items(items_of("silent.example:80")), lambda error: None))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(source)

    began = time.monotonic()
    asyncio.run(run())
    assert time.monotonic() - began < 20
    release.set()


def test_errors_are_reported_and_passed_over() -> None:
    found, errors, _ = gather(items_of("127.0.0.1:80", "what is this", "127.0.0.2:99999", "127.0.0.3:80"))
    assert [target.host for target in found] == ["127.0.0.1", "127.0.0.3"]
    assert [error.line for error in errors] == [2, 3]


def test_who_is_not_admitted_is_counted() -> None:
    passed: list[int] = []
    found, _, source = gather(
        items_of("127.0.0.0/24:80", "127.0.0.1:81"),
        admit=lambda target: not target.host.endswith("1"),
        pass_over=passed.extend,
    )
    refused = {f"127.0.0.{last}" for last in range(256) if last % 10 == 1}
    assert source.blocked == len(refused) + 1
    assert {target.host for target in found} == {f"127.0.0.{last}" for last in range(256)} - refused
    assert len(passed) == source.blocked


def test_a_seed_is_a_permutation() -> None:
    spec = items_of("127.0.0.0/22", ports="80,81")
    plain, shuffled, again = gather(spec)[0], gather(spec, seed=5)[0], gather(spec, seed=5)[0]
    assert shuffled == again
    assert [target.ordinal for target in shuffled] == list(range(2048))
    assert {(t.host, t.port) for t in shuffled} == {(t.host, t.port) for t in plain}
    assert [t.host for t in shuffled] != [t.host for t in plain]


def test_networks_are_expanded_as_they_are_taken() -> None:
    """Of four billion targets only those exist that somebody waits for."""

    async def run() -> int:
        source = TargetSource(from_items(items_of("10.0.0.0/8", ports="1-250")), lambda error: None)
        lists = aiter(source)
        tracemalloc.start()
        began = time.monotonic()
        for _ in range(20):
            assert len(await anext(lists)) == CHUNK
        assert time.monotonic() - began < 20
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        await lists.aclose()  # type: ignore[attr-defined]
        return peak

    assert asyncio.run(run()) < (QUEUED + 3) * CHUNK * 1000


def test_the_reader_waits_for_who_takes() -> None:
    """An input without end is read no further than the queue is long."""
    given = 0

    async def endless() -> AsyncIterator[list[Item]]:
        nonlocal given
        while True:
            given += 1
            yield [Target(given * 10 + last, "127.0.0.1", 80) for last in range(10)]
            await asyncio.sleep(0)

    async def run() -> None:
        lists = aiter(TargetSource(endless(), lambda error: None))
        await anext(lists)
        for _ in range(200):
            await asyncio.sleep(0)
        await lists.aclose()  # type: ignore[attr-defined]

    asyncio.run(run())
    assert given <= QUEUED + 3


def test_trouble_while_reading_reaches_who_takes() -> None:
    async def broken() -> AsyncIterator[list[Item]]:
        yield items_of("127.0.0.1:80")
        raise InputError("pipe", 0, "cannot be read: Input/output error")

    async def run() -> int:
        count = 0
        with pytest.raises(InputError, match="Input/output error"):
            async for targets in TargetSource(broken(), lambda error: None):
                count += len(targets)
        return count

    assert asyncio.run(run()) == 1


def test_a_spec_knows_its_targets() -> None:
    (spec,) = items_of("127.0.0.0/30", ports="80,U:53")
    assert isinstance(spec, TargetSpec)
    assert (spec.hosts, spec.count) == (4, 8)
