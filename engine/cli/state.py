"""`probemill state`: what a state folder holds, said without touching it."""

import json
from pathlib import Path

import click
import msgspec

from engine.cli.help import Command
from engine.cli.kinds import folders
from engine.errors import ConfigError
from engine.state.journal import read_journal
from engine.state.records import ended, summed


@click.command("state", cls=Command)
@click.argument("folder", metavar="DIR", shell_complete=folders)
def state_command(folder: str) -> None:
    """Print what is done in the state folder DIR, as JSON. A run may be using it."""
    header, records = read_journal(Path(folder))
    if header is None:
        raise ConfigError(f"{folder}: holds no run")
    done, read = summed(header, records)
    segments = [record for record in records if record.name]
    end = ended(records)
    facts = {
        "plan": header.plan,
        "targets_done": len(done),
        "all_done_below": done.low_water,
        "rows": sum(record.rows for record in segments),
        "segments": len(segments),
        "segments_in": header.segments or str(Path(folder).resolve()),
        "bytes": sum(record.size for record in segments),
        "input_bytes_read": read.bytes,
        "ended": {**msgspec.to_builtins(end), "words": end.words() or "done"} if end is not None else None,
    }
    click.echo(json.dumps(facts, indent=2))
