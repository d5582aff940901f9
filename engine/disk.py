"""What has to be on the disk before we go on, and not only with the system."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Of a file, its bytes; of a folder, the names in it. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
