"""What a figure was measured on: the machine and the versions that matter, without naming whose it is."""

import os
import platform
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path

from msgspec import Struct

LIBRARIES = ("pyre2", "hyperscan", "pcre2", "msgspec", "uvloop")


class Machine(Struct, frozen=True):
    cpu: str
    cores: int
    kernel: str
    python: str

    @property
    def name(self) -> str:
        """Short, of CPU and cores only: machines of one name are taken for one, whatever their kernel."""
        words = re.sub(r"\((?:r|tm)\)|\bcpu\b|@.*", " ", self.cpu.lower())
        return "-".join(re.findall(r"[a-z0-9]+", words)) + f"-{self.cores}"

    def __str__(self) -> str:
        return f"{self.cores} x {self.cpu}, {self.kernel}, Python {self.python}"


def this_machine() -> Machine:
    cpu = platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("latin-1").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    kernel = f"{platform.system()} {re.match(r'[0-9.]*', platform.release())[0]}"  # type: ignore[index]
    return Machine(cpu, len(os.sched_getaffinity(0)), kernel.strip(), platform.python_version())


def versions() -> dict[str, str]:
    """Of LIBRARIES, as far as they are installed."""
    found = {}
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[library] = installed(library)
    return found
