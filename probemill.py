"""Identify the services behind open ports as Nmap's version scan would. Everything that users import, and nothing else.

    from probemill import ScanConfig, scan_sync

    for result in scan_sync(["192.0.2.7:22", "192.0.2.7:443"], ScanConfig(intensity=5)):
        print(result.ip, result.port, result.name, result.product, result.version)

`probemill.arrow` has the functions for data engines, which need the extra `lake`: `from probemill import arrow`.
`python -m probemill` is the `probemill` command. The packages `engine` and `matcher` are the implementation; what is
not named here may move.
"""

if __name__ == "__main__":  # before all else is imported: Ctrl-C is heard from the first instruction on
    from engine.cli.start import main

    main()

from importlib import import_module
from typing import TYPE_CHECKING

from engine import __version__
from engine.api import match, scan, scan_sync
from engine.errors import ConfigError, EngineError, InputError
from engine.model import Reason, ScanConfig, ServiceResult, Target, Tunnel, Verdict
from matcher import Match, Matcher, MatcherError, load_database

if TYPE_CHECKING:
    from engine import arrow as arrow  # noqa: PLC0414 - a public name, but not of `import *`, which must go without pyarrow

__all__ = [
    "ConfigError",
    "EngineError",
    "InputError",
    "Match",
    "Matcher",
    "MatcherError",
    "Reason",
    "ScanConfig",
    "ServiceResult",
    "Target",
    "Tunnel",
    "Verdict",
    "__version__",
    "load_database",
    "match",
    "scan",
    "scan_sync",
]


def __getattr__(name: str) -> object:
    """`arrow` is imported when it is asked for, and pyarrow with it. Raises ImportError without the extra."""
    if name != "arrow":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return import_module("engine.arrow")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "pyarrow":
            raise
        raise ImportError("probemill.arrow needs pyarrow: pip install 'probemill[lake]'", name="pyarrow") from error
