"""The numbers of a run for machines: Prometheus text on loopback, and snapshots as JSON."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from loopback import Farm, config, database_file, greeting_after, scan
from prometheus_client import CollectorRegistry, generate_latest

from engine.cli.main import cli
from engine.cli.metrics import NODES, PREFIX, TALLY, RunMetrics, serve_metrics, snapshot
from engine.cli.options import Endpoint
from engine.errors import ConfigError
from engine.pool.runners import NodeStatus

OPERATIONS = Path(__file__).resolve().parent.parent / "docs" / "operations.md"
COUNTS = {
    "verdict:hardmatched": 7,
    "verdict:incomplete": 2,
    "reason:timeout": 2,
    "service:ssh": 7,
    "sent:GetRequest": 3,
    "hit:NULL": 7,
    "engine:compile": 1,
    "bytes": 1234,
    "connections": 12,
    "waited_ms": 900,
    "starved": 4,
    "of no known kind": 1,
}

NODE_STATUSES = [
    NodeStatus("10.0.0.1", "", 2, 40, 30, 500, 0.4, 1024),
    NodeStatus("10.0.0.2", "dmz", 0, 0, 0, 7, 0.0, 0, 2),
]


def run(**changed: object) -> Any:
    facts = {
        "read": 20,
        "blocked": 3,
        "in_flight": 11,
        "elapsed_s": 2.0,
        "collector": SimpleNamespace(rows=9, tally=Counter(COUNTS)),
        "outstanding": lambda: [4, 7],
        "conversations": lambda: [3, 6],
        "behind": lambda: {"parquet:/lake": 2},
        "restarts": lambda: 1,
        "nodes": lambda: NODE_STATUSES,
    }
    return SimpleNamespace(**{**facts, **changed})


def text_of(seen: Any) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(RunMetrics(seen))
    lines = generate_latest(registry).decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_text() -> None:
    assert text_of(run()) == {
        "probemill_targets_read_total": 20,
        "probemill_targets_done_total": 9,
        "probemill_targets_blocked_total": 3,
        'probemill_outstanding{worker="0"}': 4,
        'probemill_outstanding{worker="1"}': 7,
        'probemill_conversations{worker="0"}': 3,
        'probemill_conversations{worker="1"}': 6,
        "probemill_worker_restarts_total": 1,
        'probemill_sink_segments_behind{sink="parquet:/lake"}': 2,
        'probemill_verdicts_total{verdict="hardmatched"}': 7,
        'probemill_verdicts_total{verdict="incomplete"}': 2,
        'probemill_reasons_total{reason="timeout"}': 2,
        'probemill_services_total{service="ssh"}': 7,
        'probemill_probes_sent_total{probe="GetRequest"}': 3,
        'probemill_probe_hits_total{probe="NULL"}': 7,
        'probemill_engine_fallbacks_total{cause="compile"}': 1,
        "probemill_received_bytes_total": 1234,
        "probemill_connections_total": 12,
        "probemill_conversation_milliseconds_total": 900,
        "probemill_starved_total": 4,
        'probemill_node_actors{node="10.0.0.1"}': 2,
        'probemill_node_actors{node="10.0.0.2"}': 0,
        'probemill_node_outstanding{node="10.0.0.1"}': 40,
        'probemill_node_outstanding{node="10.0.0.2"}': 0,
        'probemill_node_inflight{node="10.0.0.1"}': 30,
        'probemill_node_inflight{node="10.0.0.2"}': 0,
        'probemill_node_done{node="10.0.0.1"}': 500,
        'probemill_node_done{node="10.0.0.2"}': 7,
        'probemill_node_silent_seconds{node="10.0.0.1"}': 0.4,
        'probemill_node_silent_seconds{node="10.0.0.2"}': 0,
    }


def test_without_a_cluster_there_are_no_nodes() -> None:
    alone = run(nodes=list)
    assert not [name for name in text_of(alone) if "node" in name]
    assert "nodes" not in snapshot(alone)


def test_hostile_labels_are_escaped() -> None:
    tally = Counter({'service:a"b\\\n': 1})
    assert 'probemill_services_total{service="a\\"b\\\\\\n"}' in text_of(
        run(collector=SimpleNamespace(rows=1, tally=tally))
    )


def test_every_metric_is_documented() -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    for metric, label, _ in TALLY.values():
        assert f"`{PREFIX}{metric}_total" in text
        assert not label or f"{{{label}}}" in text
    for metric, _ in NODES.values():
        assert f"`{PREFIX}{metric}{{node}}`" in text


def test_snapshot() -> None:
    assert snapshot(run()) == {
        "elapsed_s": 2.0,
        "read": 20,
        "done": 9,
        "blocked": 3,
        "in_flight": 11,
        "per_s": 4.5,
        "bytes": 1234,
        "connections": 12,
        "restarts": 1,
        "outstanding": [4, 7],
        "conversations": [3, 6],
        "sinks_behind": {"parquet:/lake": 2},
        "nodes": [
            {
                **{"node": "10.0.0.1", "zones": "", "actors": 2, "given": 40, "inflight": 30, "done": 500},
                **{"silent_s": 0.4, "descriptors": 1024, "lost": 0},
            },
            {
                **{"node": "10.0.0.2", "zones": "dmz", "actors": 0, "given": 0, "inflight": 0, "done": 7},
                **{"silent_s": 0.0, "descriptors": 0, "lost": 2},
            },
        ],
        "verdict": {"hardmatched": 7, "incomplete": 2},
        "reason": {"timeout": 2},
        "engine": {"compile": 1},
    }
    assert snapshot(run(elapsed_s=0.0))["per_s"] == 0.0


def test_endpoint() -> None:
    """On the address that was named only; a port that is taken is one clear error."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    server, thread = serve_metrics(run(), "127.0.0.1", port)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert b"probemill_targets_done_total 9.0" in answer.read()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=10).close()
        with pytest.raises(ConfigError, match=f"--metrics 127.0.0.1:{port}: Address already in use"):
            serve_metrics(run(), "127.0.0.1", port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("9464", ("127.0.0.1", 9464)),
        ("127.0.0.9:1", ("127.0.0.9", 1)),
        ("0.0.0.0:65535", ("0.0.0.0", 65535)),
        ("[::1]:9464", ("::1", 9464)),
    ],
)
def test_where_to_listen(said: str, meant: tuple[str, int]) -> None:
    assert Endpoint()(said) == meant


@pytest.mark.parametrize(
    "bad",
    [
        *("0", "65536", "x", "-1", "127.0.0.1", "127.0.0.1:", ":9464", "::1:9464", "[::1]", "[::1]9464"),
        *("[127.0.0.1]:9464", "localhost:9464", "127.0.0.256:9464", "[::g]:9464", "[]:9464", "127.0.0.1:99999"),
        *("9464 ", "\u0663"),
    ],
)
def test_where_nobody_can_listen(bad: str, tmp_path: Path) -> None:
    """One line that names the option, before anything is scanned."""
    done = CliRunner().invoke(cli, ["scan", "127.0.0.1:9", "-o", str(tmp_path / "rows"), "--metrics", bad])
    assert done.exit_code == 2
    assert "--metrics" in done.stderr
    assert not (tmp_path / "rows").exists()


def test_an_ipv6_endpoint() -> None:
    """Listens there and nowhere else; an address of another machine is one clear error."""
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
        port = sock.getsockname()[1]
    server, thread = serve_metrics(run(), "::1", port)
    try:
        with urllib.request.urlopen(f"http://[::1]:{port}/metrics", timeout=10) as answer:
            assert b"probemill_targets_done_total 9.0" in answer.read()
        with pytest.raises(ConfigError, match=rf"--metrics \[::1\]:{port}: Address already in use"):
            serve_metrics(run(), "::1", port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
    with pytest.raises(ConfigError, match=f"--metrics 192.0.2.1:{port}: Cannot assign requested address"):
        serve_metrics(run(), "192.0.2.1", port)


def test_a_scan_counts(tmp_path: Path) -> None:
    """The tally of a run adds up."""
    with Farm(greeting_after(0.0)) as farm:
        rows, tally = scan(farm.targets(*(f"127.7.0.{last}" for last in range(1, 21))), config(database_file(tmp_path)))
    assert len(rows) == 20
    assert tally == {
        "verdict:hardmatched": 20,
        "service:hello": 20,
        "hit:NULL": 20,
        "connections": 20,
        "bytes": 20 * len(b"HELLO 1.0\r\n"),
        "waited_ms": sum(row.elapsed_ms for row in rows),
    }


def test_watching_a_command(tmp_path: Path) -> None:
    """SIGUSR1 and --stats-every print snapshots; --metrics answers while the run goes on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "probemill",
        "scan",
        "-q",
        "--probes",
        database_file(tmp_path),
        "--no-post",
        "-i",
        "-",
    ]
    command += ["--workers", "1", "--matcher", "reference", "--metrics", str(port), "--stats-every", "1h"]
    pipe = subprocess.PIPE
    with (
        Farm(greeting_after(0.0)) as farm,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"127.7.0.1:{farm.port}\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["name"] == "hello"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        assert re.search(r"^probemill_targets_done_total 1.0$", text, re.M)
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.3)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    snapshots = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert [seen["done"] for seen in snapshots] == [1, 1]  # the signal's, and the last word
