"""What others wrote: files read within bounds, and texts made fit to be shown.

Contract: `read_file` takes regular files only, so it never waits for a FIFO, a terminal or a device, and it never reads
more than it was told. `shown` gives a text that a terminal prints and does not obey, and that every encoder takes; two
texts that look alike because of invisible characters no longer do.
"""

import errno
import os
import stat
import unicodedata
from pathlib import Path

MIB = 1 << 20
_OBEYED = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))  # controls, marks of direction and joining, surrogates, line ends


def read_file(path: str | Path, most: int) -> bytes:
    """The bytes of a regular file, `most` of them at most. Raises OSError; its `strerror` says what is wrong."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError as error:  # a NUL, or a character that no file name can hold
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(path)) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(most + 1)
    finally:
        os.close(descriptor)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"larger than {most // MIB:,} MiB", str(path))
    return data


def shown(text: str) -> str:
    r"""`text` with what must not reach a terminal or an encoder written as `\xHH`, `\uHHHH` or `\UHHHHHHHH`.

    Bytes of a file name that are no UTF-8, which Python holds as surrogates, become the `\xHH` that they are.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(char) if unicodedata.category(char) in _OBEYED else char for char in text)


def _escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
