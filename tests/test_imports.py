"""Who may import whom. The house stays as it is drawn: read from the sources with `ast`, compared with this table."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for package in ("engine", "matcher") for path in (ROOT / package).rglob("*.py"))

# The pure core: state machine, plan, timing and everything they stand on. Time, bytes and results are arguments.
PURE = {
    "engine/results/collector.py",
    "engine/results/columns.py",
    "engine/state/digest.py",
    "engine/conversation/driver.py",
    "engine/errors.py",
    "engine/conversation/fingerprint.py",
    "engine/pool/limits.py",
    "engine/model.py",
    "engine/state/ordinals.py",
    "engine/targets/permutation.py",
    "engine/conversation/plan.py",
    "engine/targets/prefixes.py",
    "engine/pool/pseudo.py",
    "engine/conversation/scan.py",
    "engine/results/schema.py",
    "engine/conversation/timing.py",
    "engine/conversation/trace.py",
}
WORLD = {"asyncio", "time", "random", "select", "threading", "subprocess", "multiprocessing"}
SOCKET_FREE = PURE - {"engine/pool/limits.py", "engine/targets/prefixes.py"}  # inet_pton there is arithmetic

# Third-party modules and where they may appear.
PLACES = {
    "re2": ("matcher/patterns/",),
    "hyperscan": ("matcher/patterns/",),
    "pcre2": ("matcher/patterns/",),
    "uvloop": ("engine/pool/serve.py",),
    "click": ("engine/cli/",),
    "rich": ("engine/cli/", "engine/cli/progress.py"),
    "prometheus_client": ("engine/cli/metrics.py",),
    "cryptography": ("engine/transports/certificates.py",),
}

# What each module may import of its own package, and nothing else. A folder's name stands for what its __init__ offers.
MATCHER: dict[str, set[str]] = {
    "errors": set(),
    "model": set(),
    # patterns
    "regex_ast": {"errors"},
    "ruby": {"errors"},
    "cost": {"regex_ast"},
    "inclusion": {"regex_ast"},
    "translate": {"regex_ast"},
    "literals": {"regex_ast", "translate"},
    # databases
    "parser": {"errors", "model"},
    "merge": {"model"},
    "samples": {"errors", "model"},
    "version": {"model", "parser"},
    "matcher": {"model", "patterns", "patterns.cache", "patterns.pcre", "version"},
    "database": {"errors", "merge", "model", "parser", "patterns", "patterns.cache", "patterns.pcre"},
    "recog": {"errors", "matcher", "model", "patterns", "patterns.cache", "patterns.pcre", "ruby"},
    # tools
    "explain": {"model", "patterns", "patterns.pcre", "version"},
    "propose": {"database", "explain", "samples"},
    "lint": {
        "cost",
        "database",
        "errors",
        "explain",
        "inclusion",
        "matcher",
        "model",
        "parser",
        "patterns",
        "patterns.pcre",
        "regex_ast",
        "samples",
        "version",
    },
}
ENGINE: dict[str, set[str]] = {
    "errors": set(),
    "model": set(),
    "signals": set(),
    "services": {"errors"},
    "databases": {"services"},
    "run": {"errors", "model", "pool", "results", "state", "targets"},
    "api": {"conversation", "errors", "model", "pool", "post", "results", "targets", "transports"},
}
LAYERS = {"engine": ENGINE, "matcher": MATCHER}
# The same for folders; what their modules import of each other is the matter of SIBLINGS.
FOLDERS: dict[str, set[str]] = {
    "engine/conversation": {"databases", "errors", "model", "transports"},
    "engine/offline": {"databases", "errors", "model", "results", "signals", "targets"},
    "engine/pool": {"conversation", "errors", "model", "post", "signals", "targets", "transports"},
    "engine/post": {"conversation", "errors", "model", "transports"},
    "engine/results": {"conversation", "errors", "model"},
    "engine/state": {"errors", "model", "results"},
    "engine/targets": {"errors", "model", "state"},
    "engine/transports": {"errors", "model"},
    "matcher/patterns": {"errors", "literals", "model", "regex_ast", "translate"},
}
SIBLINGS = (
    "engine/targets",
    "engine/results/sinks",
    "engine/transports",
    "engine/pool/runners",
    "matcher/patterns",
    "engine/post",
)
SHARED = {
    "base",
    "base_hosts",
    "base_ports",
    "output",
    "pcre",
    "cache",
    "reactor",
    "permutation",
    "http",
    "__init__",
}  # what siblings have in common


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


def rooms(path: Path) -> set[str]:
    """What a file imports of its own package: `scan`, `post`, `post.base`."""
    prefix = path.relative_to(ROOT).parts[0] + "."
    found = set()
    for module in imports(path):
        place = ROOT / module.replace(".", "/")
        if module.startswith(prefix) and (place.is_dir() or place.with_suffix(".py").exists()):
            found.add(module.removeprefix(prefix))
    return found


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
    if name_of(path) not in {
        "engine/cli/db.py",
        "engine/offline/capture.py",
        "engine/offline/identify.py",
        "engine/cli/sets.py",
    }:
        assert not modules | inside


@pytest.mark.parametrize("package", sorted(LAYERS))
def test_every_room_is_drawn(package: str) -> None:
    """A new module gets its line in the table of its package, a new folder its line in FOLDERS."""
    assert {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"} == set(LAYERS[package])
    folders = {name_of(path.parent) for path in (ROOT / package).glob("*/__init__.py")}
    assert folders <= {*FOLDERS, "engine/cli"}, "only the command line may import everything"


@pytest.mark.parametrize("name", [f"{package}/{name}" for package, layers in LAYERS.items() for name in layers])
def test_a_room_imports_only_what_it_may(name: str) -> None:
    package, _, module = name.partition("/")
    assert {room.partition(".")[0] if package == "engine" else room for room in rooms(ROOT / f"{name}.py")} <= LAYERS[
        package
    ][module]


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_a_folder_imports_only_what_it_may(folder: str) -> None:
    own = folder.partition("/")[2]
    for path in (ROOT / folder).rglob("*.py"):
        assert {room.partition(".")[0] for room in rooms(path)} - {own} <= FOLDERS[folder], path.name


def test_only_the_command_line_knows_the_command_line() -> None:
    for path in (ROOT / "engine").rglob("*.py"):
        if path.parent.name != "cli":
            assert not [room for room in rooms(path) if room.partition(".")[0] == "cli"], path.name


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
