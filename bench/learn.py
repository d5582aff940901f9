"""Does `probemill learn` find a product again that the database has forgotten? `python -m bench.learn`

Of the golden corpus (../shared/golden) the real and derived responses, names taken off. Of the products with MOST or
more responses to one probe every second one is forgotten: its lines are taken out of Nmap's database, in memory. What
`learn` then proposes is compared with the names:

    found      products of which a line, made of a cluster that is mostly theirs, fits at least half
    recall     of the forgotten products' responses, those that such a line fits
    purity     of the members of all clusters that are mostly of a forgotten product, those that are of it
    held out   of the members, those that a line made from the other half fits
    false      of the responses of all other products, those that a line fits; `clean`: `learn` finds no fault with it

Prints a table, for both halves of the products. Needs the corpus and Nmap 7.93's database; without, the exit code is 2.
"""

import base64
import json
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct

from bench.corpora import GOLDEN, golden_rows
from engine.errors import InputError
from engine.insight.learn.making import Wish, learn
from engine.insight.learn.proposing import Proposal
from engine.insight.learn.shapes import KEPT
from engine.offline.faults import Faults
from matcher import Matcher, nmap_database, parse_database
from matcher.tools.propose import fitter

MOST = 4
LIMIT = 2000

Product = tuple[str, str]


class Response(Struct, frozen=True):
    """A row of the corpus. product: service and product; empty texts where Nmap has none."""

    proto: str
    probe: str
    data: bytes
    product: Product


class Half(Struct):
    """The figures of one half; counts."""

    products: int = 0
    found: int = 0
    responses: int = 0
    recalled: int = 0
    members: int = 0
    pure: int = 0
    held: float = 0.0
    lines: int = 0
    clean: int = 0
    others: int = 0
    false: int = 0
    false_clean: int = 0


class _Deaf:
    def moved(self, done: int, rows: int) -> None: ...

    def tell(self, name: str, faults: Faults) -> None:
        raise AssertionError(faults.first)

    def damage(self, error: InputError) -> None:
        raise error


def responses() -> Iterator[Response]:
    for row in golden_rows():
        if row.kind != "mutated":
            product = (row.expect.name, row.expect.product) if row.expect else ("", "")
            yield Response(row.proto, row.probe, row.data, product)


def measure(corpus: Sequence[Response], forgotten: set[Product], database: bytes) -> Half:
    whole = parse_database(database, "whole")
    names = {product for _, product in forgotten}
    gone = {line.line for line in whole.signatures() if line.templates.product.decode("latin-1") in names}
    left = [b"#" if at in gone else text for at, text in enumerate(database.split(b"\n"), 1)]
    matcher = Matcher(parse_database(b"\n".join(left), "forgetful"), cache=False)
    with tempfile.NamedTemporaryFile(suffix=".ndjson") as file:
        for one in corpus:
            row = {"proto": one.proto, "probe": one.probe, "data": base64.b64encode(one.data).decode()}
            file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        learned = learn([file.name], matcher, Wish(2, LIMIT), _Deaf())
    return judged(corpus, forgotten, learned.proposals)


def judged(corpus: Sequence[Response], forgotten: set[Product], proposals: Sequence[Proposal]) -> Half:
    names = {(one.probe, one.data[:KEPT]): one.product for one in corpus}
    by_probe: dict[str, list[Response]] = defaultdict(list)
    for one in corpus:
        by_probe[one.probe].append(one)
    half = Half(products=len(forgotten), responses=sum(one.product in forgotten for one in corpus))
    half.others = len(corpus) - half.responses
    recalled: dict[Product, set[bytes]] = defaultdict(set)
    wrong: set[bytes] = set()
    wrong_clean: set[bytes] = set()
    for proposal in proposals:
        members = proposal.shape.samples.kept()
        count = Counter(names.get((proposal.probe.name, data), ("", "")) for data in members)
        product, most = count.most_common(1)[0]
        if product not in forgotten:
            continue
        half.lines += 1
        half.clean += proposal.clean
        half.members += len(members)
        half.pure += most
        half.held += (1.0 if proposal.judged.held is None else proposal.judged.held) * len(members)
        fits = fitter(proposal.line.encode("latin-1"))
        for one in by_probe[proposal.probe.name]:
            if fits(one.data):
                if one.product == product:
                    recalled[product].add(one.data)
                elif one.product[1] and one.product[1] != product[1]:
                    wrong.add(one.data)
                    wrong_clean |= {one.data} if proposal.clean else set()
    sizes = Counter(one.product for one in corpus)
    half.found = sum(2 * len(data) >= sizes[product] for product, data in recalled.items())
    half.recalled = sum(map(len, recalled.values()))
    half.false, half.false_clean = len(wrong), len(wrong_clean)
    return half


def main() -> int:
    path = nmap_database()
    if path is None or not GOLDEN.exists():
        print("bench.learn: needs the golden corpus and an installed Nmap", file=sys.stderr)
        return 2
    corpus = list(responses())
    counts = Counter((one.product, one.probe) for one in corpus if one.product[1])
    products = sorted({product for (product, _), count in counts.items() if count >= MOST})
    print("half  products  found  recall  purity  held out  lines  clean  false  false of clean")
    for start in (0, 1):
        half = measure(corpus, set(products[start::2]), Path(path).read_bytes())
        cells = (
            f"{'AB'[start]:4}",
            f"{half.products:8}",
            f"{half.found / half.products:5.0%}",
            f"{half.recalled / half.responses:6.0%}",
            f"{half.pure / half.members:6.0%}",
            f"{half.held / half.members:8.0%}",
            f"{half.lines:5}",
            f"{half.clean:5}",
            f"{half.false / half.others:5.2%}",
            f"{half.false_clean / half.others:14.2%}",
        )
        print("  ".join(cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
