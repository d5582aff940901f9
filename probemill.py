"""Identify the services behind open ports as Nmap's version scan would. Everything that users import, and nothing else.

    from probemill import ScanConfig, scan_sync

    for result in scan_sync(["192.0.2.7:22", "192.0.2.7:443"], ScanConfig(intensity=5)):
        print(result.ip, result.port, result.name, result.product, result.version)

`python -m probemill` is the `probemill` command. The packages `engine` and `matcher` are the implementation; what is
not named here may move.
"""

if __name__ == "__main__":  # before all else is imported: Ctrl-C is heard from the first instruction on
    from engine.cli.start import main

    main()

from engine import __version__
from engine.api import match, scan, scan_sync
from engine.errors import ConfigError, EngineError, InputError
from engine.model import Reason, ScanConfig, ServiceResult, Target, Tunnel, Verdict
from matcher import Match, Matcher, MatcherError, load_database

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
