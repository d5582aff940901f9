"""What can go wrong in the matcher, in the user's terms. One base class, never raised itself."""


class MatcherError(Exception):
    """Base of every error of this package."""


class DatabaseError(MatcherError):
    """A probe database that cannot be used; points at the offending place as `path:line:column: reason`."""

    def __init__(self, path: str, line: int, column: int, reason: str) -> None:
        super().__init__(f"{path}:{line}:{column}: {reason}")
        self.path = path
        self.line = line
        self.column = column
        self.reason = reason

    def __reduce__(self) -> tuple[type["DatabaseError"], tuple[str, int, int, str]]:
        # Exceptions travel from worker processes to the parent; the default would call __init__ with one string.
        return type(self), (self.path, self.line, self.column, self.reason)


class UnsupportedPattern(MatcherError):  # noqa: N818 - it names the pattern, as re.error does
    """A pattern that an engine cannot take as it is; told to the engine's caller, never to the user."""

    def __init__(self, pattern: bytes, feature: str) -> None:
        super().__init__(f"{feature} in pattern {pattern[:80]!r}")
        self.pattern = pattern
        self.feature = feature

    def __reduce__(self) -> tuple[type["UnsupportedPattern"], tuple[bytes, str]]:
        return type(self), (self.pattern, self.feature)


class EngineUnavailable(MatcherError):  # noqa: N818
    """A matching engine that was asked for by name but is not installed or not known."""
