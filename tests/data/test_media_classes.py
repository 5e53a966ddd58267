"""What names of classes say of media: words of meaning, and nothing guessed beyond them."""

from __future__ import annotations

import pytest

from auditor.core.errors import UsageError
from auditor.data.media_classes import FAKE_WORDS, REAL_WORDS, fake_class, meaning_of, meanings, same_meaning


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("AI", "fake"),
        ("ai-generated", "fake"),
        ("Ai_generated images", "fake"),
        ("DeepFake", "fake"),
        ("Deep Fake", "fake"),
        ("1_fake", "fake"),
        ("artificial", "fake"),
        ("Bona Fide", "real"),
        ("bona-fide", "real"),
        ("0_real", "real"),
        ("Realism", "real"),
        ("human", "real"),
        ("photo", "real"),
        ("made by human", "real"),
        # Never a guess: a negation, both at once, a number, a word of no list, another script.
        ("not ai", None),
        ("non-fake", None),
        ("unreal", None),
        ("real_fake", None),
        ("fake or not", None),
        ("0", None),
        ("LABEL_1", None),
        ("image", None),
        ("real estate", None),
        ("aid", None),
        ("fаke", None),
        ("fake\u202e", "fake"),
        ("", None),
    ],
)
def test_a_name_means_what_all_of_its_words_say(name: str, meant: str | None) -> None:
    assert meaning_of(name) == meant


def test_no_word_means_both() -> None:
    assert not FAKE_WORDS & REAL_WORDS


def test_what_is_not_clear_is_asked_for_in_one_sentence() -> None:
    assert meanings(["real", "ai", "manipulated"], {}) == ("real", "fake", "fake")
    assert meanings(["0", "1", "cartoon"], {"0": "real", "1": "fake", "cartoon": "neither"}) == (
        "real",
        "fake",
        "neither",
    )
    # What is said goes before what a name says.
    assert meanings(["real", "fake"], {"real": "fake", "fake": "real"}) == ("fake", "real")
    for names, said in (
        (["0", "1"], "('0', '1') what '0' means is not clear: say it with --class-is fake=NAME"),
        (["real", "cat"], "what 'cat' means is not clear"),
        (["fake", "ai"], "None of the detector's classes ('fake', 'ai') means real"),
        (["real", "human"], "means fake"),
    ):
        with pytest.raises(UsageError) as refused:
            meanings(names, {})
        assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [(("human", "animal"), None), (("natural", "built"), None), (("human", "AI"), 1), (("spoof", "live"), 0)],
)
def test_a_word_of_other_questions_tells_of_media_only_beside_its_opposite(
    classes: tuple[str, str], expected: int | None
) -> None:
    assert fake_class(classes) == expected


def test_a_folder_is_of_the_one_class_that_means_the_same() -> None:
    assert same_meaning("fake", ("real", "ai")) == 1 and same_meaning("human", ("real", "ai")) == 0
    for name, classes in (
        ("fake", ("real", "ai", "deepfake")),
        ("fake", ("cat", "dog")),
        ("cat", ("real", "ai")),
        ("fake", ("real", "ai", "other")),
    ):
        assert same_meaning(name, classes) is None
