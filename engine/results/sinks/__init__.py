"""Where rows go. `SINKS` names every form; `open_sink` opens one on a file or on standard output.

Each form is one file, imported when it is asked for.
Whether a file is compressed is told by its name, whatever the form (suffixes.py).
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType

from engine.errors import ConfigError, EngineError, SinkClosed
from engine.extras import extra
from engine.results.sinks.base import BUFFERED_ROWS, Run, Sink, Summary
from engine.results.sinks.open_only import OpenOnly
from engine.results.sinks.output import STDOUT, Output
from engine.results.sinks.packed import PackedOutput
from engine.results.suffixes import read_name

__all__ = [
    "BUFFERED_ROWS",
    "SINKS",
    "STDOUT",
    "OpenOnly",
    "Output",
    "Run",
    "Sink",
    "SinkClosed",
    "Summary",
    "open_output",
    "open_sink",
]

SINKS: Mapping[str, str] = MappingProxyType(  # form -> its class
    {
        "ndjson": "ndjson:NdjsonSink",
        "csv": "csv_rows:CsvSink",
        "text": "text:TextSink",
        "xml": "nmap_xml:NmapXmlSink",
        "grepable": "grepable:GrepableSink",
        "fingerprints": "fingerprints:FingerprintsSink",
    }
)


def open_output(path: str) -> Output:
    """A file, compressed if its name says so, or standard output (`-`). Raises OutputError."""
    packing = read_name(path).packing
    return PackedOutput(path, packing) if packing else Output(path)


def open_sink(form: str, path: str, run: Run, output: Output | None = None) -> Sink:
    """The sink of that form on that file (`-` is standard output). output: where it is open already.

    Raises OutputError when it cannot be opened, SinkClosed when nobody reads, ConfigError for Parquet that cannot be.
    """
    if form == "parquet":
        return _open_parquet(path, run)
    module, _, name = SINKS[form].partition(":")
    made: Callable[[Output, Run], Sink] = getattr(import_module(f"{__name__}.{module}"), name)
    output = output or open_output(path)
    try:
        return made(output, run)
    except EngineError:
        output.close()
        raise


def _open_parquet(path: str, run: Run) -> Sink:
    if packing := read_name(path).packing:
        raise ConfigError(f"-o {path}: Parquet is compressed by itself; leave {packing} away")
    with extra(path):
        from engine.results.sinks.parquet import ParquetSink
    return ParquetSink(path, run)
