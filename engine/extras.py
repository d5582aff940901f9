"""What is not installed by itself: the one line that says so, and how to have it."""

from collections.abc import Iterator
from contextlib import contextmanager

from engine.errors import ConfigError
from engine.text import first_line

INSTALL = "pip install 'probemill[{}]'"


@contextmanager
def extra(what: str, name: str = "lake") -> Iterator[None]:
    """Imports inside may lack a library of an extra: ConfigError then. what: that needs it, for people."""
    try:
        yield
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "engine":  # a fault of ours
            raise
        if not error.name:
            raise ConfigError(f"{what}: an extra package is broken: {first_line(error)}") from error
        raise ConfigError(f"{what}: needs an extra package ({error.name}): {INSTALL.format(name)}") from None
