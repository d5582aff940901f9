"""A second opinion on a real daemon, from Recog's own files; skipped without either."""

import asyncio
from pathlib import Path

import pytest
from daemons import HOST, free_ports, running, tool
from test_recog_examples import RECOG

from engine.api import scan
from engine.model import ScanConfig, ServiceResult

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not RECOG.is_dir(), reason="Recog's files are not there"),
]

MODULES = Path("/usr/lib/apache2/modules")


def settings(folder: Path, port: int) -> Path:
    """An Apache that names its system and its modules."""
    if not MODULES.is_dir():
        pytest.skip("Apache's modules are not where Debian has them")
    path = folder / "apache.conf"
    path.write_text(f"""
        ServerRoot {folder}
        PidFile {folder}/pid
        DefaultRuntimeDir {folder}
        Listen {HOST}:{port}
        LoadModule mpm_event_module {MODULES}/mod_mpm_event.so
        LoadModule authz_core_module {MODULES}/mod_authz_core.so
        LoadModule dav_module {MODULES}/mod_dav.so
        ErrorLog {folder}/errors
        ServerName daemon.test
        ServerTokens Full
    """)
    return path


def test_an_apache_gets_its_system_and_its_modules(tmp_path: Path) -> None:
    """Its line names the product; the system and what it is built with stand in the same header."""
    (port,) = free_ports(1)
    command: list[str | Path] = [tool("apache2"), "-f", settings(tmp_path, port), "-DFOREGROUND"]

    async def scanned() -> ServiceResult:
        config = ScanConfig(probes=("builtin",), recog=str(RECOG), workers=0)
        (result,) = [found async for found in scan([f"{HOST}:{port}"], config)]
        return result

    with running(command, [port], tmp_path):
        result = asyncio.run(scanned())
    assert (result.name, result.product) == ("http", "Apache httpd")
    assert result.version and result.post is not None
    header = result.post["http"]["server"]
    modules = result.post["recog"].get("apache_modules", [])
    assert [module["service.component.product"] for module in modules] == ["DAV"] * ("DAV/" in header)
    if "(Debian)" in header or "(Ubuntu)" in header:
        assert result.ostype == "Linux" and any(name.startswith("cpe:/o:") for name in result.cpe)
        assert result.evidence is not None and result.evidence.recog.startswith("apache_os.xml: ")
        assert result.post["recog"]["apache_os"]["os.product"] == "Linux"
