"""Associations in embeddings between groups of people and attributes, in word and sentence vectors."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from itertools import chain, combinations, islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.core.errors import ConfigError, NotApplicableError, did_you_mean
from auditor.core.rows import FloatArray
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, allow_untrusted
from auditor.statistics.estimate import Power, Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.means import StandardizedDifference
from auditor.statistics.rank_estimates import area_under_curve
from auditor.statistics.significance_tests import ConfirmedCount
from probes.probe_inputs import chosen_methods, whole_number

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.loading.rows.word_vectors import Embedder
    from auditor.models.audited_model import AuditedModel

_SETS = ("x", "y", "a", "b")
_MAX_BYTES = 1 << 20
_CHUNK = 1 << 14
_NAMED_MISSING = 12
_NAMED_TESTS = 3
_INSTEAD = "Display only: it takes the words' associations as normal. Set a bound on association_auc."


class EmbeddingAssociation(BaseProbe):
    """WEAT and SEAT: whether one set of words is associated more strongly with an attribute than another set.

    For target words X and Y and attribute words A and B, with ``s(w) = mean_a cos(w, a) - mean_b cos(w, b)`` of cosine
    similarities: ``association_effect_size``, ``control_effect_size``, ``association_auc`` and
    ``confirmed_associations``.

    - ``association_effect_size``: The standard deviation with n - 1; the range is that of sets of equal size.
    - ``confirmed_associations``: Of all tests of a method but controls. What is not confirmed may be there: it can be
      shown to be too many, and never that there are none.

    Method ``weat``: vectors of words. Method ``seat``: each word stands in bleached sentences, and s(w) is its mean
    over them; the word stays the unit, because sentences of one word are not independent, where the published SEAT
    takes every sentence for one (its effect size is in the detail).

    Intervals speak of the population of words that X and Y are drawn from, with A and B as they are. That of an effect
    size is exact by the noncentral t distribution where s is normal with one variance within X and Y
    (:class:`StandardizedDifference`), and shown alone: of 8 and 25 words of skewed s it is missed eight times as often
    as promised. A criterion rests on ``association_auc``, whose bounds hold whatever s is like. The p-values in the
    detail are of the permutation test over all ways to divide X and Y together into two sets of their sizes: exact up
    to ``max_partitions`` ways, else over ``n_draws`` random ones, counting the one observed. They need no normality and
    answer whether there is any association, not how large it is. With 8 words a set hardly anything can be told from
    0.5, so PASS is rare; the reason then says how many words it would take.

    vectors: path of a word2vec (binary or text) or GloVe text file, instead of the model's own input embeddings.
    encoder: a Hugging Face folder of a sentence encoder, instead of the model. tests: ``auto``, or names of tests.
    lists: path of a TOML file with tests of the user's own, as ``probes/data/weat.toml``. methods: ``auto``, or out of
    ``weat`` and ``seat``. min_words: fewest words of each set that must have a vector, else the test is undefined;
    missing words are named.

    Raises NotApplicableError where there are no vectors to look at, ConfigError for lists that are wrong.

    Sources: Caliskan, Bryson and Narayanan, Science 356 (2017); May et al., NAACL 2019.
    """

    name = "embedding_association"
    pillar = "language"
    goal = "Do embeddings tie groups of people to attributes?"
    citation = "Caliskan, Bryson and Narayanan, Science 356 (2017); May et al., NAACL 2019"
    methods = ("weat", "seat")
    needs = ()
    questions = (
        AuditQuestion("embeddings", metrics=("confirmed_associations",), form="count"),
        AuditQuestion("embeddings", headline=("association_effect_size",)),
    )
    reads_rows = False
    ideal_when_same = {
        "association_effect_size": "scores", "association_auc": "scores", "confirmed_associations": "scores",
    }  # fmt: skip
    # Words in each of X and Y, and the true area, found above 0.7 by one judgement of two sides at 5 %.
    power: ClassVar[Power] = Power(32, 0.92)
    untrusted_options = allow_untrusted(
        "tests", "methods", "max_partitions", "n_draws", reads=("vectors", "encoder", "lists")
    )
    metrics = define_metrics(
        """
        association_effect_size: (mean_x s(x) - mean_y s(y)) / standard deviation of s over X and Y together, s(w) the
          mean cosine similarity of w to A less that to B; [-2, 2], ideal 0; at 1 the two sets of words lie one standard
          deviation apart in how they are tied to the attribute; Caliskan, Bryson and Narayanan, Science 356 (2017)
        control_effect_size: the effect size of pairs that nobody objects to, such as flowers and insects; [-2, 2], no
          ideal; near 0 the vectors carry no meaning, and the other numbers say nothing; Caliskan, Bryson and Narayanan,
          Science 356 (2017)
        association_auc: P(s(x) > s(y)) + P(tie) / 2 of a word of X and one of Y; [0, 1], ideal 0.5; at 0.9 nine of ten
          words of X are tied more to the attribute than one of Y; Caliskan, Bryson and Narayanan, Science 356 (2017)
        confirmed_associations: number of tests whose two-sided permutation p shows an association, by Holm's procedure
          at 5 %; [0, number of tests], ideal 0; at 1 the words of one pair of sets are no random division of all of
          them; Caliskan, Bryson and Narayanan, Science 356 (2017)
        """
    )

    def __init__(
        self,
        *,
        vectors: str | None = None,
        encoder: str | None = None,
        tests: str | Sequence[str] = "auto",
        lists: str | None = None,
        methods: str | Sequence[str] = "auto",
        min_words: int = 4,
        max_partitions: int = 200_000,
        n_draws: int = 100_000,
    ) -> None:
        whole_number("min_words", min_words, 2)
        whole_number("max_partitions", max_partitions, 1)
        whole_number("n_draws", n_draws, 1_000)
        wanted = chosen_methods(methods, self.methods)
        self.vectors = vectors
        self.encoder = encoder
        self.tests = tests
        self.lists = lists
        self.wanted = self.methods if "auto" in wanted else wanted
        self.min_words = min_words
        self.max_partitions = max_partitions
        self.n_draws = n_draws
        # Read here, because a mistyped name or path is a usage error and no finding.
        self.lists_ = built_in_lists() if lists is None else read_lists(lists)
        self.tests_ = _choose_tests(self.lists_, tests)

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """An effect size and an area for each method and test; see the class."""
        words, sentences = self._embedders(model)
        found: list[Measurement] = []
        if words is not None and "weat" in self.wanted:
            told = []
            for test in self.tests_:
                vectors = _unit(words.embed(test.all_words))
                told.append(self._measure_test("weat", test, vectors[:, None, :], words.source, rng))
            found.extend(_count_confirmed("weat", told))
        if sentences is not None and "seat" in self.wanted:
            templates = self.lists_.templates
            # All at once: words recur from test to test.
            texts = [sentence(t, word) for test in self.tests_ for word in test.all_words for t in templates]
            every = _unit(sentences.embed(texts)).reshape(len(texts) // len(templates), len(templates), -1)
            ends = np.cumsum([len(test.all_words) for test in self.tests_])[:-1]
            told = [
                self._measure_test("seat", test, vectors, sentences.source, rng)
                for test, vectors in zip(self.tests_, np.split(every, ends), strict=True)
            ]
            found.extend(_count_confirmed("seat", told))
        if not found:
            raise NotApplicableError(
                "Needs embeddings: a language model or a text classifier with a vocabulary, or a word-vector file "
                "(--set embedding_association.vectors=FILE), or an encoder's folder "
                "(--set embedding_association.encoder=FOLDER)."
            )
        return found

    def _embedders(self, model: AuditedModel) -> tuple[Embedder | None, Embedder | None]:
        from auditor.loading.rows.word_vectors import input_embeddings, load_encoder, sentence_encoder, word_vectors

        words = sentences = None
        if self.encoder is not None:
            device = str(getattr(model, "device", "cpu"))
            words, sentences = load_encoder(self.encoder, device)
        if self.vectors is not None:
            words = word_vectors(self.vectors, {w for test in self.tests_ for w in test.all_words})
        if words is None and sentences is None:
            words, sentences = input_embeddings(model), sentence_encoder(model)
        return words, sentences

    def _measure_test(
        self, method: str, test: AssociationTest, vectors: FloatArray, source: str, rng: np.random.Generator
    ) -> tuple[list[Measurement], PermutationP | None]:
        """vectors (n_words, n_templates, d) of unit length, NaN where a word has none, in the order of all_words."""
        there = np.asarray(np.isfinite(vectors).all(axis=(1, 2)), np.bool_)
        parts, present, at = [], [], 0
        for words in test.sets:
            rows = slice(at, at + len(words))
            parts.append(vectors[rows][there[rows]])
            present.append(int(there[rows].sum()))
            at += len(words)
        missing = [w for w, t in zip(test.all_words, there, strict=True) if not t]
        n = present[0] + present[1]
        few = [
            f"{k} of {len(words)} words for {name}"
            for k, words, name in zip(present, test.sets, test.names, strict=True)
            if k < self.min_words
        ]
        p = None
        if few:
            estimate: AnyEstimate = Undefined(
                reason=f"only {', '.join(few)} have a vector, and at least {self.min_words} of each set must"
            )
            note, auc = "", estimate
        else:
            x, y = (associations(targets, parts[2], parts[3]) for targets in parts[:2])
            estimate, note, p = self._estimate(x, y, rng)
            auc = area_under_curve(positives=x.mean(axis=1), negatives=y.mean(axis=1))
        without = f"no vector for {len(missing)} of {len(test.all_words)} words{_listed(missing)}" if missing else ""
        size = Measurement(
            metric="control_effect_size" if test.control else "association_effect_size",
            method=method,
            estimate=estimate,
            n_samples=n,
            ideal=None if test.control else 0.0,
            at={"test": test.name},
            detail="; ".join(
                part for part in (test.title, f"{present[0]} and {present[1]} words", note, without, source) if part
            ),
            too_few="" if test.control else _INSTEAD,
        )
        order = replace(size, metric="association_auc", estimate=auc, ideal=0.5, detail=test.title, too_few="")
        return ([size], None) if test.control else ([size, order], p)

    def _estimate(
        self, x: FloatArray, y: FloatArray, rng: np.random.Generator
    ) -> tuple[AnyEstimate, str, PermutationP | None]:
        """x (n_x, n_templates), y (n_y, n_templates) associations; the effect size, and its p-values, also in words."""
        by_word = x.mean(axis=1), y.mean(axis=1)
        d = effect_size(*by_word)
        if math.isnan(d):
            return Undefined(reason="all target words have the same association"), "", None
        p = permutation_p(*by_word, rng=rng, max_partitions=self.max_partitions, n_draws=self.n_draws)
        kind = "exact, over all" if p.exact else "over the observed and"
        note = f"permutation p {p.one_sided:.3g} one-sided, {p.two_sided:.3g} two-sided ({kind} {p.partitions:,}"
        note += " partitions)" if p.exact else " random partitions)"
        if x.shape[1] > 1:
            note += f"; effect size over single sentences {effect_size(x.ravel(), y.ravel()):.3f}"
        return StandardizedDifference(centre=d, n_first=len(x), n_second=len(y)), note, p


def _count_confirmed(
    method: str, results: Sequence[tuple[list[Measurement], PermutationP | None]]
) -> list[Measurement]:
    """All tests' measurements, and how many of the tests confirm an association."""
    every = [m for measured, _ in results for m in measured]
    tested = [(p.two_sided, measured[0]) for measured, p in results if p is not None]
    if not tested:
        return every
    surest = sorted(tested, key=lambda some: some[0])[:_NAMED_TESTS]
    named = ", ".join(f"{m.at['test']} d {m.estimate.value:.2f}, p {p:.2g}" for p, m in surest)
    headline = Measurement(
        metric="confirmed_associations",
        method=method,
        estimate=ConfirmedCount(p_values=tuple(p for p, _ in tested)),
        n_samples=max(m.n_samples for _, m in tested),
        ideal=0.0,
        detail=f"of {len(tested)} tests, surest first: {named}",
    )
    return [*every, headline]


# ---- arithmetic ----------------------------------------------------------------------------------------------------


def associations(targets: FloatArray, first: FloatArray, second: FloatArray) -> FloatArray:
    """(n, n_templates) of targets (n, n_templates, d): mean cosine with ``first`` minus that with ``second``.

    All vectors are of unit length, attributes (m, n_templates, d); the mean is over all their sentences.
    """
    direction = first.mean(axis=(0, 1)) - second.mean(axis=(0, 1))
    return np.asarray(targets @ direction, np.float64)


def effect_size(x: FloatArray, y: FloatArray) -> float:
    """``(mean(x) - mean(y)) / sd(x and y)`` of associations (n,) and (m,), sd with n - 1; NaN if it is 0."""
    spread = float(np.concatenate([x, y]).std(ddof=1))
    # A spread of rounding errors is none.
    if not spread > 1e-12:
        return math.nan
    return float((x.mean() - y.mean()) / spread)


@dataclass(frozen=True)
class PermutationP:
    """p-values of the permutation test, the number of partitions, and whether these are all."""

    one_sided: float
    two_sided: float
    partitions: int
    exact: bool


def permutation_p(
    x: FloatArray, y: FloatArray, *, rng: np.random.Generator, max_partitions: int, n_draws: int
) -> PermutationP:
    """Share of partitions of ``x`` and ``y``, (n,) and (m,), with a mean difference of at least the observed one.

    Two-sided: at least as far from 0. Every partition where there are at most ``max_partitions``, the observed among
    them; else ``(1 + count) / (1 + n_draws)`` over random ones. Valid at every size where words are exchangeable.
    Source: Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9 (2010).
    """
    together = np.concatenate([x, y])
    n, size = len(x), len(x) + len(y)
    total = together.sum()
    ways = math.comb(size, n)
    exact = ways <= max_partitions
    observed = float(x.mean() - y.mean())
    tolerance = 1e-12 * max(float(np.abs(together).max()), 1e-300)

    def chunks() -> Sequence[FloatArray]:
        if not exact:
            sizes = [min(_CHUNK, n_draws - i) for i in range(0, n_draws, _CHUNK)]
            return [together[np.argsort(rng.random((k, size)), axis=1)[:, :n]].sum(axis=1) for k in sizes]
        every = combinations(range(size), n)
        found = []
        while rows := list(islice(every, _CHUNK)):
            found.append(together[np.asarray(rows)].sum(axis=1))
        return found

    larger = farther = 0
    for sums in chunks():
        difference = sums / n - (total - sums) / (size - n)
        larger += int((difference >= observed - tolerance).sum())
        farther += int((np.abs(difference) >= abs(observed) - tolerance).sum())
    if exact:
        return PermutationP(larger / ways, farther / ways, ways, True)
    return PermutationP((1 + larger) / (1 + n_draws), (1 + farther) / (1 + n_draws), n_draws, False)


def _unit(vectors: FloatArray) -> FloatArray:
    """Vectors (n, d) of unit length; a zero vector has no direction and becomes NaN."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit = np.full_like(vectors, np.nan)
    np.divide(vectors, length, out=unit, where=length > 0)
    return unit


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _NAMED_MISSING} more" if len(words) > _NAMED_MISSING else ""
    return f" ({', '.join(words[:_NAMED_MISSING])}{more})"


def sentence(template: str, word: str) -> str:
    """A template with the inserted word, capitalised at the start of a sentence."""
    text = template.replace("{}", word)
    return text[0].upper() + text[1:]


# ---- word lists ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AssociationTest:
    """Two sets of target words and two of attribute words; ``sets`` and ``names`` in the order X, Y, A, B."""

    name: str
    title: str
    sets: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    control: bool = False

    @property
    def all_words(self) -> tuple[str, ...]:
        """The words of all sets, one after the other; a word in two sets occurs twice."""
        return tuple(chain.from_iterable(self.sets))


@dataclass(frozen=True)
class TestLists:
    """Association tests, and the bleached sentences for their words."""

    tests: tuple[AssociationTest, ...]
    templates: tuple[str, ...]
    __test__: ClassVar[bool] = False


def built_in_lists() -> TestLists:
    """The ten tests of Caliskan et al. 2017, and templates in the manner of May et al. 2019."""
    text = (files("probes") / "data" / "weat.toml").read_text(encoding="utf-8")
    return _parsed(tomllib.loads(text), "weat.toml")


def read_lists(path: str | Path) -> TestLists:
    """Tests from a TOML file: ``[[tests]]`` with ``name``, word lists ``x``, ``y``, ``a``, ``b``, and optionally
    ``title``, ``x_name`` and so on, ``control = true``, and other ``templates``.

    Raises ConfigError.
    """
    where = Path(path)
    try:
        raw = where.read_bytes()
        if len(raw) > _MAX_BYTES:
            raise ConfigError(
                f"The word lists {where.name!r} have {len(raw):,} bytes; at most {_MAX_BYTES:,} are read."
            )
        return _parsed(tomllib.loads(raw.decode()), where.name)
    except OSError as error:
        raise ConfigError(f"The word lists {where.name!r} cannot be read: {error.strerror or error}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"The word lists {where.name!r} cannot be read as TOML: {error}.") from None


def _parsed(content: Mapping[str, object], origin: str) -> TestLists:
    tables = content.get("tests")
    if not isinstance(tables, list) or not tables:
        raise ConfigError(f"{origin}: needs at least one [[tests]] table.")
    templates = content.get("templates")
    if templates is None:
        templates = list(built_in_lists().templates)
    if not isinstance(templates, list) or not _words(templates) or not all("{}" in t for t in templates):
        raise ConfigError(f"{origin}: templates must be a list of sentences, each with {{}} for the word.")
    tests = tuple(_test(table, f"{origin}, test {i}") for i, table in enumerate(tables, 1))
    names = [test.name for test in tests]
    if len(set(names)) < len(names):
        raise ConfigError(f"{origin}: two tests have one name.")
    return TestLists(tests, tuple(templates))


def _words(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) and v.strip() for v in value)


def _test(table: object, where: str) -> AssociationTest:
    known = ("name", "title", "control", *_SETS, *(f"{key}_name" for key in _SETS))
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: must be a table.")
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}: unknown key {key!r}{did_you_mean(str(key), known) or '.'}")
    name = table.get("name")
    if not isinstance(name, str) or not name:
        raise ConfigError(f'{where}: needs name = "NAME".')
    sets: list[tuple[str, ...]] = []
    for key in _SETS:
        words = table.get(key)
        if not isinstance(words, list) or not _words(words) or len(set(words)) < len(words):
            raise ConfigError(f"{where}: {key} must be a list of words, each once.")
        sets.append(tuple(words))
    for first, second in ((0, 1), (2, 3)):
        both = set(sets[first]) & set(sets[second])
        if both:
            raise ConfigError(f"{where}: {sorted(both)[0]!r} stands in both {_SETS[first]} and {_SETS[second]}.")
    names = tuple(str(table.get(f"{key}_name", key.upper())) for key in _SETS)
    title = str(table.get("title", f"{names[0]} and {names[1]}, {names[2]} and {names[3]}"))
    return AssociationTest(name, title, tuple(sets), names, bool(table.get("control", False)))


def _choose_tests(lists: TestLists, selection: str | Sequence[str]) -> tuple[AssociationTest, ...]:
    names = [selection] if isinstance(selection, str) else list(selection)
    if names == ["auto"]:
        return lists.tests
    by_name = {test.name: test for test in lists.tests}
    for name in names:
        if name not in by_name:
            raise ConfigError(
                f"There is no association test {name!r}{did_you_mean(name, by_name) or '.'} There are: "
                f"{', '.join(by_name)}."
            )
    return tuple(by_name[name] for name in names)
