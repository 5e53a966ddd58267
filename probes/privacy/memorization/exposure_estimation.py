"""Canary exposure arithmetic: random candidates, and a skew-normal distribution of their scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from auditor.core.errors import DataError
from auditor.core.rows import FloatArray

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
