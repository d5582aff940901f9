"""Records of benchmarks: what several runs say together, and when a change is news. The figures are made up."""

import msgspec
import pytest

from bench.figures import Figure
from bench.machine import Machine
from bench.record import Benchmark, Failed, compare, measured, run_all
from bench.recorded import Recorded, Run, Verdict, append, comparable, goodness, last_of, read, recorded, verdict

HERE = Machine("Maker Chip(R) 7 CPU @ 2.00GHz", 2, "Linux 6.1", "3.11.7")
THERE = Machine("Other Chip", 8, "Linux 6.1", "3.12.0")


def run(machine: Machine = HERE, *, commit: str = "one", time: str = "2026-01-01T00:00:00+00:00") -> Run:
    return Run(commit, True, time, machine, {"msgspec": "1"})


def line(*ratios: float, where: Run | None = None, name: str = "scan.banner", corpus: str = "farm") -> Recorded:
    """A figure of 100 a second with these ratios to its yardstick."""
    runs = [Figure(name, 100.0, "rows/s", "more", 100.0 / ratio, corpus=corpus) for ratio in ratios]
    return recorded(runs, where or run())


def bare(*seconds: float, where: Run | None = None) -> Recorded:
    """A figure without a yardstick."""
    return recorded([Figure("start.warm", second, "s") for second in seconds], where or run())


def test_a_line_keeps_the_median_and_the_ends_of_its_runs() -> None:
    kept = line(0.5, 0.8, 0.6)
    assert (kept.good, kept.low, kept.high, kept.runs) == (0.6, 0.5, 0.8, 3)
    assert kept.figure.ratio == pytest.approx(0.6, rel=1e-4)
    assert kept.spread == pytest.approx(0.5)


def test_the_ratio_is_kept_where_less_is_better() -> None:
    kept = recorded([Figure("match", 10, "us", reference=reference) for reference in (500.0, 1000.0, 700.0)], run())
    assert kept.good == 70
    assert kept.figure.ratio == pytest.approx(70)


def test_larger_is_better_whatever_the_figure() -> None:
    assert goodness(Figure("a", 2, "s")) > goodness(Figure("a", 3, "s"))
    assert goodness(Figure("a", 3, "/s", "more")) > goodness(Figure("a", 2, "/s", "more"))
    assert goodness(Figure("a", 2, "s", reference=8)) > goodness(Figure("a", 2, "s", reference=4))
    assert goodness(Figure("a", 0, "s")) == 0


def test_no_runs_make_no_line() -> None:
    with pytest.raises(ValueError, match="no runs"):
        recorded([], run())


@pytest.mark.parametrize(
    ("now", "then", "meaning"),
    [
        ((0.50, 0.51, 0.52), (0.60, 0.61, 0.62), Verdict.REGRESSION),
        ((0.60, 0.61, 0.62), (0.50, 0.51, 0.52), Verdict.BETTER),
        ((0.59, 0.60, 0.601), (0.602, 0.61, 0.62), Verdict.NOISE),  # apart, but by less than the threshold
        ((0.40, 0.50, 0.61), (0.60, 0.61, 0.62), Verdict.NOISE),  # one run of now was as good as one of then
        ((0.60, 0.70, 0.80), (0.50, 0.55, 0.65), Verdict.NOISE),
    ],
)
def test_news_is_beyond_the_threshold_and_outside_both_spreads(
    now: tuple[float, ...], then: tuple[float, ...], meaning: Verdict
) -> None:
    assert verdict(line(*now), line(*then))[0] is meaning


def test_the_change_is_that_of_the_median() -> None:
    assert verdict(line(0.5), line(1.0)) == (Verdict.REGRESSION, pytest.approx(-0.5))
    assert verdict(line(0.5), None) == (Verdict.NEW, 0.0)


def test_a_slow_hour_is_no_regression() -> None:
    """Half as many rows beside half as fast a yardstick is the same figure."""
    slow = recorded([Figure("scan.banner", 50, "rows/s", "more", 100, corpus="farm")], run())
    assert verdict(slow, line(0.5)) == (Verdict.NOISE, pytest.approx(0.0))


def test_without_a_yardstick_values_are_compared_on_one_machine_only() -> None:
    assert verdict(bare(2.0), bare(1.0))[0] is Verdict.REGRESSION
    assert comparable(bare(2.0), bare(1.0))
    assert not comparable(bare(2.0), bare(1.0, where=run(THERE)))
    assert comparable(line(0.5), line(0.6, where=run(THERE)))
    assert not comparable(line(0.5), line(0.6, corpus="another"))


def test_the_last_line_of_this_machine_counts_and_another_machine_only_where_there_is_none() -> None:
    early, late = line(0.5, where=run(time="2026-01-01")), line(0.6, where=run(time="2026-01-02"))
    elsewhere = line(0.7, where=run(THERE, time="2026-01-03"))
    now = line(0.6)
    assert last_of(now, {HERE.name: [early, late], THERE.name: [elsewhere]}) is late
    assert last_of(now, {THERE.name: [elsewhere]}) is elsewhere
    assert last_of(now, {}) is None
    assert last_of(bare(1.0), {THERE.name: [bare(1.0, where=run(THERE))]}) is None


def test_a_record_is_read_as_it_was_written_and_never_rewritten(tmp_path) -> None:  # type: ignore[no-untyped-def]
    append([line(0.5), line(0.5, where=run(THERE))], tmp_path)
    append([line(0.6)], tmp_path)
    assert read(tmp_path) == {HERE.name: [line(0.5), line(0.6)], THERE.name: [line(0.5, where=run(THERE))]}
    (tmp_path / "broken.ndjson").write_text("{}\n")
    with pytest.raises(msgspec.DecodeError):
        read(tmp_path)


def test_a_machine_is_named_by_its_chip_and_cores() -> None:
    assert HERE.name == "maker-chip-7-2"
    assert THERE.name == "other-chip-8"


def test_only_a_regression_on_this_machine_fails(capsys: pytest.CaptureFixture[str]) -> None:
    worse = [line(0.5)]
    assert compare(worse, {HERE.name: [line(0.6)]}) == 1
    assert "regression" in capsys.readouterr().out
    assert compare(worse, {HERE.name: [line(0.5)]}) == 0
    assert compare(worse, {}) == 0
    assert compare(worse, {THERE.name: [line(0.6, where=run(THERE))]}) == 0
    assert "no record of this machine" in capsys.readouterr().out


def test_a_benchmark_that_is_not_there_is_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_all([Benchmark("none", "bench.nothing_of_that_name")], 2) == ([], [])
    assert "bench.nothing_of_that_name is not there" in capsys.readouterr().out


def test_nothing_is_taken_from_a_benchmark_that_fails() -> None:
    broken = Benchmark("broken", "bench.record", ("--only", "unknown"))
    with pytest.raises(Failed, match=r"(?s)broken: exit code 2\n.*no benchmark is named unknown"):
        measured(broken)
    found, failures = run_all([broken], 1)
    assert not found
    assert len(failures) == 1


def test_the_records_that_are_kept_can_be_read_and_name_no_paths() -> None:
    for name, lines in read().items():
        assert {one.run.machine.name for one in lines} == {name}
        assert "/home" not in msgspec.json.encode(lines).decode()
