"""Prometheus metrics of a run: read from the tally when somebody asks, so that counting costs the run nothing more.
The same endpoint answers `/log` with the last lines of the run's log, as text.

Tally names are `kind:label` (`verdict:hardmatched`, `sent:GetRequest`) or a bare word (`bytes`). `TALLY` says how each
kind is shown, `NODES` what is shown of each node; they serve the metrics endpoint and docs/operations.md.
"""

from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

from msgspec import to_builtins
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from engine.cli.tail import LogTail
from engine.errors import ConfigError
from engine.run import Run

PREFIX = "probemill_"
LOG = "/log"
SLOW_HOSTS = 20  # shown
TALLY = MappingProxyType(  # tally kind -> (metric, label, help)
    {
        "verdict": ("verdicts", "verdict", "finished targets by verdict"),
        "reason": ("reasons", "reason", "incomplete targets by reason"),
        "service": ("services", "service", "identified targets by service name"),
        "sent": ("probes_sent", "probe", "probes sent"),
        "windows": ("probe_windows", "probe", "windows of probes that are over"),
        "probe_ms": ("probe_milliseconds", "probe", "time that the windows of probes took, summed"),
        "hit": ("probe_hits", "probe", "matches by the probe that drew the response"),
        "engine": ("engine_fallbacks", "cause", "responses answered line by line because a set failed"),
        "bytes": ("received_bytes", "", "bytes received from services"),
        "connections": ("connections", "", "TCP connections made"),
        "waited_ms": ("conversation_milliseconds", "", "time that finished conversations took, summed"),
        "starved": ("starved", "", "times the machine had no socket or port to give"),
    }
)

NODES = MappingProxyType(  # field of a NodeStatus -> (metric, help); on a cluster
    {
        "actors": ("node_actors", "actors of a node"),
        "given": ("node_outstanding", "targets given to a node's actors, not yet done"),
        "inflight": ("node_inflight", "conversations of a node"),
        "done": ("node_done", "targets that a node's actors have done, committed or not"),
        "silent_s": ("node_silent_seconds", "since the last sign of life of the node's most silent actor"),
    }
)


class RunMetrics:
    """A prometheus collector over a run."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        run = self._run
        yield CounterMetricFamily(PREFIX + "targets_read", "targets read from the input", run.read)
        yield CounterMetricFamily(PREFIX + "targets_done", "targets with a row", run.collector.rows)
        yield CounterMetricFamily(PREFIX + "targets_blocked", "targets left out by lists or shards", run.blocked)
        yield GaugeMetricFamily(PREFIX + "elapsed_seconds", "since the run began", run.elapsed_s)
        yield GaugeMetricFamily(PREFIX + "input_ended", "whether all targets have been read", run.input_ended)
        outstanding = GaugeMetricFamily(
            PREFIX + "outstanding", "targets given to a worker, not yet done", labels=["worker"]
        )
        for worker, count in enumerate(run.outstanding()):
            outstanding.add_metric([str(worker)], count)
        yield outstanding
        conversations = GaugeMetricFamily(
            PREFIX + "conversations", "conversations that are open now", labels=["worker"]
        )
        for worker, count in enumerate(run.conversations()):
            conversations.add_metric([str(worker)], count)
        yield conversations
        yield CounterMetricFamily(PREFIX + "worker_restarts", "workers that died and were replaced", run.restarts())
        behind = GaugeMetricFamily(
            PREFIX + "sink_segments_behind", "committed segments that a sink lacks", labels=["sink"]
        )
        for sink, count in run.behind().items():
            behind.add_metric([sink], count)
        yield behind
        nodes = run.nodes()
        for field, (metric, text) in NODES.items() if nodes else ():
            gauge = GaugeMetricFamily(PREFIX + metric, text, labels=["node"])
            for node in nodes:
                gauge.add_metric([node.node], getattr(node, field))
            yield gauge
        slow = GaugeMetricFamily(
            PREFIX + "slow_host_milliseconds", "time that the slowest hosts took, summed, at least", labels=["host"]
        )
        for host, milliseconds in run.collector.slow_hosts.longest(SLOW_HOSTS):
            slow.add_metric([host], milliseconds)
        yield slow
        families: dict[str, CounterMetricFamily] = {}
        for name, count in run.collector.tally.copy().items():
            kind, _, label = name.partition(":")
            if kind not in TALLY:
                continue
            metric, label_name, text = TALLY[kind]
            family = families.get(kind)
            if family is None:
                labels = [label_name] if label_name else None
                family = families[kind] = CounterMetricFamily(PREFIX + metric, text, labels=labels)
            family.add_metric([label] if label_name else [], count)
        yield from families.values()


def serve_metrics(run: Run, tail: LogTail, address: str, port: int) -> Any:
    """Answer there until the process ends. Raises ConfigError when the port is taken, or the address not ours."""
    registry = CollectorRegistry()
    registry.register(RunMetrics(run))
    try:
        server, thread = start_http_server(port, addr=address, registry=registry)
    except OSError as error:
        where = f"[{address}]" if ":" in address else address
        raise ConfigError(f"--metrics {where}:{port}: {error.strerror}") from error
    server.set_app(_with_log(server.get_app(), tail))
    return server, thread


def _with_log(metrics: Any, tail: LogTail) -> Callable[[dict[str, Any], Callable[..., Any]], Any]:
    """A WSGI application: `/log`, and whatever else `metrics` answers."""

    def answer(asked: dict[str, Any], begin: Callable[..., Any]) -> Any:
        if asked["PATH_INFO"] != LOG or asked["REQUEST_METHOD"] != "GET":
            return metrics(asked, begin)
        begin("200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")])
        return ["".join(line + "\n" for line in tail.lines()).encode()]

    return answer


def snapshot(run: Run) -> dict[str, Any]:
    """The run in numbers, for logs: what `--stats-every` and SIGUSR1 print."""
    tally = run.collector.tally
    grouped: dict[str, dict[str, int]] = {}
    for name, count in sorted(tally.items()):
        kind, colon, label = name.partition(":")
        if colon and kind in ("verdict", "reason", "engine"):
            grouped.setdefault(kind, {})[label] = count
    return {
        "elapsed_s": round(run.elapsed_s, 3),
        "read": run.read,
        "done": run.collector.rows,
        "blocked": run.blocked,
        "in_flight": run.in_flight,
        "per_s": round(run.collector.rows / run.elapsed_s, 1) if run.elapsed_s else 0.0,
        "bytes": tally["bytes"],
        "connections": tally["connections"],
        "restarts": run.restarts(),
        "outstanding": run.outstanding(),
        "conversations": run.conversations(),
        **({"sinks_behind": behind} if (behind := run.behind()) else {}),
        **({"nodes": to_builtins(nodes)} if (nodes := run.nodes()) else {}),
        **grouped,
    }
