"""The worst responses we can construct, and how long matching them takes: `python -m bench.hostile [SECONDS [ENGINE]]`.

For every line of the database that is in use (or as many as SECONDS allow, in random order) responses are made from
its own parsed pattern: as much of it as fits, then one repeat pumped up, or its remaining parts repeated without the
last one, so that a backtracking matcher tries again and again. Beside them stand plain floods and a response that
holds every literal of a probe at once. Contract: no response makes a match take longer than LIMIT_S of CPU time.
"""

import random
import sys
import time
from collections.abc import Iterator

from matcher import Matcher, Probe, ProbeDatabase, UnsupportedPattern, load_database
from matcher.regex.literals import requirements
from matcher.regex.translate import anchored, flat
from matcher.regex.tree import Alt, Chars, Mark, Node, Repeat, Seq, parse

LIMIT_S = 5.0  # CPU seconds, many times what is seen; a backtracking matcher without bounds takes hours
SIZES = (16_000, 64_000, 600_000)  # bytes; the last is what one read can bring
LONG_REPEAT = 50  # a repeat that may be longer is worth pumping
DEFAULT_SECONDS = 60.0


def pick(mask: int, wanted: bytes = b"a x0\r\n") -> int:
    """A byte of the set, a common one if there is one."""
    usual = next((code for code in wanted if mask >> code & 1), None)
    return usual if usual is not None else (mask & -mask).bit_length() - 1


def least(node: Node) -> bytes:
    """One of the shortest texts that the tree matches."""
    match node:
        case Chars(mask):
            return bytes((pick(mask),)) if mask else b""
        case Mark():
            return b""
        case Seq(items):
            return b"".join(least(item) for item in items)
        case Alt(branches):
            return min((least(branch) for branch in branches), key=len)
        case Repeat(body, low, _):
            return least(body) * min(low, 2000)


def filled(text: bytes, size: int) -> bytes:
    return (text * (size // len(text) + 1))[:size] if text else b""


def attacks(tree: Node, size: int) -> Iterator[bytes]:
    """Responses of about `size` bytes that begin to match in many ways and never, or only just, succeed."""
    items = flat(tree)
    texts = [least(item) for item in items]
    for at, item in enumerate(items):
        if not isinstance(item, Repeat) or (item.high is not None and item.high <= LONG_REPEAT):
            continue
        head, tail = b"".join(texts[:at]), b"".join(texts[at + 1 :])
        pumped = filled(least(item.body) or b"a", size)
        yield head + pumped
        yield head + pumped + tail
        if len(tail) > 1:
            yield head + filled(tail[:-1], size)
            second = next((later for later in range(at + 1, len(items)) if isinstance(items[later], Repeat)), None)
            if second is not None and (between := b"".join(texts[at + 1 : second])):
                body = items[second].body
                flood = bytes((pick(body.mask),)) if isinstance(body, Chars) else b"a"
                yield head + filled(between, size // 2) + filled(flood, size // 2)
                yield head + filled(between, size // 2) + filled(flood, size // 2) + tail
    if not anchored(tree):
        yield filled(b"".join(texts)[:-1], size)


def floods(probe: Probe, size: int) -> Iterator[bytes]:
    for text in (b" ", b"a", b"\0", b"\r\n", b"<", b"HTTP/1.1 200 OK\r\n", b"a=", b"\xff"):
        yield filled(text, size)
    literals: list[bytes] = []
    for signature in probe.signatures:
        try:
            tree = parse(signature.pattern, caseless=signature.caseless, dotall=signature.dotall)
        except UnsupportedPattern:
            continue
        literals += [literal.text for option in requirements(tree) for literal in option]
    for start in (b"", b"HTTP/1.1 200 OK\r\n", b"220 "):
        yield filled(start + b"\r\n".join(dict.fromkeys(literals)), size)


def responses(database: ProbeDatabase) -> Iterator[tuple[Probe, bytes, int]]:
    """(probe, response, line it was made for or 0), the floods first."""
    for probe in sorted(database.probes, key=lambda probe: -len(probe.signatures))[:6]:
        for size in SIZES:
            for response in floods(probe, size):
                yield probe, response, 0
    lines = [(probe, signature) for probe in database.probes for signature in probe.signatures]
    random.Random(3).shuffle(lines)
    for probe, signature in lines:
        try:
            tree = parse(signature.pattern, caseless=signature.caseless, dotall=signature.dotall)
        except UnsupportedPattern:
            continue
        for size in SIZES:
            for response in attacks(tree, size):
                yield probe, response, signature.line


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_SECONDS
    database = load_database()
    matcher = Matcher(database, sys.argv[2] if len(sys.argv) > 2 else "auto")
    matcher.compile_all()
    worst: list[tuple[float, str, int, int]] = []
    tried = 0
    end = time.monotonic() + seconds
    for probe, response, line in responses(database):
        if time.monotonic() > end:
            break
        start = time.process_time()
        matcher.match(probe, response)
        worst.append((time.process_time() - start, probe.name, line, len(response)))
        tried += 1
        if len(worst) > 1000:
            worst = sorted(worst, reverse=True)[:10]
    worst = sorted(worst, reverse=True)[:10]
    print(f"{tried:,} hostile responses, engine {matcher.engine}, database {database.name}; the slowest:")
    for taken, name, line, size in worst:
        print(
            f"  {taken * 1000:9,.1f} ms  probe {name}, {size:,} bytes, "
            + (f"made for line {line}" if line else "a flood")
        )
    return int(worst[0][0] > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
