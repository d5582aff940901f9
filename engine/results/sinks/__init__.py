"""Where rows go. `SINKS` names every form; `open_sink` opens one on a file or on standard output."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from engine.errors import ConfigError, EngineError
from engine.results.sinks.base import BUFFERED_ROWS, Run, Sink, SinkClosed, Summary
from engine.results.sinks.fingerprints import FingerprintsSink
from engine.results.sinks.grepable import GrepableSink
from engine.results.sinks.ndjson import NdjsonSink
from engine.results.sinks.nmap_xml import NmapXmlSink
from engine.results.sinks.output import STDOUT, Output
from engine.results.sinks.text import TextSink

__all__ = ["BUFFERED_ROWS", "SINKS", "STDOUT", "Output", "Run", "Sink", "SinkClosed", "Summary", "open_sink"]

SINKS: Mapping[str, Callable[[Output, Run], Sink]] = MappingProxyType(
    {
        "ndjson": NdjsonSink,
        "text": TextSink,
        "xml": NmapXmlSink,
        "grepable": GrepableSink,
        "fingerprints": FingerprintsSink,
    }
)


def open_sink(form: str, path: str, run: Run) -> Sink:
    """The sink of that form on that file (`-` is standard output).

    Raises OutputError when it cannot be opened, SinkClosed when nobody reads, ConfigError where an extra is missing.
    """
    if form == "parquet":
        return _open_parquet(path, run)
    output = Output(path)
    try:
        return SINKS[form](output, run)
    except EngineError:
        output.close()
        raise


def _open_parquet(path: str, run: Run) -> Sink:
    if path == STDOUT:
        raise ConfigError("parquet cannot be written to standard output; name a file")
    try:
        from engine.results.sinks.parquet import ParquetSink
    except ImportError as error:
        if (error.name or "").partition(".")[0] == "engine":
            raise
        raise ConfigError(f"{path}: needs an extra package ({error.name}): pip install 'probemill[lake]'") from None
    return ParquetSink(path, run)
