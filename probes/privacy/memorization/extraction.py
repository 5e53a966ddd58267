"""Extraction: verbatim continuation of training texts from their beginnings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray
from auditor.judging.figure_types import Figure, Series
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Power, Undefined
from auditor.statistics.rates import Difference, Proportion
from probes.language.language_options import PrefixToken, check_prefix
from probes.privacy.memorization.text_sources import (
    causal_model,
    held_out_texts,
    optional_path,
    training_texts,
    unrepeated,
)
from probes.probe_inputs import whole_number

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.language_model import AuditedLanguageModel

# Given and asked for, in the paper; and the fewest of either that say anything.
TOKENS, FEWEST_TOKENS = 50, 8
_QUERIES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)


# A model recites few texts that it never saw: more than this share of them, all but certainly, are no such texts.
_MOST_RECITED, _SURE = 0.05, 1e-3


def _recited_elsewhere(k: int, n: int) -> str:
    """Why no difference says little where texts of --data are recited as well; "" where hardly any is."""
    if not n or Proportion(successes=k, n=n).bounds(_SURE)[0] <= _MOST_RECITED:
        return ""
    return (
        f"Nothing was found, and {k:,} of {n:,} texts of --data are recited too: those, or copies of them, are among "
        "the texts it learned from, and show nothing of what chance recites."
    )


@dataclass(frozen=True)
class _Cut:
    """How many tokens of a text are given, and how many that follow are asked for."""

    given: int
    asked: int


class Extraction(BaseProbe):
    """The share of training texts that the model completes verbatim from their first tokens.

    A text of at least ``prefix_tokens + suffix_tokens`` tokens is cut into a prefix p and the suffix s that follows it.

    - Method ``greedy``: the suffix is the greedy continuation of the prefix; each token of s is the likeliest after
      what comes before it, which one pass over the text shows without generating.
    - Method ``probabilistic``: the text is (n, p)-discoverable: n draws contain s with probability at least p, ``1 - (1
      - P(s | prefix))^n >= p``, where P is of sampling with ``temperature`` and ``top_k``, exactly, without drawing.

    What is completed without having been seen is no memory of it, so the difference needs --data. Bounds are exact,
    over independent texts; texts that occur twice count once, and those that stand in both files take no part.

    texts: path of a file of training texts, one a line, or a table with ``column``; without it the rows of --train.
    prefix_tokens, suffix_tokens: 50 each, as in the paper; without either, half each of a length of 16 to 100 tokens,
    the one at which the texts of both files that are no shorter make up the most tokens. n, p, temperature, top_k: of
    the probabilistic form; top_k None samples from the whole vocabulary. n_samples: most texts of either side, drawn at
    random. prefix_token: see :class:`~probes.language.language_options.LikelihoodOptions`.

    Raises NotApplicableError without training texts, for a model that is not causal, and where the prefix and suffix do
    not fit its context.

    Sources: Carlini et al., ICLR 2023 (arXiv:2202.07646); Hayes et al., 2024 (arXiv:2410.19482).
    """

    name = "extraction"
    pillar = "privacy"
    goal = "Does the model continue its training texts word for word?"
    citation = "Carlini et al., ICLR 2023; Hayes et al., 2024"
    methods = ("greedy", "probabilistic")
    needs = (Need.LANGUAGE_MODEL,)
    questions = (AuditQuestion("recited"),)
    reads_rows = True
    ideal_when_same = {
        "extraction_rate": "scores",
        "extraction_rate_difference": "scores",
    }
    # Texts, and the true rate that is FAILed against a bound of 0.01 by one judgement at 5 %.
    power: ClassVar[Power] = Power(1_000, 0.02)
    untrusted_options = allow_untrusted(
        "column", "prefix_tokens", "suffix_tokens", "n", "p", "temperature", "top_k", "n_samples", "prefix_token",
        reads=("texts",),
    )  # fmt: skip
    metrics = define_metrics(
        """
        extraction_rate: share of texts whose suffix the model completes verbatim from the prefix; [0, 1], ideal 0; at
          0.01 one training text in 100 can be read out by its beginning; Carlini et al., ICLR 2023, and Hayes et al.,
          arXiv:2410.19482 (2024)
        extraction_rate_difference: the extraction rate less that among evaluation texts of the same length; [-1, 1],
          ideal 0; above 0 training texts are recited more than texts never seen; Carlini et al., ICLR 2023
        """
    )

    def __init__(
        self,
        *,
        texts: str | None = None,
        column: str | None = None,
        prefix_tokens: int | None = None,
        suffix_tokens: int | None = None,
        n: int = 100,
        p: float = 0.5,
        temperature: float = 1.0,
        top_k: int | None = None,
        n_samples: int = 1_000,
        prefix_token: PrefixToken | None = None,
    ) -> None:
        check_prefix(prefix_token)
        self.prefix_token = prefix_token
        optional_path("texts", texts)
        for option, value in (("prefix_tokens", prefix_tokens), ("suffix_tokens", suffix_tokens)):
            whole_number(option, value, 1)
        whole_number("n", n, 1)
        whole_number("top_k", top_k, 1)
        whole_number("n_samples", n_samples, 2)
        if not (isinstance(p, (int, float)) and 0.0 < p < 1.0):
            raise ValueError(f"p must lie between 0 and 1, not {p!r}")
        if not (isinstance(temperature, (int, float)) and 0.0 < temperature < math.inf):
            raise ValueError(f"temperature must be a positive number, not {temperature!r}")
        self.texts = texts
        self.column = column
        self.prefix_tokens = prefix_tokens
        self.suffix_tokens = suffix_tokens
        self.n = n
        self.p = p
        self.temperature = temperature
        self.top_k = top_k
        self.n_samples = n_samples

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Both rates, and their excess over those of unseen texts; see the class."""
        language = causal_model(model, self.prefix_token)
        read = training_texts(data, self.texts, self.column, self.name)
        members, others, shared = unrepeated(read.texts, held_out_texts(data))
        drawn = [
            [side[int(i)] for i in np.sort(rng.choice(len(side), min(self.n_samples, len(side)), replace=False))]
            for side in (members, others)
        ]
        cut = self._choose_cut(language, drawn[0] + drawn[1])
        greedy, sampled, short = self._extracted(language, drawn[0], cut)
        greedy_others, sampled_others, _ = self._extracted(language, drawn[1], cut)
        detail = f"{greedy.size:,} texts of {read.origin}, {cut.given} tokens given, {cut.asked} asked"
        detail += f"; {language.notes.rstrip('.')}"
        if short:
            detail += f"; too short and left out: {short:,}"
        if shared:
            detail += f"; {shared:,} texts that stand in --data too took no part"
        draws = f"temperature {self.temperature:g}" + ("" if self.top_k is None else f", top_k {self.top_k}")
        found: list[Measurement] = []
        for method, inside, outside, how in (
            ("greedy", greedy, greedy_others, "greedy"),
            (
                "probabilistic",
                _discoverable(sampled, self.n, self.p),
                _discoverable(sampled_others, self.n, self.p),
                f"n = {self.n:,}, p = {self.p:g}, {draws}",
            ),
        ):
            k, size = int(inside.sum()), inside.size
            why = (
                f"no text {{}}has the {cut.given + cut.asked} tokens that prefix and suffix need: set "
                f"{self.name}.prefix_tokens and suffix_tokens to less"
            )
            figure = self._figure(sampled, sampled_others, draws) if method == "probabilistic" and size else None
            found.append(
                Measurement(
                    metric="extraction_rate",
                    method=method,
                    estimate=Proportion(successes=k, n=size) if size else Undefined(reason=why.format("")),
                    n_samples=size,
                    ideal=0.0,
                    detail=f"{how}: {k:,} of {detail}",
                    figure=figure,
                )
            )
            if others:
                found.append(
                    Measurement(
                        metric="extraction_rate_difference",
                        method=method,
                        estimate=Difference(successes=(k, int(outside.sum())), n=(size, outside.size))
                        if size and outside.size
                        else Undefined(reason=why.format("of --data " if size else "")),
                        n_samples=size + outside.size,
                        ideal=0.0,
                        detail=(
                            f"{how}: {k:,} of {size:,} training texts, "
                            f"{int(outside.sum()):,} of {outside.size:,} others"
                        ),
                        weak=_recited_elsewhere(int(outside.sum()), outside.size),
                    )
                )
        return found

    def recited(self, models: Sequence[AuditedLanguageModel], texts: Sequence[str]) -> tuple[list[BoolArray], str]:
        """(k,) for each model of one tokenizer, whether it completes the sufficiently long texts greedily; and the
        lengths of prompts and completions, in words."""
        cut = self._choose_cut(models[0], texts)
        return [self._extracted(model, texts, cut)[0] for model in models], (
            f"{cut.given} tokens given, {cut.asked} asked"
        )

    def _choose_cut(self, model: AuditedLanguageModel, texts: Sequence[str]) -> _Cut:
        room = math.inf if model.context is None else max(model.context - len(model.prefix), 0)
        if self.prefix_tokens is None and self.suffix_tokens is None:
            most = int(min(2 * TOKENS, room))
            lengths = np.asarray([len(e.ids) - len(model.prefix) for e in model.encode_cut(texts, most)[0]] or [most])
            # From both files together: a length that suits one of them would not compare like with like.
            at = np.unique(lengths)
            whole = int(at[np.argmax([n * (lengths >= n).sum() for n in at])])
            whole = max(whole, 2 * FEWEST_TOKENS)
            return _Cut(whole // 2, whole - whole // 2)
        cut = _Cut(self.prefix_tokens or TOKENS, self.suffix_tokens or TOKENS)
        if cut.given + cut.asked > room:
            raise NotApplicableError(
                f"{self.name}.prefix_tokens and suffix_tokens ask for {cut.given + cut.asked:,} tokens of a text, and "
                f"{room:,.0f} fit the model's context: set them to less, with --set."
            )
        return cut

    def _extracted(
        self, model: AuditedLanguageModel, texts: Sequence[str], lengths: _Cut
    ) -> tuple[BoolArray, FloatArray, int]:
        """Of texts that are long enough: whether greedy (k,) and log P(suffix | prefix) (k,); and how many are not."""
        from probes.privacy.memorization.text_membership_scores import token_statistics

        whole = lengths.given + lengths.asked
        encoded, _ = model.encode_cut(texts, whole)
        long = [e for e in encoded if len(e.ids) - len(model.prefix) == whole]
        statistics = token_statistics(model, long, temperature=self.temperature, top_k=self.top_k)
        greedy = [bool((s.rank[-lengths.asked :] == 0).all()) for s in statistics]
        sampled = [float(s.log_p_sampled[-lengths.asked :].sum()) for s in statistics]
        return np.asarray(greedy, bool), np.asarray(sampled, np.float64), len(texts) - len(long)

    def _figure(self, members: FloatArray, others: FloatArray, draws: str) -> Figure:
        series = []
        for name, log_p in (("training texts", members), ("other texts", others)):
            if not log_p.size:
                continue
            counts = [int(_discoverable(log_p, n, self.p).sum()) for n in _QUERIES]
            ends = [Proportion(successes=k, n=log_p.size).interval(0.95) for k in counts]
            series.append(
                Series(
                    name=f"{name}, 95 % pointwise",
                    x=tuple(float(n) for n in _QUERIES),
                    y=tuple(k / log_p.size for k in counts),
                    low=tuple(low for low, _ in ends),
                    high=tuple(high for _, high in ends),
                )
            )
        said = "; ".join(f"{s.name}: {s.y[0]:.3f} at one draw, {s.y[-1]:.3f} at {_QUERIES[-1]:,}" for s in series)
        return Figure(
            id=f"{self.name}/draws",
            probe=self.name,
            kind="curve",
            title="Texts that n draws give out",
            series=tuple(series),
            alt=f"Share of texts that n draws contain with probability {self.p:g}, against n. {said}.",
            x_label="draws n",
            y_label="share of texts",
            caption=f"Sampling at {draws}. Bands: Clopper-Pearson, 95 %.",
        )


def _discoverable(log_p: FloatArray, n: int, p: float) -> BoolArray:
    """(k,) whether n draws contain the suffix with probability at least p: ``1 - (1 - P)^n >= p``."""
    least = -math.expm1(math.log1p(-p) / n)
    return np.asarray(log_p >= math.log(least) - 1e-12, bool)
