"""Which sub-folder is which split, and which examples are held out of data that has no splits of its own."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_TRAIN = ("train", "training")
_TEST = ("test", "testing")
_VALIDATION = ("val", "valid", "validation", "eval", "evaluation", "dev")
_KINDS = {name: kind for kind, names in (("train", _TRAIN), ("test", _TEST), ("val", _VALIDATION)) for name in names}
_SIMILAR = re.compile(  # train_A, trainA, train2017, train_images, images-train
    rf"(?:.*[-_. ])?({'|'.join(sorted(_KINDS, key=len, reverse=True))})(?:[-_. ]?[a-z]|[-_. ]?\d+|[-_. ].*)?"
)


def kind_of_split(name: str) -> str | None:
    """`train`, `test` or `val` if a folder's name is one of the usual names of that split, in any case."""
    return _KINDS.get(name.casefold())


def look_like_splits(names: Iterable[str]) -> list[str]:
    """Those names that resemble the usual names, if there are some for training and some for testing; else none.

    Images of one split must not be taken for a class of the other. One such name alone may well be a class.
    """
    similar = {name: match[1] for name in names if (match := _SIMILAR.fullmatch(name.casefold()))}
    if len({_KINDS[word] == "train" for word in similar.values()}) < 2:
        return []
    return sorted(similar)


class Division(NamedTuple):
    """How data without splits are divided: the fraction that is held out for testing, and a seed."""

    test_fraction: float
    seed: int


def held_out(names: Sequence[bytes], division: Division) -> set[int]:
    """Indices of the examples that are held out for testing: at least one, and never all.

    The names alone, and not their order or number, decide which examples come first. So an example that is added
    changes the choice as little as possible.
    """
    count = min(max(1, round(division.test_fraction * len(names))), len(names) - 1)
    rank = [hashlib.sha256(f"{division.seed}/".encode() + name).digest() for name in names]
    return set(sorted(range(len(names)), key=rank.__getitem__)[:count])
