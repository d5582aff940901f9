"""What a worker counts beside its rows."""

import asyncio
from pathlib import Path

from loopback import Farm, collect, config, database_file, greeting_after

from engine.conversation.context import scan_context
from engine.pool.runners.inline import InlineRunner
from matcher import Match, Probe


def test_failures_of_compiled_sets_are_counted_once(tmp_path: Path) -> None:
    """However many batches a run has: the tally is what the matcher says in the end."""
    settings = config(database_file(tmp_path), batch_rows=1)
    context = scan_context(settings)
    failures = {"at the start": 2}
    match = context.match

    def failing(probe: Probe, response: bytes) -> Match | None:
        failures["later"] = failures.get("later", 0) + 1
        return match(probe, response)

    context.match, context.failures = failing, failures
    with Farm(greeting_after(0.0)) as farm:
        targets = [f"127.91.0.{last}:{farm.port}" for last in range(1, 6)]
        rows, tally = asyncio.run(collect(targets, InlineRunner(settings, context)))
    assert {row.name for row in rows} == {"hello"}
    assert (tally["engine:at the start"], tally["engine:later"]) == (2, failures["later"])
    assert failures["later"] >= len(targets)
