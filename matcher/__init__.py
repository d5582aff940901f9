"""Match service responses against a probe database in the nmap-service-probes format. Public names only."""

from matcher.errors import DatabaseError, EngineUnavailable, MatcherError, UnsupportedPattern
from matcher.model import (
    Match,
    PortSet,
    Probe,
    ProbeDatabase,
    Proto,
    Signature,
    SignatureId,
    Templates,
    VersionInfo,
)

__all__ = [
    "DatabaseError",
    "EngineUnavailable",
    "Match",
    "MatcherError",
    "PortSet",
    "Probe",
    "ProbeDatabase",
    "Proto",
    "Signature",
    "SignatureId",
    "Templates",
    "UnsupportedPattern",
    "VersionInfo",
]
