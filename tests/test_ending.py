"""How a run ended: the words, and where they are told."""

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from loopback import DATABASE, Farm, database_file, greeting_after

from engine.cli.main import cli
from engine.results.ending import Ending

PATIENCE_S = 60.0
START = "import sys; sys.argv[0] = 'probemill'; from engine.cli.start import main; main()"


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (Ending(), ""),
        (Ending(read=22, done=22), ""),
        (Ending(why="interrupted", read=22, done=22), "interrupted"),
        (Ending(why="interrupted", read=22, done=17, not_reached=5), "interrupted: 17 of 22 done, 5 not reached"),
        (Ending(read=22, done=17, not_reached=5), "17 of 22 done, 5 not reached"),
        (
            Ending(why="interrupted", read=2000, done=1000, not_reached=1000, names=1, unread=True),
            "interrupted: 1,000 of 2,000 done, 1,000 not reached; 1 host name was not looked up; "
            "the input was not read to its end",
        ),
        (
            Ending(why="the deadline has passed", read=22, done=22, cut=5),
            "the deadline has passed: it cut 5 of 22 short",
        ),
        (Ending(why="the deadline has passed", names=2), "the deadline has passed: 2 host names were not looked up"),
    ],
)
def test_words(ending: Ending, words: str) -> None:
    """Why, then what is missing; nothing where nothing is."""
    assert ending.words() == words


class Run:
    """Seventeen services that answer, five that do not, and a scan of them with a state folder and outputs."""

    def __init__(self, folder: Path, quick: Farm, tarpit: Farm) -> None:
        self.folder = folder
        self.targets = quick.targets(*(f"127.3.0.{number}" for number in range(1, 18)))
        self.targets += tarpit.targets(*(f"127.3.0.{number}" for number in range(1, 6)))
        self._database = database_file(folder, DATABASE.replace(b"totalwaitms 400", b"totalwaitms 20000"))

    def start(self, *options: str) -> "subprocess.Popen[bytes]":
        outputs = [word for form in ("txt", "xml", "gnmap") for word in ("-o", str(self.folder / f"out.{form}"))]
        state = ["--state", str(self.folder / "state"), "--segment-seconds", "1s"]
        command = [sys.executable, "-c", START, "scan", "--probes", self._database, "--workers", "1"]
        return subprocess.Popen([*command, *outputs, *state, *options, *self.targets], stderr=subprocess.PIPE)

    def until_known(self, process: "subprocess.Popen[bytes]") -> None:
        """The answers are there, and committed; the silent ones are being waited for."""
        until = time.monotonic() + PATIENCE_S
        while self.state()["rows"] < 17:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.02)

    def state(self) -> dict[str, Any]:
        said = CliRunner().invoke(cli, ["state", str(self.folder / "state")])
        return json.loads(said.stdout) if said.stdout else {"rows": 0}  # type: ignore[no-any-return]


def test_an_interrupted_run_says_so_everywhere(tmp_path: Path) -> None:
    """In each output, in the journal and to the user, in the same words; who goes on ends it well."""
    words = "interrupted: 17 of 22 done, 5 not reached"
    with Farm(greeting_after(0.0)) as quick, Farm(greeting_after(90.0)) as tarpit:
        run = Run(tmp_path, quick, tarpit)
        process = run.start()
        run.until_known(process)
        assert run.state()["ended"] is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130
        assert said.decode() == f"probemill: {words}; the same command with --resume goes on\n"
        ended = run.state()["ended"]
        assert (ended["words"], ended["read"], ended["done"], ended["not_reached"]) == (words, 22, 17, 5)
        text = (tmp_path / "out.txt").read_text()
        assert text.endswith(f"\nNot the whole scan: {words}\n")
        finished = ET.parse(tmp_path / "out.xml").find("runstats/finished")
        assert finished is not None
        assert (finished.get("exit"), finished.get("errormsg")) == ("error", words)
        assert (finished.get("summary") or "").startswith(words)
        assert (tmp_path / "out.gnmap").read_text().endswith(f"({words})\n")
        assert text.count("open") == 17

        process = run.start("--resume", "--service-timeout", "1s")
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
        ended = run.state()["ended"]
        assert (ended["words"], ended["read"], ended["done"], ended["not_reached"]) == ("done", 22, 22, 0)


def test_a_deadline_that_cuts_targets_short_is_told_everywhere(tmp_path: Path) -> None:
    """They have rows, so there is nothing to go on with; the exit code is 1."""
    words = "the deadline has passed: it cut 5 of 22 short"
    with Farm(greeting_after(0.0)) as quick, Farm(greeting_after(90.0)) as tarpit:
        run = Run(tmp_path, quick, tarpit)
        process = run.start("--deadline", "4s")
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 1
        assert said.decode() == f"probemill: {words}\n"
        ended = run.state()["ended"]
        assert (ended["words"], ended["done"], ended["not_reached"], ended["cut"]) == (words, 22, 0, 5)
        assert (tmp_path / "out.txt").read_text().endswith(f"\nNot the whole scan: {words}\n")
        finished = ET.parse(tmp_path / "out.xml").find("runstats/finished")
        assert finished is not None
        assert (finished.get("exit"), finished.get("errormsg")) == ("error", words)
        assert (tmp_path / "out.gnmap").read_text().endswith(f"({words})\n")


def test_a_budget_of_a_service_is_not_the_deadline_of_the_run(tmp_path: Path) -> None:
    """Its rows say `budget`, too, and the run was whole."""
    with Farm(greeting_after(0.0)) as quick, Farm(greeting_after(90.0)) as tarpit:
        run = Run(tmp_path, quick, tarpit)
        process = run.start("--deadline", "50s", "--service-timeout", "1s")
        _, said = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, said.decode()) == (0, "")
        assert (run.state()["ended"]["words"], run.state()["ended"]["cut"]) == ("done", 0)


def test_a_killed_run_has_not_ended(tmp_path: Path) -> None:
    """Nobody was there to say so, also where a run before had ended."""
    with Farm(greeting_after(0.0)) as quick, Farm(greeting_after(90.0)) as tarpit:
        run = Run(tmp_path, quick, tarpit)
        for options in ([], ["--resume"]):
            process = run.start(*options)
            run.until_known(process)
            os.kill(process.pid, signal.SIGKILL)
            process.communicate(timeout=PATIENCE_S)
            assert run.state()["ended"] is None
