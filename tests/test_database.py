"""The database in the package: what it covers, that every sample is answered as expected, and that nothing is mistaken.

`probemill db lint data/service-probes` checks more (reachability, costs); this is what must hold after every change.
"""

import random
from functools import cache
from pathlib import Path

import pytest

from bench.false_products import findings, of_samples
from matcher import EngineUnavailable, Matcher, ProbeDatabase, load_database
from matcher.database.load import nmap_database
from matcher.database.samples import Sample, answer, differences, read_samples
from matcher.patterns import ENGINES
from matcher.tools.lint import cpe_fault

SAMPLES = Path(__file__).resolve().parents[1] / "data" / "samples"
PRODUCTS, PROTOCOLS = 250, 70  # what the README promises, at least
MOST_PROBES = 30  # to a silent port that no probe names, at the default intensity
DEFAULT_INTENSITY, LIGHT_INTENSITY = 7, 2
SLOW_ENGINE_SAMPLES = 300
CONFUSED_SAMPLES = 400  # each is tried with the lines of every probe of its protocol
OWN_PATTERN, OWN_PAYLOAD = 40, 20  # bytes; what is longer is written by somebody, what is shorter may be a coincidence
# Requests of more than OWN_PAYLOAD bytes in which the protocol leaves nothing to choose.
DICTATED = {
    ("tcp", "HTTPOptions"),  # RFC 1945: method, path and version, and no header
}


@cache
def database() -> ProbeDatabase:
    return load_database("builtin")


@cache
def samples() -> list[Sample]:
    read, faults = read_samples([SAMPLES])
    assert not faults, f"{faults[0].path}:{faults[0].line}: {faults[0].reason}"
    return read


@cache
def matcher(engine: str) -> Matcher:
    try:
        return Matcher(database(), engine)
    except EngineUnavailable as absent:
        pytest.skip(str(absent))


def test_it_covers_what_the_readme_promises() -> None:
    signatures = list(database().signatures())
    products = {signature.templates.product for signature in signatures if b"$" not in signature.templates.product} - {
        b""
    }
    assert len(products) >= PRODUCTS
    assert len({signature.service for signature in signatures}) >= PROTOCOLS


@pytest.mark.parametrize("engine", ENGINES)
def test_every_sample_is_answered_as_expected(engine: str) -> None:
    """All of them with re2, which is everywhere, and some with the other engines."""
    chosen = samples() if engine == "re2" else random.Random(6).sample(samples(), SLOW_ENGINE_SAMPLES)
    wrong = []
    for sample in chosen:
        probe = database().probe(sample.probe, sample.proto)
        assert probe is not None, f"{sample.path}:{sample.line}: no probe {sample.probe}"
        got = answer(matcher(engine).match(probe, sample.response))
        if got != sample.expect:
            told = differences(sample.expect, got) if got and sample.expect else [f"{got}, expected {sample.expect}"]
            wrong.append(f"{sample.path}:{sample.line}: {'; '.join(told)}")
    assert wrong == []


def test_every_line_wins_a_sample_and_every_source_is_told() -> None:
    won = set()
    for sample in samples():
        assert sample.source_is_valid, f"{sample.path}:{sample.line}: source {sample.source!r}"
        probe = database().probe(sample.probe, sample.proto)
        match = probe and matcher("auto").match(probe, sample.response)
        if match:
            won.add(match.signature.id)
    assert [signature.line for signature in database().signatures() if signature.id not in won] == []


def test_every_cpe_is_well_formed() -> None:
    faults = [
        f"{sample.path}:{sample.line}: {cpe}: {cpe_fault(cpe)}"
        for sample in samples()
        for cpe in (sample.expect.cpe if sample.expect else ())
        if cpe_fault(cpe)
    ]
    assert faults == []


def test_no_response_of_one_service_is_taken_for_the_product_of_another() -> None:
    """Whatever probe is asked; python -m bench.false_products tries all of them, and Nmap's mutated responses."""
    chosen = random.Random(6).sample(of_samples(), CONFUSED_SAMPLES)
    wrong = [str(finding) for finding in findings(chosen, matcher("auto")) if finding.verdict == "wrong"]
    assert wrong == []


def test_a_silent_port_is_not_asked_too_much() -> None:
    asked = [probe for probe in database().probes if probe.proto == "tcp" and probe.payload]
    assert sum(probe.rarity <= DEFAULT_INTENSITY for probe in asked) <= MOST_PROBES
    light = {probe.name for probe in asked if probe.rarity <= LIGHT_INTENSITY}
    assert light == {"GenericLines", "TLSHello", "GetRequest"}, "the questions that most unknown servers answer"


def test_tls_is_asked_before_http_and_http_leaves_https_ports_alone() -> None:
    names = [probe.name for probe in database().probes if probe.proto == "tcp"]
    assert names[0] == "NULL"
    assert names.index("TLSHello") < names.index("GetRequest")
    get, hello = database().probe("GetRequest"), database().probe("TLSHello")
    assert get is not None
    assert hello is not None
    assert [port for port in (443, 8443) if port in get.ports or port not in hello.ports] == []


def test_softmatches_come_last_in_their_probe() -> None:
    for probe in database().probes:
        soft = [signature.soft for signature in probe.signatures]
        assert soft == sorted(soft), f"{probe.name}: a softmatch stands before a match"


@cache
def nmap() -> ProbeDatabase:
    path = nmap_database()
    if path is None:
        pytest.skip("no Nmap probe file is installed to compare with")
    return load_database(path)


def test_no_line_is_nmaps() -> None:
    """The database is written from protocols and banners: no long line is one of Nmap's file."""
    theirs = {(line.pattern, line.templates) for line in nmap().signatures()}
    same = [
        line.line
        for line in database().signatures()
        if not line.soft and len(line.pattern) > OWN_PATTERN and (line.pattern, line.templates) in theirs
    ]
    assert same == []


def test_no_payload_is_nmaps() -> None:
    theirs = {probe.payload for probe in nmap().probes}
    same = {
        (probe.proto, probe.name)
        for probe in database().probes
        if len(probe.payload) > OWN_PAYLOAD and probe.payload in theirs
    }
    assert same == DICTATED, "a copy, or an exception that is none any more"
