"""Detector evasion: the smallest change that makes synthetic media pass as real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.models.detector_card import TRACELESS
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.attack_estimates import AtLeast
from auditor.statistics.estimate import Undefined
from probes.deepfake.detector_files import is_large, labelled, make_measurement
from probes.probe_inputs import chosen_methods, differentiable, whole_number
from probes.robustness.gradient_masking import Examined, examine
from probes.robustness.perturbation_set import ball_of
from probes.robustness.query_attacks import square_attack
from probes.robustness.worst_case_search import attack

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.torch_model import DifferentiableModel

_EPSILON = {"image": (4 / 255, 8 / 255), "audio": (0.002, 0.01)}
_N_SAMPLES, _LARGE_SAMPLES = 50, 10
_UNITS = {"image": (255.0, "the range of a pixel"), "audio": (32768.0, "full scale")}


class DetectorEvasion(BaseProbe):
    """The rate of detected synthetic files that pass as real after an imperceptible change.

    Over sampled synthetic files that the detector decides to be synthetic, for each method M: ``evasion_rate`` and
    ``evasion_into_real``.

    - ``evasion_rate``: At ``{"epsilon": e}``, of the range of a pixel, or of full scale in sound; exact lower bound.
    - ``evasion_into_real``: Of ``square`` and a detector with a card.

    Methods: ``pgd`` (differentiable models), projected gradient descent with ``n_steps`` steps, as
    :func:`probes.robustness.worst_case_search.attack` searches, and where the detector hides its gradient without it
    (:func:`probes.robustness.gradient_masking.examine`); ``square``, the Square attack, which sees nothing but
    scores and asks at most ``n_queries`` times a file and level
    (:func:`~probes.robustness.query_attacks.square_attack`), on values as a file holds them. A search can miss what is
    there: the rates are at least what was found, which may FAIL and never PASS, and no detector without a defence of
    its own withstands the first.

    methods: ``auto`` (all that apply) or names. epsilon: levels; by default 4 and 8 of 255 for images, 0.002 and 0.01
    for sound. n_samples: files, by default 50, or 10 pictures of 128 x 128 and more.

    Raises NotApplicableError for other models and data, without labels, or for ``pgd`` of a model without gradients.

    Sources: Carlini and Farid, CVPR Workshops 2020; Madry et al., ICLR 2018; Andriushchenko et al., ECCV 2020.
    """

    name = "detector_evasion"
    pillar = "deepfake"
    goal = "How small a change makes synthetic media pass as real?"
    citation = "Carlini and Farid, CVPR Workshops 2020; Andriushchenko et al., ECCV 2020"
    methods = ("pgd", "square")
    needs = (Need.CLASSIFIER, Need.DATA, Need.LABELS)
    questions = (AuditQuestion("evaded"),)
    ideal_when_same = {"evasion_rate": "decisions", "evasion_into_real": "decisions"}
    untrusted_options = allow_untrusted("methods", "epsilon", "n_samples", "n_steps", "n_queries")
    metrics = define_metrics(
        """
        evasion_rate: share of the synthetic files found for which the attack finds a version decided to be real, no
          value moved by more than e; [0, 1], ideal 0; at 0.5 every second synthetic file can be passed off as real by a
          change nobody notices; Carlini and Farid, CVPR Workshops 2020
        evasion_into_real: share of the synthetic files found whose version by the attack is answered "no known trace",
          the conformal rule included; [0, 1], ideal 0; at 0.5 every second synthetic file is made to show
          nothing; Carlini and Farid, CVPR Workshops 2020
        """
    )

    def __init__(
        self,
        *,
        methods: str | Sequence[str] = "auto",
        epsilon: Sequence[float] | None = None,
        n_samples: int | None = None,
        n_steps: int = 20,
        n_queries: int = 100,
    ) -> None:
        if epsilon is not None and not (len(epsilon) and all(0.0 < e <= 1.0 for e in epsilon)):
            raise ValueError(f"epsilon must be numbers above 0 and at most 1, not {epsilon!r}")
        for option, value in (("n_samples", n_samples), ("n_steps", n_steps), ("n_queries", n_queries)):
            whole_number(option, value, 1)
        self.wanted = chosen_methods(methods, self.methods)
        self.epsilon = None if epsilon is None else tuple(sorted(set(map(float, epsilon))))
        self.n_samples = n_samples
        self.n_steps = n_steps
        self.n_queries = n_queries

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on sampled, detected synthetic files; see the class for their definitions."""
        subject = labelled(model, data)
        own = differentiable(model)
        if own is not None and not (len(subject.rows) and own.encode(subject.rows.X[:1]).is_floating_point()):
            own = None
        if "pgd" in self.wanted and own is None and len(subject.rows):
            raise NotApplicableError("pgd needs a detector that can be differentiated; square applies to this one.")
        wanted = [m for m in self.methods if m in self.wanted or "auto" in self.wanted]
        wanted = [m for m in wanted if m != "pgd" or own is not None]
        probabilities = np.empty((len(subject.scores), 2))
        probabilities[:, subject.fake], probabilities[:, 1 - subject.fake] = subject.scores, 1.0 - subject.scores
        found_fake = model.decide(probabilities, subject.rows.positive) == subject.fake
        targets = np.flatnonzero(subject.is_fake & found_fake)
        few = _LARGE_SAMPLES if is_large(subject.rows) else _N_SAMPLES
        picked = np.sort(rng.choice(targets, min(self.n_samples or few, targets.size), replace=False)).astype(np.int64)
        sample = subject.rows.take(picked)
        levels = self.epsilon or _EPSILON[sample.modality]
        if not len(sample):
            nothing = np.zeros(0, bool)
            return [_rate("evasion_rate", m, nothing, level) for m in wanted or ["square"] for level in levels]
        # Every method has draws of its own, so that leaving one out does not change another's numbers.
        generators = dict(zip(self.methods, rng.spawn(len(self.methods)), strict=True))
        found: list[Measurement] = []
        if "pgd" in wanted and own is not None:
            examined = self._pgd(model, own, sample, subject.fake, levels, generators["pgd"])
            found += [
                replace(_rate("evasion_rate", "pgd", row, level), masked=examined.masked)
                for level, row in zip(levels, examined.attacked.broken, strict=True)
            ]
        if "square" in wanted:
            found += self._square(model, sample, subject.fake, levels, generators["square"])
        return found

    def _pgd(
        self,
        model: AuditedModel,
        differentiable_model: DifferentiableModel,
        sample: AuditData,
        fake: int,
        levels: Sequence[float],
        rng: np.random.Generator,
    ) -> Examined:
        inputs, clean = differentiable_model.encode(sample.X), np.full(len(sample), fake, np.int64)
        ball, (of_attack, of_signs) = ball_of(model, sample, inputs), rng.spawn(2)

        def decide(probabilities: FloatArray) -> IntArray:
            return model.decide(probabilities, sample.positive)

        attacked = attack(
            differentiable_model, inputs, clean, decide, ball=ball, levels=levels, n_steps=self.n_steps, rng=of_attack
        )
        return examine(
            differentiable_model, inputs, clean, decide, attacked, ball=ball, n_steps=self.n_steps, rng=of_signs
        )

    def _square(
        self, model: AuditedModel, sample: AuditData, fake: int, levels: Sequence[float], rng: np.random.Generator
    ) -> list[Measurement]:
        from auditor.models.detector import detector_of

        span, unit = _UNITS[sample.modality]
        detector = detector_of(model)

        def ask(rows: npt.NDArray[Any], indices: IntArray) -> tuple[FloatArray, BoolArray]:
            scores = model.predict_proba(rows)[:, fake]
            both = np.empty((len(scores), 2))
            both[:, fake], both[:, 1 - fake] = scores, 1.0 - scores
            return scores, np.asarray(model.decide(both, sample.positive) != fake, bool)

        found: list[Measurement] = []
        X = np.asarray(sample.X)
        limits = np.iinfo(X.dtype)
        done = np.zeros(len(sample), bool)
        changed = X.copy()
        for level in levels:
            # What evades within a small reach does so within a larger one: only the others are searched again.
            left = np.flatnonzero(~done)
            if left.size:
                own, radius = X[left].astype(np.int32), max(1, round(level * span))
                low, high = (np.clip(own + r, limits.min, limits.max).astype(X.dtype) for r in (-radius, radius))
                changed[left], done[left] = square_attack(low, high, ask, n_queries=self.n_queries, rng=rng)
            detail = f"epsilon in shares of {unit}; at most {self.n_queries} queries a file"
            found.append(_rate("evasion_rate", "square", done, level, detail))
            if detector is not None:
                real = np.asarray([v.answer == TRACELESS for v in detector.verdicts(changed)], bool)
                into_real = _rate("evasion_into_real", "square", real, level, detail)
                # Whoever answers nothing is not evaded into an answer either.
                found.append(replace(into_real, too_few=detector.card.unproven))
        return found


def _rate(metric: str, method: str, evaded: BoolArray, level: float, detail: str = "") -> Measurement:
    found: AtLeast | Undefined = Undefined(reason="the detector finds no synthetic file that could be changed")
    if evaded.size:
        found = AtLeast(successes=int(evaded.sum()), n=evaded.size)
    at = {"epsilon": level}
    return make_measurement(metric, found, evaded.size, 0.0, method=method, at=at, detail=detail)
