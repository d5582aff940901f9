"""Identify the services behind open ports as Nmap's version scan would. Public names only."""

from engine.api import scan, scan_sync
from engine.conversation.scan import ScanContext, ServiceScan
from engine.errors import ConfigError, EngineError, InputError, OutputError, ScanStateError
from engine.model import Reason, ScanConfig, ServiceResult, Target, Tunnel, Verdict

__all__ = [
    "ConfigError",
    "EngineError",
    "InputError",
    "OutputError",
    "Reason",
    "ScanConfig",
    "ScanContext",
    "ScanStateError",
    "ServiceResult",
    "ServiceScan",
    "Target",
    "Tunnel",
    "Verdict",
    "scan",
    "scan_sync",
]
