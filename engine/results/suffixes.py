"""What the name of an output says of it: `rows.ndjson.zst` holds NDJSON, compressed with zstd.

Pure: nothing is opened or looked at. Suffixes are read without regard to case.
"""

from collections.abc import Mapping
from pathlib import PurePath
from types import MappingProxyType

from msgspec import Struct

FORMS: Mapping[str, str] = MappingProxyType(
    {
        ".ndjson": "ndjson",
        ".jsonl": "ndjson",
        ".csv": "csv",
        ".parquet": "parquet",
        ".txt": "text",
        ".nmap": "text",
        ".xml": "xml",
        ".gnmap": "grepable",
    }
)
PACKINGS: Mapping[str, str] = MappingProxyType({".zst": "zstd", ".gz": "gzip"})


class Name(Struct, frozen=True):
    """suffix: the one that may tell a form, in lower case. form, packing: what the suffixes tell, empty if nothing."""

    suffix: str
    form: str
    packing: str


def read_name(path: str) -> Name:
    """What a path says; of standard output (`-`), of a name without a suffix, or of `.hidden`, nothing."""
    name = PurePath(path)
    packing = PACKINGS.get(name.suffix.lower(), "")
    suffix = (name.with_suffix("") if packing else name).suffix.lower()
    return Name(suffix, FORMS.get(suffix, ""), packing)
