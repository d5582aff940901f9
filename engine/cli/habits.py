"""Command lines as people write them for Nmap, in the words of `probemill scan`; what we do not do, with what to do.

Contract: `nmap_habits` is pure. It touches nothing that is the value of an option, and nothing behind `--`. What stands
for the same thing here is put in its place, what goes without saying is left out, and for the rest there is a
ConfigError of one line. docs/nmap.md has the list for people.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from engine.errors import ConfigError

TEMPLATES = ("paranoid", "sneaky", "polite", "normal", "aggressive", "insane")

# Done anyway: services are asked, hosts are never pinged, addresses have no names looked up, ports have an order.
GRANTED = frozenset({"-sV", "-sR", "-Pn", "-P0", "-PN", "-PD", "-n", "-r", "-v0", "-d0", "--noninteractive"})

# With a value of its own, which is the next argument.
VALUED: dict[str, Callable[[str], list[str]]] = {
    "-oX": lambda path: ["--output-as", "xml", path],
    "-oN": lambda path: ["--output-as", "text", path],
    "-oG": lambda path: ["--output-as", "grepable", path],
    "-oA": lambda base: [
        *("--output-as", "text", f"{base}.nmap"),
        *("--output-as", "grepable", f"{base}.gnmap"),
        *("--output-as", "xml", f"{base}.xml"),
    ],
    "-iL": lambda path: ["--input", path],
    "--exclude": lambda networks: [word for network in networks.split(",") for word in ("--blocklist", network)],
    "--excludefile": lambda path: ["--blocklist", path],
    "--proxies": lambda urls: [word for url in urls.split(",") for word in ("--proxy", url)],
    "--scan-delay": lambda time: ["--host-delay", time],
}

_FINDS_PORTS = "looks for open ports, which is a port scanner's work; -i reads what masscan, zmap, naabu, Nmap found"
_NO_PING = "leave it out: hosts are never pinged, every target is asked"
_ALWAYS = "leave it out: services are always asked"
_SCANS = {  # the letters behind -s
    "U": "name UDP ports instead, as 192.0.2.7:53/udp or -p U:53",
    "n": "probemill asks services, it does not look for hosts; -sV alone is what it does",
    "P": "probemill asks services, it does not look for hosts; -sV alone is what it does",
    "L": "--dry-run says how many targets there are",
    "C": "there are no scripts; --post all asks further what a service tells",
    "O": "IP protocols are not scanned",
    **dict.fromkeys("STAWMNFXIYZ", _FINDS_PORTS),
}
# What is not done, or is called something else; the first that fits counts.
HINTS = (
    (r"-A", f"{_ALWAYS}; --post all asks further; there are no scripts, no traceroute and no OS detection"),
    (r"-O|--osscan.*|--max-os-tries", "there is no OS detection; a row's `ostype` is what its service says of it"),
    (r"--script.*", "there are no scripts; --post all asks further what a service tells"),
    (r"--traceroute", "there is no traceroute"),
    (r"-P[A-Za-z0-9]*", _NO_PING),
    (r"-R|--system-dns|--dns-servers", "addresses have no names looked up; names use the system's resolver"),
    (r"-F|--top-ports|--port-ratio", "name the ports, as -p 22,80,443 or -p 1-1000; -p- is all of them"),
    (r"--(max|min)-rate", "write --rate N: connections per second"),
    (r"--m(ax|in)-retries", "there are no retries to set; --connect-timeout and --service-timeout bound a target"),
    (r"--m(ax|in)-hostgroup", "leave it out: targets are read as a stream; --max-inflight bounds the conversations"),
    (r"--(min-|max-|initial-)rtt-timeout", "write --connect-timeout TIME; --timing adaptive follows each host"),
    (r"--defeat-(rst|icmp)-ratelimit|--nsock-engine", "leave it out: connections are the system's own"),
    (r"--exclude-ports", "name the ports that are to be asked with -p; without -p, targets bring theirs"),
    (r"-V|--version", "write probemill --version"),
    (r"--iflist", "ip address and ip route list them; --source chooses an address"),
    (r"--(un)?privileged|--send-(eth|ip)", "leave it out: connections are the system's own, and need no rights"),
    (r"--no-stylesheet|--stylesheet|--webxml", "leave it out: -oX names no stylesheet; probemill report makes a page"),
    (r"--datadir|--servicedb|--versiondb", "write --probes FILE: the probe database"),
    (r"--randomize-hosts", "write --seed N: the order of the targets of a network"),
    (r"--release-memory", "leave it out: memory is always given back"),
    (r"--log-errors", "leave it out: faults are on standard error"),
    (r"--discovery-ignore-rst|--disable-arp-ping", _NO_PING),
    (r"--resolve-all|--unique", "leave it out: a name is asked at one address; name the others as targets"),
    (r"--max-scan-delay", "write --host-delay TIME: from one connection to a host to the next"),
    (r"-iR", "random targets are not made; name networks, or a file with -i"),
    (r"-oJ", "write -o FILE.ndjson: a JSON line for each port"),
    (r"-o[SHM]", "there is no such form; write -oX, -oN or -oG, or -o FILE.ndjson"),
    (r"--append-output", "files are written anew; name another one"),
    (r"-S", "write --source ADDR: a local address to connect from"),
    (
        r"-f|-D|--mtu|--data(-length|-string)?|--ttl|--spoof-mac|--badsum|--adler32|--scanflags|--ip-options|--decoy",
        "packets are the system's own",
    ),
    (r"--packet-trace", "write --version-trace: every step of every conversation"),
    (r"--reason", "leave it out: rows say the reason where there is one"),
)
_ATTACHED = re.compile(r"(-o[XNGASJ]|-iL)(=?)(.+)", re.DOTALL)


def nmap_habits(args: Sequence[str], valued: Mapping[str, int]) -> list[str]:
    """The same command line in our words. valued: how many arguments each of our options takes.

    Raises ConfigError.
    """
    return list(_translated(iter(args), valued))


def _translated(args: Iterator[str], valued: Mapping[str, int]) -> Iterator[str]:
    for word in args:
        if word == "--":
            yield word
            yield from args
        elif word in valued:
            yield word
            for value in islice(args, valued[word]):
                yield str(TEMPLATES.index(value)) if word == "-T" and value in TEMPLATES else value
        elif word in VALUED:
            following = next(args, None)
            if following is None:
                raise ConfigError(f"{word} needs a value behind it")
            yield from _with_value(word, following)
        elif word.startswith("--") and "=" in word and word.partition("=")[0] in VALUED:
            name, _, value = word.partition("=")
            yield from _with_value(name, value)
        elif word not in GRANTED:
            yield from _single(word)


def _with_value(name: str, value: str) -> list[str]:
    """Raises ConfigError for what is no name of a file, as Nmap does."""
    if not value:
        raise ConfigError(f"{name}: its value is empty; give one, or leave the option out")
    if name.startswith("-o") and value.startswith("-") and (value != "-" or name == "-oA"):
        raise ConfigError(f"{name} {value}: names no file; write {name} ./{value}, if that is the file's name")
    return VALUED[name](value)


def _single(word: str) -> list[str]:
    """An argument that stands for itself. Raises ConfigError."""
    if found := _ATTACHED.fullmatch(word):
        name, equals, value = found.groups()
        if equals and name in VALUED:
            return _with_value(name, value)
        raise ConfigError(f"{word}: write {name} {value}; or -{name[1]} {name[2]}{value}, if that is the file's name")
    if re.fullmatch(r"-s[A-Za-z]+", word):
        return _scan_types(word)
    if found := re.fullmatch(r"-T([a-z]+)", word):
        return [f"-T{TEMPLATES.index(found[1])}" if found[1] in TEMPLATES else word]
    if found := re.fullmatch(r"-v([1-9])", word):
        return ["-" + "v" * int(found[1])]
    if re.fullmatch(r"-d+|-d[1-9]", word):
        return ["-vv"]
    for pattern, hint in HINTS:
        if re.fullmatch(f"(?:{pattern})", word.partition("=")[0]):
            raise ConfigError(f"{word}: {hint}")
    return [word]


def _scan_types(word: str) -> list[str]:
    """Nmap takes several letters behind -s; V is what we do. Raises ConfigError for the first other one."""
    for letter in word[2:]:
        if letter not in "VR":
            hint = _SCANS.get(letter)
            if hint is None:
                return [word]
            raise ConfigError(f"{word}: {hint}")
    return []
