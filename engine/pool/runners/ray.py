"""Actors on the nodes of a Ray cluster (extra `ray`): how they are started, asked and ended.

Contract: the driver's process has its signals, its standard streams and its end for itself, whatever Ray does with
those of its own. Calls that may wait for ever (a head that is gone) are made in a thread nobody waits for. An actor's
code is imported on its node, so probemill has to be installed there; what it needs beyond code comes through Ray's
object store, once for each node. Without an address a Ray of this machine alone is started, and ended with the scan;
it listens on every address of the machine, as Ray does, and so lets nobody in who does not have the token of that scan.
No other file imports Ray.
"""

import asyncio
import atexit
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from secrets import token_hex
from typing import Any

from engine.errors import ConfigError, EngineError
from engine.extras import extra
from engine.model import Reason
from engine.pool.cluster.actor import ShardActor
from engine.pool.cluster.engine import Answer, Gone, Node, Silent
from engine.pool.cluster.settings import ClusterSettings
from engine.pool.cluster.words import Facts, Lease, Outcome, Pulse, Setup, Supplies
from engine.pool.worker import have_process
from engine.text import first_line
from engine.threads import Desk
from matcher import MatcherError

OPEN_S = 30.0  # for a cluster to take us in
ANSWER_S = 5.0  # for anybody to answer at its address
CLOSE_S = 5.0
FRAME_HEAD, FRAME_TYPE, SETTINGS = 9, 3, 4  # of HTTP/2 (RFC 9113, 4.1), which gRPC speaks: bytes, place, number
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, SETTINGS, 0, 0, 0, 0, 0))
GRACE = {  # our own process outlives its cluster for long enough to say so, and to deliver what is committed
    "RAY_gcs_rpc_server_reconnect_timeout_s": "3600",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # a call behind the end joins no other cluster that happens to be there
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # standard output is for rows: none of the lines that Ray prints there
}
LOCAL = {"include_dashboard": False, "object_store_memory": 256 << 20}  # of a Ray that is started for one scan
SHORT = "/tmp"  # where such a Ray has its files: their sockets' paths have little room
RESERVED = {"address", "log_to_driver", "logging_level", "runtime_env"}  # what ray.init is told here


class Actor:
    """What Ray makes an actor of: it has a process and an event loop to itself."""

    def __init__(self) -> None:
        self._actor: ShardActor | None = None

    async def begin(self, setup: Setup, supplies: Supplies) -> Facts:
        have_process()
        self._actor = ShardActor(setup, supplies)
        return self._actor.facts

    async def beat(self, lease: Lease | None) -> Pulse:
        assert self._actor is not None
        return self._actor.beat(lease)

    async def scan(self, body: bytes) -> Outcome:
        assert self._actor is not None
        return await self._actor.scan(body)

    async def cancel(self, reason: Reason) -> None:
        assert self._actor is not None
        await self._actor.cancel(reason)


class RayEngine:
    """address: of the head, `auto` for the one of this machine, or empty."""

    def __init__(self, address: str, settings: ClusterSettings) -> None:
        """Raises ConfigError where Ray is not installed, or the settings say what is not theirs to say."""
        self._address = address or os.environ.get("RAY_ADDRESS", "")
        self.name = self._address or "a Ray of this machine alone (no --ray-address)"
        self._settings = settings
        if self._address.startswith("ray://"):
            raise ConfigError(
                f"--ray-address {self._address}: the scan has to be started on a node of the cluster (`ray job submit` "
                "does that); give HOST:PORT or auto"
            )
        if taken := sorted(settings.init.keys() & RESERVED):
            raise ConfigError(f"--ray-options: init.{taken[0]} is not for the file to say")
        alone = {} if self._address else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token_hex(32)}
        for name, value in (GRACE | alone).items():
            os.environ.setdefault(name, value)
        with extra("--runner ray", "ray"):
            import ray

        self.ray = ray
        self.supplies: Any = None
        self.desk = Desk()  # one thread for as long as we live: a Ray of our own dies with the thread that started it
        self._wanted = 0.0
        self.closed = False
        self._opened = self._lost = False
        self._folder = ""  # of a Ray of our own

    async def open(self, supplies: Supplies) -> None:
        """Join the cluster. Raises EngineError."""
        await self._knock()
        try:
            async with asyncio.timeout(OPEN_S):
                await self.desk.do(self._join)
            self._opened = True
            self.supplies = await self.desk.do(lambda: self.ray.put(supplies))
        except TimeoutError:
            self._lost = True
            raise EngineError(f"--ray-address {self.name}: nobody answers there") from None
        except Exception as error:  # Ray raises whatever its parts do
            if "keyword argument" in str(error):
                raise ConfigError(f"--ray-options: init: {first_line(error)}") from error
            hint = "; where it wants a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" * bool(self._address)
            raise EngineError(f"--ray-address {self.name}: {first_line(error)}{hint}") from error
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):  # Ray has put handlers of its own beneath Python's
                if (handler := signal.getsignal(number)) is not None:
                    signal.signal(number, handler)

    async def nodes(self) -> list[Node]:
        self._lost = True  # until somebody has answered
        try:
            found = await self.desk.do(self.ray.nodes)
        except Exception as error:  # Ray raises whatever its parts do
            raise EngineError(f"{self.name}: {first_line(error)}") from error
        self._lost = False
        return [
            Node(
                node["NodeID"],
                node["NodeManagerAddress"],
                node["Resources"].get("CPU", 0.0),
                node["Resources"],
            )
            for node in found
            if node["Alive"]
        ]

    def start(self, node: Node, setup: Setup) -> "RayMember":
        options = self._options(node, num_cpus=self._settings.cpus_per_actor, max_restarts=0, max_task_retries=0)
        return RayMember(self, self.ray.remote(Actor).options(**options).remote(), setup)

    async def ask(self, node: Node, question: Callable[[Supplies], Answer]) -> Answer:
        options = self._options(node, num_cpus=0, max_retries=0)
        asked = self.ray.remote(_answer).options(**options).remote(question, self.supplies)
        answer: Answer = await _answered(self.ray, asked)
        return answer

    def want(self, cpus: float) -> None:
        """Without an autoscaler this changes nothing."""
        self._wanted = cpus
        self.desk.post(lambda: _request(cpus))

    async def close(self) -> None:
        self.closed = True
        if self._lost or not self._opened:  # it would be waited for
            atexit.unregister(self.ray.shutdown)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await self.desk.do(self._leave)

    # -- how it is done

    async def _knock(self) -> None:
        """Raises EngineError where no head is at the address: Ray would try for long, and not in one line."""
        host, colon, port = self._address.rpartition(":")
        if not colon or not port.isdecimal():
            return
        try:
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, OverflowError, TimeoutError):
            raise EngineError(f"--ray-address {self.name}: nobody answers there") from None
        try:
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                writer.write(PREFACE)
                async with asyncio.timeout(ANSWER_S):
                    answer = await reader.readexactly(FRAME_HEAD)
                if answer[FRAME_TYPE] != SETTINGS:
                    raise ValueError
        except (OSError, EOFError, TimeoutError, ValueError):
            raise EngineError(f"--ray-address {self.name}: what answers there is no Ray head") from None
        finally:
            writer.close()

    def _join(self) -> None:
        settings = dict(self._settings.init)
        if not self._address:
            self._folder = tempfile.mkdtemp(prefix="probemill-", dir=SHORT)
            settings = LOCAL | {"_temp_dir": self._folder} | settings
        self.ray.init(
            address=self._address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={},
            **settings,
        )

    def _leave(self) -> None:
        if self._wanted:
            with suppress(Exception):
                _request(0)
        self.ray.shutdown()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _options(self, node: Node, **options: Any) -> dict[str, Any]:
        """Of something that is to be done on a node, and nowhere else."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if self._settings.runtime_env:
            options["runtime_env"] = self._settings.runtime_env
        return options | {"scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False)}


class RayMember:
    """An actor, by its handle."""

    def __init__(self, engine: RayEngine, actor: Any, setup: Setup) -> None:
        self._engine = engine
        self._actor = actor
        self._setup = setup
        self._ended = False

    async def begin(self) -> Facts:
        facts: Facts = await self._asked("begin", self._setup, self._engine.supplies)
        return facts

    async def beat(self, lease: Lease | None) -> Pulse:
        pulse: Pulse = await self._asked("beat", lease)
        return pulse

    async def scan(self, body: bytes) -> Outcome:
        outcome: Outcome = await self._asked("scan", body)
        return outcome

    async def cancel(self, reason: Reason) -> None:
        await self._asked("cancel", reason)

    async def _asked(self, method: str, *arguments: Any) -> Any:
        if self._engine.closed:  # Ray would end this process
            raise Silent("the cluster was left")
        try:
            return await _answered(self._engine.ray, getattr(self._actor, method).remote(*arguments))
        except Gone as error:
            if self._ended:  # by us: its process may go on for a while
                raise Silent("it was ended") from error
            raise

    def end(self) -> None:
        """Ray kills its process, if need be, a few seconds later."""
        if not self._ended and not self._engine.closed:
            self._ended = True
            self._engine.desk.post(lambda: self._engine.ray.kill(self._actor))  # in front of the shutdown


def _request(cpus: float) -> None:
    from ray.autoscaler.sdk import request_resources

    request_resources(num_cpus=int(cpus))


def _answer(question: Callable[[Supplies], Answer], supplies: Supplies) -> Answer:
    """On a node."""
    return question(supplies)


async def _answered(ray: Any, answer: Any) -> Any:
    """What somebody on a node answers; what Ray says of it in our words."""
    errors = ray.exceptions
    try:
        return await answer
    except errors.RayTaskError as error:
        if isinstance(error.cause, EngineError | MatcherError):
            raise error.cause from None
        raise Silent(f"a fault of ours: {type(error.cause).__name__}: {first_line(error.cause)}") from error
    except errors.ActorUnavailableError as error:
        raise Silent(first_line(error)) from error
    except errors.RayActorError as error:
        text = str(error)
        raise Gone(_why(text), node="its node has died" in text) from error
    except errors.RayError as error:
        raise Silent(first_line(error)) from error


def _why(text: str) -> str:
    """What of Ray's long text about a death says why."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if "exit" in line.lower() or "node" in line.lower()), lines[0])[:200]
