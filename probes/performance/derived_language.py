"""Changes of a language model: answers, next-token expectations, and recited text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import NotApplicableError, UsageError
from auditor.core.rows import BoolArray, FloatArray
from auditor.data.benchmarks.accompanying_files import read_winobias
from auditor.data.benchmarks.bbq_and_veto_files import read_bbq
from auditor.data.benchmarks.benchmark import Benchmark, SentencePair
from auditor.data.benchmarks.sentence_files import read_crows_pairs
from auditor.judging.measurement import Measurement
from auditor.statistics.changes import RateChange
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.values import bounded_mean
from probes.language.bbq import bbq_answers
from probes.language.preference_shares import mean_of_pairs, preferences, undecided, whole_and_each
from probes.language.stereotype import built_in_pairs
from probes.performance.derived_decisions import (
    direction,
    flips_in_words,
    join_details,
    most_flipped,
    way_in_words,
)
from probes.performance.language_performance import chosen_texts, encode_texts, word_order
from probes.privacy.memorization.extraction import Extraction
from probes.privacy.memorization.text_sources import training_texts

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.language_model import AuditedLanguageModel

_READERS = {"crows_pairs": read_crows_pairs, "winobias": read_winobias}
# Questions of BBQ at most: six passes over each of a hundred thousand is no part of a scan.
_MOST_QUESTIONS = 2_000
# Pairs of which the floor is taken: number formats that a processor has no unit for are slow.
_PAIRS_OF_FLOOR = 320


@dataclass(frozen=True)
class Models:
    """The models before and after, and the one before in another dtype, which measures noise.

    ``whose``: what the one after is compared with, in words. ``format``: the other number format. ``alike``: why no
    number may be judged, or "".
    """

    before: AuditedLanguageModel
    after: AuditedLanguageModel
    noisy: AuditedLanguageModel
    whose: str
    format: str
    alike: str

    @property
    def all(self) -> tuple[AuditedLanguageModel, ...]:
        """The models: before, after, and before in another format."""
        return self.before, self.after, self.noisy


def drift(
    models: Models,
    data: AuditData,
    n_texts: int,
    texts: str | None,
    column: str | None,
    benchmarks: Mapping[str, str],
    rng: np.random.Generator,
) -> list[Measurement]:
    """Flips of pairs and answers, distance of next-token distributions, and newly recited texts.

    Raises UsageError where the two cut texts into other tokens.
    """
    found = _next_tokens(models, data, n_texts, rng)
    found += _pairs(models, built_in_pairs(), "built_in_pairs", rng)
    for name, reader in _READERS.items():
        if name in benchmarks:
            found += _pairs(models, reader(benchmarks[name]), name, rng)
    if "bbq" in benchmarks:
        found += _answers(models, benchmarks["bbq"], rng)
    found += _recited(models, data, texts, column, rng)
    return [replace(m, too_few=m.too_few or models.alike) for m in found]


def knows_nothing(before: AuditedLanguageModel, data: AuditData, n_texts: int, rng: np.random.Generator) -> str:
    """The reason why equalling the reference means little, in a sentence; "" if it shows skill."""
    skill = word_order(before, data, n_texts, rng).estimate
    low, high = skill.interval(0.95)
    if low > 0.5:
        return ""
    return (
        f"The reference itself shows no skill (word_order_accuracy is {skill.value:.3g} [{low:.3g}, {high:.3g}], not "
        "shown to be above 0.5, which is chance): what is no worse than a model that knows nothing may know nothing "
        "too. Give the model that this one was made of."
    )


# ---- pairs and questions -------------------------------------------------------------------------------------------


def _pairs(models: Models, items: Benchmark[SentencePair], method: str, rng: np.random.Generator) -> list[Measurement]:
    pairs = [(p.more, p.less) for p in items.examples]
    before, after = (model.pair_scores(pairs) for model in (models.before, models.after))
    known = np.flatnonzero(~np.isnan(before).any(axis=1) & ~np.isnan(after).any(axis=1))
    if not known.size:
        return []
    drawn = np.sort(rng.choice(known, min(_PAIRS_OF_FLOOR, known.size), replace=False))
    noisy = models.noisy.pair_scores([pairs[i] for i in drawn.tolist()])
    floor = _floor(before[drawn], noisy, [items.examples[i] for i in drawn.tolist()], models.format, method)
    examples, before, after = [items.examples[i] for i in known.tolist()], before[known], after[known]
    old, new = preferences(before), preferences(after)
    detail = f"the two texts of a pair move apart by {_mean_shift(before, after):.3g} nats on average; {models.whose}"
    silent = undecided(old == 0.5) or undecided(new == 0.5)
    flipped = np.asarray(old != new, bool)
    names = [p.category for p in examples]
    found = []
    for category in whole_and_each(sorted(set(names))):
        at = [i for i, name in enumerate(names) if category in (None, name)]
        group = {} if category is None else {"category": category}
        clusters, strata = [examples[i].clusters for i in at], [examples[i].stratum for i in at]
        share = mean_of_pairs(flipped[at].astype(float), clusters, strata)
        told = flips_in_words(int(flipped[at].sum()), len(at), share, "pairs")
        turned = [i for i in at if flipped[i]]
        ways = np.asarray(new[turned] > old[turned], bool)
        way = way_in_words(int(ways.sum()), ways.size, "the stereotype")
        shift = mean_of_pairs(0.5 * (1.0 + new[at] - old[at]), clusters, strata)
        overall = join_details(most_flipped(flipped, names), detail) if category is None else models.whose
        found += [
            _measurement("churn", method, share, len(at), group, join_details(told, overall), silent),
            _measurement("preference_shift", method, shift, len(at), group, join_details(way, models.whose), silent),
        ]
        went = direction(ways, _of_flips(ways, turned, examples), method, group, way)
        found += [replace(m, too_few=silent) for m in went]
    return [*found, floor]


def _floor(
    before: FloatArray, noisy: FloatArray, examples: Sequence[SentencePair], kind: str, method: str
) -> Measurement:
    """How many pairs flip by the number format alone; ``before`` and ``noisy``: (n, 2) log-likelihoods."""
    flipped = np.asarray(preferences(before) != preferences(noisy), bool)
    share = mean_of_pairs(flipped.astype(float), [p.clusters for p in examples])
    told = flips_in_words(int(flipped.sum()), len(examples), share, "pairs")
    said = (
        f"{told} in {kind} alone, with the same weights; the two texts of a pair move apart by "
        f"{_mean_shift(before, noisy):.3g} nats on average"
    )
    return _measurement("churn_floor", method, share, len(examples), {}, said)


def _mean_shift(before: FloatArray, after: FloatArray) -> float:
    """By how much the difference of a pair's log-likelihoods, (n, 2), moves on average, in nats."""
    return float(np.abs((after - before) @ np.asarray([1.0, -1.0])).mean())


def _of_flips(ways: BoolArray, turned: Sequence[int], examples: Sequence[SentencePair]) -> AnyEstimate | None:
    if not turned or not all(examples[i].clusters for i in turned):
        return None
    return mean_of_pairs(ways.astype(float), [examples[i].clusters for i in turned])


def _answers(models: Models, path: str, rng: np.random.Generator) -> list[Measurement]:
    """Which questions of BBQ get another answer, asked in plain text, and which were right and are wrong."""
    examples = read_bbq(path).examples
    if len(examples) > _MOST_QUESTIONS:
        examples = tuple(examples[i] for i in sorted(rng.choice(len(examples), _MOST_QUESTIONS, replace=False)))
    (old, tied), (new, tied_now) = (bbq_answers(model, examples) for model in (models.before, models.after))
    labels, clusters = np.asarray([e.label for e in examples]), [(e.template,) for e in examples]
    flipped, worse = np.asarray(old != new, bool), np.asarray((old == labels) & (new != labels), bool)
    names = [e.category for e in examples]
    unit, between = "questions", "its two likeliest answers"
    silent = undecided(tied, unit, between) or undecided(tied_now, unit, between)
    right = f"right {int((old == labels).sum()):,} before, {int((new == labels).sum()):,} now"
    found = []
    for category in whole_and_each(sorted(set(names))):
        at = [i for i, name in enumerate(names) if category in (None, name)]
        group = {} if category is None else {"category": category}
        for metric, event in (("churn", flipped), ("negative_flip_rate", worse)):
            share = mean_of_pairs(event[at].astype(float), [clusters[i] for i in at])
            told = flips_in_words(int(event[at].sum()), len(at), share, unit, worse=event is worse)
            overall = join_details(most_flipped(event, names), right) if category is None else ""
            found.append(
                _measurement(metric, "bbq", share, len(at), group, join_details(told, overall, models.whose), silent)
            )
    return found


def _measurement(
    metric: str, method: str, estimate: AnyEstimate, n: int, group: dict[str, str], detail: str, silent: str = ""
) -> Measurement:
    return Measurement(
        metric=metric,
        method=method,
        estimate=estimate,
        n_samples=n,
        ideal=0.0 if metric == "negative_flip_rate" else None,
        group=group,
        detail=detail,
        too_few=silent,
        ideal_when_same="scores",
    )


# ---- next tokens ---------------------------------------------------------------------------------------------------


def _next_tokens(models: Models, data: AuditData, n_texts: int, rng: np.random.Generator) -> list[Measurement]:
    from auditor.models.generation import next_token_log_probabilities

    texts, kept, own = chosen_texts(data, n_texts, rng)
    words = [texts[i] for i in kept]
    encoded = encode_texts(models.before, words)
    if encode_texts(models.after, words) != encoded:
        raise UsageError(
            "The reference cuts texts into other tokens than this model: compare models of one tokenizer, "
            "or save both with the same one."
        )
    rows = []
    for text in encoded:
        told = [next_token_log_probabilities(model, text) for model in models.all]
        (old, tokens), (new, _), (noisy, _) = told
        best = [side.argmax(dim=-1) for side in (old, new, noisy)]
        rows.append(
            [
                _total_variation(old, new),
                _total_variation(old, noisy),
                float((best[0] != best[1]).double().mean()),
                float((best[0] != best[2]).double().mean()),
                float((best[1] == tokens).double().mean()) - float((best[0] == tokens).double().mean()),
            ]
        )
    by_text: FloatArray = np.asarray(rows)
    apart, noise, churn, churn_floor, gained = by_text.T
    whence = f"{len(encoded):,} {'texts of the data' if own else 'plain English sentences of this tool'}"
    detail, alone = join_details(whence, models.whose), f"{whence}; the same weights in {models.format}"
    numbers = (
        ("next_token_divergence", apart, 0.0, detail),
        ("next_token_divergence_floor", noise, 0.0, alone),
        ("next_token_divergence_over_floor", apart - noise, -1.0, f"text by text; {detail}"),
        ("churn", churn, 0.0, f"places whose likeliest token is another; {detail}"),
        ("churn_floor", churn_floor, 0.0, alone),
        ("next_token_accuracy_change", gained, -1.0, detail),
    )
    return [
        _measurement(metric, "next_tokens", bounded_mean(values, low=low, high=1.0), len(encoded), {}, said)
        for metric, values, low, said in numbers
    ]


def _total_variation(first: object, second: object) -> float:
    """Mean over places of half the summed difference of two distributions, (n, vocabulary) as log-probabilities.

    Of two vocabularies the longer one has tokens that the other gives no probability, as added tokens are.
    """
    import torch
    from torch import Tensor

    assert isinstance(first, Tensor) and isinstance(second, Tensor)
    size = max(first.shape[1], second.shape[1])
    p, q = (torch.nn.functional.pad(side.exp(), (0, size - side.shape[1])) for side in (first, second))
    return min(max(float((0.5 * (p - q).abs().sum(dim=-1)).double().mean()), 0.0), 1.0)


# ---- what is recited -----------------------------------------------------------------------------------------------


def _recited(
    models: Models, data: AuditData, path: str | None, column: str | None, rng: np.random.Generator
) -> list[Measurement]:
    """How many more of the texts it was tuned on the model completes word for word; nothing where none are known."""
    if models.before.objective != "causal":
        return []
    try:
        known = training_texts(data, path, column, "derived")
    except NotApplicableError:
        return []
    asked = Extraction()
    texts = list(dict.fromkeys(known.texts))
    if len(texts) > asked.n_samples:
        texts = [texts[int(i)] for i in np.sort(rng.choice(len(texts), asked.n_samples, replace=False))]
    (old, new), cut = asked.recited((models.before, models.after), texts)
    estimate = RateChange(
        before=int(old.sum()), gained=int((new & ~old).sum()), lost=int((old & ~new).sum()), n=int(old.size)
    )
    detail = (
        f"{int(old.sum()):,} of {old.size:,} texts of {known.origin} were completed word for word, "
        f"{int(new.sum()):,} are; {cut}; {models.whose}"
    )
    return [_measurement("extraction_rate_change", "greedy", estimate, int(old.size), {}, detail)]
