"""Rewritings of texts, and the search among them, against exhaustive search and models whose weakness is known."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from auditor.core.rows import FloatArray
from auditor.data.audit_data import AuditData
from auditor.judging.criterion import Criterion
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.statistics.attack_estimates import AtLeast, AtMost
from auditor.statistics.rates import Proportion
from probes.robustness.robustness import Robustness
from probes.robustness.text_perturbations import (
    FAMILIES,
    LOOK_ALIKES,
    NEUTRAL,
    ZERO_WIDTH_SPACE,
    AttackedTexts,
    Family,
    attack_texts,
    homoglyphs,
    leet,
    typos,
    zero_width,
)
from tests.quantifiers import all_of

CLASSES = ("harmless", "toxic")
OF = {family.name: family for family in FAMILIES}
WORDS = "the cat sat on a mat while rain fell over old roofs and birds sang in tall green trees near town".split()
BAD = ("idiot", "scum", "liar")

Predict = Callable[[Sequence[str]], FloatArray]


def texts(n: int, n_words: int = 12, n_bad: int = 1, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        words = rng.choice(WORDS, n_words).tolist()
        for place in rng.choice(n_words, n_bad, replace=False):
            words[place] = str(rng.choice(BAD))
        found.append(" ".join(words))
    return found


def spotter(rows: Sequence[str]) -> FloatArray:
    """P(toxic) of a bag of words: the more bad ones, the surer, and sure from one on."""
    n = np.array([sum(word in BAD for word in text.split()) for text in rows], float)
    return np.asarray(n / (n + 0.5))


def reads(rows: Sequence[str]) -> FloatArray:
    """The same of a model that reads what a reader sees."""
    back = {ord(chr(b) if isinstance(b, int) else b): chr(a) for a, b in LOOK_ALIKES.items()}
    plain = str.maketrans({ZERO_WIDTH_SPACE: "", **{chr(k): v for k, v in back.items()}})
    return spotter([text.translate(plain) for text in rows])


def search(predict: Predict, rows: Sequence[str], family: str, **options: Any) -> tuple[AttackedTexts, list[str]]:
    asked: list[str] = []

    def ask(versions: list[str]) -> FloatArray:
        asked.extend(versions)
        p = predict(versions)
        return np.stack([1.0 - p, p], axis=1)

    def decide(_: list[str], p: FloatArray) -> Any:
        return (p[:, 1] >= 0.5).astype(np.int64)

    clean = decide(list(rows), ask(list(rows)))
    asked.clear()
    settings = {"levels": (1, 2, 4), "n_queries": 100, "rng": np.random.default_rng(0)} | options
    found = attack_texts(rows, clean, ask, decide, family=OF[family], **settings)
    assert found.asked == len(asked)
    return found, asked


# ---- rewritings ----------------------------------------------------------------------------------------------------


def test_typing_errors_of_a_word_are_single_edits() -> None:
    rng = np.random.default_rng(0)
    for word in ("idiot", "Scum!", "a", "it's", "(naïve)", "aa"):
        versions = typos(word, rng)
        assert len(set(versions)) == len(versions) <= 8 and word not in versions
        for version in versions:
            assert abs(len(version) - len(word)) <= 1 and any(c.isalpha() for c in version)
            assert [c for c in version if not c.isalpha()] == [c for c in word if not c.isalpha()]
            letters = Counter(c for c in version if c.isalpha())
            letters.subtract(c for c in word if c.isalpha())
            assert sum(abs(k) for k in letters.values()) <= 2
    assert typos("12!", rng) == [] and typos("", rng) == []
    assert {len(v) - 5 for _ in range(20) for v in typos("idiot", rng)} == {-1, 0, 1}


def test_look_alikes_read_the_same_and_are_other_letters() -> None:
    for latin, other in LOOK_ALIKES.items():
        assert unicodedata.name(chr(latin)).startswith("LATIN")
        assert unicodedata.name(str(other)).startswith("CYRILLIC")
        if str(other) != "\u04cf":
            assert chr(latin).isupper() == str(other).isupper()
    one, every = homoglyphs("scum", np.random.default_rng(0))
    assert one == "\u0455cum" and every == "\u0455\u0441um"
    assert homoglyphs("42 %", np.random.default_rng(0)) == []


def test_zero_width_spaces_and_digits() -> None:
    rng = np.random.default_rng(0)
    for word in ("idiot", "a", "ab", "«no»"):
        for version in zero_width(word, rng):
            assert version != word and version.replace(ZERO_WIDTH_SPACE, "") == word
            assert len(version.split()) == 1
    assert zero_width("idiot", rng)[1].count(ZERO_WIDTH_SPACE) == 4 and zero_width("7", rng) == []
    assert leet("Idiots", rng) == ["1diots", "1d1075"] and leet("why", rng) == []


# ---- the search ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["worst_typos", "homoglyphs", "zero_width", "leet"])
def test_a_word_spotter_is_broken_by_one_changed_word_wherever_it_stands(family: str) -> None:
    found, _ = search(spotter, texts(80), family)
    assert found.broken[0].mean() > 0.99
    for before, after in zip(texts(80), found.examples, strict=True):
        changed = [(a, b) for a, b in zip(before.split(), after.split(), strict=True) if a != b]
        assert len(changed) == 1 and changed[0][0] in BAD


@pytest.mark.parametrize("n_bad", [2, 3, 4])
def test_so_many_words_are_changed_as_there_are_bad_ones(n_bad: int) -> None:
    found, _ = search(spotter, texts(40, n_bad=n_bad), "homoglyphs", levels=(1, 2, 3, 4))
    assert found.broken.mean(axis=1).tolist() == [float(level >= n_bad) for level in (1, 2, 3, 4)]


def test_a_bad_word_in_a_long_text_is_found_within_the_questions_that_are_allowed() -> None:
    rows = texts(30, n_words=400)
    found, asked = search(spotter, rows, "zero_width", n_queries=100)
    assert found.broken[0].all() and len(asked) <= 100 * len(rows)


@pytest.mark.parametrize("n_queries", [2, 3, 10, 40])
def test_no_text_is_asked_about_more_often_than_allowed(n_queries: int) -> None:
    def firm(rows: Sequence[str]) -> FloatArray:
        return np.array([0.9 - 1e-4 * len(text) for text in rows])

    rows = texts(7)
    for family in OF:
        found, asked = search(firm, rows, family, n_queries=n_queries)
        assert not found.broken.any() and found.examples == tuple(rows)
        assert len(asked) <= n_queries * len(rows)
        assert len(asked) >= min(n_queries - 1, 23) * len(rows) * 0.7


def test_only_texts_that_nothing_breaks_are_asked_about_further() -> None:
    weak, strong = texts(20), texts(20, n_bad=4, seed=1)
    found, asked = search(spotter, weak + strong, "homoglyphs", levels=(1, 4))
    assert found.broken[0, :20].all() and not found.broken[0, 20:].any() and found.broken[1].all()
    _, of_weak = search(spotter, weak, "homoglyphs", levels=(1, 4))
    _, of_strong = search(spotter, strong, "homoglyphs", levels=(1, 4))
    assert len(asked) == len(of_weak) + len(of_strong) and len(of_weak) < len(of_strong)


def test_leaving_a_word_out_breaks_nothing() -> None:
    found, _ = search(reads, texts(40), "homoglyphs")
    assert not found.broken.any()
    found, _ = search(reads, texts(40), "zero_width")
    assert not found.broken.any()


def test_what_does_not_hold_when_it_is_asked_again_is_not_found() -> None:
    """A model whose answer rests on what else it is asked beside, as padding and batch statistics can make it."""

    def together(rows: Sequence[str]) -> FloatArray:
        return np.full(len(rows), 0.1 if len(rows) > 40 else 0.9)

    found, asked = search(together, texts(40), "zero_width")
    assert not found.broken.any() and found.examples == tuple(texts(40)) and len(asked) > 40
    held, asked = search(spotter, texts(40), "zero_width")
    assert held.broken[0].all() and list(held.examples) == asked[-40:]


def test_the_worst_single_typo_is_that_of_exhaustive_search() -> None:
    """Of a model whose margin depends on every letter, with questions enough for all words."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal(128)

    def letters(rows: Sequence[str]) -> FloatArray:
        z = np.array([sum(weights[ord(c) % 128] for c in text) for text in rows])
        return np.asarray(1.0 / (1.0 + np.exp(middle - z)))

    middle = 0.0
    rows = [" ".join(rng.choice(["ab", "cd", "if", "go", "my", "us"], 16)) for _ in range(80)]
    middle = float(np.median(np.log(letters(rows) / (1.0 - letters(rows)))))
    found, _ = search(letters, rows, "worst_typos", levels=(1,), n_queries=600)
    lowest = []
    for text in rows:
        words = text.split()
        # The key next to a letter is drawn: the two searches differ in that alone.
        versions = [
            " ".join([*words[:i], version, *words[i + 1 :]])
            for i, word in enumerate(words)
            for draws in range(3)
            for version in typos(word, np.random.default_rng(draws))
        ]
        lowest.append(bool(((letters(versions) >= 0.5) != (letters([text]) >= 0.5)).any()))
    broken, exhaustive = found.broken[0], np.array(lowest)
    assert (broken & ~exhaustive).mean() <= 0.05 and (exhaustive & ~broken).mean() <= 0.05
    assert 0.1 < exhaustive.mean() < 0.9


def test_words_that_are_appended_dilute() -> None:
    def mean_word(rows: Sequence[str]) -> FloatArray:
        return np.array([min(1.0, 4.0 * np.mean([w in BAD for w in text.split()])) for text in rows])

    found, _ = search(mean_word, ["you idiot are so and so", "you idiot are so and so and so"], "appended_words")
    assert found.broken.tolist() == [[False, True], [False, True], [True, True]]
    extra = found.examples[0].removeprefix("you idiot are so and so").split()
    assert extra and set(extra) <= set(NEUTRAL) and len(set(extra)) == len(extra)


def test_a_model_that_tells_decisions_alone_is_broken_too() -> None:
    def hard(rows: Sequence[str]) -> FloatArray:
        return np.asarray(spotter(rows) >= 0.5, float)

    found, _ = search(hard, texts(60, n_bad=1), "zero_width")
    assert found.broken[0].mean() > 0.95


# ---- the probe -----------------------------------------------------------------------------------------------------


def measured(predict: Predict, n_bad: int = 1, n: int = 120, **options: Any) -> list[Measurement]:
    rows = texts(n // 2, n_bad=n_bad) + texts(n // 2, n_bad=0, seed=1)
    y = ["toxic"] * (n // 2) + ["harmless"] * (n // 2)
    data = AuditData.from_arrays(rows, y, classes=CLASSES, positive="harmless")
    model = AuditedModel.from_callable(lambda X: np.stack([1.0 - predict(X), predict(X)], axis=1), classes=CLASSES)
    return Robustness(**options).measure(model, data, np.random.default_rng(0))


def at(found: Sequence[Measurement], metric: str, level: float) -> Measurement:
    return next(m for m in found if m.metric == metric and level in m.at.values())


def test_each_way_of_rewriting_has_a_name_and_says_what_it_asked() -> None:
    found = measured(spotter)
    assert {m.method for m in found if m.method} == {"typos", *OF}
    for family in OF.values():
        for level in (1, 2, 4):
            accuracy = at(found, f"accuracy_under_{family.name}", level)
            flips = at(found, f"flip_rate_under_{family.name}", level)
            assert isinstance(accuracy.estimate, AtMost) and isinstance(flips.estimate, AtLeast)
            assert accuracy.at == flips.at == {"words": level} and accuracy.estimate.n == flips.estimate.n == 120
            assert family.what in accuracy.detail and "at most 100 questions about a text" in flips.detail
    assert isinstance(at(found, "accuracy_under_typos", 1).estimate, Proportion)
    for name in ("homoglyphs", "zero_width", "worst_typos"):
        assert at(found, f"flip_rate_under_{name}", 1).estimate.value == pytest.approx(0.5, abs=0.01)
        assert at(found, f"accuracy_under_{name}", 1).estimate.value == pytest.approx(0.5, abs=0.01)
    assert at(found, "flip_rate_under_appended_words", 4).estimate.value == 0.0
    # One typing error in a word of twelve: a random one seldom strikes the word that counts.
    assert at(found, "flip_rate_under_typos", 1).estimate.value < 0.1


def test_a_search_may_fail_a_model_and_never_passes_one() -> None:
    criterion = Criterion(
        metric="flip_rate_under_homoglyphs", direction="at_most", bound=0.1, source="t", set_by="t", set_at="t"
    )
    for predict, outcome in ((spotter, Outcome.FAIL), (reads, Outcome.INCONCLUSIVE)):
        found = measured(predict, n=400, methods="homoglyphs", n_samples=400)
        result = ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(found))
        findings, _ = judge([result], [criterion])
        judged = [f.outcome for f in findings if f.criterion is not None]
        assert judged == [outcome] * 3


def test_searches_ask_about_two_hundred_texts_or_as_many_as_are_said() -> None:
    found = measured(spotter, n=600, methods=["typos", "leet"])
    assert at(found, "flip_rate_under_leet", 1).n_samples == 200
    assert at(found, "flip_rate_under_typos", 1).n_samples == 600
    found = measured(spotter, n=600, methods="leet", n_samples=300)
    assert at(found, "flip_rate_under_leet", 1).n_samples == 300


def test_one_way_more_changes_no_other_number() -> None:
    both, alone = measured(spotter), measured(spotter, methods="worst_typos", words=[2])
    of = [m for m in both if m.metric.endswith("worst_typos") and m.at == {"words": 2}]
    assert of and [m.estimate for m in alone if m.method] == [m.estimate for m in of]


def test_a_model_that_fails_on_odd_signs_is_undefined_there_alone() -> None:
    def ascii_only(rows: Sequence[str]) -> FloatArray:
        for text in rows:
            text.encode("ascii")
        return spotter(rows)

    found = measured(ascii_only)
    undefined = {m.method for m in found if np.isnan(m.estimate.value)}
    assert undefined == {"homoglyphs", "zero_width"}
    reason = next(m.estimate.reason for m in found if m.method == "zero_width")  # type: ignore[union-attr]
    assert "UnicodeEncodeError" in reason


def test_families_are_named_as_methods_are() -> None:
    assert set(OF) < set(Robustness.methods)
    assert all_of(isinstance(family, Family) and family.what for family in FAMILIES)
