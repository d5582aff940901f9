"""What a scan will take: a `Question` and measured `Constants` in, a `Forecast` out. Pure arithmetic.

Each figure has its derivation: a formula with the numbers put in, and where its constants are from. Whatever could hold
the scan up (`bounds`) would take a time by itself; the one that takes longest decides. `_seconds` makes the whole of
it: where slots decide they are full until the end, anything else lets the last target in and then waits for it.
"""

from collections.abc import Callable, Iterable, Sequence
from math import inf
from operator import attrgetter

from msgspec import Struct
from msgspec.structs import replace

from engine.errors import ConfigError
from engine.forecast.constants import REFUSED, UNANSWERED, Constants
from engine.forecast.load import Load, Question, loads

MOST_MACHINES = 1 << 20
HOUR_S = 3600.0
MOST_TEXT = 300  # characters of a formula that names every port
WIRE = {
    "connections": "",
    "packets sent": "",
    "packets received": "",
    "bytes sent": "bytes",
    "bytes received": "bytes",
}
UNTIL_THE_END = {"slots", "per host"}  # bounds that hold a target from its beginning to its end


class Figure(Struct, frozen=True):
    """formula: with the numbers put in. source: where its constants are from."""

    name: str
    value: float
    unit: str
    formula: str
    source: str


class Bound(Struct, frozen=True):
    """What could hold the scan up: the seconds that it would take alone, and the targets per second of that."""

    name: str
    seconds: float
    targets_per_s: float
    formula: str
    source: str


class Forecast(Struct, frozen=True):
    """binding: the name of the bound that decides."""

    figures: tuple[Figure, ...]
    bounds: tuple[Bound, ...]
    binding: str

    def value(self, name: str) -> float:
        return next(figure.value for figure in self.figures if figure.name == name)


def forecast(question: Question, constants: Constants, machines: int) -> Forecast:
    """With so many machines. Raises ConfigError where there is nothing to scan, or too little memory for a worker."""
    work = loads(question, constants)
    bounds = bounds_of(question, constants, work, machines)
    binding = max(bounds, key=lambda bound: bound.seconds)
    figures = (*_totals(question, work), *_course(question, constants, work, (bounds, binding), machines))
    return Forecast(figures, bounds, binding.name)


def machines_for(question: Question, constants: Constants, hours: float) -> int:
    """The fewest machines that are done within so many hours. Raises ConfigError where no number of them is."""
    work = loads(question, constants)

    def seconds(machines: int) -> float:
        return _seconds(constants, work, bounds_of(question, constants, work, machines))[0]

    if (least_s := seconds(MOST_MACHINES)) > hours * HOUR_S:
        bounds = bounds_of(question, constants, work, MOST_MACHINES)
        name = max(bounds, key=lambda bound: bound.seconds).name
        raise ConfigError(
            f"--hours {hours:g}: no number of machines is done by then; {name} alone makes it {least_s / HOUR_S:,.3g}"
        )
    few, many = 0, MOST_MACHINES  # `few` are too few, `many` are enough
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if seconds(middle) <= hours * HOUR_S else (middle, many)
    return many


def bounds_of(question: Question, constants: Constants, work: Sequence[Load], machines: int) -> tuple[Bound, ...]:
    """All there are, those of a limit that nobody set left out. Raises ConfigError."""
    targets = sum(load.count for load in work)
    if not targets:
        raise ConfigError("no targets: there is nothing to plan")
    slots, slots_how = _slots(question, constants, machines)
    worker_s, driver_s = _sum(work, _worker_s), _sum(work, _driver_s)
    held_s, connections = _sum(work, _held_s), _sum(work, attrgetter("unit.connections"))
    found: list[Bound] = []

    def bound(name: str, amount: float, unit: str, capacity: float, how: str, *, source: str) -> None:
        seconds = amount / capacity
        formula = f"{_told(amount)} {unit} ÷ ({how}) = {_told(seconds)} s"
        found.append(Bound(name, seconds, targets / seconds if seconds else inf, formula, source))

    count = f"{machines:,} machines × " if machines != 1 else ""
    cores, workers = machines * question.cores, machines * question.workers
    both = "measured: worker_us, driver_us, match_us; --cores"
    bound("CPU", worker_s + driver_s, "CPU s", cores, f"{count}{question.cores} cores", source=both)
    how = f"{count}{question.workers} workers"
    bound("workers", worker_s, "CPU s", workers, how, source="measured: worker_us, match_us; --workers")
    bound("driver", driver_s, "CPU s", machines, f"{count}1 process", source="measured: driver_us")
    bound("slots", held_s, "slot s", slots, slots_how, source="Little's law: rate × time in flight ≤ slots")
    if question.per_host:
        how = f"{question.hosts:,} hosts × {question.per_host}"
        bound("per host", held_s, "slot s", question.hosts * question.per_host, how, source="--per-host")
    if question.rate:
        bound("rate", connections, "connections", question.rate, f"{question.rate:,g}/s", source="--rate")
    ports = machines * question.sources * constants.ports * targets / constants.time_wait_s
    how = f"{count}{question.sources} sources × {constants.ports:,} ports × {targets:,.0f} destinations"
    how += f" ÷ {constants.time_wait_s:g} s of TIME_WAIT"
    bound("ports", connections, "connections", ports, how, source="measured: ports, time_wait_s; --source")
    if question.bandwidth:
        most = max(_sum(work, attrgetter("unit.bytes_sent")), _sum(work, attrgetter("unit.bytes_received")))
        how = f"{count}{question.bandwidth / 8:,.0f} bytes/s"
        bound("bandwidth", most, "bytes", machines * question.bandwidth / 8, how, source="--bandwidth")
    return tuple(found)


def _slots(question: Question, constants: Constants, machines: int) -> tuple[float, str]:
    """Conversations at once over all machines, and how that comes about. Raises ConfigError where there is none."""
    rest = constants.driver_bytes + question.workers * constants.worker_bytes
    by_memory = (question.memory - rest) // max(1, constants.conversation_bytes)
    if by_memory < 1:
        raise ConfigError(f"--memory: {question.workers} workers take {rest / 1e6:,.0f} MB before they hold anything")
    asked = question.slots or machines * constants.slots
    if machines * by_memory < asked:
        return machines * by_memory, f"{machines * by_memory:,} slots, for which there is memory"
    return asked, f"{asked:,} slots" if question.slots else f"{machines:,} × {constants.slots:,} slots"


def _seconds(constants: Constants, work: Sequence[Load], bounds: Sequence[Bound]) -> tuple[float, str]:
    """How long all of it takes, and how that comes about."""
    longest_s = max(load.held_s for load in work)
    lets_in = max((bound for bound in bounds if bound.name not in UNTIL_THE_END), key=attrgetter("seconds"))
    holds = max((bound for bound in bounds if bound.name in UNTIL_THE_END), key=attrgetter("seconds"))
    start = f"{constants.start_s:g} s to start"
    if lets_in.seconds + longest_s > holds.seconds:
        how = f"{start} + {_told(lets_in.seconds)} s by {lets_in.name} + {_told(longest_s)} s for the last"
        return constants.start_s + lets_in.seconds + longest_s, how
    return constants.start_s + holds.seconds, f"{start} + {_told(holds.seconds)} s by {holds.name}"


def _totals(question: Question, work: Sequence[Load]) -> Iterable[Figure]:
    """What all machines together do."""
    by_port = " + ".join(f"port {port} {count:,}" for port, count in question.targets.items())
    yield Figure("targets", sum(question.targets.values()), "", _short(by_port), "targets, or --count")
    for name, source, group in (
        ("services", "--answering, --mix", [load for load in work if load.is_service]),
        ("refused", "--answering, --closed", [load for load in work if load.kind == REFUSED]),
        ("unanswered", "--answering, --closed", [load for load in work if load.kind == UNANSWERED]),
    ):
        parts = " + ".join(f"{load.kind} {load.count:,.0f}" for load in group)
        yield Figure(name, sum(load.count for load in group), "", parts or "none", source)
    for name, unit in WIRE.items():
        field = name.replace(" ", "_")
        yield _total(name, work, attrgetter("unit." + field), unit, f"measured: {field}")
    cpu = _total(
        "CPU",
        work,
        lambda load: (_worker_s(load) + _driver_s(load)) * 1e6,
        "core hours",
        "measured: worker_us, driver_us, match_us",
    )
    yield replace(cpu, value=cpu.value / 1e6 / HOUR_S, formula=f"({cpu.formula}) µs ÷ 3,600,000,000")
    yield _total("stored", work, attrgetter("unit.row_bytes"), "bytes", "measured: row_bytes")
    held = _total("held", work, _held_s, "slot s", "--rtt, --timing, --connect-timeout; measured: windows")
    how = "; ".join(dict.fromkeys(f"{load.kind} {load.held_s:,.4g} = {load.how}" for load in work))
    yield replace(held, formula=f"{held.formula}; {how}")


def _course(
    question: Question,
    constants: Constants,
    work: Sequence[Load],
    bounded: tuple[Sequence[Bound], Bound],
    machines: int,
) -> Iterable[Figure]:
    """How it goes, and what each machine has to have. bounded: by what, and which of it decides."""
    bounds, binding = bounded
    targets = sum(load.count for load in work)
    services = sum(load.count for load in work if load.is_service)
    seconds, how = _seconds(constants, work, bounds)
    hours = seconds / HOUR_S
    yield Figure("machines", machines, "", f"{machines:,}", "--machines, or --hours")
    yield Figure("hours", hours, "h", f"({how}) ÷ 3,600", "measured: start_s; the bound that decides")
    yield Figure("speed", targets / seconds, "targets/s", f"{targets:,.0f} ÷ {_told(seconds)} s", "targets, hours")
    slots, _ = _slots(question, constants, machines)
    held_s = _sum(work, _held_s)
    flying = min(slots, held_s / binding.seconds, targets) / machines
    how = f"{_told(held_s)} slot s ÷ {_told(binding.seconds)} s ÷ {machines:,}, at most {min(slots, targets):,.0f}"
    yield Figure("in flight", flying, "a machine", how, "Little's law")
    memory = constants.driver_bytes + question.workers * constants.worker_bytes + flying * constants.conversation_bytes
    how = (
        f"{constants.driver_bytes:,} + {question.workers} × {constants.worker_bytes:,} "
        f"+ {flying:,.0f} × {constants.conversation_bytes:,}"
    )
    yield Figure("memory", memory, "bytes a machine", how, "measured: driver_bytes, worker_bytes, conversation_bytes")
    machine_hours = machines * hours
    yield Figure("machine hours", machine_hours, "h", f"{machines:,} × {_told(hours)} h", "machines, hours")
    if services:
        how = f"{_told(machine_hours)} h ÷ {services:,.0f} × 1,000,000"
        yield Figure(
            "a million services", machine_hours / services * 1e6, "machine hours", how, "machine hours, services"
        )
    if question.price:
        cost = machine_hours * question.price
        yield Figure("cost", cost, "", f"{_told(machine_hours)} h × {question.price:g}", "--price")
        if services:
            how = f"{_told(cost)} ÷ {services:,.0f} × 1,000,000"
            yield Figure("cost of a million services", cost / services * 1e6, "", how, "cost, services")


def _worker_s(load: Load) -> float:
    return load.unit.worker_us / 1e6


def _driver_s(load: Load) -> float:
    return load.unit.driver_us / 1e6


def _held_s(load: Load) -> float:
    return load.held_s


def _sum(work: Iterable[Load], each: Callable[[Load], float]) -> float:
    return sum(load.count * each(load) for load in work)


def _total(name: str, work: Sequence[Load], each: Callable[[Load], float], unit: str, source: str) -> Figure:
    terms = (f"{load.kind} {load.count:,.0f} × {each(load):,.4g}" for load in work)
    return Figure(name, _sum(work, each), unit, " + ".join(terms), source)


def _told(value: float) -> str:
    """To four digits, large numbers whole."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _short(text: str) -> str:
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT].rpartition(" + ")[0] + " + ..."
