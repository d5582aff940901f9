"""Versions: which of two is the older, and what is told of a product whose versions were seen."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.insight.report.versions import compare, is_exact, version_key

OLDEST_FIRST = [
    ["0.9", "1.0.dev2", "1.0alpha2", "1.0beta1", "1.0-rc1", "1.0rc2", "1.0", "1.0p1", "1.0.1", "1.2", "1.10", "2"],
    ["6.6.1p1", "9.2p1", "9.2p1 Debian 2+deb12u3", "9.2p1 Debian 2+deb12u10", "9.3p1", "9.10", "10.0"],
    ["1.0.2a", "1.0.2k", "1.0.2u", "1.1.1"],
    ["2.4.6", "2.4.57", "v2.4.58", "2.4.58-1", "2.4.58-2"],
    ["8.0.33-0ubuntu0.20.04.1", "8.0.33-0ubuntu0.22.04.1", "8.0.34"],
    ["5.5.5-10.5.9-MariaDB", "10.6.4-MariaDB", "5.5.5-10.11.6-MariaDB-0+deb12u1"],
    ["9.11.4-P1", "9.11.4-P2-RedHat-9.11.4-26", "9.11.5", "9.18.28-1~deb12u2-Debian"],
    ["1.3.5 build 7", "1.3.5 build 12", "1.3.6"],
]


@pytest.mark.parametrize("versions", OLDEST_FIRST, ids=lambda versions: versions[0])
def test_versions_are_in_order(versions: list[str]) -> None:
    for older, newer in itertools.combinations(versions, 2):
        assert version_key(older) < version_key(newer), (older, newer)


@pytest.mark.parametrize("version", ["3.X - 4.X", "2.0.8 or later", "4.6.2 - 5", "", "Debian", "1.x", "5.0 or earlier"])
def test_what_is_no_single_version_is_never_compared(version: str) -> None:
    assert not is_exact(version)
    assert compare([version]) == ("", set())
    assert compare([version, "99"]) == ("99", set())


@pytest.mark.parametrize(
    ("versions", "newest", "old"),
    [
        ([], "", set()),
        (["1.0", "1.0.0"], "1.0.0", set()),
        (["9.2p1", "9.10"], "9.10", {"9.2p1"}),
        (["9.2p1", "9.2p1 Debian 2+deb12u7"], "9.2p1 Debian 2+deb12u7", set()),
        (
            ["9.2p1 Debian 2+deb12u3", "9.2p1 Debian 2+deb12u7", "9.2p1 Ubuntu 1ubuntu0.1"],
            "9.2p1 Ubuntu 1ubuntu0.1",
            {"9.2p1 Debian 2+deb12u3"},
        ),
        (["3f2ab1", "9c1b00"], "", set()),
        (["3f2ab1", "1.0", "1.1"], "1.1", {"1.0"}),
        (["Debian 12", "Ubuntu 9"], "", set()),
        (["SwOS 2.1", "RouterOS 7.1", "RouterOS 7.2", "RouterOS 6"], "RouterOS 7.2", {"RouterOS 7.1", "RouterOS 6"}),
        (["Windows 2008", "10.0"], "", set()),
        (["2.4.6", "2021-03-01"], "", set()),
        (["2021-03-01", "2021-04-01", "20220101"], "20220101", {"2021-03-01", "2021-04-01"}),
        (["0.53", "2020.81", "v2022.83"], "v2022.83", {"0.53", "2020.81"}),
    ],
)
def test_only_what_is_certainly_older_is_said_to_be(versions: list[str], newest: str, old: set[str]) -> None:
    """A distribution's additions tell nothing of those of another, or of none; numbers nothing of other things."""
    assert compare(versions) == (newest, old)


@given(st.lists(st.text(alphabet="0123456789.abrcpdev-+ ~xX\u0663²", max_size=12), max_size=8))
def test_any_texts_have_an_order(versions: list[str]) -> None:
    """Whatever a banner says: nothing raises, the newest is not old, and the order is that of the keys."""
    newest, old = compare(versions)
    assert newest not in old
    assert old <= set(versions)
    assert all(version_key(version) < version_key(newest) for version in old)
