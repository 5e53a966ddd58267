"""Associations in embeddings: WEAT by hand, by enumeration and the slow way; files of vectors; error rates."""

from __future__ import annotations

import copy
import math
import struct
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binom

from auditor.core.errors import ConfigError, DataError, NotApplicableError, UsageError
from auditor.core.rows import FloatArray
from auditor.data.preprocessing import TextPreprocessing
from auditor.judging.criterion import Criterion, load_criteria
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.loading.rows.word_vectors import input_embeddings, sentence_encoder, word_vectors
from auditor.models.audited_model import AuditedModel
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.torch_model import TorchModel
from auditor.report.record.translations import ENGLISH, Catalogue
from auditor.run.checks.contract import check_probe
from auditor.run.probe import make_probe
from auditor.run.run_audit import no_data
from auditor.statistics.estimate import Undefined
from auditor.statistics.means import StandardizedDifference
from auditor.statistics.significance_tests import ConfirmedCount
from probes.fairness.embeddings import (
    EmbeddingAssociation,
    _count_confirmed,
    associations,
    built_in_lists,
    effect_size,
    permutation_p,
    sentence,
)
from tests.quantifiers import all_of
from tests.statistics.worlds import WORLDS, areas_of, misses, most_misses, normal_shift
from tests.toys.language import WORDS, causal_tokenizer, tiny

CRITERION = Criterion(
    metric="association_auc",
    direction="within",
    bound=(0.3, 0.7),
    source="test",
    set_by="test",
    set_at="2026-01-01",
)
LISTS = """
[[tests]]
name = "toy"
x = [{x}]
y = [{y}]
a = ["good", "fine"]
b = ["bad", "poor"]
"""


def classifier() -> AuditedModel:
    return AuditedModel.from_callable(lambda rows: np.zeros(len(rows)), classes=("no", "yes"))


def write_lists(folder: Path, x: list[str], y: list[str]) -> str:
    path = folder / "lists.toml"
    path.write_text(LISTS.format(x=", ".join(f'"{w}"' for w in x), y=", ".join(f'"{w}"' for w in y)))
    return str(path)


def write_glove(path: Path, vectors: dict[str, FloatArray]) -> str:
    path.write_text("".join(f"{w} {' '.join(f'{v:.6f}' for v in vector)}\n" for w, vector in vectors.items()))
    return str(path)


def slow_effect_size(x: FloatArray, y: FloatArray, a: FloatArray, b: FloatArray) -> float:
    def cosine(u: FloatArray, v: FloatArray) -> float:
        return float(sum(p * q for p, q in zip(u, v, strict=True))) / math.sqrt(
            float(sum(p * p for p in u)) * float(sum(q * q for q in v))
        )

    def s(w: FloatArray) -> float:
        return sum(cosine(w, v) for v in a) / len(a) - sum(cosine(w, v) for v in b) / len(b)

    of_x, of_y = [s(w) for w in x], [s(w) for w in y]
    every = of_x + of_y
    centre = sum(every) / len(every)
    spread = math.sqrt(sum((v - centre) ** 2 for v in every) / (len(every) - 1))
    return (sum(of_x) / len(of_x) - sum(of_y) / len(of_y)) / spread


def unit(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


# ---- arithmetic ----------------------------------------------------------------------------------------------------


def test_a_toy_in_two_dimensions_by_hand() -> None:
    # a = (1, 0), b = (0, 1): s(w) is the first coordinate minus the second; 1 and 0.2 in X, -1 and 0.2 in Y.
    x = np.asarray([[[1.0, 0.0]], [[0.8, 0.6]]])
    y = np.asarray([[[0.0, 1.0]], [[0.8, 0.6]]])
    a, b = np.asarray([[[1.0, 0.0]]]), np.asarray([[[0.0, 1.0]]])
    sx, sy = associations(x, a, b)[:, 0], associations(y, a, b)[:, 0]
    np.testing.assert_allclose(sx, [1.0, 0.2])
    np.testing.assert_allclose(sy, [-1.0, 0.2])
    # Means 0.6 and -0.4; all four have mean 0.1 and squares about it 0.81, 0.01, 1.21, 0.01.
    assert effect_size(sx, sy) == pytest.approx(1.0 / math.sqrt(2.04 / 3))


def test_the_fast_effect_size_is_the_slow_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y, a, b = (rng.normal(size=(n, 7)) for n in (6, 5, 4, 3))
        fast = effect_size(*(associations(unit(w)[:, None], unit(a)[:, None], unit(b)[:, None])[:, 0] for w in (x, y)))
        assert fast == pytest.approx(slow_effect_size(x, y, a, b), abs=1e-12)


def test_exact_p_is_enumeration() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(0.5, 1.0, 5), rng.normal(0.0, 1.0, 4)
    every = np.concatenate([x, y])
    differences = [every[list(c)].mean() - np.delete(every, list(c)).mean() for c in combinations(range(9), 5)]
    observed = x.mean() - y.mean()
    found = permutation_p(x, y, rng=rng, max_partitions=1000, n_draws=1000)
    assert found.exact and found.partitions == math.comb(9, 5)
    assert found.one_sided == pytest.approx(np.mean([d >= observed - 1e-12 for d in differences]))
    assert found.two_sided == pytest.approx(np.mean([abs(d) >= abs(observed) - 1e-12 for d in differences]))
    sampled = permutation_p(x, y, rng=rng, max_partitions=1, n_draws=40_000)
    assert not sampled.exact
    assert sampled.two_sided == pytest.approx(found.two_sided, abs=0.015)
    apart = permutation_p(np.arange(12.0) + 100, np.arange(12.0), rng=rng, max_partitions=1, n_draws=1000)
    assert apart.one_sided == pytest.approx(1 / 1001), "the observed partition counts"


@pytest.mark.grid
@pytest.mark.parametrize(("n", "m", "delta"), [(6, 6, 0.0), (8, 8, 1.5), (16, 16, 0.5), (6, 12, 4.0)])
def test_bounds_of_the_effect_size_hold(n: int, m: int, delta: float) -> None:
    rng = np.random.default_rng(n)
    true = delta / math.sqrt(1.0 + n * m / (n + m) ** 2 * delta**2)
    x, y = rng.normal(delta, 1.0, (WORLDS, n)), rng.normal(0.0, 1.0, (WORLDS, m))
    sizes = [effect_size(a, b) for a, b in zip(x, y, strict=True)]
    estimates = (StandardizedDifference(centre=d, n_first=n, n_second=m) for d in sizes)
    assert max(misses(estimates, true)) <= most_misses()


def test_random_vectors_have_no_association_beyond_the_promise() -> None:
    """What decides the audits of random vectors below: 25 words against 25, and attributes of two words each."""
    rng = np.random.default_rng(5)
    estimates = []
    for vectors in rng.normal(size=(WORLDS, 54, 1, 30)):
        x, y, a, b = np.split(unit(vectors), (25, 50, 52))
        d = effect_size(associations(x, a, b)[:, 0], associations(y, a, b)[:, 0])
        estimates.append(StandardizedDifference(centre=d, n_first=25, n_second=25))
    assert max(misses(estimates, 0.0)) <= most_misses()


def test_bounds_are_nested_and_survive_any_level() -> None:
    for d in (-1.93, -0.4, 0.0, 1.2, 1.93):
        estimate = StandardizedDifference(centre=d, n_first=8, n_second=8)
        bounds = [estimate.bounds(alpha) for alpha in (0.5, 0.05, 1e-3, 1e-6, 1e-10, 1e-16)]
        assert all_of(a <= d <= b for a, b in bounds)
        assert all_of(
            later[0] <= earlier[0] and later[1] >= earlier[1]
            for earlier, later in zip(bounds, bounds[1:], strict=False)
        )
    mirrored = StandardizedDifference(centre=-1.2, n_first=8, n_second=8).bounds(0.01)
    low, high = StandardizedDifference(centre=1.2, n_first=8, n_second=8).bounds(0.01)
    assert mirrored == pytest.approx((-high, -low))
    without_spread = StandardizedDifference(centre=math.sqrt(15 * 16 / 64), n_first=8, n_second=8)
    assert without_spread.bounds(0.05) == (-2.0, 2.0)


# ---- the probe -----------------------------------------------------------------------------------------------------


def toy_vectors(rng: np.random.Generator, n: int, tie: float) -> dict[str, FloatArray]:
    """Random vectors in 30 dimensions; those of x lean towards good, those of y towards bad, by ``tie``."""
    good, bad = rng.normal(size=30), rng.normal(size=30)
    vectors = {
        w: v + 0.2 * rng.normal(size=30) for w, v in (("good", good), ("fine", good), ("bad", bad), ("poor", bad))
    }
    for i in range(n):
        vectors[f"x{i}"] = rng.normal(size=30) + tie * good
        vectors[f"y{i}"] = rng.normal(size=30) + tie * bad
    return vectors


def outcome(probe: EmbeddingAssociation, rng: np.random.Generator) -> Outcome:
    found = probe.measure(classifier(), no_data(), rng)
    result = ProbeResult(probe=probe.name, pillar=probe.pillar, citation=probe.citation, measurements=tuple(found))
    return next(f for f in judge([result], [CRITERION])[0] if f.criterion is not None).outcome


def test_error_rates_on_random_vectors_and_a_planted_association(tmp_path: Path) -> None:
    """A file of vectors is written and read in every world, so there are few; 2,000 without files are above."""
    rng = np.random.default_rng(2)
    x, y = [f"x{i}" for i in range(25)], [f"y{i}" for i in range(25)]
    lists = write_lists(tmp_path, x, y)
    fails = 0
    for world in range(60):
        vectors = write_glove(tmp_path / f"{world}.txt", toy_vectors(rng, 25, 0.0))
        probe = EmbeddingAssociation(vectors=vectors, lists=lists, min_words=2, n_draws=1000)
        size, area, _ = probe.measure(classifier(), no_data(), rng)
        assert size.metric == "association_effect_size" and area.metric == "association_auc"
        low, high = area.estimate.bounds(0.05)
        fails += low > 0.5 or high < 0.5
    assert fails <= 12, "60 worlds without an association, and 0.1 % beyond a rate of 5 % on either side"
    planted = EmbeddingAssociation(
        vectors=write_glove(tmp_path / "planted.txt", toy_vectors(rng, 25, 1.0)), lists=lists, min_words=2
    )
    assert outcome(planted, rng) is Outcome.FAIL


def planted(tie: float) -> AuditedLanguageModel:
    """A language model with random vectors for the names of the third test, tied to its attributes by ``tie``."""
    test = next(t for t in built_in_lists().tests if t.name == "weat_3")
    words = [w for words in test.sets for w in words]
    network = tiny("gpt2", vocab_size=len(words) + 5, n_embd=64)
    rng = np.random.default_rng(7)
    good, bad = rng.normal(size=64), rng.normal(size=64)
    lean = [tie * good] * 32 + [tie * bad] * 32 + [good] * 25 + [bad] * 25
    with torch.no_grad():
        table = network.get_input_embeddings().weight  # type: ignore[operator]
        table[5:] = torch.from_numpy(np.asarray(lean) + rng.normal(size=(len(words), 64))).float()
    return AuditedLanguageModel(network, causal_tokenizer(words))


@pytest.mark.slow
def test_it_keeps_the_contract() -> None:
    check_probe(
        EmbeddingAssociation(tests="weat_3", methods="weat", n_draws=1000),
        ideal_model=planted(0.0), ideal_data=no_data(), violating_model=planted(1.0), violating_data=no_data(),
        criteria=[CRITERION.model_copy(update={"bound": (0.26, 0.74)})], key="embedding_association",
    )  # fmt: skip


def test_many_words_without_an_association_pass(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    x, y = [f"x{i}" for i in range(200)], [f"y{i}" for i in range(200)]
    vectors = write_glove(tmp_path / "v.txt", toy_vectors(rng, 200, 0.0))
    lists = write_lists(tmp_path, x, y)
    assert outcome(EmbeddingAssociation(vectors=vectors, lists=lists, min_words=2, n_draws=1000), rng) is Outcome.PASS
    few = EmbeddingAssociation(vectors=vectors, lists=write_lists(tmp_path, x[:8], y[:8]), min_words=2)
    found = few.measure(classifier(), no_data(), rng)
    result = ProbeResult(probe="embedding_association", pillar="language", citation="", measurements=tuple(found))
    finding = next(f for f in judge([result], [CRITERION])[0] if f.criterion is not None)
    assert finding.outcome is Outcome.INCONCLUSIVE and (finding.n_required or 0) > 16


def counted(vectors: FloatArray, method: str = "weat") -> Judgement:
    """What the default profile says of words (3 tests, 16 words), of which the first 8 are X, by vectors of s(w)."""
    told = []
    for i, s in enumerate(vectors):
        p = permutation_p(s[:8], s[8:], rng=np.random.default_rng(0), max_partitions=20_000, n_draws=1_000)
        d = StandardizedDifference(centre=effect_size(s[:8], s[8:]), n_first=8, n_second=8)
        size = Measurement(
            metric="association_effect_size", method=method, estimate=d, n_samples=16, at={"test": str(i)}
        )
        told.append(([size], p))
    result = ProbeResult(
        probe="embedding_association",
        pillar="language",
        citation="",
        measurements=tuple(_count_confirmed(method, told)),
    )
    return next(f for f in judge([result], load_criteria())[0] if f.metric == "confirmed_associations")


def test_an_association_of_8_words_a_set_fails_by_default_and_none_passes() -> None:
    rng = np.random.default_rng(2)
    words = rng.normal(size=(8, 16))
    quiet = counted(words)
    assert quiet.outcome is Outcome.NOT_JUDGED and "may be there" in quiet.reason
    # Three standard deviations apart are 1.4 to 1.7 of both sets together.
    words[3, :8] += 3.0
    loud = counted(words)
    assert loud.outcome is Outcome.FAIL and loud.measurement is not None
    assert "of 8 tests, surest first: 3 d 1." in loud.measurement.detail


def test_random_words_confirm_no_association_more_often_than_promised() -> None:
    """The p-values themselves, exact over all 12,870 divisions: 5 % of worlds of 8 tests FAIL at most."""
    rng = np.random.default_rng(4)
    every = np.asarray(list(combinations(range(16), 8)))
    failed = 0
    for _ in range(120):
        s = rng.standard_gamma(0.3, size=(8, 16))
        sums = s[:, every].sum(axis=2)
        apart = np.abs(2.0 * sums - s.sum(axis=1, keepdims=True))
        p = (apart >= apart[:, :1] - 1e-12).mean(axis=1)
        failed += ConfirmedCount(p_values=tuple(p.tolist())).bounds(0.05)[0] > 0.0
    assert failed <= binom.ppf(0.999, 120, 0.05)


def test_confirmed_associations_are_read_as_a_whole_number() -> None:
    say = Catalogue.for_language(ENGLISH)
    counted, measured = EmbeddingAssociation.questions
    assert counted.fits("confirmed_associations") and say.value(3.0, counted.form) == "3"
    assert not counted.fits("association_effect_size") and say.value(3.0, measured.form) == "3.0"


def test_words_without_a_vector_are_counted_and_too_few_are_undefined(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    vectors = toy_vectors(rng, 6, 0.0)
    del vectors["x0"], vectors["x1"], vectors["x2"]
    path = write_glove(tmp_path / "v.txt", vectors)
    lists = write_lists(tmp_path, [f"x{i}" for i in range(6)], [f"y{i}" for i in range(6)])
    fewer = EmbeddingAssociation(vectors=path, lists=lists, min_words=2)
    [found, _, count] = fewer.measure(classifier(), no_data(), rng)
    assert (
        count.metric == "confirmed_associations"
        and found.n_samples == 9
        and "no vector for 3 of 16 words (x0, x1, x2)" in found.detail
    )
    [found, other] = EmbeddingAssociation(vectors=path, lists=lists, min_words=4).measure(classifier(), no_data(), rng)
    assert isinstance(found.estimate, Undefined) and other.estimate == found.estimate
    assert "3 of 6 words for X, 2 of 2 words for A, 2 of 2 words for B" in found.estimate.reason


def test_nothing_to_look_at_is_not_applicable() -> None:
    with pytest.raises(NotApplicableError, match=r"embedding_association\.vectors"):
        EmbeddingAssociation().measure(classifier(), no_data(), np.random.default_rng(0))


def test_options_that_are_wrong() -> None:
    with pytest.raises(ConfigError, match="did you mean 'weat_6'"):
        make_probe(EmbeddingAssociation, {"tests": ["weat6"]})
    with pytest.raises(ConfigError, match="methods must be"):
        make_probe(EmbeddingAssociation, {"methods": ["bert"]})
    with pytest.raises(ConfigError, match="cannot be read"):
        make_probe(EmbeddingAssociation, {"lists": "/nowhere/lists.toml"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tests = 3", "at least one"),
        ('[[tests]]\nname = "t"\nx = ["a"]\ny = ["a"]\na = ["c"]\nb = ["d"]', "'a' stands in both x and y"),
        ('[[tests]]\nname = "t"\nx = ["a"]\ny = ["b"]\na = ["c"]', "b must be a list"),
        ('[[tests]]\nnam = "t"', "unknown key 'nam'; did you mean 'name'"),
        ("[[tests]", "cannot be read as TOML"),
    ],
)
def test_lists_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "lists.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        EmbeddingAssociation(lists=str(tmp_path / "lists.toml"))


def test_the_published_lists() -> None:
    lists = built_in_lists()
    sizes = {t.name: tuple(map(len, t.sets)) for t in lists.tests}
    assert sizes == {
        "weat_1": (25, 25, 25, 25), "weat_2": (25, 25, 25, 25), "weat_3": (32, 32, 25, 25), "weat_4": (16, 16, 25, 25),
        "weat_5": (16, 16, 8, 8), "weat_6": (8, 8, 8, 8), "weat_7": (8, 8, 8, 8), "weat_8": (8, 8, 8, 8),
        "weat_9": (6, 6, 7, 7), "weat_10": (8, 8, 8, 8),
    }  # fmt: skip
    assert [t.name for t in lists.tests if t.control] == ["weat_1", "weat_2"]
    assert sentence("{} is here.", "science") == "Science is here."


# ---- a model's own vectors -----------------------------------------------------------------------------------------


def test_a_language_model_is_asked_for_words_and_sentences_and_left_as_it_was(tmp_path: Path) -> None:
    network = tiny("gpt2").train()
    before = copy.deepcopy(network.state_dict())
    model = AuditedLanguageModel(network, causal_tokenizer())
    path = tmp_path / "lists.toml"
    path.write_text('[[tests]]\nname = "t"\nx = ["man", "dog", "old"]\ny = ["woman", "cat", "unheard"]\n'
                    'a = ["big", "red"]\nb = ["small", "young"]\n'
                    'templates = ["the {} sees", "a {} hears"]\n')  # fmt: skip
    path.write_text('templates = ["the {} sees", "a {} hears"]\n' + path.read_text().rsplit("templates", 1)[0])
    state = torch.get_rng_state()
    probe = EmbeddingAssociation(lists=str(path), min_words=2)
    found = probe.measure(model, no_data(), np.random.default_rng(0))
    assert [m.method for m in found] == ["weat"] * 3 + ["seat"] * 3
    assert "no vector for 1 of 10 words (unheard)" in found[0].detail
    assert "over single sentences" in found[3].detail
    table = input_embeddings(model)
    assert table is not None
    row = network.get_input_embeddings().weight[5 + WORDS.index("dog")]  # type: ignore[operator]
    np.testing.assert_allclose(table.embed(["dog"])[0], row.detach().numpy(), atol=1e-6)
    again = probe.measure(model, no_data(), np.random.default_rng(0))
    assert [m.estimate for m in again] == [m.estimate for m in found]
    assert network.training and torch.equal(state, torch.get_rng_state())
    assert all_of(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_sentences_are_read_once_and_those_of_two_tests_stay_apart(tmp_path: Path) -> None:
    """As many words to each of two tests as one alone has, whatever else is read, by vectors of one sentence each."""
    model = AuditedLanguageModel(tiny("gpt2"), causal_tokenizer())
    embedder = sentence_encoder(model)
    assert embedder is not None
    texts = ["the dog sees", "a cat", "the dog sees", "the old man and the young woman", "a cat"]
    together = embedder.embed(texts)
    # Of the twelve tokens of the three sentences, two begin with "the".
    assert model.forwarded["tokens",] == 11
    np.testing.assert_allclose(together, np.concatenate([embedder.embed([text]) for text in texts]), atol=1e-5)
    path = tmp_path / "lists.toml"
    both = [
        '[[tests]]\nname = "t"\nx = ["man", "dog"]\ny = ["woman", "cat"]\na = ["big", "red"]\nb = ["small", "young"]',
        '[[tests]]\nname = "u"\nx = ["red", "big", "old"]\ny = ["dog", "cat"]\na = ["man", "the"]\nb = ["woman", "a"]',
    ]
    sizes: dict[Any, list[float]] = {}
    for chosen in (both, both[:1], both[1:]):
        path.write_text("\n".join(chosen))
        probe = EmbeddingAssociation(lists=str(path), min_words=2, methods="seat")
        for m in probe.measure(model, no_data(), np.random.default_rng(0)):
            if m.metric == "association_effect_size":
                sizes.setdefault(m.at["test"], []).append(m.estimate.value)
    assert set(sizes) == {"t", "u"}
    for first, alone in sizes.values():
        assert first == pytest.approx(alone, abs=1e-4)


def test_a_classifier_with_a_vocabulary_has_word_vectors() -> None:
    from auditor.models.networks.architectures import BiLSTMText

    module = BiLSTMText(10, 2)
    text = TextPreprocessing(vocabulary={"he": 2, "she": 3}, unknown=1)
    table = input_embeddings(TorchModel(module, classes=("no", "yes"), preprocessing=text))
    assert table is not None
    found = table.embed(["She", "it"])
    np.testing.assert_allclose(found[0], module.embedding.weight[3].detach().numpy(), atol=1e-6)
    assert np.isnan(found[1]).all()


# ---- files ---------------------------------------------------------------------------------------------------------

VECTORS = {"frank": [1.0, 2.0], "Berlin": [0.5, -1.0], "new york": [3.0, 4.0]}


def binary(vectors: dict[str, list[float]], count: int | None = None) -> bytes:
    parts = [f"{count or len(vectors)} 2\n".encode()]
    for word, vector in vectors.items():
        parts += [word.encode(), b" ", struct.pack("<2f", *vector), b"\n"]
    return b"".join(parts)


def test_word2vec_and_glove_files_give_the_same(tmp_path: Path) -> None:
    lines = "".join(f"{w} {v[0]} {v[1]}\n" for w, v in VECTORS.items())
    (tmp_path / "text").write_text(f"3 2\n{lines}")
    (tmp_path / "glove").write_text(lines)
    kept = {k: v for k, v in VECTORS.items() if " " not in k}
    (tmp_path / "binary").write_bytes(binary(kept))
    for name in ("text", "glove", "binary"):
        table = word_vectors(tmp_path / name, ["Frank", "frank", "Berlin", "Paris"])
        found = table.embed(["Frank", "frank", "Berlin", "Paris"])
        assert np.isnan(found[[0, 3]]).all(), "a file with capitals means them"
        np.testing.assert_allclose(found[1:3], [[1.0, 2.0], [0.5, -1.0]])
    np.testing.assert_allclose(word_vectors(tmp_path / "glove", ["new york"]).embed(["new york"]), [[3.0, 4.0]])
    (tmp_path / "lower").write_text("frank 1.0 2.0\n")
    np.testing.assert_allclose(word_vectors(tmp_path / "lower", ["Frank"]).embed(["Frank"]), [[1.0, 2.0]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (binary({"frank": [1.0, 2.0]}, count=5), "ends or is damaged"),
        (binary({"frank": [1.0, math.nan]}), "finite"),
        (binary({"frank": [1.0, 2.0]})[:-4], "ends within"),
        (b"frank 1.0 x\n", "no word-vector file"),
        (b"berlin 1 2\nfrank 1 y\n", "no number"),
        (b"\x80\x04\x95abc", "no word-vector file"),
        (b"5 99999999999\n", "cannot be"),
        (b"x" * (1 << 21), "line of more than"),
        (b"other 1 2\n", "none of the 1 words"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "vectors").write_bytes(content)
    with pytest.raises(DataError, match=message):
        word_vectors(tmp_path / "vectors", ["frank"])


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        word_vectors(tmp_path / "nowhere", ["frank"])


def test_an_order_of_words_is_found_with_the_declared_power_and_its_size_is_not_judged(tmp_path: Path) -> None:
    words, area = EmbeddingAssociation.power
    rng = np.random.default_rng(6)
    estimates = areas_of(rng.normal(normal_shift(area), 1.0, (WORLDS, words)), rng.normal(size=(WORLDS, words)))
    found = sum(estimate.bounds(0.025)[0] > 0.7 for estimate in estimates)
    assert found >= binom.ppf(0.001, WORLDS, 0.8)
    vectors = write_glove(tmp_path / "v.txt", toy_vectors(rng, 25, 1.0))
    lists = write_lists(tmp_path, [f"x{i}" for i in range(25)], [f"y{i}" for i in range(25)])
    probe = EmbeddingAssociation(vectors=vectors, lists=lists, min_words=2, n_draws=1000)
    measured = probe.measure(classifier(), no_data(), rng)
    result = ProbeResult(probe=probe.name, pillar=probe.pillar, citation=probe.citation, measurements=tuple(measured))
    wanted = CRITERION.model_copy(update={"metric": "association_effect_size", "bound": (-0.5, 0.5)})
    finding = judge([result], [wanted])[0][0]
    assert finding.outcome is Outcome.NOT_RUN and "Set a bound on association_auc." in finding.reason


def test_skewed_associations_would_fool_the_interval_of_an_effect_size() -> None:
    """8 words and 25, one in twenty of which is far off: why no criterion rests on it."""
    rng = np.random.default_rng(0)
    x, y = ((rng.random((WORLDS, n)) < 0.05) + rng.normal(0.0, 0.01, (WORLDS, n)) for n in (8, 25))
    sizes = [effect_size(a, b) for a, b in zip(x, y, strict=True)]
    estimates = (StandardizedDifference(centre=d, n_first=8, n_second=25) for d in sizes)
    assert max(misses(estimates, 0.0)) > most_misses()
