"""What would go wrong on the nodes of a cluster, found out before anything is sent.

Contract: nobody is contacted but the nodes, and nothing is left anywhere. Each node is asked for its facts (facts.py),
puts a segment as its actors would, which the driver looks for and removes, and says what time it is; verdicts.py says
what to think of that. A node that does not answer is a finding like others.
"""

import asyncio
import time
from contextlib import suppress

from engine.errors import EngineError
from engine.model import ScanConfig
from engine.pool.cluster.engine import Engine, Node
from engine.pool.cluster.facts import clock, facts_for, gather, putting, remove, removing, seen
from engine.pool.cluster.settings import ClusterSettings
from engine.pool.cluster.supplies import gathered
from engine.pool.cluster.verdicts import NodeReport, Seen, Terms, of_all, report, room
from engine.state.attempt import Staging
from engine.threads import in_thread

HEAD_S = 20.0  # for the cluster to say which nodes it has
ASK_S = 90.0  # for a node to answer a question; it may have to set up what `runtime_env` says
LOOKS_S = (0.0, 0.5, 2.0)  # before each look for what a node has put: file systems on a network are late at times


async def check(
    engine: Engine, settings: ClusterSettings, config: ScanConfig, staging: Staging | None
) -> list[NodeReport]:
    """A report on each node, and one on all together. staging: where segments are to be put, if that is known.

    Raises ConfigError, InputError, MatcherError for files that cannot be used, EngineError where no cluster answers.
    """
    supplies = gathered(config)
    ours = gather(config, supplies)
    try:
        await engine.open(supplies)
        try:
            async with asyncio.timeout(HEAD_S):
                nodes = await engine.nodes()
        except TimeoutError:
            raise EngineError(f"the cluster at {engine.name} does not say which nodes it has") from None
        found = await asyncio.gather(*(_look_at(engine, node, config, staging) for node in nodes))
    finally:
        await engine.close()
    terms = Terms(config, settings, staging, ours, sum(room(node, config, settings) > 0 for node in nodes))
    reports = [report(each, terms) for each in found]
    together = of_all(found, terms)
    return [*reports, together] if together.findings else reports


async def _look_at(engine: Engine, node: Node, config: ScanConfig, staging: Staging | None) -> Seen:
    try:
        async with asyncio.timeout(ASK_S):
            facts = await engine.ask(node, facts_for(config))
        put, trouble = (None, "") if staging is None else await _put(engine, node, staging)
        ahead = await _clock(engine, node)
    except TimeoutError:
        return Seen(node, None, f"none within {ASK_S:.0f} s")
    except EngineError as error:
        return Seen(node, None, str(error))
    return Seen(node, facts, "", ahead, put, trouble)


async def _put(engine: Engine, node: Node, staging: Staging) -> tuple[bool | None, str]:
    """Whether the driver sees what the node puts, and why the node cannot put anything. Raises TimeoutError."""
    try:
        async with asyncio.timeout(ASK_S):
            manifest = await engine.ask(node, putting(staging))
    except EngineError as error:
        return None, str(error)
    there = False
    try:
        for pause in LOOKS_S:
            await asyncio.sleep(pause)
            if there := await in_thread(lambda: seen(staging, manifest)):
                break
    finally:
        with suppress(EngineError):
            await in_thread(lambda: remove(staging, manifest))
        if not there:  # it may have put it where only it can see it
            with suppress(EngineError, TimeoutError):
                async with asyncio.timeout(ASK_S):
                    await engine.ask(node, removing(staging, manifest))
    return there, ""


async def _clock(engine: Engine, node: Node) -> tuple[float, float]:
    """How many seconds a node's clock is ahead, and by how many that may be wrong. Raises EngineError, TimeoutError."""
    before = time.time()
    async with asyncio.timeout(ASK_S):
        there = await engine.ask(node, clock)
    after = time.time()
    return there - (before + after) / 2, (after - before) / 2
