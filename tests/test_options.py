"""What the options of `probemill scan` come to: each one changes its field of ScanConfig and no other."""

import os
from typing import Any

import pytest
from msgspec.structs import asdict

from engine.cli.scan import scan_command
from engine.cli.settings import scan_config
from engine.errors import ConfigError
from engine.model import ScanConfig
from engine.post import ALL, DEFAULT


def parsed(*arguments: str) -> ScanConfig:
    return scan_config(scan_command.make_context("scan", list(arguments)).params)


PLAIN = asdict(parsed())


def test_without_options_a_scan_is_what_the_library_does_on_all_cores() -> None:
    library = asdict(ScanConfig(workers=len(os.sched_getaffinity(0)), post=DEFAULT))
    assert library == PLAIN


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ("--probes nmap --probes a,b", {"probes": ("nmap", "a,b")}),
        ("--recog folder", {"recog": "folder"}),
        ("--second-opinion builtin", {"second_opinion": "builtin"}),
        ("--matcher re2", {"matcher": "re2"}),
        ("--generation 7.93", {"generation": "7.93"}),
        ("--intensity 3", {"intensity": 3}),
        ("--version-intensity 0", {"intensity": 0}),
        ("--light", {"intensity": 2}),
        ("--version-all", {"intensity": 9}),
        ("--allports", {"allports": True}),
        ("--timing adaptive", {"timing": "adaptive"}),
        ("--spare-fragile", {"spare_fragile": True}),
        ("--post ssh", {"post": tuple(name for name in ALL if name in (*DEFAULT, "ssh"))}),
        ("--post all", {"post": ALL}),
        ("--no-post", {"post": ()}),
        ("--version-trace", {"trace": True}),
        ("--workers 0", {"workers": 0}),
        ("--workers 7", {"workers": 7}),
        ("--workers 7 --max-inflight 3", {"workers": 3, "max_inflight": 3}),
        ("--max-parallelism 500", {"max_inflight": 500}),
        ("--min-parallelism 500", {}),
        ("--rate 0.5", {"rate": 0.5}),
        ("--per-host 2", {"per_host": 2}),
        ("--per-prefix 3", {"per_prefix": 3}),
        ("--host-delay 2m", {"host_delay_s": 120.0}),
        ("--source 127.0.0.1,127.0.0.2", {"sources": ("127.0.0.1", "127.0.0.2")}),
        ("--reset", {"reset": True}),
        ("--pseudo-ports 0", {"pseudo_ports": 0}),
        ("--connect-timeout 500ms", {"connect_timeout_s": 0.5}),
        ("--tls-timeout 1.5", {"tls_timeout_s": 1.5}),
        ("--service-timeout 1h", {"service_timeout_s": 3600.0}),
        ("--host-timeout 30s", {"host_timeout_s": 30.0}),
        ("--max-bytes 64k", {"max_bytes": 65536}),
        ("-T 0", {"workers": 1, "max_inflight": 1, "host_delay_s": 300.0}),
        ("-T 2 --host-delay 1s --min-parallelism 1", {"workers": 1, "max_inflight": 1, "host_delay_s": 1.0}),
        ("-T 4", {}),
        ("-T 5", {"host_timeout_s": 900.0}),
    ],
)
def test_an_option_changes_its_field(arguments: str, changed: dict[str, Any]) -> None:
    now = asdict(parsed(*arguments.split()))
    wanted = PLAIN | changed
    if "max_inflight" in changed and "workers" not in changed:
        wanted["workers"] = min(PLAIN["workers"], changed["max_inflight"])
    assert now == wanted


def test_templates_below_three_hold_as_many_conversations_as_asked_for() -> None:
    assert parsed("-T", "1", "--min-parallelism", "5", "--workers", "8").max_inflight == 5


@pytest.mark.parametrize(
    "arguments",
    ["--light --all", "--post ssh --no-post", "--post no-such-module", "--min-parallelism 3 --max-parallelism 2"],
)
def test_what_cannot_be_obeyed_is_refused(arguments: str) -> None:
    with pytest.raises(ConfigError, match=r"--(light|post|min-parallelism)|no-such-module"):
        parsed(*arguments.split())
