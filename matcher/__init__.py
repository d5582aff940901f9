"""Match service responses against a probe database in the nmap-service-probes format. Public names only."""

from matcher.confidence import Confidence, Confidences
from matcher.database.load import (
    builtin_database,
    find_database,
    load_database,
    load_databases,
    nmap_database,
    nmap_file,
    parse_database,
)
from matcher.database.merge import merge_databases
from matcher.errors import DatabaseError, EngineUnavailable, MatcherError, UnsupportedPattern
from matcher.kin import Said, akin
from matcher.matcher import Matcher, compile_matcher
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
from matcher.outside import read_file, shown
from matcher.recog import Recog, RecogMatch, load_recog

__all__ = [
    "Confidence",
    "Confidences",
    "DatabaseError",
    "EngineUnavailable",
    "Match",
    "Matcher",
    "MatcherError",
    "PortSet",
    "Probe",
    "ProbeDatabase",
    "Proto",
    "Recog",
    "RecogMatch",
    "Said",
    "Signature",
    "SignatureId",
    "Templates",
    "UnsupportedPattern",
    "VersionInfo",
    "akin",
    "builtin_database",
    "compile_matcher",
    "find_database",
    "load_database",
    "load_databases",
    "load_recog",
    "merge_databases",
    "nmap_database",
    "nmap_file",
    "parse_database",
    "read_file",
    "shown",
]
