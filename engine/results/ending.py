"""How a run ended, in numbers and in words: what every output, the summary and the journal say of it.

    interrupted: 17 of 22 done, 5 not reached
    the deadline has passed: 17 of 22 done, 5 not reached; the input was not read to its end
    the deadline has passed: it cut 5 of 22 short

The one place for these words. Pure: when it was is told by whoever says it.
"""

from typing import Annotated

from msgspec import Meta, Struct

CUT = "cut"  # the tally of `cut`
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Ending(Struct, frozen=True, kw_only=True):
    """why: the run did not go to its end; empty where it did. read: targets; done: those that have a row of their own.

    not_reached: the others, also those whose conversation an interruption cut off. cut: those done that have a row only
    because the deadline of the run ended their conversation. names: host names that were not looked up yet. unread:
    whether inputs were not read to their end.
    """

    why: Annotated[str, Meta(max_length=4096)] = ""
    read: _Count = 0
    done: _Count = 0
    not_reached: _Count = 0
    cut: _Count = 0
    names: _Count = 0
    unread: bool = False

    def is_resumable(self) -> bool:
        """Whether a run that goes on from here has something to do. Targets that were cut short have their rows."""
        return bool(self.not_reached or self.names or self.unread)

    def words(self) -> str:
        """One line: why, and what is missing; empty where nothing is."""
        missing = []
        if self.not_reached:
            missing.append(f"{self.done:,} of {self.read:,} done, {self.not_reached:,} not reached")
        if self.cut:
            missing.append(f"it cut {self.cut:,} of {self.read:,} short")
        if self.names:
            missing.append(f"{self.names:,} host name{'s were' if self.names != 1 else ' was'} not looked up")
        if self.unread:
            missing.append("the input was not read to its end")
        return ": ".join(filter(None, (self.why, "; ".join(missing))))
