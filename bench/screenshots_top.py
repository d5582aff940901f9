"""The picture in docs/top.md: `python -m bench.screenshots_top [FILE]` writes docs/img/top.svg, the same each time."""

import asyncio
import math
import re
import sys
from pathlib import Path

from engine.cli.top.screen import TopApp
from engine.cli.top.view import Asked, Load, View
from engine.cli.top.watch import Watch

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "img" / "top.svg"
SIZE = (100, 40)
VIEW = View(
    where="http://127.0.0.1:9464/metrics",
    done=48_210,
    read=65_536,
    input_ended=True,
    in_flight=4_812,
    elapsed_s=61.0,
    rate=812.0,
    rates=[800 + 120 * math.sin(second / 4) + 60 * math.sin(second) for second in range(60)],
    open=[min(5000.0, 400.0 * second) - 150 * (second % 3) for second in range(61)],
    verdicts={"hardmatched": 39_004, "softmatched": 1_120, "nomatch": 2_306, "tcpwrapped": 611, "incomplete": 5_169},
    reasons={"refused": 4_410, "timeout": 702, "reset": 57},
    services={"http": 21_877, "ssh": 9_120, "smtp": 4_402, "domain": 2_961, "ftp": 1_764},
    probes={
        "NULL": Asked(46_102, 164_881_000, 13_520),
        "GetRequest": Asked(30_410, 9_480_000, 21_001),
        "GenericLines": Asked(6_020, 31_604_000, 802),
        "SSLSessionReq": Asked(3_911, 1_604_000, 3_120),
    },
    slow=[("203.0.113.77", 621_400), ("198.51.100.14", 188_010), ("192.0.2.41", 96_300)],
    workers=[Load("0", {"in flight": "2,410", "given": "4,096"}), Load("1", {"in flight": "2,402", "given": "4,090"})],
    log=[
        "12:00:05 WARNING targets.txt, line 3: host.example:http: no port number",
        "12:00:41 WARNING worker 1 has ended (killed by signal 9); its targets go to another one",
    ],
)


class Still:
    """A source of one picture."""

    where = VIEW.where

    def look(self) -> View:
        return VIEW


async def picture() -> str:
    """The screen as SVG."""
    app = TopApp(Watch(Still(), VIEW, 3600.0))
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause()
        await pilot.pause()
        drawn = app.export_screenshot(title="probemill top", simplify=True)
    return re.sub(r"@font-face \{.*?\}", "", drawn, flags=re.DOTALL)  # which a reader would fetch from elsewhere


def main() -> None:
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE
    place.parent.mkdir(exist_ok=True)
    place.write_text(asyncio.run(picture()), encoding="utf-8")


if __name__ == "__main__":
    main()
