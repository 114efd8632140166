"""Which set a folder or a file holds, by the words of its name."""

from __future__ import annotations

import re
from typing import NamedTuple

from utils.data.source import TEST, TRAINING, VALIDATION

UNLABELLED = "images without labels"
WORDS = {
    **dict.fromkeys(("train", "training", "trainval"), TRAINING),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), VALIDATION),
    **dict.fromkeys(("test", "testing"), TEST),
    **dict.fromkeys(("pred", "predict", "prediction", "predictions"), UNLABELLED),
    **dict.fromkeys(("unlabeled", "unlabelled"), UNLABELLED),
}
GENERIC = frozenset([
    "set", "sets", "data", "dataset", "image", "images", "img", "imgs", "picture", "pictures",
    "pic", "pics", "photo", "photos", "sample", "samples", "folder", "dir", "split", "part",
    "file", "files", "list", "lists", "label", "labels", "csv",
])  # fmt: skip
"""Words in names of sets that have no meaning of their own."""
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")
_JOINED = re.compile(f"({'|'.join(sorted(WORDS, key=len, reverse=True))})({'|'.join(GENERIC)})")


class SetName(NamedTuple):
    """The set that a name means, or None, and its other words: `seg` in `seg_train`."""

    kind: str | None
    others: tuple[str, ...]


def set_name(name: str) -> SetName:
    """Read a name such as seg_train, training_set, val2017, TestImages, trainset or test-1."""
    words = [word for token in _TOKEN.findall(name) for word in _split(token.lower())]
    kinds = {WORDS[word] for word in words if word in WORDS}
    others = tuple(word for word in words if word not in WORDS and word not in GENERIC)
    if kinds == {TRAINING, VALIDATION}:
        return SetName(TRAINING, others)
    return SetName(kinds.pop() if len(kinds) == 1 else None, others)


def is_generic(name: str) -> bool:
    """Whether a name, such as `images` or `data`, tells nothing of what is in it."""
    words = [token.lower() for token in _TOKEN.findall(name)]
    return bool(words) and all(word in GENERIC for word in words)


def _split(word: str) -> tuple[str, ...]:
    joined = _JOINED.fullmatch(word)
    return joined.groups() if joined else (word,)
