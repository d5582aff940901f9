"""Command lines as people write them for Nmap: the same thing where we have it, one line of advice elsewhere."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from loopback import Farm, database_file, greeting_after

from engine.cli.habits import HINTS, nmap_habits
from engine.cli.main import cli
from engine.cli.options import ALL_OPTIONS, VALUED
from engine.errors import ConfigError
from engine.model import Target
from engine.targets.selection import Selection, of_family

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    ("written", "ours"),
    [
        ("-sV -Pn -n -r 192.0.2.7:22", "192.0.2.7:22"),
        ("-sVR", ""),
        ("-oX a.xml", "--output-as xml a.xml"),
        ("-oX=a.xml", "--output-as xml a.xml"),
        ("-oN - -oG b", "--output-as text - --output-as grepable b"),
        ("-oA base", "--output-as text base.nmap --output-as grepable base.gnmap --output-as xml base.xml"),
        ("-iL targets.txt", "--input targets.txt"),
        ("--exclude 192.0.2.1,192.0.2.8/29", "--blocklist 192.0.2.1 --blocklist 192.0.2.8/29"),
        ("--excludefile never.txt", "--blocklist never.txt"),
        ("--scan-delay 1s", "--host-delay 1s"),
        ("--exclude=192.0.2.1,192.0.2.8", "--blocklist 192.0.2.1 --blocklist 192.0.2.8"),
        ("--excludefile=a=b --scan-delay=5ms", "--blocklist a=b --host-delay 5ms"),
        ("-v0 -d0", ""),
        ("-T4 -T 2", "-T4 -T 2"),
        ("-Tpolite -T insane", "-T2 -T 5"),
        ("-v3 -d -d2 -dd", "-vvv -vv -vv -vv"),
        ("-p- -p 1-1000", "-p- -p 1-1000"),
        ("-o X -o -sS", "-o X -o -sS"),
        ("--scan-name -A", "--scan-name -A"),
        ("-v -sV -q -sV", "-v -q"),
        ("--output-as xml -oX -oX a", "--output-as xml -oX --output-as xml a"),
        ("-oresults.xml", "-oresults.xml"),
        ("-- -sS -oX", "-- -sS -oX"),
        ("--open -4 -6", "--open -4 -6"),
    ],
)
def test_what_is_written_for_nmap_is_taken_in_our_words(written: str, ours: str) -> None:
    """The values of options, and what stands behind `--`, are nobody's habits."""
    assert nmap_habits(written.split(), VALUED) == ours.split()


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ("-sS", "port scanner"),
        ("-sSV", "port scanner"),
        ("-sU", "/udp"),
        ("-sn", "does not look for hosts"),
        ("-sC", "--post all"),
        ("-A", "services are always asked"),
        ("-O", "ostype"),
        ("--script=banner", "no scripts"),
        ("--script banner", "no scripts"),
        ("-PS80", "never pinged"),
        ("-F", "-p 22,80,443"),
        ("--top-ports 100", "-p 22,80,443"),
        ("--max-rate 100", "--rate"),
        ("-oJ rows.json", ".ndjson"),
        ("-oS rows", "-oX, -oN or -oG"),
        ("-oXrows.xml", "-oX rows.xml"),
        ("-oX", "needs a value"),
        ("-iLtargets", "-iL targets"),
        ("--packet-trace", "--version-trace"),
        ("-oX -oN f", "-oX ./-oN"),
        ("-oA -", "names no file"),
        ("-oX=-a", "names no file"),
        ("--max-retries 3", "--service-timeout"),
        ("--iflist", "--source"),
        ("-V", "probemill --version"),
        ("--min-hostgroup=64", "--max-inflight"),
        ("--privileged", "need no rights"),
        ("--no-stylesheet", "probemill report"),
        ("--exclude-ports 80", "with -p"),
    ],
)
def test_what_we_do_not_do_is_one_line_that_says_what_to_do(
    written: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, no usage, and no file called after a letter."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        cli.main(["scan", "192.0.2.7:22", *written.split()], standalone_mode=False)
    assert not list(tmp_path.iterdir())
    assert advice in str(refused.value) and str(refused.value).startswith(re.split("[ =]", written)[0])
    assert "\n" not in str(refused.value)


def documented(heading: str) -> list[str]:
    """The code spans in the first column of a table of docs/nmap.md."""
    table = (ROOT / "docs" / "nmap.md").read_text(encoding="utf-8").partition(heading)[2].partition("|---|---|\n")[2]
    rows = table.partition("\n\n")[0].splitlines()
    return [span for row in rows for span in re.findall(r"`([^`]+)`", row.replace("\\|", "/").split("|")[1])]


def test_what_the_page_calls_taken_is_taken_and_the_rest_refused() -> None:
    taken, refused = documented("# Coming from Nmap"), documented("What is not done")
    assert len(taken) > 20 and len(refused) > 15
    for span in taken:
        nmap_habits([*span.split(), "value"], VALUED)
    for span in refused:
        with pytest.raises(ConfigError):
            nmap_habits(span.split(), VALUED)


def test_no_advice_hides_an_option_of_ours() -> None:
    ours = {name for option in ALL_OPTIONS for name in option.opts}
    flags = sorted(ours - VALUED.keys())
    assert HINTS and nmap_habits(flags, VALUED) == flags


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return database_file(tmp_path_factory.mktemp("database"))


def scan(database: str, *arguments: str) -> str:
    settings = ["--probes", database, "--matcher", "reference", "--workers", "0", "-q"]
    result = CliRunner().invoke(cli, ["scan", *settings, *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_each_form_is_written_to_the_file_that_was_named(tmp_path: Path, database: str) -> None:
    """Whatever its suffix, beside what -o writes; -oA makes the three that Nmap makes."""
    with Farm(greeting_after(0.0)) as farm:
        names = {form: str(tmp_path / form) for form in ("x", "n", "g", "a", "o.ndjson")}
        out = scan(
            database,
            *("-oX", names["x"], "-oN", names["n"], "-oG", names["g"], "-oA", names["a"], "-o", names["o.ndjson"]),
            *farm.targets("127.0.0.1"),
        )
    texts = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert not out and texts.keys() == {"x", "n", "g", "a.xml", "a.nmap", "a.gnmap", "o.ndjson"}
    assert all(texts[name].startswith("<?xml") for name in ("x", "a.xml"))
    assert all(texts[name].startswith("Scan report for") for name in ("n", "a.nmap"))
    assert all(texts[name].startswith("# probemill") for name in ("g", "a.gnmap"))
    assert json.loads(texts["o.ndjson"])["product"] == "Hello"


def test_open_leaves_out_what_is_not_open(tmp_path: Path, database: str) -> None:
    """Of everything that is written, but for the segments of a state folder, which count every target."""
    report = tmp_path / "rows.ndjson"
    with Farm(greeting_after(0.0)) as farm:
        target = farm.targets("127.0.0.1")[0]
        scan(database, "--open", "--state", str(tmp_path / "run"), "-o", str(report), target, "127.0.0.1:1")
    assert [json.loads(line)["state"] for line in report.read_text().splitlines()] == ["open"]
    kept = CliRunner().invoke(cli, ["convert", "-q", str(tmp_path / "run"), str(tmp_path / "all.ndjson")])
    assert kept.exit_code == 0 and len((tmp_path / "all.ndjson").read_text().splitlines()) == 2


@pytest.mark.parametrize("arguments", [["--open", "--state", "run"], ["-4", "-6"]])
def test_what_contradicts_itself_is_refused(arguments: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"--open|-4 and -6"):
        cli.main(["scan", *arguments, "192.0.2.7:22"], standalone_mode=False)


def test_a_family_leaves_out_the_other_and_no_name_without_an_address() -> None:
    """A name that has no such address gets its row, which says so."""
    admit = of_family(Selection(), 6).admit
    assert admit is not None
    hosts = ["2001:db8::7", "192.0.2.7", ""]
    assert [admit(Target(0, host, 22)) for host in hosts] == [True, False, True]


def test_a_name_is_looked_up_for_the_family_that_was_asked_for(database: str, tmp_path: Path) -> None:
    with Farm(greeting_after(0.0)) as farm:
        port = farm.targets("127.0.0.1")[0].rpartition(":")[2]
        scan(database, "-4", f"localhost:{port}", "-o", str(tmp_path / "row.ndjson"))
    row = json.loads((tmp_path / "row.ndjson").read_text())
    assert (row["ip"], row["host"]) == ("127.0.0.1", "localhost")
