"""A measured figure, printed beside its goal, and handed on to whoever keeps a record.

Contract: a benchmark calls `tell` once for each figure, after it has checked its answers. A figure says what it was
measured against in the same run (`reference`), because only that ratio can be compared between runs and machines.
Where $PROBEMILL_FIGURES names a file, each figure is appended to it as a line of JSON; see record.py.
"""

import os
import sys
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

FILE = "PROBEMILL_FIGURES"


class Figure(Struct, frozen=True, omit_defaults=True):
    """name: dotted, as `match.null.hyperscan.unseen`. value: in `unit`. better: which way.

    reference: the yardstick of the same run in the same unit, 0 for none. goal: for `value`, or where there is a
    reference for the ratio, which is value/reference where more is better and reference/value where less is (so a
    larger ratio is always better); 0 for none. corpus: what it was measured on.
    """

    name: str
    value: float
    unit: str
    better: Literal["more", "less"] = "less"
    reference: float = 0.0
    goal: float = 0.0
    corpus: str = ""

    @property
    def ratio(self) -> float:
        """How many times as good as the reference; 0 without one."""
        if not self.reference or not self.value:
            return 0.0
        return self.value / self.reference if self.better == "more" else self.reference / self.value

    @property
    def met(self) -> bool | None:
        """Whether the goal is; None without one."""
        if not self.goal:
            return None
        if self.reference:
            return self.ratio >= self.goal
        return self.value >= self.goal if self.better == "more" else self.value <= self.goal


def tell(figure: Figure) -> None:
    """Print a figure, and append it where somebody keeps a record."""
    text = f"{figure.name:44} {figure.value:12,.2f} {figure.unit}"
    if figure.ratio:
        text += f"  {figure.ratio:,.2f} x reference"
    if figure.goal:
        text += f"  goal {figure.goal:,.2f}: {'met' if figure.met else 'MISSED'}"
    print(text)
    sys.stdout.flush()
    if path := os.environ.get(FILE):
        with Path(path).open("ab") as file:
            file.write(msgspec.json.encode(figure) + b"\n")
