"""What `probemill plan` says: exact in small cases, never less for more work, the same in both forms, true of farms."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.cli.main import cli
from engine.cli.plan import plan_command
from engine.cli.planned import exact, span, told
from engine.errors import ConfigError, EngineError
from engine.forecast.constants import KINDS, REFUSED, UNANSWERED, Constants, Kind, Place, read_constants
from engine.forecast.forecast import Figure, forecast, machines_for
from engine.forecast.load import Question, Silence, loads

ROOT = Path(__file__).resolve().parent.parent


def kind(**fields: float) -> Kind:
    """A kind of which each target takes 1 of everything, so that figures are counts."""
    ones = dict.fromkeys(Kind.__struct_fields__, 1.0) | {"windows": 0, "match_us": 0.0} | fields
    return Kind(**ones)  # type: ignore[arg-type]


CONSTANTS = Constants(
    place=Place(
        machine="M", cores=1, kernel="K", python="3", versions={}, database="D", matcher="re2", date="2026-01-01"
    ),
    start_s=0.0,
    driver_bytes=1000,
    worker_bytes=100,
    conversation_bytes=10,
    slots=100,
    ports=60_000,
    time_wait_s=60.0,
    syn_at_s=(0.0, 1.0, 3.0, 7.0),
    kinds={
        "banner": kind(),
        "http": kind(windows=1, connections=1.0, bytes_received=500.0),
        "tls": kind(windows=2, connections=2.0),
        "silent": kind(connections=10.0, worker_us=100.0),
        REFUSED: kind(bytes_sent=60.0),
        UNANSWERED: kind(bytes_sent=180.0, packets_sent=3.0, packets_received=0.0, bytes_received=0.0),
    },
)
MANY = 1_000_000
PLAIN = Question(targets={22: MANY}, hosts=MANY, rtt_s=0.5, per_host=0, memory=1 << 40)


def bound(question: Question, name: str, machines: int = 1) -> float:
    """Targets per second."""
    found = forecast(question, CONSTANTS, machines).bounds
    return next(bound.targets_per_s for bound in found if bound.name == name)


# -- the arithmetic


def test_targets_are_services_by_port_and_the_rest_refuses_or_is_silent() -> None:
    question = replace(PLAIN, targets={22: 100, 80: 1000}, answering=0.1, closed=0.75)
    assert {load.kind: load.count for load in loads(question, CONSTANTS)} == {
        "banner": 10,
        "http": 100,
        REFUSED: 990 * 0.75,
        UNANSWERED: 990 * 0.25,
    }


def test_a_mix_stands_in_place_of_what_is_usual() -> None:
    question = replace(PLAIN, targets={22: 100}, mix={22: {"banner": 0.75, "tls": 0.25}})
    assert {load.kind: load.count for load in loads(question, CONSTANTS)} == {"banner": 75, "tls": 25}
    assert forecast(question, CONSTANTS, 1).value("connections") == 75 + 2 * 25


@pytest.mark.parametrize(
    ("port", "held_s"),
    [
        (22, 2 * 0.5),  # connect, greeting
        (80, 2 * 0.5 + 3.0),  # and a banner window
        (443, 5 * 0.5 + 2 * 3.0),
    ],
)
def test_a_slot_is_held_for_round_trips_and_windows(port: int, held_s: float) -> None:
    question = replace(PLAIN, targets={port: MANY}, banner_window_s=3.0)
    assert forecast(question, CONSTANTS, 1).value("held") == pytest.approx(MANY * held_s)
    assert bound(question, "slots") == pytest.approx(100 / held_s)


def test_a_silent_service_takes_what_its_ports_probes_take() -> None:
    """Twice the probes of where it was measured: twice of everything but the row."""
    question = replace(PLAIN, mix={22: {"silent": 1.0}}, silence={22: Silence(20, 90.0)})
    (load,) = loads(question, CONSTANTS)
    assert (load.unit.connections, load.unit.worker_us, load.unit.row_bytes, load.held_s) == (20, 200, 1, 90)
    (load,) = loads(replace(question, service_timeout_s=45.0), CONSTANTS)
    assert (load.unit.connections, load.held_s) == (10, 45)


@pytest.mark.parametrize(("timeout_s", "asked"), [(0.5, 1), (1.0, 1), (3.5, 3), (30.0, 4)])
def test_what_does_not_answer_is_asked_until_the_timeout(timeout_s: float, asked: int) -> None:
    question = replace(PLAIN, answering=0.0, connect_timeout_s=timeout_s)
    (load,) = loads(question, CONSTANTS)
    assert (load.unit.packets_sent, load.unit.bytes_sent, load.held_s) == (asked, 60 * asked, timeout_s)


def test_answers_that_differ_are_matched_anew() -> None:
    constants = replace(CONSTANTS, kinds={**CONSTANTS.kinds, "banner": kind(worker_us=5.0, match_us=2.0)})
    assert [loads(replace(PLAIN, differ=differ), constants)[0].unit.worker_us for differ in (True, False)] == [7.0, 5.0]


def test_post_processing_costs_its_connections() -> None:
    question = replace(PLAIN, targets={80: 100}, post={"http": 2}, banner_window_s=0.0)
    assert forecast(question, CONSTANTS, 1).value("connections") == 300
    assert forecast(question, CONSTANTS, 1).value("stored") == 100


@pytest.mark.parametrize(
    ("name", "machines", "per_s"),
    [
        ("CPU", 1, 4 * 1e6 / 2),  # 4 cores, a microsecond each in the worker and in the driver
        ("CPU", 3, 12 * 1e6 / 2),
        ("workers", 1, 2 * 1e6),
        ("driver", 2, 2e6),
        ("slots", 1, 100.0),  # held for a second
        ("slots", 2, 200.0),
        ("per host", 2, 10 * 7.0),
        ("rate", 2, 40.0),
        ("ports", 1, MANY * 2000.0),  # each destination a thousand times a second from each source
        ("bandwidth", 2, 2 * 1000.0),  # one byte in either direction
    ],
)
def test_each_bound_is_what_its_name_says(name: str, machines: int, per_s: float) -> None:
    question = replace(PLAIN, workers=2, hosts=10, per_host=7, rate=40.0, sources=2, bandwidth=8000.0)
    assert bound(question, name, machines) == pytest.approx(per_s)


@pytest.mark.parametrize(
    ("changed", "binding", "seconds"),
    [
        ({}, "slots", MANY / 100),
        ({"rate": 10.0}, "rate", MANY / 10 + 1),  # and the last one's second
        ({"slots": 1 << 30}, "driver", MANY * 1e-6 + 1),
        ({"slots": 50}, "slots", MANY / 50),
        ({"targets": {22: 1}}, "slots", 1.001),  # never less than one takes
    ],
)
def test_the_bound_that_takes_longest_decides(changed: dict[str, object], binding: str, seconds: float) -> None:
    answer = forecast(replace(PLAIN, **changed), CONSTANTS, 1)
    assert answer.binding == binding
    assert answer.value("hours") * 3600 == pytest.approx(seconds)


def test_memory_bounds_the_slots() -> None:
    """1,000 bytes for the command and 2 workers of 100: 50 conversations fit into the rest."""
    question = replace(PLAIN, workers=2, memory=1700)
    assert bound(question, "slots") == 50
    assert forecast(question, CONSTANTS, 1).value("memory") == 1700
    with pytest.raises(ConfigError, match="--memory"):
        forecast(replace(question, memory=1200), CONSTANTS, 1)


def test_cost_is_of_machine_hours() -> None:
    answer = forecast(replace(PLAIN, price=0.5), CONSTANTS, 2)
    hours = MANY / 200 / 3600
    assert answer.value("cost") == pytest.approx(2 * hours * 0.5)
    assert answer.value("cost of a million services") == pytest.approx(answer.value("cost"))


def test_machines_are_the_fewest_that_are_done_in_time() -> None:
    hours = MANY / 100 / 3600  # of one machine
    assert [machines_for(PLAIN, CONSTANTS, hours / part) for part in (1, 2, 2.01, 6.99)] == [1, 2, 3, 7]
    with pytest.raises(ConfigError, match=r"rate alone makes it 27\.8"):
        machines_for(replace(PLAIN, rate=10.0), CONSTANTS, 1.0)


def test_nothing_to_scan_is_nothing_to_plan() -> None:
    with pytest.raises(ConfigError, match="no targets"):
        forecast(replace(PLAIN, targets={22: 0}), CONSTANTS, 1)


# -- what holds of any question

SHARES = st.floats(0, 1)
QUESTIONS = st.builds(
    lambda counts, **fields: Question(targets=counts, hosts=max(counts.values()), memory=1 << 40, **fields),
    st.dictionaries(st.sampled_from([22, 80, 443, 9999]), st.integers(1, 10**10), min_size=1),
    answering=SHARES,
    closed=SHARES,
    rtt_s=st.floats(0.001, 1),
    rate=st.sampled_from([0.0, 10.0, 1e6]),
    slots=st.sampled_from([0, 1, 100_000]),
    per_host=st.integers(0, 16),
    cores=st.integers(1, 64),
    workers=st.integers(1, 64),
    bandwidth=st.sampled_from([0.0, 1e6, 1e10]),
)
STORED = read_constants()
GROWS = ("hours", "connections", "packets sent", "bytes received", "CPU", "stored", "held")


@given(QUESTIONS, st.sampled_from([22, 80, 443, 9999]), st.integers(1, 10**9))
def test_more_targets_never_take_less(question: Question, port: int, more: int) -> None:
    targets = {**question.targets, port: question.targets.get(port, 0) + more}
    few, many = (forecast(asked, STORED, 1) for asked in (question, replace(question, targets=targets)))
    assert all(many.value(name) >= few.value(name) * (1 - 1e-9) for name in GROWS)


@given(QUESTIONS, st.integers(1, 1000), st.integers(1, 1000))
def test_more_machines_never_take_longer(question: Question, machines: int, more: int) -> None:
    few, many = (forecast(question, STORED, count) for count in (machines, machines + more))
    assert many.value("hours") <= few.value("hours") * (1 + 1e-9)


@given(QUESTIONS, st.integers(1, 1000))
def test_no_limit_is_exceeded(question: Question, machines: int) -> None:
    answer = forecast(question, STORED, machines)
    seconds = answer.value("hours") * 3600
    if question.rate:
        assert answer.value("connections") / seconds <= question.rate * (1 + 1e-9)
    if question.slots:
        assert answer.value("held") / seconds <= question.slots * (1 + 1e-9)
    assert answer.value("CPU") * 3600 / seconds <= machines * question.cores * (1 + 1e-9)
    assert answer.value("speed") <= min(bound.targets_per_s for bound in answer.bounds) * (1 + 1e-9)


@given(QUESTIONS, st.floats(1e-3, 1e4))
def test_so_many_machines_are_enough_and_one_less_is_not(question: Question, hours: float) -> None:
    try:
        machines = machines_for(question, STORED, hours)
    except ConfigError:
        return
    assert forecast(question, STORED, machines).value("hours") <= hours
    assert machines == 1 or forecast(question, STORED, machines - 1).value("hours") > hours


# -- the constants


def test_the_package_has_constants_of_every_kind() -> None:
    assert {*KINDS, REFUSED, UNANSWERED} <= STORED.kinds.keys()
    for name, measured in STORED.kinds.items():
        assert measured.worker_us > 0 and measured.packets_sent >= 1 and measured.connections >= 1, name
    assert STORED.kinds["tls"].connections == 2 and STORED.kinds["tls"].windows == 2
    assert STORED.kinds["http"].connections == 1 and STORED.kinds["http"].windows == 1


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"start_s": "x"}', None])
def test_constants_that_are_none_are_one_clear_line(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "measured.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"python -m bench\.constants") as error:
        read_constants(path)
    assert "\n" not in str(error.value)


# -- the command


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["plan", "--probes", "builtin", *arguments])


def figures(*arguments: str) -> dict[str, float]:
    result = plan(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return {figure["name"]: figure["value"] for figure in json.loads(result.output)["figures"]}


def test_both_forms_say_the_same() -> None:
    arguments = ("--count", "80=62M,443=55M,22=21M", "--timing", "adaptive", "--machines", "3", "--price", "0.1")
    facts = json.loads(plan(*arguments, "--json").output)
    text = plan(*arguments).output
    lines = [line.split() for line in text.splitlines()]
    for fields in facts["figures"]:
        figure = Figure(**fields)
        assert [*figure.name.split(), *told(figure).split()] in lines
        assert f"  {figure.name} = {exact(figure.value)}" in text and f"{figure.formula} [{figure.source}]" in text
    assert [line[0] for line in lines if line[-1:] == ["decides"]] == [facts["binding"]]
    for limit in facts["bounds"]:
        assert f"  {limit['name']}: {limit['formula']} [{limit['source']}]" in text
    assert all(note in text for note in facts["notes"])


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (138_000_000, "", "138 million"),
        (999_999, "", "999,999"),
        (105_145_000_000, "bytes", "105 GB"),
        (999, "bytes", "999 bytes"),
        (401_381_392, "bytes a machine", "401 MB on each machine"),
        (4.179, "h", "4 h 11 min"),
        (16.71, "core hours", "16.71 hours of one core"),
        (9173, "targets/s", "9,173 targets a second"),
        (0.4179, "", "0.4179"),
    ],
)
def test_units_are_told_in_words(value: float, unit: str, words: str) -> None:
    assert told(Figure("name", value, unit, "", "")) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.2, "under 1 s"),
        (12.4, "12 s"),
        (60, "1 min"),
        (3599.9, "1 h"),
        (15_042, "4 h 11 min"),
        (2e5, "2 d 8 h"),
    ],
)
def test_times_have_two_units_at_most(seconds: float, words: str) -> None:
    assert span(seconds) == words


def test_counts_may_have_suffixes() -> None:
    assert figures("--count", "22=1.5k,80=2M,443=7")["targets"] == 2_001_507


def test_the_whole_of_ipv4_is_counted_at_once() -> None:
    assert figures("0.0.0.0/0", "-p", "80,443,22")["targets"] == 3 << 32


def test_lists_are_applied_inside_networks(tmp_path: Path) -> None:
    never = tmp_path / "never"
    never.write_text("192.0.2.128/25\n192.0.2.0/26\n198.51.100.7\n")
    assert figures("192.0.2.0/24", "-p", "22,80", "--blocklist", str(never))["targets"] == 2 * 64
    allowed = ("192.0.2.0/24", "-p", "22", "--allowlist", "192.0.2.0/25", "--blocklist", str(never))
    assert figures(*allowed)["targets"] == 64
    assert figures("10.0.0.0/7", "-p", "22", "--exclude-reserved")["targets"] == 1 << 24
    assert figures("198.51.100.6-198.51.100.8", "-p", "22", "--blocklist", str(never))["targets"] == 2
    assert figures("2001:db8::/120", "-p", "22", "--blocklist", "2001:db8::/121")["targets"] == 128


def test_files_are_counted_line_by_line(tmp_path: Path) -> None:
    path = tmp_path / "targets"
    path.write_text("192.0.2.1:22\n192.0.2.1:80\n# nothing\n192.0.2.0/30\nhost.example:443\n")
    found = plan("-i", str(path), "-p", "22", "--json")
    assert json.loads(found.output)["figures"][0]["formula"] == "port 22 5 + port 80 1 + port 443 1"
    path.write_text("192.0.2.1:22\n192.0.2.1:nothing\n")
    found = plan("-i", str(path))
    assert found.exit_code == 1 and "1 input lines skipped; first: " in found.stderr


def test_intensity_and_timing_change_what_silence_costs() -> None:
    arguments = ("--count", "4000=1000", "--mix", "silent=100")
    patient, hasty = figures(*arguments), figures(*arguments, "--timing", "adaptive")
    assert hasty["held"] < patient["held"] / 3 and hasty["connections"] == patient["connections"]
    assert figures(*arguments, "--intensity", "1")["connections"] < patient["connections"] / 2


def test_post_processing_that_connects_is_counted() -> None:
    assert figures("--count", "80=100")["connections"] == 100
    assert figures("--count", "80=100", "--post", "web")["connections"] == 300
    assert (
        figures("--count", "443=100", "--post", "http2,jarm")["connections"]
        == 11 * 100 + figures("--count", "443=100")["connections"]
    )


def test_hours_give_machines() -> None:
    found = figures("--count", "80=1G", "--hours", "24")
    assert found["machines"] > 1 and found["hours"] <= 24


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--count 80",
        "--count 80=x",
        "--count 80=5,80=6",
        "--count 99999=1",
        "--count http=1",
        "--count 80=0",
        "--count 80=5 192.0.2.1:80",
        "--count 80=5 -p 80",
        "--count 80=5 --exclude-reserved",
        "--count 80=5 --mix foo=100",
        "--count 80=5 --mix http=50",
        "--count 80=5 --answering 3",
        "--count 80=5 --answering 300%",
        "--count 80=5 --closed x",
        "--count 80=5 --memory 10M",
        "--count 80=5 --machines 0",
        "--count 80=5 --hours 0",
        "--count 80=5 --hours nan",
        "--count 80=5 --price inf",
        "--count 80=5 --hours 1 --machines 1",
        "--count 80=1M --rate 1 --hours 1",
        "--count 80=5 --bandwidth -1",
        "--count 80=5 --post nothing",
        "192.0.2.1:53/udp",
        "10.0.0.0/8 -p 80 --exclude-reserved",
        "10.0.0.0/8",
        "-i /nonexistent",
    ],
)
def test_bad_input_is_one_line(arguments: str) -> None:
    """Of its own, that is: click puts the usage in front of what is wrong with one option."""
    command = [sys.executable, "-m", "probemill", "plan", "--probes", "builtin", *arguments.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not done.stdout
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith(("Usage:", "Try "))]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr


def test_options_of_a_scan_mean_the_same() -> None:
    scan = {parameter.name: parameter for parameter in cli.commands["scan"].params}  # type: ignore[attr-defined]
    own = {"targets", "count", "answering", "closed", "mix", "rtt_s", "machines", "hours", "cores", "memory"}
    own |= {"bandwidth", "price", "as_json", "workers"}  # workers: on each machine
    assert all(parameter is scan[parameter.name] for parameter in plan_command.params if parameter.name not in own)


def test_what_cannot_be_planned_is_an_error_of_ours() -> None:
    with pytest.raises(EngineError):
        plan_command.main(["--count", "80=0"], standalone_mode=False)


# -- farms


@pytest.mark.slow
def test_farms_take_what_was_told() -> None:
    """A fast version of bench/forecast.py, with loose bounds, on whatever database is found."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.forecast", "--small"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if "nothing compared: " in done.stdout:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout + done.stderr
