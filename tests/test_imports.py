"""Who may import whom. The house stays as it is drawn: read from the sources with `ast`, compared with this table."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for package in ("engine", "matcher") for path in (ROOT / package).rglob("*.py"))

# The pure core: state machine, plan, timing and everything they stand on. Time, bytes and results are arguments.
PURE = {
    "engine/columns.py",
    "engine/errors.py",
    "engine/fingerprint.py",
    "engine/limits.py",
    "engine/model.py",
    "engine/permutation.py",
    "engine/plan.py",
    "engine/pseudo.py",
    "engine/scan.py",
    "engine/timing.py",
    "engine/trace.py",
}
WORLD = {"asyncio", "time", "random", "select", "threading", "subprocess", "multiprocessing"}
SOCKET_FREE = PURE - {"engine/limits.py"}  # inet_pton there is arithmetic

# Third-party modules and where they may appear.
PLACES = {
    "re2": ("matcher/patterns/",),
    "hyperscan": ("matcher/patterns/",),
    "pcre2": ("matcher/patterns/",),
    "uvloop": ("engine/worker.py",),
    "click": ("engine/cli/",),
    "rich": ("engine/cli/", "engine/progress.py"),
    "prometheus_client": ("engine/metrics.py",),
    "cryptography": ("engine/certificates.py",),
}

# Inside engine: a room may import what stands before the arrow's end. `*` in a value is any module of that package.
LAYERS: dict[str, set[str]] = {
    "engine/plan.py": {"model"},
    "engine/timing.py": set(),
    "engine/fingerprint.py": {"model"},
    "engine/scan.py": {"errors", "fingerprint", "model", "plan", "timing"},
    "engine/driver.py": {"model", "reactor", "scan", "transports.base"},
    "engine/reactor.py": set(),
    "engine/collector.py": {"model", "sinks", "segments", "journal"},
}
SIBLINGS = ("engine/inputs", "engine/sinks", "engine/transports", "engine/runners", "matcher/patterns", "engine/post")
SHARED = {"base", "base_hosts", "base_ports", "output", "pcre", "cache", "__init__"}  # what siblings have in common


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


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_core_is_pure(name: str) -> None:
    roots = {module.partition(".")[0] for module in imports(ROOT / name)}
    assert not roots & WORLD
    assert name not in SOCKET_FREE or "socket" not in roots


@pytest.mark.parametrize("library", sorted(PLACES))
def test_a_library_stays_in_its_room(library: str) -> None:
    users = [name_of(path) for path in MODULES if library in {module.partition(".")[0] for module in imports(path)}]
    assert users, f"nobody imports {library}: take it out of the dependencies"
    assert not [user for user in users if not user.startswith(PLACES[library])]


@pytest.mark.parametrize("path", [path for path in MODULES if name_of(path).startswith("engine/")], ids=name_of)
def test_the_engine_uses_the_matcher_by_its_public_names(path: Path) -> None:
    """Only the offline tools, which are about the matcher itself, may look inside it."""
    inside = {module for module in imports(path) if module.startswith("matcher.") and module.count(".") > 1}
    modules = {m for m in imports(path) if m.startswith("matcher.") and (ROOT / (m.replace(".", "/") + ".py")).exists()}
    if name_of(path) not in {"engine/cli/db.py", "engine/capture.py", "engine/offline.py", "engine/cli/sets.py"}:
        assert not modules | inside


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_a_room_imports_only_what_it_may(name: str) -> None:
    used = {
        module.removeprefix("engine.")
        for module in imports(ROOT / name)
        if module.startswith("engine.") and (ROOT / (module.replace(".", "/") + ".py")).exists()
    }
    assert used <= LAYERS[name]


@pytest.mark.parametrize("folder", SIBLINGS)
def test_siblings_do_not_know_each_other(folder: str) -> None:
    prefix = folder.replace("/", ".") + "."
    known = {path.stem for path in (ROOT / folder).glob("*.py")} - SHARED
    for path in (ROOT / folder).glob("*.py"):
        if path.stem == "__init__":
            continue
        used = {module.removeprefix(prefix).partition(".")[0] for module in imports(path) if module.startswith(prefix)}
        assert not (used & known) - {path.stem}, f"{name_of(path)} imports a sibling"


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
