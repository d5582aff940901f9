"""What nobody named, counted and put together: shapes, clusters, sketches, and what speaks against a line."""

import random

import pytest

from engine.insight.learn.clusters import clusters, merged
from engine.insight.learn.judging import Judge, Known, held_out
from engine.insight.learn.naming import file_name
from engine.insight.learn.proposing import database_of, propose
from engine.insight.learn.shapes import Answer, Shape, Shapes, _room_of
from engine.insight.learn.sketches import MOST, Distinct, Sample
from matcher import ProbeDatabase, parse_database

DATABASE = parse_database(
    b"""Probe TCP NULL q||
totalwaitms 6000
match ftp m|^220 Foo ftpd| p/Foo ftpd/
Probe TCP Get q|GET /\\x7c\\\\\\r\\n|
rarity 3
Probe UDP Ask q|?|
rarity 8
""",
    "test",
)
_CHANCE = random.Random(1)
EVENLY = [_CHANCE.getrandbits(64) for _ in range(20_000)]


def gathered(*answers: Answer, most: int = 1000, room: int = 1 << 20) -> Shapes:
    shapes = Shapes(most, room)
    for one in answers:
        shapes.add(one)
    return shapes


def toys(count: int, probe: int = 0, ip: str = "10.0.{}.{}") -> list[Answer]:
    return [
        Answer(
            probe,
            b"220 host%d.example.net Toyd %d.%d ready\r\n" % (at, at % 7, at % 3),
            "",
            ip.format(at // 250, at % 250),
            21,
        )
        for at in range(count)
    ]


def test_distinct_is_exact_for_few_and_close_for_many() -> None:
    few, many = Distinct(), Distinct()
    for digest in EVENLY[:200] * 3:
        few.add(digest)
    for digest in EVENLY:
        many.add(digest)
    assert few.count == 200 < MOST
    assert many.count == pytest.approx(20_000, rel=0.2)


def test_sketches_do_not_depend_on_the_order() -> None:
    """Nor on how the things were divided."""
    one, other, further = Distinct(), Distinct(), Distinct()
    first, second = Sample[int](10), Sample[int](10)
    for digest in EVENLY[:5000]:
        one.add(digest)
        first.add(digest, digest)
    for digest in reversed(EVENLY[:5000]):
        (other if digest % 2 else further).add(digest)
        if second.wants(digest):
            second.add(digest, digest)
    other.merge(further)
    assert other.count == one.count
    assert first.kept() == second.kept() == sorted(EVENLY[:5000])[:10]


def test_hosts_count_apart_from_ports_and_pseudo_hosts_once() -> None:
    """A host with a hundred ports that all say the same is one host, and one service where it does so on purpose."""
    said = b"220 Toyd ready\r\n"
    honest = [Answer(0, said, "", "10.0.0.1", port) for port in range(1, 4)]
    pseudo = [Answer(0, said, "", "10.0.0.2", port, pseudo=True) for port in range(1, 101)]
    (shape,) = gathered(*honest, *pseudo).all()
    assert shape.size == (2, 4, 103)
    assert shape.pseudo == 100


def test_responses_without_an_address_count_when_they_are_different() -> None:
    (shape,) = gathered(*(Answer(0, b"220 Toyd %d.1\r\n" % (at % 5)) for at in range(50))).all()
    assert shape.size[0] == 5


def test_the_largest_shape_is_first_and_probes_stay_apart() -> None:
    shapes = gathered(*toys(3), *toys(5, probe=1), Answer(0, b"something else\n", "", "10.9.9.9")).all()
    assert [(shape.probe, shape.size[0]) for shape in shapes] == [(1, 5), (0, 3), (0, 1)]


def test_memory_is_bounded_and_what_is_let_go_is_counted() -> None:
    """A hundred thousand different responses leave a bounded number of shapes; who comes often stays."""
    noise = random.Random(2)
    answers = []
    for at in range(3000):
        answers.append(Answer(0, noise.randbytes(40), "", f"10.1.{at // 250}.{at % 250}"))
        answers += toys(at + 1)[-1:]
    shapes = gathered(*answers, most=200)
    found = shapes.all()
    assert len(found) <= 200
    assert found[0].rows == 3000
    assert shapes.dropped > 0
    assert sum(shape.rows for shape in found) + shapes.dropped_rows == len(answers)
    assert len(gathered(*answers, room=100_000).all()) < 100


def test_room_is_kept_where_every_shape_has_many_responses() -> None:
    """Whatever begins otherwise than all others goes nowhere, and yet has no right to stay; fingerprints count, too."""
    room = 200_000
    shapes = Shapes(1000, room)
    for at in range(10):
        for letter in "abcdefghijklmnopqrstuvwxyz":
            data = f"{letter * 12} says {at} ".encode() + b"x y " * 100
            shapes.add(Answer(0, data, "", f"10.0.0.{at}", 80, text="SF" * 500))
            assert sum(map(_room_of, shapes._shapes.values())) <= room * 1.1
    assert sum(one.rows for one in shapes.all()) + shapes.dropped_rows == 260


def test_rare_shapes_go_together_by_how_they_begin() -> None:
    """A fixed beginning with random bytes behind it has a shape of its own each time, and must not be lost for that."""
    noise = random.Random(3)
    answers = [
        Answer(0, b"\x05\x00\x01" + noise.randbytes(20), "", f"10.1.{at // 250}.{at % 250}") for at in range(2000)
    ]
    assert gathered(*answers, most=200).all()[0].rows > 1000


def test_alike_shapes_are_one_cluster() -> None:
    """Another word in the middle, a header's first product, bytes in the same places; other programs stay apart."""
    same = [b"220 Welcome to the Toyd FTP server of %b today\r\n" % name for name in (b"alice", b"bob", b"carol")]
    servers = [
        b"HTTP/1.0 200 OK\r\nServer: Blink/1.%b\r\n\r\n" % rest for rest in (b"0", b"1 (Linux)", b"2 mod_x/3.1 y")
    ]
    binary = [b"\x7f\x01\x02\x03HELO" + bytes((at, 9 * at % 256)) * 6 for at in (11, 77, 200)]
    others = [
        b"554 no thanks, come back later please\r\n",
        b"HTTP/1.0 200 OK\r\nServer: Foo/1.0\r\n\r\n",
        b"\x80\x10\x20\x30" * 4,
    ]
    groups = clusters(
        gathered(*(Answer(0, data, "", "10.0.0.1") for data in (*same, *servers, *binary, *others))).all()
    )
    assert sorted(sum(len(shape.samples.kept()) for shape in group) for group in groups) == [1, 1, 1, 3, 3, 3]
    assert all(merged(group).rows == sum(shape.rows for shape in group) for group in groups)


def proposal(
    shape: Shape, *known: Known, others: tuple[bytes, ...] = (), database: ProbeDatabase = DATABASE
) -> list[str]:
    judge = Judge(database, known)
    judge.add_cluster(1, shape.probe, shape.samples.kept())
    judge.add_cluster(2, shape.probe, others)
    return propose(1, 1, shape, database.probes[shape.probe], judge).judged.faults


def test_nothing_speaks_against_a_line_that_fits_its_own_alone() -> None:
    (shape,) = gathered(*toys(20)).all()
    elsewhere = Known(0, b"220 Foo ftpd ready\r\n", "ftp Foo ftpd")
    assert proposal(shape, elsewhere, others=(b"220 bar\r\n",)) == []


@pytest.mark.parametrize(
    ("known", "others", "fault"),
    [
        ((Known(0, b"220 x Toyd 1.2 ready\r\n", "ftp Toyd by another name"),), (), "steals"),
        ((Known(1, b"220 x Toyd 1.2 ready\r\n", "ftp Toyd by another name"),), (), "steals"),
        ((Known(2, b"220 x Toyd 1.2 ready\r\n", "an answer over UDP, which TCP's lines are not asked for"),), (), ""),
        ((Known(0, b"220 x Toyd 1.2 ready\r\n", ""),), (), "overlaps"),
        ((), (b"220 x Toyd 1.2 ready\r\n",), "overlaps"),
    ],
)
def test_what_a_line_fits_besides_speaks_against_it(
    known: tuple[Known, ...], others: tuple[bytes, ...], fault: str
) -> None:
    """Responses with another name, to the probe or one that falls back on it; those of other clusters; null samples."""
    (shape,) = gathered(*toys(20)).all()
    assert proposal(shape, *known, others=others) == ([fault] if fault else [])


def test_held_out_says_how_far_a_line_reaches() -> None:
    """Copies that differ in a number are foreseen, copies with a word that nobody saw are not; one says nothing."""
    assert held_out([one.data for one in toys(20)], "line") == 1.0
    assert held_out([b"hello cat\n", b"hello dog\n"], "line") == 0.0
    assert held_out([b"220 Toyd\r\n"], "line") is None


def test_a_proposal_is_a_database_that_changes_nothing_else() -> None:
    """The probe's own bytes, rarity and times, so that merging it with the database adds a line and nothing more."""
    for probe in DATABASE.probes:
        (made,) = parse_database(database_of(probe, ["match x m|^y|"]), "made").probes
        assert (made.name, made.proto, made.payload, made.rarity, made.totalwait_s, made.tcpwrapped_s) == (
            *(probe.name, probe.proto, probe.payload, probe.rarity, probe.totalwait_s, probe.tcpwrapped_s),
        )


@pytest.mark.parametrize(
    ("service", "product", "word"),
    [
        ("http", "Toy Server", "http-toy-server"),
        ("toy", "Toy", "toy"),
        ("../../etc", "a/b\n\x1b", "etc-a-b"),
        ("\u00fc", "", "unknown"),
        ("x" * 500, "", "x" * 32),
    ],
)
def test_files_have_harmless_names(service: str, product: str, word: str) -> None:
    assert file_name(service, product) == word
