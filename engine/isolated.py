"""How a Python child of ours is started, so that it imports our code and nothing that lies in the working folder.

    subprocess.Popen(command("engine.offline.identify:work", descriptor), pass_fds=[descriptor])

Contract: the child calls the named function with the descriptor. It runs in Python's isolated mode (`-I`): nothing of
the working folder and no PYTHON* variable decides what `import` finds. `engine` and `matcher` come from where they were
found for the parent, everything else from the interpreter's own folders first, and then from those that the parent
imports from (`pip install --user`, PYTHONPATH), except the working folder. This file is what such a child runs, so it
imports nothing but the standard library.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - of both our packages
OURS = {"engine", "matcher"}


def command(function: str, descriptor: int) -> list[str]:
    """The arguments of a child that calls `function`, named as `module:function`, with a descriptor it inherits."""
    return [sys.executable, "-I", __file__, function, str(descriptor), *_trusted(sys.path)]


def _trusted(path: Sequence[str]) -> list[str]:
    """The folders of a module path that are not the working folder and do not depend on it."""
    here = ""
    with suppress(OSError):  # it may have been removed
        here = os.path.realpath(os.getcwd())  # noqa: PTH109
    return [folder for folder in path if os.path.isabs(folder) and os.path.realpath(folder) != here]  # noqa: PTH117


class _OurFinder:
    """Finds our packages where this file's is, before anything else that bears their names."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return PathFinder.find_spec(fullname, [HOME]) if fullname in OURS else None


def main() -> None:
    """The child's side of `command`."""
    function, descriptor, *folders = sys.argv[1:]
    sys.meta_path.insert(0, _OurFinder)
    sys.path += [folder for folder in folders if folder not in sys.path]
    module, _, name = function.partition(":")
    getattr(import_module(module), name)(int(descriptor))


if __name__ == "__main__":
    main()
