"""Comprehensiveness, sufficiency and deletion in probability, as in ERASER, ferret, quantus, for comparison.

DeYoung et al., "ERASER", ACL 2020; Attanasio et al., "ferret", EACL 2023; Hedstroem et al., "Quantus", JMLR 2023, whose
pixel flipping (Bach et al., PLoS ONE 2015) the deletion is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.judging.measurement import define_metrics
from probes.attribution.attribution_units import Scale, Units
from probes.attribution.faithfulness import counts_at, ranking

# ERASER's bins of the area over the perturbation curve.
BINS = (0.01, 0.05, 0.1, 0.2, 0.5)
# Of prompts, whose shares of words are a different number for each: so many words for all.
WORDS = (1, 2, 3, 4, 5)
STEPS = tuple(k / 10 for k in range(1, 10))


ERASURE_METRICS = define_metrics(
    """
    raw_comprehensiveness: mean over k of p(x) - p(x without R_k), p the probability of what is predicted and R_k the
      top k units; [-1, 1], ideal the largest; high where the prediction falls once what the explanation names is gone,
      comparable with papers and not between models whose scores differ in spread; DeYoung et al., ACL 2020
    raw_sufficiency: mean over k of p(x) - p(R_k alone), p the probability of what is predicted and R_k the top k units;
      [-1, 1], ideal the smallest; low where what the explanation names gives the prediction by itself, comparable with
      papers and not between models whose scores differ in spread; DeYoung et al., ACL 2020
    raw_deletion_auc: area under p(x without R_q) over shares q by tenths, R_q the top share of the units; [0, 1], ideal
      the smallest; low where the prediction falls early, comparable with papers and not between models whose scores
      differ in spread; Bach et al., PLoS ONE 10 (2015)
    """
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Erasure:
    """(n,) per sample, with p the probability of the prediction and R_k its k most supporting units.

    NaN with fewer than two units. of, over, along: in words, which probability, over which k and along which q.
    """

    comprehensiveness: FloatArray
    sufficiency: FloatArray
    deletion_auc: FloatArray
    of: str
    over: str
    along: str


def erasure(units: Units, values: FloatArray, rng: np.random.Generator, *, of_two: bool) -> Erasure:
    """The prediction under removal of units, in the order of their attributions (n, d).

    k are 1, 5, 10, 20 and 50 % of the units, rounded up; of a language model 1 to 5 words, the same number in every
    prompt, and all but one in shorter ones. The score's infill stands for a unit, and where it is averaged over rows,
    so is the score that the probability is made of. ``of_two``: what is not predicted is the other class, so the
    prediction's probability is at least a half; with more classes it is that of the class explained.
    """
    rows = np.arange(units.n)
    present, sizes = units.present, units.present.sum(axis=1)
    several = sizes >= 2
    whole = probability(units.score(rows, present), units.scale)
    two = units.scale == "log-odds" if units.of_prompts else of_two
    against = two & (whole < 0.5)
    order = ranking(values, present, np.where(against, -1.0, 1.0), rng)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(units.d)[None, :], axis=1)
    bins = (
        np.minimum(np.asarray(WORDS)[None, :], np.maximum(sizes - 1, 1)[:, None])
        if units.of_prompts
        else counts_at(present, BINS)
    )
    tenths = np.column_stack([np.zeros_like(sizes), counts_at(present, STEPS), sizes])

    def without_top(counts: IntArray) -> BoolArray:
        return present[:, None, :] & (rank[:, None, :] >= counts[:, :, None])

    gone, along = without_top(bins), without_top(tenths)
    asked = np.concatenate([gone, present[:, None, :] & ~gone, along], axis=1)
    p = _each_once(units, asked)
    p = np.where(against[:, None], 1.0 - p, p)
    own = np.where(against, 1.0 - whole, whole)[:, None]
    k = bins.shape[1]
    shares = tenths / np.maximum(sizes, 1)[:, None]
    curve = p[:, 2 * k :]
    area = (np.diff(shares, axis=1) * (curve[:, 1:] + curve[:, :-1])).sum(axis=1) / 2.0

    def nan_unless_several(values: FloatArray) -> FloatArray:
        return np.asarray(np.where(several, values, np.nan), np.float64)

    which = "its words" if units.of_prompts else "its units"
    return Erasure(
        comprehensiveness=nan_unless_several((own - p[:, :k]).mean(axis=1)),
        sufficiency=nan_unless_several((own - p[:, k : 2 * k]).mean(axis=1)),
        deletion_auc=nan_unless_several(area),
        of=f"in the probability of {'what is predicted' if two else 'what is explained'}",
        over=f"mean over 1 to {max(WORDS)} words"
        if units.of_prompts
        else "mean over 1, 5, 10, 20 and 50 % of the units",
        along=f"area as {which} go by tenths",
    )


def probability(scores: FloatArray, scale: Scale) -> FloatArray:
    """Probabilities of log-odds, of log-probabilities, or as they are; sums over a text's tokens never exceed 1."""
    if scale == "log-odds":
        return np.asarray(scipy.special.expit(scores), np.float64)
    return np.asarray(np.clip(np.exp(scores) if scale == "log-probability" else scores, 0.0, 1.0), np.float64)


def _each_once(units: Units, masks: BoolArray) -> FloatArray:
    """(n, k) probabilities of samples with units kept (n, k, d); what stands twice is asked for once."""
    n, k, d = masks.shape
    which = np.repeat(np.arange(n), k)
    keep = masks.reshape(n * k, d)
    bits = np.column_stack([which.astype(np.int64).view(np.uint8).reshape(n * k, 8), np.packbits(keep, axis=1)])
    _, first, back = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    scores = units.score(which[first], keep[first]) if len(first) else np.zeros(0)
    return probability(scores, units.scale)[back.reshape(-1)].reshape(n, k)
