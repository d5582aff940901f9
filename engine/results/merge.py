"""Several files of a lake as one, row for row: Parquet, or compressed NDJSON. The number of rows is counted again."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

from engine.errors import InputError
from engine.extras import extra
from engine.results.lake.base_place import Place
from engine.results.lake.ndjson import NdjsonFile
from engine.unpack import Damaged, unpacked

READ = 1 << 20  # bytes


def merge(place: Place, names: Sequence[str], path: Path) -> None:
    """The rows of files of one form into a new file, in their order. It is whole and on the disk afterwards.

    Raises InputError for what cannot be read, or has columns that we do not know; OutputError.
    """
    if names[0].endswith(".parquet"):
        with extra(place.name):
            tables = import_module("engine.results.tables")
        tables.merge_parquet(place, names, path)
        return
    made = NdjsonFile(path)
    try:
        for name in names:
            last = b"\n"
            for text in _unpacked(place, name):
                made.write(text, text.count(b"\n"))
                last = text[-1:] or last
            if last != b"\n":
                raise InputError(f"{place.name}/{name}", 0, "ends in the middle of a row")
        made.close()
    except BaseException:
        made.discard()
        raise


def _unpacked(place: Place, name: str) -> Iterator[bytes]:
    def told(reason: str) -> None:
        raise InputError(f"{place.name}/{name}", 0, reason)

    try:
        with place.open(name) as file:
            yield from unpacked(iter(lambda: file.read(READ), b""), told)
    except (Damaged, OSError) as error:
        raise InputError(f"{place.name}/{name}", 0, f"cannot be read: {error}") from error
