"""The words for how a run ended."""

import pytest

from engine.results.ending import Ending


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (Ending(), ""),
        (Ending(read=22, done=22), ""),
        (Ending(why="interrupted", read=22, done=22), "interrupted"),
        (Ending(why="interrupted", read=22, done=17, not_reached=5), "interrupted: 17 of 22 done, 5 not reached"),
        (Ending(read=22, done=17, not_reached=5), "17 of 22 done, 5 not reached"),
        (
            Ending(why="interrupted", read=2000, done=1000, not_reached=1000, names=1, unread=True),
            "interrupted: 1,000 of 2,000 done, 1,000 not reached; 1 host name was not looked up; "
            "the input was not read to its end",
        ),
        (Ending(why="the deadline has passed", names=2), "the deadline has passed: 2 host names were not looked up"),
    ],
)
def test_words(ending: Ending, words: str) -> None:
    """Why, then what is missing; nothing where nothing is."""
    assert ending.words() == words
