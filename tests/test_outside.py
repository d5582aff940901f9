"""What strangers wrote: files are read within bounds, texts are shown and not obeyed."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.model import ScanConfig
from engine.pool.wire import setup, setup_body
from engine.services import ServiceTable
from matcher import DatabaseError, MatcherError, load_database, load_recog
from matcher.database.samples import read_samples
from matcher.outside import MIB, read_file, shown

# --- files -----------------------------------------------------------------------------------------------------------


def in_place_of_a_file(kind: str, path: Path) -> Path:
    match kind:
        case "a folder":
            path.mkdir()
        case "a FIFO":
            os.mkfifo(path)
        case "a socket":
            socket.socket(socket.AF_UNIX).bind(str(path))
        case "nothing":
            pass
        case "a link to nothing":
            path.symlink_to(path.parent / "nowhere")
        case "more than anybody needs":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        case _:
            return Path(kind)
    return path


KINDS = {
    "a folder": "Is a directory",
    "a FIFO": "not a regular file",
    "/dev/zero": "not a regular file",
    "/dev/null": "not a regular file",
    "a socket": "No such device or address",
    "nothing": "No such file or directory",
    "a link to nothing": "No such file or directory",
    "more than anybody needs": "larger than 1 MiB",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the socket that nobody closes
def test_only_files_are_read(tmp_path: Path, kind: str) -> None:
    """At once, and without taking in what has no end."""
    with pytest.raises(OSError) as caught:
        read_file(in_place_of_a_file(kind, tmp_path / "x"), MIB)
    assert caught.value.strerror == KINDS[kind]


@pytest.mark.parametrize("path", ["a\0b", "\ud800"])
def test_what_no_file_can_be_called(path: str) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        read_file(path, MIB)


def test_the_bound(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_file(tmp_path / "x", 5) == b"12345"
    with pytest.raises(OSError, match="larger than"):
        read_file(tmp_path / "x", 4)


READERS: dict[str, Callable[[Path], object]] = {
    "database": load_database,
    "samples": lambda path: read_samples([path]),
    "services": ServiceTable.read,
    "recog": lambda path: load_recog(path.parent),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "a socket"])
@pytest.mark.parametrize("reader", READERS)
def test_every_reader_says_it_in_one_line(tmp_path: Path, reader: str, kind: str) -> None:
    """With the name of the file, whatever characters that has."""
    folder = tmp_path / os.fsdecode(b"f\xff\x1b[31m\xe2\x80\xae")
    folder.mkdir()
    path = folder / "x.xml"
    if kind.startswith("/"):
        path.symlink_to(kind)
    else:
        in_place_of_a_file(kind, path)
    if reader == "samples" and kind == "a folder":
        assert read_samples([path]) == ([], [])  # a folder of samples
        return
    with pytest.raises((MatcherError, ConfigError)) as caught:
        READERS[reader](path)
    assert str(caught.value).isprintable()
    assert rf"{tmp_path}/f\xff\x1b[31m\u202e" in str(caught.value)
    if not (reader == "recog" and kind == "nothing"):
        assert "cannot be read: " in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "db").touch(0o000)
    with pytest.raises(DatabaseError, match="cannot be read: Permission denied"):
        load_database(tmp_path / "db")


# --- texts -----------------------------------------------------------------------------------------------------------

TEXTS = {
    "plain": "plain",
    "Ünïcode, ×, 日本\u3000": "Ünïcode, ×, 日本\u3000",
    "\x1b[2J\x9b0m\x7f\0": r"\x1b[2J\x9b0m\x7f\x00",
    "a\nb\rc\td\u2028e\x85": r"a\x0ab\x0dc\x09d\u2028e\x85",
    "\u202eevil\u2066\u200b\u00ad\ufeff": r"\u202eevil\u2066\u200b\xad\ufeff",
    "\U000e0041": r"\U000e0041",
    os.fsdecode(b"\xff\x80"): r"\xff\x80",
    "\ud800": r"\ud800",
}


@pytest.mark.parametrize("text", TEXTS)
def test_how_a_text_is_shown(text: str) -> None:
    """Controls (C0, DEL, C1), marks of direction and joining, line ends and bytes that are no UTF-8 are written out."""
    assert shown(text) == TEXTS[text]


@given(st.text(st.characters(exclude_categories=())))
def test_what_is_shown_can_be_printed_and_encoded(text: str) -> None:
    """And is shown the same when it is shown again."""
    seen = shown(text)
    assert shown(seen) == seen
    assert not {"\x1b", "\n", "\x9b", "\u202e"} & set(seen)
    seen.encode()
    msgspec.json.encode(seen)
    json.dumps(seen)


def test_a_path_that_is_no_text_reaches_the_workers() -> None:
    config = ScanConfig(probes=(os.fsdecode(b"d\xff\x1b"),), rate=7)
    assert setup(setup_body(config)) == config


def test_an_error_is_one_line_that_can_be_printed(tmp_path: Path) -> None:
    """Whatever the path holds, as the command prints it."""
    command = [sys.executable, "-m", "probemill", "scan", "127.0.0.1:9", "-q", "--workers", "2", "--probes"]
    path = os.fsencode(tmp_path) + b"/d\xff\x1b[2J\n\xe2\x80\xae"
    ended = subprocess.run([*command, path], capture_output=True, check=False, timeout=60)
    assert ended.returncode == 2
    assert ended.stderr.decode() == rf"probemill: {tmp_path}/d\xff\x1b[2J\x0a\u202e:1:1: cannot be read: " + (
        "No such file or directory\n"
    )
