"""How a run ended, in numbers and in words: what every output, the summary and the journal say of it.

    interrupted: 17 of 22 done, 5 not reached
    the deadline has passed: 17 of 22 done, 5 not reached; the input was not read to its end

The one place for these words. Pure: when it was is told by whoever says it.
"""

from typing import Annotated

from msgspec import Meta, Struct

_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Ending(Struct, frozen=True, kw_only=True):
    """why: the run did not go to its end; empty where it did. read: targets; done: those that have a row of their own.

    not_reached: the others, also those whose conversation was cut off. names: host names that were not looked up yet.
    unread: whether inputs were not read to their end.
    """

    why: Annotated[str, Meta(max_length=4096)] = ""
    read: _Count = 0
    done: _Count = 0
    not_reached: _Count = 0
    names: _Count = 0
    unread: bool = False

    def words(self) -> str:
        """One line: why, and what is missing; empty where nothing is."""
        missing = []
        if self.not_reached:
            missing.append(f"{self.done:,} of {self.read:,} done, {self.not_reached:,} not reached")
        if self.names:
            missing.append(f"{self.names:,} host name{'s were' if self.names != 1 else ' was'} not looked up")
        if self.unread:
            missing.append("the input was not read to its end")
        return ": ".join(filter(None, (self.why, "; ".join(missing))))
