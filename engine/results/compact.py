"""The small files of a folder that sinks wrote (lake/base_folder.py) made into few large ones, partition by partition.

Contract: no row is lost, doubled or changed, whatever ends it in between; the next call puts in order what was left.

Which files: those of batches that are delivered, which their manifests in `_delivered/` tell by their names, and those
that were compacted before. So whatever a run is still delivering is left alone, and manifests stay: by them a run knows
that its batch has arrived, wherever its rows now are. Files whose columns we do not know are left alone, too.

How they are replaced: on a local disk the partition's folder is exchanged for another one, in one moment
(lake/base_exchange.py). In an object store, and where a disk cannot do that: an intent is written to `_compacted/`, the
new file is put, the old ones are removed, the intent is removed. A reader who lists between the second step and the
third sees their rows twice. An intent that was left says what to do: if its file is there, the others go.

One at a time: on one machine a second call is refused. What another machine does at the same time is not seen.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct

from engine.errors import ConfigError, InputError, OutputError
from engine.results.lake import LAKES
from engine.results.lake.base_exchange import NOTE, exchange, mend
from engine.results.lake.base_place import Found, LocalPlace, Place, open_place
from engine.results.merge import merge
from engine.results.staged import cache_folder, own_folder

FOLDERS = ("parquet", "ndjson+zstd")  # the sinks whose folders these are
DELIVERED = "_delivered/"
INTENTS = "_compacted/"
MADE = "compact-"
ENOUGH = 0.75  # of the wished size: such a file stays as it is
_PART = re.compile(r"part-(.+)\.(parquet|ndjson\.zst)")


class Merge(Struct, frozen=True):
    """Files of one partition, and the one that they become. Names are below the place."""

    sources: list[Found]
    target: str

    @property
    def folder(self) -> str:
        return self.target.rpartition("/")[0]

    @property
    def size(self) -> int:
        return sum(found.size for found in self.sources)


class Plan(Struct):
    """merges: by partition, each with its merges. left: files that stay; unfinished: of batches not delivered whole."""

    merges: dict[str, list[Merge]]
    left: int = 0
    unfinished: int = 0


class _Intent(Struct):
    target: str
    sources: list[str]

    def is_ours(self) -> bool:
        """Whether it names parts of one partition of this folder, and nothing that leads out of it."""
        folder = self.target.rpartition("/")[0]
        return all(
            name.rpartition("/")[0] == folder
            and _PART.fullmatch(_last(name)) is not None
            and not any(step in {"", ".", ".."} for step in name.split("/"))
            for name in (self.target, *self.sources)
        )


class Compaction:
    """Of one folder. Use `opened`."""

    def __init__(self, place: Place, staging: Path) -> None:
        self._place = place
        self._staging = staging

    def mend(self) -> None:
        """Finish what an earlier call was killed over. Raises OutputError, also for an intent that is none of ours."""
        for found in list(self._place.files(INTENTS.rstrip("/"))):
            if not found.name.endswith(".json"):
                continue
            try:
                intent = msgspec.json.decode(self._read(found.name), type=_Intent)
                if not intent.is_ours():
                    raise ValueError("names other files than ours")
            except ValueError as error:  # msgspec's are, too
                raise OutputError(f"{self._place.name}/{found.name}: {error}; remove it") from error
            if self._place.has(intent.target):
                self._place.remove(intent.sources)
            self._place.remove([found.name])

    def plan(self, size: int) -> Plan:
        """What there is to do. size: of the files to make, in bytes, about. Raises OutputError, ConfigError."""
        files = sorted(self._place.files())
        delivered = {
            found.name.removeprefix(DELIVERED).removesuffix(".json")
            for found in files
            if found.name.startswith(DELIVERED)
        }
        plan = Plan({})
        small: dict[tuple[str, str], list[Found]] = {}
        for found in files:
            folder, _, name = found.name.rpartition("/")
            if found.name.startswith("_delta_log/"):
                raise ConfigError(f"{self._place.name}: is a Delta table; its own tools compact it (OPTIMIZE)")
            if found.name.startswith("metadata/") and name.endswith(".metadata.json"):
                raise ConfigError(
                    f"{self._place.name}: is an Iceberg table; its own tools compact it (rewrite_data_files)"
                )
            part = _PART.fullmatch(name)
            if part is None or any(step.startswith(("_", ".")) for step in found.name.split("/")):
                continue
            if f"{part[1]}.{part[2]}" not in delivered and not part[1].startswith(MADE):
                plan.unfinished += 1
            elif found.size >= size * ENOUGH:
                plan.left += 1
            else:
                small.setdefault((folder, part[2]), []).append(found)
        for (folder, suffix), found_here in small.items():
            for group in _groups(found_here, size):
                if len(group) > 1:
                    plan.merges.setdefault(folder, []).append(Merge(group, _target(folder, suffix, group)))
                else:
                    plan.left += 1
        return plan

    def run(self, merges: list[Merge]) -> None:
        """The merges of one partition.

        Raises InputError for files that cannot be read or are not ours; then nothing has happened. Raises OutputError.
        """
        made: dict[str, Path] = {}
        try:
            for number, each in enumerate(merges):
                path = self._staging / f"{number}.tmp"
                merge(self._place, [found.name for found in each.sources], path)
                made[each.target] = path
            if not self._exchanged(merges, made):
                for each in merges:
                    self._replace(each, made[each.target])
        finally:
            for path in self._staging.glob("*.tmp"):
                path.unlink()

    def _exchanged(self, merges: list[Merge], made: dict[str, Path]) -> bool:
        if not isinstance(self._place, LocalPlace):
            return False
        folder = Path(self._place.name, merges[0].folder)
        gone = [_last(found.name) for each in merges for found in each.sources]
        try:
            return exchange(folder, gone, {_last(name): path for name, path in made.items()}, self._staging)
        except OSError as error:
            raise OutputError(f"{folder}: {error.strerror or error}") from error

    def _replace(self, each: Merge, made: Path) -> None:
        intent = f"{INTENTS}{_last(each.target)}.json"
        sources = [found.name for found in each.sources]
        self._place.put_bytes(msgspec.json.encode(_Intent(each.target, sources)), intent)
        self._place.put(made, each.target)
        self._place.remove(sources)
        self._place.remove([intent])

    def _read(self, name: str) -> bytes:
        try:
            with self._place.open(name) as file:
                return file.read()
        except OSError as error:
            raise OutputError(f"{self._place.name}/{name}: {error.strerror or error}") from error


@contextmanager
def opened(where: str, *, look_only: bool = False) -> Iterator[Compaction]:
    """where: a path, a store's URL, or either as a sink is named. look_only: what was left stays as it is.

    Raises ConfigError, OutputError.

    For a local folder the staging folder lies beside it: on the same disk, where no reader of the folder looks.
    """
    scheme, _, rest = where.partition(":")
    if scheme in LAKES and scheme not in FOLDERS:
        raise ConfigError(f"{where}: is no folder of files; {scheme} has its own tools for that")
    place = open_place(rest if scheme in FOLDERS else where)
    staging = cache_folder("compact", hashlib.sha256(place.name.encode()).hexdigest()[:16])
    if isinstance(place, LocalPlace):
        root = Path(place.name).resolve()
        if not root.is_dir() or not root.name:
            raise InputError(where, 0, "is no folder of a lake")
        place = LocalPlace(root)
        if os.access(root.parent, os.W_OK):
            staging = root.with_name(f".probemill-compact-{root.name}")
    with own_folder(staging, where, mend, NOTE) as folder:
        compaction = Compaction(place, folder)
        if not look_only:
            compaction.mend()
        yield compaction


def _groups(files: list[Found], size: int) -> Iterator[list[Found]]:
    """Neighbours that make a file of that size together."""
    group: list[Found] = []
    for found in files:
        if group and sum(each.size for each in group) + found.size > size:
            yield group
            group = []
        group.append(found)
    if group:
        yield group


def _target(folder: str, suffix: str, group: list[Found]) -> str:
    told = hashlib.sha256(msgspec.json.encode([(found.name, found.size) for found in group])).hexdigest()[:16]
    return f"{folder}/part-{MADE}{told}.{suffix}"


def _last(name: str) -> str:
    return name.rpartition("/")[2]
