"""Who may import whom. The house stays as it is drawn: read from the sources with `ast`, compared with this table."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for package in ("engine", "matcher") for path in (ROOT / package).rglob("*.py"))

# The house, wing by wing: what each may import beside its own rooms and the ground floor. Top floor first, and a wing
# names only wings that stand below it in this table. docs/design.md has the drawing, made by docs/generate.py.
GROUND = {
    "errors": "",
    "disk": "",
    "text": "",
    "extras": "errors text",
    "unpack": "",
    "model": "errors",
    "isolated": "",
    "signals": "",
    "threads": "",
    "ahead": "isolated signals",
    "services": "errors",
    "databases": "services",
}
WINGS = {
    "cli": "insight cluster api run offline forecast targets state results post conversation",
    "insight": "offline targets state results conversation",
    "cluster": "api pool state",
    "arrow": "api offline results conversation",
    "api": "pool targets results post conversation transports",
    "run": "pool targets state results",
    "offline": "targets state results post conversation",
    "forecast": "",
    "pool": "targets state results post conversation transports",
    "targets": "state",
    "state": "results",
    "results": "conversation",
    "post": "conversation transports",
    "conversation": "transports",
    "transports": "",
}
MATCHER_GROUND = {"errors": "", "model": "", "outside": ""}
MATCHER_WINGS = {
    "tools": "matcher kin version database patterns regex",
    "confidence": "database regex",
    "kin": "",
    "recog": "matcher patterns regex",
    "matcher": "version patterns",
    "version": "database",
    "database": "patterns",
    "patterns": "regex",
    "regex": "",
}
HOUSES = {"engine": (WINGS, GROUND), "matcher": (MATCHER_WINGS, MATCHER_GROUND)}

# Rooms of one kind, which never import each other, and what of their folder they share.
SIBLINGS = {
    "engine/transports": {
        *("base", "base_http", "base_local", "base_proxy", "crashes", "reactor"),
        *("certificates", "dial", "h2_frames", "quic_packets"),  # what dialogues are made of
    },
    "engine/targets": {
        *("base", "base_hosts", "base_ports", "base_records", "base_spec", "base_text", "base_urls"),
        *("permutation", "prefixes"),
    },
    "engine/results/sinks": {"base", "output"},
    "engine/results/lake": {
        *("base", "base_copy", "base_folder", "base_place", "base_tables", "base_trouble"),
    },
    "engine/pool/runners": {"base"},
    "engine/post": {"base", "base_ntlm", "base_records", "base_texts", "base_rdp", "base_ssh", "base_ssh_exchange"},
    "engine/offline/forms": {"base", "http_text"},
    "matcher/patterns": {"bindings", "cache", "plan"},
}

# The pure rooms: time, bytes and results are arguments. sockets: inet_pton there is arithmetic.
WORLD = {"asyncio", "time", "random", "select", "socket", "threading", "subprocess", "multiprocessing"}
PURE = {
    "": "errors model text unpack",
    "conversation": "driver fingerprint opinion plan questions scan timing trace",
    "forecast": "constants forecast load",
    "offline": "answers checked faults nmap_rows reading records",
    "offline/forms": "base fingerprints http_text masscan shodan zgrab2",
    "pool": "alarm budgets limits owed outbox pace patience proxied pseudo turns",
    "pool/cluster": "engine leases outbox settings shards supplies words",
    "targets": "permutation prefixes",
    "results": "collector columns dialects json_schema rows schema slow_hosts suffixes table",
    "state": "ordinals",
    "transports": "base_http h2_frames quic_packets",
}
ARITHMETIC_WITH_SOCKET = {
    "engine/results/table.py",
    "engine/pool/limits.py",
    "engine/targets/prefixes.py",
}

# Third-party modules and where they may appear.
PLACES = {
    "re2": ("matcher/patterns/bindings.py",),
    "hyperscan": ("matcher/patterns/",),
    "pcre2": ("matcher/patterns/bindings.py",),
    "uvloop": ("engine/pool/serve.py",),
    "click": ("engine/cli/",),
    "rich": ("engine/cli/",),
    "rich_click": ("engine/cli/rendering.py",),
    "textual": ("engine/cli/top/screen.py",),
    "prometheus_client": ("engine/cli/metrics.py", "engine/cli/top/endpoint.py"),
    "cryptography": ("engine/transports/certificates.py", "engine/post/base_ssh_exchange.py"),
    "OpenSSL": ("engine/transports/dtls.py",),
    "idna": ("engine/targets/base_hosts.py",),
    "pyarrow": ("engine/results/", "engine/offline/arrow.py", "engine/arrow.py", "engine/insight/"),
    "duckdb": ("engine/insight/",),
    "altair": ("engine/insight/report/charts.py",),
    "vl_convert": ("engine/insight/report/page.py",),
    "deltalake": ("engine/results/lake/",),
    "pyiceberg": ("engine/results/lake/",),
    "obstore": ("engine/results/lake/",),
    "confluent_kafka": ("engine/results/lake/kafka.py",),
    "psycopg": ("engine/results/lake/postgres.py",),
    "ray": ("engine/pool/runners/ray.py",),
    "aioquic": ("engine/transports/quic.py",),
    "pylsqpack": ("engine/transports/quic.py",),
    "h2": ("engine/transports/h2_dialogue.py",),
}

# Rooms that are about the matcher itself, and may look inside it.
INSIDE_THE_MATCHER = {
    "engine/cli/db.py",
    "engine/cli/db_growth.py",
    *(
        f"engine/insight/learn/{name}.py"
        for name in (*("clusters", "judging", "kinds", "making", "naming", "proposing", "shapes", "stored", "writing"),)
    ),
    "engine/offline/capture.py",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, dotted, wherever in the file it does so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def wing_of(path: Path) -> str:
    """`pool` for everything below engine/pool/, `run` for engine/run.py."""
    return path.relative_to(ROOT).with_suffix("").parts[1]


def wings_used(path: Path) -> set[str]:
    """The wings of its own package that a file imports from, its own left out."""
    package = path.relative_to(ROOT).parts[0]
    wings, ground = HOUSES[package]
    parts = [module.split(".") for module in imports(path)]
    return {part[1] for part in parts if part[0] == package and len(part) > 1} & {*wings, *ground} - {wing_of(path)}


def files_of(package: str, wing: str) -> list[Path]:
    place = ROOT / package / wing
    return sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]


def test_every_import_is_absolute() -> None:
    """One way to write a module's name."""
    relative = [
        name_of(path)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


@pytest.mark.parametrize("path", [path for path in MODULES if name_of(path).startswith("matcher/")], ids=name_of)
def test_the_matcher_knows_no_network_no_clock_and_no_engine(path: Path) -> None:
    roots = {module.partition(".")[0] for module in imports(path)}
    assert not roots & {"engine", "asyncio", "socket", "time"}


@pytest.mark.parametrize("name", [Path("engine", wing, name) for wing in PURE for name in PURE[wing].split()], ids=str)
def test_the_core_is_pure(name: Path) -> None:
    path = ROOT / name.with_suffix(".py")
    roots = {module.partition(".")[0] for module in imports(path)} & WORLD
    assert not roots - ({"socket"} if name_of(path) in ARITHMETIC_WITH_SOCKET else set())


@pytest.mark.parametrize("library", sorted(PLACES))
def test_a_library_stays_in_its_room(library: str) -> None:
    users = [name_of(path) for path in MODULES if library in {module.partition(".")[0] for module in imports(path)}]
    assert users, f"nobody imports {library}: take it out of the dependencies"
    assert not [user for user in users if not user.startswith(PLACES[library])]
    assert not [place for place in PLACES[library] if not any(user.startswith(place) for user in users)]


@pytest.mark.parametrize("path", [path for path in MODULES if name_of(path).startswith("engine/")], ids=name_of)
def test_the_engine_uses_the_matcher_by_its_public_names(path: Path) -> None:
    """But for the rooms in the table, which do look inside."""
    modules = {module for module in imports(path) if module.startswith("matcher.")}
    inside = {module for module in modules if (ROOT / module.replace(".", "/")).with_suffix(".py").exists()}
    assert bool(inside) == (name_of(path) in INSIDE_THE_MATCHER)


@pytest.mark.parametrize("package", HOUSES)
def test_every_wing_is_drawn(package: str) -> None:
    """A new folder, or a new file at the root of a package, gets its line in the table."""
    wings, ground = HOUSES[package]
    modules = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
    assert modules | folders == {*wings, *ground}


@pytest.mark.parametrize("package", HOUSES)
def test_the_table_is_a_staircase(package: str) -> None:
    """No wing names one that stands above it, so no import can run back up."""
    wings, ground = HOUSES[package]
    for table in (wings, dict(reversed(ground.items()))):
        names = list(table)
        for at, name in enumerate(names):
            assert set(table[name].split()) <= set(names[at + 1 :]), name


@pytest.mark.parametrize(("package", "wing"), [(package, wing) for package in HOUSES for wing in HOUSES[package][0]])
def test_a_wing_imports_what_it_may(package: str, wing: str) -> None:
    """Nothing else, and all of it: what nobody uses any more leaves the table."""
    wings, ground = HOUSES[package]
    used = {name for path in files_of(package, wing) for name in wings_used(path)}
    assert used - ground.keys() == set(wings[wing].split())


@pytest.mark.parametrize(("package", "room"), [(package, room) for package in HOUSES for room in HOUSES[package][1]])
def test_the_ground_floor_stands_by_itself(package: str, room: str) -> None:
    assert wings_used(ROOT / package / f"{room}.py") == set(HOUSES[package][1][room].split())


@pytest.mark.parametrize("folder", SIBLINGS)
def test_siblings_do_not_know_each_other(folder: str) -> None:
    prefix = folder.replace("/", ".") + "."
    """Nor is anything called shared that no sibling shares."""
    siblings = {path.stem for path in (ROOT / folder).glob("*.py")} - SIBLINGS[folder] - {"__init__"}
    shared: set[str] = set()
    for path in (ROOT / folder).glob("*.py"):
        used = {module.removeprefix(prefix).partition(".")[0] for module in imports(path) if module.startswith(prefix)}
        if path.stem != "__init__":
            assert not (used & siblings) - {path.stem}, f"{name_of(path)} imports a sibling"
            shared |= used - {path.stem}
    assert shared >= SIBLINGS[folder]


def test_only_the_command_line_prints_and_exits() -> None:
    for path in MODULES:
        if name_of(path).startswith("engine/cli/"):
            continue
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not calls & {"print", "exit", "quit"}, name_of(path)
