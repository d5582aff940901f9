"""What can go wrong in the engine, in the user's terms. A silent or dead host is a result, never an exception."""


class EngineError(Exception):
    """Base of every error of this package; its text is one line that says what, where, and how to mend it."""


class ScanStateError(EngineError):
    """An event that cannot happen in the state the scan is in: a fault of the driver."""


class ConfigError(EngineError):
    """An option, or a combination of options, that cannot be obeyed."""


class InputError(EngineError):
    """A target line that cannot be read: `source:line: reason`; line 0 stands for the source as a whole."""

    def __init__(self, source: str, line: int, reason: str) -> None:
        super().__init__(f"{source}:{line}: {reason}" if line else f"{source}: {reason}")
        self.source = source
        self.line = line
        self.reason = reason

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, int, str]]:
        return type(self), (self.source, self.line, self.reason)


class ReadError(InputError):
    """An input that cannot be read at the moment, or at all, whatever it holds: another attempt may read more."""


class OutputError(EngineError):
    """A sink that cannot take what it is given: a full disk, a folder that is not there."""


class SinkClosed(EngineError):  # noqa: N818 (it is no error to the user)
    """The reader of our output has gone, as `| head` does. No error: stop, and say nothing."""
