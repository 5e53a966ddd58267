"""Derived model: changes from its original by tuning, merging, pruning or quantising."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from auditor.core.errors import LacksOptionError, NotApplicableError, OtherKindError, UsageError
from auditor.core.rows import BoolArray, FloatArray
from auditor.data.benchmarks.accompanying_files import read_winobias
from auditor.data.benchmarks.bbq_and_veto_files import read_bbq
from auditor.data.benchmarks.benchmark import Benchmark, SentencePair
from auditor.data.benchmarks.sentence_files import read_crows_pairs
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, allow_untrusted
from auditor.statistics.changes import RateChange
from auditor.statistics.estimate import Power
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
from probes.privacy.memorization.text_sources import optional_path, training_texts
from probes.probe_inputs import load_reference, whole_number

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
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


Bits = Literal["int8", "int4"]


class Derived(BaseProbe):
    """Changes of each item since the model's original: an average may hide changed answers.

    Both models are asked the same items, and every number is paired, item by item. Of a classifier items are the
    evaluation rows (method ``rows``); of a language model pairs of sentences (``built_in_pairs``, and the
    ``crows_pairs`` and ``winobias`` whose files are given), questions (``bbq``, in plain text), and the places of plain
    texts (``next_tokens``).

    - ``churn``: Of a pair the likelier sentence, a tie being a decision of its own; of a place of a text the likeliest
      token, averaged over texts. Per group or category; ``detail`` names the one with most.
    - ``churn_direction``: Only where any flipped; ``detail`` has the exact p-value of as many going either way.
    - ``extraction_rate_change``: Greedy, as :class:`~probes.privacy.memorization.extraction.Extraction` has it; only
      where the texts are given, by --train or ``texts``.

    The other number format is bfloat16, or float32 where weights are in bfloat16. Where no item flips the interval
    still ends above 0, and ``detail`` says how many may. The interval of pairs holds the variance between sentences and
    between mentions, that of questions between templates. A reference that is the very file of the model is said, and
    nothing is judged.

    reference: the model before, a path or a model. quantize: ``int8`` or ``int4``: what is compared is this model with
    its linear layers quantised (torchao), and it is the reference. texts, column: as for
    :class:`~probes.privacy.memorization.extraction.Extraction`. n_texts: texts of the data at most that next tokens are
    asked of; 64 plain English sentences where there are none. pair_benchmarks: files of ``crows_pairs``, ``winobias``
    and ``bbq``, which ``--benchmark`` gives.

    Raises NotApplicableError with neither reference nor ``quantize``, UsageError where the two models have other
    classes or cut texts into other tokens, ValueError for other options, and for both a reference and ``quantize``.

    Sources: Milani Fard et al., NeurIPS 2016 (churn); Yan et al., CVPR 2021 (negative flips); Dutta et al., NeurIPS
    2024 (flips of compressed models); McNemar, Psychometrika 12 (1947).
    """

    name = "derived"
    pillar = "performance"
    goal = "Which answers did tuning, merging or quantising change, and for whom?"
    citation = "Milani Fard et al., NeurIPS 2016; Yan et al., CVPR 2021; Dutta et al., NeurIPS 2024"
    methods = (
        "rows", "built_in_pairs", "crows_pairs", "winobias", "bbq", "next_tokens", "greedy",
    )  # fmt: skip
    # What it needs depends on the kind of model.
    needs = ()
    questions = (AuditQuestion("derived", metrics=("*churn*", "*flip_rate"), form="percent"), AuditQuestion("derived"))
    ideal_when_same = {
        "churn": "decisions",
        "largest_group_churn": "decisions",
        "negative_flip_rate": "decisions",
        "largest_group_negative_flip_rate": "decisions",
    }
    # Labelled rows, and the true negative_flip_rate that is FAILed against a bound of 0.05 by one judgement at 5 %.
    power: ClassVar[Power] = Power(1_000, 0.07)
    untrusted_options = allow_untrusted(
        "quantize", "column", "n_texts", reads=("reference", "texts", "pair_benchmarks")
    )
    metrics = define_metrics(
        """
        churn: share of the items that are decided otherwise than by the reference; [0, 1], no ideal; at 0.02 two items
          in 100 have another answer, whatever became of the average; Milani Fard et al., NeurIPS 2016
        churn_floor: the same between the reference and itself in another number format; [0, 1], no ideal; churn below
          it is what arithmetic alone makes; Milani Fard et al., NeurIPS 2016
        largest_group_churn: the churn of the group that has most; [0, 1], no ideal; at 0.1 one item in ten of some
          group is decided otherwise; Milani Fard et al., NeurIPS 2016
        churn_direction: of the items that flipped, the share that went to the favourable decision, or to the
          stereotypical sentence; [0, 1], no ideal; at 0.5 as many went one way as the other; McNemar, Psychometrika 12
          (1947)
        negative_flip_rate: share of the items with a known answer that the reference had right and this model has
          wrong; [0, 1], ideal 0; at 0.02 two in 100 were right and are wrong, however many became right; Yan et al.,
          CVPR 2021
        largest_group_negative_flip_rate: the same of the group that has most; [0, 1], no ideal; at 0.1 one row in ten
          of some group was right and is wrong; Yan et al., CVPR 2021
        preference_shift: mean over pairs of (1 + after - before) / 2, of preferences of 0, 1/2 or 1 for the
          stereotypical sentence; [0, 1], no ideal; 0.5 is no net change, and at 0.55 preferences for the stereotype
          rose by 10 points; McNemar, Psychometrika 12 (1947)
        next_token_divergence: half the summed difference of both models' probabilities of the next token, averaged over
          the places of a text and over texts; [0, 1], no ideal; at 0.1 a tenth of the probability lies on other tokens;
          Levin and Peres, Markov Chains and Mixing Times (2017), on total variation
        next_token_divergence_floor: the same between the reference and itself in another number format; [0, 1], no
          ideal; a divergence of no more is what arithmetic alone makes; Levin and Peres, Markov Chains and Mixing Times
          (2017)
        next_token_divergence_over_floor: the divergence less its floor, text by text; [-1, 1], no ideal; shown to be
          above 0, more has changed than the number format would; Levin and Peres, Markov Chains and Mixing Times (2017)
        next_token_accuracy_change: share of the places whose likeliest token is the one that stands there, less what it
          was, averaged over texts; [-1, 1], no ideal; at -0.05 five tokens in 100 less are foreseen, which is negative
          transfer; Wang et al., CVPR 2019, on negative transfer
        extraction_rate_change: share of the texts it was tuned on that the model completes word for word, less what it
          was; [-1, 1], no ideal; at 0.01 one text in 100 more can be read out by its beginning; Carlini et al., ICLR
          2023
        """
    )

    def __init__(
        self,
        *,
        reference: str | AuditedModel | None = None,
        quantize: Bits | None = None,
        texts: str | None = None,
        column: str | None = None,
        n_texts: int = 200,
        pair_benchmarks: Mapping[str, str] | None = None,
    ) -> None:
        if quantize not in (None, "int8", "int4"):
            raise ValueError(f"quantize is int8 or int4, not {quantize!r}")
        if quantize is not None and reference is not None:
            raise ValueError("quantize compares a model with itself: leave the reference out, or ask in two scans")
        optional_path("texts", texts)
        whole_number("n_texts", n_texts, 2)
        self.reference = reference
        self.quantize = quantize
        self.texts = texts
        self.column = column
        self.n_texts = n_texts
        self.pair_benchmarks = dict(pair_benchmarks or {})

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements of both models over the same items; see the class."""
        if self.reference is None and self.quantize is None:
            raise LacksOptionError("Needs a model to compare with: add --reference MODEL, or --quantize int8.")
        if model.kind not in ("classifier", "language_model") or not model.can_be_asked:
            raise OtherKindError("Needs a classifier or a language model that can be asked.")
        before, after, whose, alike = self._model_pair(model)
        if before.kind != after.kind:
            raise UsageError(
                f"The reference is a {before.kind.replace('_', ' ')}, this model a {after.kind.replace('_', ' ')}: "
                "compare models that answer the same question."
            )
        if after.kind == "classifier":
            from probes.performance import derived_decisions

            return derived_decisions.drift(before, after, data, whose, alike)
        return self._of_language(before, after, data, whose, alike, rng)

    def _model_pair(self, model: AuditedModel) -> tuple[AuditedModel, AuditedModel, str, str]:
        """The models before and after, what the second is compared with in words, and why nothing may be judged."""
        if self.quantize is not None:
            from auditor.models.quantized_model import quantized

            after, how = quantized(model, self.quantize)
            return model, after, f"{how}, against this model as it is", ""
        assert self.reference is not None
        before, whose = load_reference(self.reference, model)
        own, other = model.provenance.sha256, before.provenance.sha256
        same = "The reference is the very file of this model (same SHA-256), so no change could be found."
        return before, model, f"since {whose}", same if own and own == other else ""

    def _of_language(
        self,
        before: AuditedModel,
        after: AuditedModel,
        data: AuditData,
        reference_name: str,
        unjudged_reason: str,
        rng: np.random.Generator,
    ) -> list[Measurement]:
        from auditor.models.language_model import AuditedLanguageModel
        from auditor.models.quantized_model import in_other_format

        if not isinstance(before, AuditedLanguageModel) or not isinstance(after, AuditedLanguageModel):
            raise OtherKindError("Needs a language model whose weights are here, and a reference of the same kind.")
        if before.objective != after.objective:
            raise UsageError(
                f"The reference is a {before.objective} language model, this one a {after.objective} one: compare "
                "models that answer the same question."
            )
        noisy, kind = in_other_format(before)
        models = Models(before, after, noisy, reference_name, kind, unjudged_reason)
        found = drift(models, data, self.n_texts, self.texts, self.column, self.pair_benchmarks, rng)
        if self.reference is None:
            return found
        weak = knows_nothing(before, data, self.n_texts, rng)
        return [replace(m, weak=weak) for m in found]
