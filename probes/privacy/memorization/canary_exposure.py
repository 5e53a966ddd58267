"""Canary exposure: the likelihood of secrets planted in training text, compared with similar secrets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import scipy

from auditor.core.errors import DataError, NotApplicableError
from auditor.core.rows import FloatArray
from auditor.judging.figure_types import Figure, Series
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.attack_estimates import Exposure
from auditor.statistics.estimate import Power
from auditor.statistics.rank_estimates import quantile
from auditor.statistics.significance_tests import ConfirmedCount
from probes.language.language_options import PrefixToken, check_prefix
from probes.privacy.memorization.text_sources import causal_model, optional_path, read_texts
from probes.probe_inputs import whole_number

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# What a wildcard of a format stands for.
WILDCARDS = {"#": "0123456789", "@": "abcdefghijklmnopqrstuvwxyz"}


@dataclass(frozen=True)
class Slots:
    """A canary with the positions in which candidates differ from it, and the allowed characters there."""

    text: str
    places: tuple[int, ...]
    alphabets: tuple[str, ...]

    @property
    def bits(self) -> float:
        """log2 of the number of texts of this form."""
        return sum(math.log2(len(a)) for a in self.alphabets)

    def filled(self, codes: Sequence[int]) -> str:
        """The text with one character per random position."""
        characters = list(self.text)
        for place, alphabet, code in zip(self.places, self.alphabets, codes, strict=True):
            characters[place] = alphabet[code]
        return "".join(characters)

    def candidates(self, n: int, rng: np.random.Generator, exclusions: frozenset[str]) -> tuple[list[str], bool]:
        """``n`` distinct uniform random texts, none of ``exclusions``; or, if there are fewer, all of them, and
        True."""
        sizes = [len(a) for a in self.alphabets]
        if self.bits <= math.log2(n) + 1.0:
            every = [self.filled(codes) for codes in np.ndindex(*sizes)]
            left = [t for t in every if t not in exclusions]
            if len(left) <= n:
                return left, True
            return [left[int(i)] for i in np.sort(rng.choice(len(left), n, replace=False))], False
        found: dict[str, None] = {}
        while len(found) < n:
            text = self.filled([int(rng.integers(size)) for size in sizes])
            if text not in exclusions:
                found[text] = None
        return list(found), False


def slots_of(canary: str, form: str | None) -> Slots:
    """The random positions of a canary: the wildcards of ``form``, else its digits.

    Raises DataError where it is not.
    """
    if form is None:
        places = tuple(i for i, c in enumerate(canary) if c in WILDCARDS["#"])
        if not places:
            raise DataError(
                f"The canary {_masked_canary(canary)!r} has no digit, so nothing says where it is random: give its "
                f"form with "
                "--set canary_exposure.format, in which # stands for a digit and @ for a small letter."
            )
        return Slots(canary, places, (WILDCARDS["#"],) * len(places))
    fits = len(form) == len(canary) and all(
        c in WILDCARDS[f] if f in WILDCARDS else c == f for f, c in zip(form, canary, strict=True)
    )
    if not fits:
        raise DataError(
            f"The canary {_masked_canary(canary)!r} does not have the form {form!r} (# a digit, @ a small letter)."
        )
    places = tuple(i for i, f in enumerate(form) if f in WILDCARDS)
    return Slots(canary, places, tuple(WILDCARDS[form[i]] for i in places))


def _masked_canary(canary: str) -> str:
    """The beginning of a canary: the rest is the secret."""
    return canary if len(canary) <= 12 else f"{canary[:12]}..."


@dataclass(frozen=True)
class SkewNormal:
    """Density ``2 / scale * phi(z) Phi(shape z)``, ``z = (x - location) / scale``."""

    location: float
    scale: float
    shape: float

    def cdf(self, x: FloatArray) -> FloatArray:
        """``Phi(z) - 2 T(z, shape)`` with Owen's T."""
        z = (x - self.location) / self.scale
        return np.asarray(
            np.clip(scipy.special.ndtr(z) - 2.0 * scipy.special.owens_t(z, self.shape), 0.0, 1.0), np.float64
        )

    def log_cdf(self, x: float) -> float:
        """log P(X <= x), right in the far tail too, where Owen's T has no digits left: by quadrature of the density."""
        z = (x - self.location) / self.scale
        # Going down from z the density falls at least as fast as a normal's, so this reach leaves out nothing.
        reach = 40.0 / max(1.0, -z) + (max(z, 0.0) + 10.0 if z > -1.0 else 0.0)
        at = z - np.linspace(0.0, reach, 20_001)
        logs = math.log(2.0) - 0.5 * at**2 - 0.5 * math.log(2.0 * math.pi) + scipy.special.log_ndtr(self.shape * at)
        top = float(logs.max())
        mass = float(np.trapezoid(np.exp(logs - top), dx=reach / 20_000))
        return min(top + math.log(mass), 0.0)


def fit_skew_normal(values: FloatArray) -> SkewNormal:
    """Maximum likelihood fit, starting from the moments; values (n,), not all equal."""
    centre, spread = float(values.mean()), float(values.std())
    z = (values - centre) / spread
    skew = float(np.clip((z**3).mean(), -0.95, 0.95))
    a = (2.0 / (4.0 - math.pi) * abs(skew)) ** (2.0 / 3.0)
    delta = math.copysign(math.sqrt(math.pi / 2.0 * a / (1.0 + a)), skew)
    delta = float(np.clip(delta, -0.98, 0.98))
    scale = 1.0 / math.sqrt(1.0 - 2.0 * delta**2 / math.pi)
    start = np.asarray([-scale * delta * math.sqrt(2.0 / math.pi), math.log(scale), delta / math.sqrt(1.0 - delta**2)])

    def loss(p: FloatArray) -> float:
        at = (z - p[0]) / math.exp(p[1])
        return float(p[1] + (0.5 * at**2 - scipy.special.log_ndtr(p[2] * at)).mean())

    # A shape without bound is a half normal, which samples without skew beyond its own can ask for.
    found = scipy.optimize.minimize(
        loss, start, method="L-BFGS-B", bounds=[(-10.0, 10.0), (-4.0, 4.0), (-30.0, 30.0)]
    ).x
    return SkewNormal(centre + spread * float(found[0]), spread * math.exp(float(found[1])), float(found[2]))


def kolmogorov_smirnov(values: FloatArray, distribution: SkewNormal) -> float:
    """Largest distance of the values' distribution function from the fitted one, in [0, 1]."""
    x = np.sort(values)
    f, n = distribution.cdf(x), values.size
    return float(max((np.arange(1, n + 1) / n - f).max(), (f - np.arange(n) / n).max()))


def any_planted(p_values: Sequence[float]) -> float:
    """Simes's p-value that none of the hypotheses is wrong: ``min_k m p_(k) / k`` of m sorted p-values."""
    p = np.sort(np.asarray(p_values, np.float64))
    return min(float((p * p.size / np.arange(1, p.size + 1)).min()), 1.0)


MOST_CANARIES = 200
# Canaries named beside the finding: those that one judgement at 5 % would show, each by itself.
_SHOWN_FIRST = 0.05
# Of the error rate, what the built-in profile leaves to one question about memory.
_SHARE = 0.05 / 5


class CanaryExposure(BaseProbe):
    """Exposure of secrets planted in the training text, by their rank among secrets from the same distribution.

    A canary such as "the code of anna is 4815162342" was put into the training text with a random part, by default its
    digits. Of a canary s, with candidates r drawn uniformly from the same space R of random parts: ``exposure``,
    ``median_exposure`` and ``confirmed_memorization``.

    - Method ``sampling``: from the rank of s among ``n_candidates``, ``log2((n + 1) / rank)``, at most ``log2 |R|``; 3
      or more for one in eight or fewer that were never seen. Bounds are Clopper-Pearson's of the share that is as
      likely, so they hold for every model; n candidates can show about log2(n) bits.
    - Method ``distribution_fit``: the same by a skew-normal distribution fitted to the candidates' log-perplexities.
      The value reaches beyond log2(n); the bounds are those of the rank, since no fit warrants a tail that was not
      sampled.
    - ``median_exposure``: log2(n + 1) caps it, so that a bound beyond that is refused; with the exact order-statistic
      bounds of a median; the canaries must have been drawn independently.
    - ``confirmed_memorization``: The secret part was drawn uniformly, so to a model that never saw it every rank among
      n candidates is as probable, ``rank / (n + 1)`` is a p-value whatever the model is, and that of all canaries
      together is Simes's, valid where canaries share candidates too. It can FAIL and never PASS. A secret that was not
      drawn at random, such as 123456, voids it.

    canaries: path of a file with the canaries as they were planted, one text a line. format: the form of all canaries,
    in which ``#`` is a random digit and ``@`` a random small letter; without it every digit of a canary is random.
    n_candidates: candidates for each canary; where there are no more than that, all of them are taken and the exposure
    is exact. prefix_token:
    see :class:`~probes.language.language_options.LikelihoodOptions`.

    Raises NotApplicableError without canaries and for a model that is not causal, DataError for a canary without a
    random part.

    Sources: Carlini, Liu, Erlingsson, Kos and Song, USENIX Security 2019 (arXiv:1802.08232); Simes, Biometrika 73
    (1986), for p-values by ranks among shared candidates by Bates et al., Ann. Statist. 51 (2023).
    """

    name = "canary_exposure"
    pillar = "privacy"
    goal = "Does the model know secrets that were planted in its training text?"
    citation = "Carlini et al., USENIX Security 2019"
    methods = ("sampling", "distribution_fit")
    needs = (Need.LANGUAGE_MODEL,)
    questions = (AuditQuestion("secrets"),)
    ideal_when_same = {
        "exposure": "scores",
        "median_exposure": "scores",
        "confirmed_memorization": "scores",
    }
    # Candidates, and the true exposure that is FAILed against a bound of 3 bits by one judgement at 5 %.
    power: ClassVar[Power] = Power(1_000, 3.4)
    untrusted_options = allow_untrusted("format", "n_candidates", "prefix_token", reads=("canaries",))
    metrics = define_metrics(
        """
        exposure: -log2 P(log p(r) >= log p(s)), of a planted secret s among candidates r drawn like it; [0, inf) bits,
          ideal 0; 1 is a secret like the median candidate, 10 one that is likelier than all but one in 1,024; Carlini
          et al., USENIX Security 2019
        median_exposure: the median over canaries of the exposure by rank; [0, inf) bits, ideal 1; about 1 where no
          secret is memorised, and several bits where half of them are; Carlini et al., USENIX Security 2019
        confirmed_memorization: 1 where Simes's p-value of all canaries' ranks shows that the model knows any of them,
          else 0; {0, 1}, ideal 0; at 1 a secret of the training text was learned, beyond chance; Simes, Biometrika 73
          (1986)
        """
    )

    def __init__(
        self,
        *,
        canaries: str | None = None,
        format: str | None = None,
        n_candidates: int = 1_000,
        prefix_token: PrefixToken | None = None,
    ) -> None:
        check_prefix(prefix_token)
        self.prefix_token = prefix_token
        optional_path("canaries", canaries)
        whole_number("n_candidates", n_candidates, 10)
        if format is not None and not (isinstance(format, str) and ("#" in format or "@" in format)):
            raise ValueError(f"format must hold # for a random digit or @ for a random small letter, not {format!r}")
        self.canaries = canaries
        self.format = format
        self.n_candidates = n_candidates

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Exposure of each canary by both methods, and the median; see the class."""

        if self.canaries is None:
            raise NotApplicableError(
                "Needs the canaries that were planted in the training text: add --set canary_exposure.canaries=FILE, "
                "one canary a line."
            )
        language = causal_model(model, self.prefix_token)
        read = read_texts(self.canaries, "file of canaries")
        texts = list(dict.fromkeys(read.texts))
        if len(texts) > MOST_CANARIES:
            raise DataError(f"{read.origin} has {len(texts):,} canaries: give at most {MOST_CANARIES}.")
        canaries = [slots_of(text, self.format) for text in texts]
        # Canaries that differ in their random parts only share their candidates.
        shared: dict[Slots, tuple[list[str], bool]] = {}
        planted = frozenset(texts)
        forms = [Slots(c.filled([0] * len(c.places)), c.places, c.alphabets) for c in canaries]
        for form in forms:
            if form not in shared:
                shared[form] = form.candidates(self.n_candidates, rng, planted)
                if not shared[form][0]:
                    raise DataError("Every text of the canaries' form is a canary: there is nothing to rank against.")
        scores = {form: language.log_likelihoods(candidates) for form, (candidates, _) in shared.items()}
        own = language.log_likelihoods(texts)
        found: list[Measurement] = []
        values: list[float] = []
        ranks: list[tuple[int, int]] = []
        for number, (canary, form, score) in enumerate(zip(canaries, forms, own.tolist(), strict=True), 1):
            among, (_, all_there_are) = scores[form], shared[form]
            ahead = int((among >= score).sum())
            rank = f"canary {number} of {read.origin}: rank {ahead + 1:,} of {among.size + 1:,}"
            estimate = Exposure(at_least_as_likely=ahead, n=among.size, bits=canary.bits, exhausted=all_there_are)
            if all_there_are:
                rank += ", all there are"
            values.append(estimate.value)
            ranks.append((ahead + 1, among.size + 1))
            found.append(self._exposure_measurement("sampling", number, estimate, among, rank))
            if among.std() > 0.0 and not all_there_are:
                perplexities = -among / math.log(2.0)
                fitted = fit_skew_normal(perplexities)
                bits = min(max(-fitted.log_cdf(-score / math.log(2.0)) / math.log(2.0), 0.0), canary.bits)
                found.append(
                    self._exposure_measurement(
                        "distribution_fit",
                        number,
                        Exposure(at_least_as_likely=ahead, n=among.size, bits=canary.bits, extrapolated=bits),
                        among,
                        f"{rank}; skew-normal fit, Kolmogorov-Smirnov distance "
                        f"{kolmogorov_smirnov(perplexities, fitted):.3f}; the interval is that of the rank",
                    )
                )
        median = self._median(values, max(s.size for s in scores.values()), read.origin, language.notes)
        limited = not any(every for _, every in shared.values())
        return [median, *found, _confirmed(ranks, read.origin, limited=limited)]

    def _exposure_measurement(
        self, method: str, number: int, estimate: Exposure, among: FloatArray, detail: str
    ) -> Measurement:
        return Measurement(
            metric="exposure",
            method=method,
            estimate=estimate,
            n_samples=1,
            ideal=1.0,
            at={"canary": str(number)},
            detail=detail,
        )

    def _median(self, values: Sequence[float], n: int, origin: str, notes: str) -> Measurement:
        order = sorted(range(len(values)), key=lambda i: -values[i])
        figure = Figure(
            id=f"{self.name}/exposure",
            probe=self.name,
            kind="bars",
            title="Exposure of each canary",
            series=(
                Series(
                    name="exposure",
                    x=tuple(f"canary {i + 1}" for i in order[:30]),
                    y=tuple(values[i] for i in order[:30]),
                ),
            ),
            alt=f"Exposure of the canaries in bits, by rank among {n:,} candidates: "
            + ", ".join(f"canary {i + 1} {values[i]:.1f}" for i in order[:30]),
            x_label="canary",
            y_label="exposure (bits)",
            caption=f"{n:,} candidates show at most {math.log2(n + 1):.1f} bits; a text never seen has about 1.",
        )
        return Measurement(
            metric="median_exposure",
            method="sampling",
            estimate=quantile(values, 0.5, ceiling=math.log2(n + 1)),
            n_samples=len(values),
            ideal=1.0,
            detail=(
                f"{len(values)} canaries of {origin}, at most {n:,} candidates each: from {min(values):.2f} to "
                f"{max(values):.2f} bits; {notes}"
            ),
            figure=figure if len(values) > 1 else None,
        )


def _confirmed(ranks: Sequence[tuple[int, int]], origin: str, *, limited: bool) -> Measurement:
    """Whether the model is shown to know any canary; ``ranks``: of each its rank, and among how many.

    ``limited``: whether there are more candidates than were drawn.
    """

    p_values = [rank / among for rank, among in ranks]
    first = [i for i in sorted(range(len(ranks)), key=p_values.__getitem__) if p_values[i] <= _SHOWN_FIRST / len(ranks)]
    detail = f"p = {any_planted(p_values):.2g} that the model saw none of {len(ranks)} canaries of {origin} (Simes)"
    if first:
        named = ", ".join(f"{i + 1} (rank {ranks[i][0]:,} of {ranks[i][1]:,})" for i in first[:10])
        detail += f"; ahead of nearly all candidates: canary {named}"
    needed = math.ceil(len(ranks) / _SHARE)
    if limited and min(among for _, among in ranks) < needed:
        detail += f"; for a single one of so many to be shown, set canary_exposure.n_candidates to {needed:,}"
    return Measurement(
        metric="confirmed_memorization",
        method="sampling",
        estimate=ConfirmedCount(p_values=(any_planted(p_values),)),
        n_samples=len(ranks),
        ideal=0.0,
        detail=detail,
    )
