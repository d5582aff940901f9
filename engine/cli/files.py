"""An output may never be an input, nor another output: said before anything is opened, and so before anything is lost.

Contract: files are told apart by what they are (device and inode), so links and other spellings are seen through; a
file that is not there yet by where its path leads. Terminals, /dev/null and their like may be named as often as one
likes. `-` is standard input among the inputs, standard output among the outputs.
"""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from engine.errors import ConfigError
from engine.results.sinks import STDOUT

Named = tuple[str, str]
"""(how the file was named to us, such as `--blocklist`; its path)"""


def check_outputs(outputs: Iterable[Named], inputs: Iterable[Named]) -> None:
    """Raises ConfigError for the first output that is an input or an output before it.

    An input that is a folder stands for the files in it.
    """
    taken: dict[object, str] = {}
    for option, path in inputs:
        for file in _files(path):
            taken.setdefault(_identity(file, 0), f"the input of {option}")
    for option, path in outputs:
        identity = _identity(path, 1)
        if identity is not None and identity in taken:
            raise ConfigError(f"{option} {path}: is {taken[identity]} as well, which would be lost; name another file")
        taken[identity] = f"the output of {option}"


def check_place(option: str, out: str, inputs: Iterable[str]) -> None:
    """Of what rows are read from: raises ConfigError for an output, a file or a sink, that is one, or lies in one."""
    from engine.results.lake import LAKES

    to_lake = out.partition(":")[0] in LAKES
    place = _local(out) if to_lake else out
    if place in {None, STDOUT}:
        return
    assert place is not None
    given = [(path, local) for path in inputs if (local := _local(path)) not in {None, STDOUT}]
    if not to_lake:
        check_outputs([(option, out)], [(path, local) for path, local in given if local])
    target = Path(os.path.realpath(place))
    for path, local in given:
        source = Path(os.path.realpath(local or ""))
        if target == source or (source.is_dir() and target.is_relative_to(source)):
            raise ConfigError(f"{out}: lies in {path}, which is being read; name another place")


def _local(path: str) -> str | None:
    """Where a name leads on this machine; None for other places."""
    from engine.offline.rows_in import SCHEMES  # every form of rows, which a scan does not read
    from engine.results.lake import LAKES

    scheme, _, rest = path.partition(":")
    where = rest if scheme in SCHEMES else path
    if where.startswith("file://"):
        return unquote(urlsplit(where).path)
    if "://" in where or (scheme in LAKES and scheme not in SCHEMES):
        return None
    return where


def _files(path: str) -> Iterable[str]:
    if path == "-" or not Path(path).is_dir():
        return [path]
    try:
        return [entry.path for entry in os.scandir(path)]
    except OSError:
        return []


def _identity(path: str, standard: int) -> object:
    """What makes two names the same file; None for what may be shared."""
    try:
        status = os.fstat(standard) if path == "-" else Path(path).stat()
    except (OSError, ValueError):
        return os.path.realpath(path)
    if stat.S_ISREG(status.st_mode) or (stat.S_ISFIFO(status.st_mode) and path != "-") or stat.S_ISBLK(status.st_mode):
        return status.st_dev, status.st_ino
    return None if path != "-" or standard == 0 else "standard output"
