"""The parts of these pages that are made from the code: `python docs/generate.py` writes them, `--check` compares.

    options.md   a table for each group of options of `probemill scan`, from engine/cli/options.py
    design.md    the house, from the tables in tests/test_imports.py
    benchmarks.md, img/history.svg    the figures of the last record, and all of them as a chart, from bench/record

A made part stands between `<!-- made: NAME -->` and `<!-- end -->`. The script prints the pages that changed; with
`--check` it changes none, and exits 1 where one would.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

PAGES = Path(__file__).resolve().parent
sys.path[:0] = [str(PAGES.parent), str(PAGES.parent / "tests")]

from test_imports import GROUND, MATCHER_GROUND, MATCHER_WINGS, WINGS  # noqa: E402 - a checkout needs no installation

from bench import history, recorded  # noqa: E402
from engine.cli.help import Section  # noqa: E402
from engine.cli.options import DEFAULTS, GROUPS  # noqa: E402

_PART = re.compile(r"(<!-- made: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def options_table(section: Section) -> Iterator[str]:
    """Option, field of ScanConfig, meaning and default, as a Markdown table; the example."""
    yield "| option | in Python | meaning |"
    yield "|---|---|---|"
    context = click.Context(click.Command("scan"))
    for option in section.options:
        value = "" if option.is_flag or option.count else " " + _value(option, context)
        names = ", ".join(f"`{name}`" for name in option.opts)
        field = f"`{option.name}`" if option.name in DEFAULTS else ""
        default = option.get_help_extra(context).get("default", "").strip("()")
        meaning = ((option.help or "") + (f" Default: {default}." if default else "")).replace("|", "\\|")
        yield f"| {names[:-1]}{value}` | {field} | {meaning} |"
    yield ""
    yield f"For example: `{section.example}`"


def _value(option: click.Option, context: click.Context) -> str:
    if isinstance(option.type, click.Choice):
        return "/".join(map(str, option.type.choices))
    return option.make_metavar(context)


def house(wings: Mapping[str, str], ground: Mapping[str, str]) -> Iterator[str]:
    """Each wing and, as a dot in its row, what it may import: everything lies left of the stairs."""
    order = list(wings)[::-1]
    width = max(map(len, order))
    yield "```"
    for at in range(len(order) - 1, -1, -1):
        used = wings[order[at]].split()
        steps = "  ".join(("●" if name in used else "·").center(len(name)) for name in order[:at])
        yield f"{order[at]:<{width}}  {steps}".rstrip()
    yield f"{'':<{width}}  {'  '.join(order)}"
    yield f"on the ground, for all: {', '.join(ground)}"
    yield "```"


RECORDS = recorded.read()
CHART = PAGES / "img" / "history.svg"
PARTS = {f"options, {section.title}": options_table(section) for section in GROUPS} | {
    "engine": house(WINGS, GROUND),
    "matcher": house(MATCHER_WINGS, MATCHER_GROUND),
    "record": history.table(RECORDS),
}


def main(check: bool) -> int:
    """Write or compare every page; the exit code."""
    made = {name: "\n".join(lines) + "\n" for name, lines in PARTS.items()}
    changed, found = [], set()
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        found |= {name for _, name, _ in _PART.findall(text)}
        new = _PART.sub(lambda part: part[1] + made[part[2]] + part[3], text)
        if new != text:
            changed.append(page.name)
            if not check:
                page.write_text(new, encoding="utf-8")
    chart = history.chart(RECORDS)
    if not CHART.exists() or CHART.read_text(encoding="utf-8") != chart:
        changed.append("img/history.svg")
        if not check:
            CHART.write_text(chart, encoding="utf-8")
    for name in sorted(made.keys() - found):
        print(f"no page has the part {name!r}")
    for name in changed:
        print(f"docs/{name} {'is not what the code says; run make docs' if check else 'was written'}")
    return 1 if (check and changed) or made.keys() - found else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
