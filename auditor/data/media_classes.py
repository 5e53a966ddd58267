"""The meaning of media class names: synthetic or real."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from auditor.core.errors import UsageError

Meaning = Literal["fake", "real", "neither"]

# As data sets and published detectors name them. A word in neither list means nothing here, and is asked for.
FAKE_WORDS = frozenset(
    (
        "fake", "fakes", "ai", "aigc", "aigenerated", "generated", "synthetic", "synthesized", "synthesised",
        "deepfake", "deepfakes", "artificial", "manipulated", "tampered", "forged", "spoof", "spoofed", "gan",
        "diffusion", "faceswap", "cloned",
    )
)  # fmt: skip
REAL_WORDS = frozenset(
    (
        "real", "realism", "genuine", "bonafide", "authentic", "original", "pristine", "unaltered", "human", "natural",
        "nature", "photo", "photograph",
    )
)  # fmt: skip
# What stands beside such a word and changes nothing about it; alone it means nothing.
_FILLERS = frozenset(
    (
        "image", "images", "picture", "pictures", "photo", "photos", "audio", "sound", "speech", "voice", "video",
        "videos", "media", "face", "faces", "class", "label", "made", "by", "deep",
    )
)  # fmt: skip
# Words of other questions too: they tell of media only beside a class that means the opposite.
_OF_OTHER_THINGS = frozenset(("human", "natural", "nature", "original", "artificial", "cloned"))
_BY_HAND = "say it with --class-is fake=NAME, --class-is real=NAME or --class-is neither=NAME"


def meaning_of(name: str) -> Literal["fake", "real"] | None:
    """The meaning of a class name; None if unclear.

    The name is cut into words at everything but letters, and where a capital follows a small letter. Every word must be
    of the lists, a number, or one that changes nothing beside another, such as "image"; and all must say the same. A
    negation is in no list, so that "not fake" is not clear.
    """
    whole = re.sub(r"[^a-z]+", "", name.lower())
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    parts = {part for part in re.split(r"[^a-z]+", words.lower()) if part}
    # "Bona fide" and "DeepFake" are one word in two.
    parts = {whole} if whole in FAKE_WORDS | REAL_WORDS else parts
    telling = parts if len(parts) == 1 else parts - _FILLERS
    if re.search(r"[^\W\d_a-z]", name.lower()):
        return None
    if telling and telling <= FAKE_WORDS:
        return "fake"
    return "real" if telling and telling <= REAL_WORDS else None


def fake_class(classes: Sequence[str]) -> int | None:
    """Index of the synthetic one of two classes by its name, such as ``fake`` beside ``real``; None if unclear.

    One word that speaks of media alone is enough, whatever the other class is called.
    """
    if len(classes) != 2:
        return None
    meant = [meaning_of(name) for name in classes]
    if set(meant) != {"fake", "real"}:
        meant = [
            None if name.strip().lower() in _OF_OTHER_THINGS else m for name, m in zip(classes, meant, strict=True)
        ]
    fakes, reals = meant.count("fake"), meant.count("real")
    if fakes == 1:
        return meant.index("fake")
    return 1 - meant.index("real") if reals == 1 and not fakes else None


def meanings(
    names: Sequence[str], user_meanings: Mapping[str, Meaning], *, description: str = "the detector's classes"
) -> tuple[Meaning, ...]:
    """The meaning of each class: from ``user_meanings``, else from its name.

    ``description``: whose names they are, in words.

    Raises UsageError in one sentence where a name is not clear, or where none of them means fake, or none real.
    """
    found: list[Meaning] = []
    for name in names:
        meant = user_meanings.get(name) or meaning_of(name)
        if meant is None:
            raise UsageError(
                f"Of {description} ({_listed(names)}) what {_quote_name(name)} means is not clear: {_BY_HAND}."
            )
        found.append(meant)
    for needed in ("fake", "real"):
        if needed not in found:
            raise UsageError(f"None of {description} ({_listed(names)}) means {needed}: {_BY_HAND}.")
    return tuple(found)


def same_meaning(name: str, classes: Sequence[str]) -> int | None:
    """Index of the one class with the same meaning as this name, if every class has a meaning; else None."""
    meant, all_meant = meaning_of(name), [meaning_of(each) for each in classes]
    if meant is None or None in all_meant or all_meant.count(meant) != 1:
        return None
    return all_meant.index(meant)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(_quote_name, names[:8])) + (", ..." if len(names) > 8 else "")


def _quote_name(name: str) -> str:
    return repr(name[:60])
