"""What people read of a result: the SERVICE column, the VERSION column and the `Service Info:` line of a host.

Pure, from rows to text, as `nmap -sV` prints them. Used by every sink whose form people or Nmap's readers look at.
"""

from collections.abc import Iterable

from engine.model import ServiceResult, Tunnel, Verdict

NAME_WIDTH = 63  # characters; a longer name leaves the column empty
VERSION_WIDTH = 159  # characters of the version column
LEAST_ROOM = 8  # a part that would have less room than this is left out
DOUBTFUL_CONF = 5  # at or below, the name is only the port's usual tenant and carries a `?`
EXCLUDED = "Excluded from version scan"  # in place of a product
INFO_VALUES = 5  # distinct values of one kind in the `Service Info:` line; further ones are dropped silently


def has_service(row: ServiceResult) -> bool:
    """Whether anything is known or guessed about the service: a port without that has no method either."""
    return bool(row.method)


def state_column(row: ServiceResult) -> str:
    """The port's state; `unknown` where nobody has looked."""
    return row.state or "unknown"


def product_column(row: ServiceResult) -> str:
    """The product, or why nobody has asked for it."""
    return row.product or (EXCLUDED if row.verdict is Verdict.EXCLUDED else "")


def service_column(row: ServiceResult) -> str:
    """`http`, `ssl/http`, `irc?` or `unknown`; empty where the text would be wider than the column."""
    prefix = "ssl/" if row.tunnel is Tunnel.SSL else ""
    if row.name in {"", "unknown"}:
        return prefix + "unknown"
    doubt = "?" if row.state == "open" and row.conf <= DOUBTFUL_CONF else ""
    text = prefix + row.name + doubt
    return text if len(text) <= NAME_WIDTH else ""


def version_column(row: ServiceResult) -> str:
    """`product version (extrainfo)`, each part cut with `...` where the column ends."""
    return " ".join(version_parts(row))


def version_parts(row: ServiceResult) -> list[str]:
    """The parts of the version column that are not empty; the one in parentheses comes last."""
    parts: list[str] = []
    left = VERSION_WIDTH
    for value, opening, closing in ((product_column(row), "", ""), (row.version, "", ""), (row.extrainfo, "(", ")")):
        if not value or left < LEAST_ROOM:
            continue
        left -= bool(parts)  # the blank between two parts
        room = left - len(opening + closing)
        text = value if len(value) <= room else value[: room - 3] + "..."
        parts.append(opening + text + closing)
        left = room - len(text)
    return parts


def service_info(rows: Iterable[ServiceResult]) -> str:
    """The line under the table of one host, or an empty string.

    rows: of one host, in port order. Only open ports count, application CPEs do not, and a host name that the user
    gave himself is no news. Host names that differ only in case are one name.
    """
    hosts: dict[str, str] = {}
    systems: dict[str, str] = {}
    devices: dict[str, str] = {}
    cpes: dict[str, str] = {}
    for row in rows:
        if row.state != "open":
            continue
        if row.hostname.lower() != row.host.lower():
            _note(hosts, row.hostname, key=row.hostname.lower())
        _note(systems, row.ostype, key=row.ostype)
        _note(devices, row.devicetype, key=row.devicetype)
        for cpe in row.cpe:
            if not cpe.startswith("cpe:/a"):
                _note(cpes, cpe, key=cpe)
    parts = [
        f"{title}{'s' if len(values) > 1 else ''}: {', '.join(values.values())}"
        for title, values in (("Host", hosts), ("OS", systems), ("Device", devices))
        if values
    ]
    if cpes:
        parts.append(f"CPE: {', '.join(cpes.values())}")
    return f"Service Info: {'; '.join(parts)}" if parts else ""


def _note(values: dict[str, str], value: str, *, key: str) -> None:
    """Keep the first spelling of each value, and no more than the line shows."""
    if value and len(values) < INFO_VALUES:
        values.setdefault(key, value)
