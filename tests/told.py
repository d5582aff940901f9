"""Who watches rows being read, and remembers what was told: for the tests of reports and comparisons."""

from engine.errors import InputError
from engine.offline.faults import Faults


class Told:
    """Who watches the reading."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def moved(self, done: int, rows: int) -> None: ...

    def tell(self, name: str, faults: Faults) -> None:
        self.lines += [f"{name}:{line}: {reason}" for line, reason in faults.first]

    def damage(self, error: InputError) -> None:
        self.lines.append(str(error))
