"""A private PostgreSQL on a loopback port, for tests and benchmarks: as the user `postgres` where we are root."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PASSWORD = "s3cr3t/:@"


def _program(name: str) -> str | None:
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: int(place.parent.name.split(".")[0]))
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, reversed(places))]))


def _missing() -> str | None:
    if not _program("initdb") or not _program("postgres"):
        return "needs PostgreSQL's server: apt-get install postgresql"
    if os.geteuid() == 0 and _user() is None:
        return "PostgreSQL does not run as root, and there is no user `postgres`"
    return None


def _user() -> pwd.struct_passwd | None:
    return next((user for user in pwd.getpwall() if user.pw_name == "postgres"), None)


MISSING = _missing()
"""Why there can be no server here, if so."""


class Postgres:
    """User and password are `probe` and PASSWORD, the database is `postgres`. Stopped with `close`."""

    def __init__(self, folder: Path) -> None:
        """folder: new, and where another user gets to."""
        self._user = _user() if os.geteuid() == 0 else None
        self._folder = folder
        folder.mkdir()
        if self._user:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        words = folder / "words"
        words.write_text(PASSWORD + "\n")
        words.chmod(0o644)
        how = ["-U", "probe", "-A", "scram-sha-256", f"--pwfile={words}", "-E", "UTF8", "--locale=C", "-N"]
        self._run("initdb", "-D", str(folder / "data"), *how).wait()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _run(self, name: str, *words: str) -> "subprocess.Popen[bytes]":
        found = _program(name)
        assert found
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [found, *words],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                user=self._user.pw_uid if self._user else None,
                group=self._user.pw_gid if self._user else None,
                extra_groups=[] if self._user else None,
            )

    def start(self) -> None:
        settings = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        told = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._process = self._run("postgres", "-D", str(self._folder / "data"), *told)
        end = time.monotonic() + 60
        while "ready" not in self._state():
            assert self._process.poll() is None and time.monotonic() < end, (self._folder / "log").read_text()
            time.sleep(0.05)

    def _state(self) -> str:
        """The last line of the file in which the server says how far it is."""
        try:
            written = (self._folder / "data" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return ""
        return written[7] if len(written) > 7 else ""

    def stop(self) -> None:
        """At once: who is connected loses the connection."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
