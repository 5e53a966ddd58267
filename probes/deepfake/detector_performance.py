"""Detector performance: separation of synthetic from real media, and abstention on unsuitable files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.models.detector_card import METRIC_OF, TRACELESS
from auditor.run.planted.twin_costs import Forecast
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.detection import ExcessShare, LowestArea, detection_figures
from auditor.statistics.distribution_distances import WorstGap
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.rank_estimates import AreaUnderCurve
from auditor.statistics.rates import MOST_GROUPS, Proportion
from probes.deepfake.detector_files import Subject, labelled, make_measurement
from probes.fairness.group_limits import crowd
from probes.fairness.score_fairness import calibration_error
from probes.twins import distance_of, no_plant, normal_to_share

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.detector import Detector
    from auditor.models.detector_card import DetectorCard, KnownRate

_IDEALS = {"auc": 1.0, "equal_error_rate": 0.0, "average_precision": 1.0, "tpr_at_fpr": 1.0}
_MOST_DECLARED = 200
_COLUMN = "generator"


class DetectorPerformance(BaseProbe):
    """AUC, equal error rate, average precision, TPR at 1 % FPR and calibration; by generator and group; the answers.

    The score is the probability of the synthetic class, which counts as positive. Over the labelled evaluation files:
    ``auc``, ``equal_error_rate``, ``average_precision``, ``tpr_at_fpr``, ``expected_calibration_error``,
    ``lowest_generator_auc`` and ``auc_difference``.

    - ``equal_error_rate``: Bounds hold at every size, see :class:`~auditor.statistics.detection.EqualErrorRate`.
    - ``tpr_at_fpr``: At ``{"false_positive_rate": f}``; undefined with fewer than 1 / f real files.

    By generator, where a column names it (the synthetic files of one generator against all real files): ``auc``,
    ``equal_error_rate`` and ``tpr_at_fpr`` of each. By sensitive feature: ``auc`` and ``equal_error_rate`` of each
    group.

    Of a detector with a card, at ``{"class": c}``, among the files that truly are c: ``answered_real``,
    ``answered_fake``, ``answered_cannot_say``, ``error_among_answered`` and ``wrongly_ruled_out_excess``.

    - ``wrongly_ruled_out_excess``: The promise is for files like those it was calibrated on: this says whether it holds
      for these. Undefined of a class that no score rules out, and of a detector that answers none of these files:
      whoever says nothing breaks no promise.

    And over all files: ``coverage``.

    Generators that the detector was not trained on take a new training to measure: what its maker measured and wrote on
    the card is repeated (method ``declared``), unseen generators first, and never judged: ``declared_*``.

    generator: the column of the sensitive features that names the generator of synthetic files; by default one named
    ``generator``, if there is one. false_positive_rate: f. bins: of the calibration error.

    Raises NotApplicableError for other models and data, or without labels.

    Sources: DeLong et al., Biometrics 44 (1988); Brummer and du Preez, Comput. Speech Lang. 20 (2006), on the equal
    error rate; Davis and Goadrich, ICML 2006; Wang et al., CVPR 2020, on testing generator by generator.
    """

    name = "detector_performance"
    pillar = "deepfake"
    goal = "How well does the detector tell synthetic media from real ones, and for whom?"
    citation = "Wang et al., CVPR 2020; DeLong et al., Biometrics 1988"
    methods = ("measured", "declared")
    needs = (Need.CLASSIFIER, Need.DATA, Need.LABELS)
    questions = (AuditQuestion("synthetic"),)
    forecast = Forecast(twin=0.01, number=0.0005, million=5.0, most_rows=10_000)
    ideal_when_same = {
        "auc_difference": "scores",
        "expected_calibration_error": "scores",
    }
    # Files of either class, and the true AUC that is found below 0.75 with 80 % power at 5 %.
    power: ClassVar[tuple[int, float]] = (150, 0.66)
    untrusted_options = allow_untrusted("generator", "false_positive_rate", "bins")
    metrics = define_metrics(
        """
        auc: P(a synthetic file scores above a real one) + P(tie) / 2, with DeLong's interval; [0, 1], ideal 1; at 0.9
          the detector tells which of two files is synthetic in 9 of 10 pairs; DeLong et al., Biometrics 44 (1988)
        equal_error_rate: the error at the threshold where the share of real files called synthetic equals that of
          synthetic ones missed; [0, 1], ideal 0; at 0.1 one file in ten is judged wrongly, of either kind; Brummer and
          du Preez, Comput. Speech Lang. 20 (2006)
        average_precision: mean precision at the synthetic files' scores; (0, 1], ideal 1; by chance it is the share of
          synthetic files; Davis and Goadrich, ICML 2006
        tpr_at_fpr: the share of synthetic files found where a share f of real ones is called synthetic; [0, 1], ideal
          1; at f = 0.01 a value of 0.6 finds six of ten synthetic files at one false alarm in 100 real ones; Wang et
          al., CVPR 2020
        expected_calibration_error: sum over bins of equal width of (share of the files) times |share synthetic - mean
          score|; [0, 1], ideal 0; at 0.05 probabilities are off by 5 points on average; Naeini et al., AAAI 2015
        lowest_generator_auc: min over generators of the AUC of their files against all real ones; [0, 1], ideal 1; the
          generator that the detector knows worst is told from real files in this share of pairs; Wang et al., CVPR 2020
        auc_difference: max - min over groups of a sensitive feature of the AUC; [0, 1], ideal 0; at 0.1 synthetic files
          of one group are told from real ones in 10 pairs of 100 more than those of another; Trinh and Liu, IJCAI 2021
        answered_real, answered_fake: of the files that truly are of a class, the share answered "no known trace", which
          is all that a detector says in favour of real, and "fake"; [0, 1], ideal 1 of its own class and 0 of the
          other; how files of this class are answered; Chow, IEEE Trans. Inf. Theory 16 (1970)
        answered_cannot_say: of the files that truly are of a class, the share that the detector does not answer; [0,
          1], no ideal; a detector that answers only what it knows says so more often; Chow, IEEE Trans. Inf. Theory 16
          (1970)
        error_among_answered: the share of wrong ones among answers other than "cannot say"; [0, 1], ideal 0; at 0.05
          one answer in 20 is wrong; Geifman and El-Yaniv, NeurIPS 2017
        wrongly_ruled_out_excess: the share of files whose own class the detector rules out, less the error rate that
          its card promises; [-rate, 1 - rate], ideal at most 0; above 0 the card promises more than it keeps on these
          files; Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World (2005)
        coverage: the share that is answered "fake" or "no known trace"; [0, 1], ideal 1; at 0.9 one file in ten gets no
          answer; Geifman and El-Yaniv, NeurIPS 2017
        declared_*: that number as the detector's maker wrote it on the card; [0, 1], no ideal; somebody's word, of
          which nothing was measured here; the detector's card
        """
    )

    def __init__(self, *, generator: str | None = None, false_positive_rate: float = 0.01, bins: int = 10) -> None:
        if not 0.0 < false_positive_rate < 1.0:
            raise ValueError(f"false_positive_rate lies between 0 and 1, not {false_positive_rate!r}")
        if not 2 <= bins <= 100:
            raise ValueError(f"bins lies in 2 to 100, not {bins}")
        self.generator = generator
        self.false_positive_rate = false_positive_rate
        self.bins = bins

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the labelled evaluation files; see the class for their definitions."""
        from auditor.models.detector import Detector

        subject = labelled(model, data, answers_do=True)
        found = self._of_subject(subject)
        if isinstance(model, Detector):
            found += _answers(model, subject) + _declared(model.card.known_rates)
        return found

    def measure_planted(
        self, model: AuditedModel, data: AuditData, measured: Measurement, value: float, rng: np.random.Generator
    ) -> list[Measurement]:
        """The measurements of a twin of which a known share of synthetic files scores above a real one.

        All synthetic files, or those of one generator, while the others are told apart.
        """
        subject = labelled(model, data, answers_do=True)
        groups, column = subject.rows.sensitive_features, self._column(subject)
        chosen = np.ones(subject.is_fake.size, bool)
        if measured.metric == "lowest_generator_auc" and groups is not None and column is not None:
            names = groups[column].astype("string").fillna("").to_numpy(object)
            chosen = names == rng.choice(sorted(set(names[subject.is_fake])))
        elif measured.metric != "auc" or measured.group:
            raise no_plant(measured)
        apart = subject.is_fake * distance_of(np.where(chosen, value, 1.0))
        return self._of_subject(replace(subject, scores=normal_to_share(rng.normal(size=chosen.size) + apart)))

    def _of_subject(self, subject: Subject) -> list[Measurement]:
        groups, named = subject.rows.sensitive_features, self._column(subject)
        found = self._overall(subject)
        columns = [] if groups is None else [str(c) for c in groups.columns]
        for column in sorted(columns, key=lambda c: c != named):
            assert groups is not None
            blank = "(not named)" if column == named else "(missing)"
            names = groups[column].astype("string").fillna(blank).to_numpy(object)
            found += (self._by_generator if column == named else self._by_group)(subject, column, names)
        return found

    def _column(self, subject: Subject) -> str | None:
        groups = subject.rows.sensitive_features
        names = [] if groups is None else [str(c) for c in groups.columns]
        if self.generator is not None and self.generator not in names:
            raise NotApplicableError(
                f"Needs the column {self.generator!r} that names the generators: add --sensitive {self.generator}, and "
                "for a folder --sensitive-file FILE --join-on COLUMN."
            )
        return self.generator or (_COLUMN if _COLUMN in names else None)

    def _figures(
        self, metrics: Sequence[str], fakes: FloatArray, reals: FloatArray, detail: str, group: Mapping[str, str]
    ) -> list[Measurement]:
        known = detection_figures(fakes, reals, self.false_positive_rate)
        at = {"tpr_at_fpr": {"false_positive_rate": self.false_positive_rate}}
        n = len(fakes) + len(reals)
        return [
            _one(metric, known[metric], n, _IDEALS[metric], group=group, at=at.get(metric, {}), detail=detail)
            for metric in metrics
        ]

    def _overall(self, subject: Subject) -> list[Measurement]:
        scores, fake = subject.scores, subject.is_fake
        n_fake = int(fake.sum())
        said = f"{n_fake:,} synthetic and {fake.size - n_fake:,} real files"
        area, *others = self._figures(tuple(_IDEALS), scores[fake], scores[~fake], said, {})
        error = calibration_error(np.clip(scores, 0.0, 1.0), fake, self.bins)
        detail = f"{self.bins} bins of equal width; {n_fake / max(fake.size, 1):.0%} of the files are synthetic"
        calibration = _one("expected_calibration_error", error, fake.size, 0.0, detail=detail)
        return [replace(area, chance=0.5), *others, calibration]

    def _by_generator(self, subject: Subject, column: str, names: npt.NDArray[Any]) -> list[Measurement]:
        known = sorted(set(names[subject.is_fake]))
        if len(known) > MOST_GROUPS:
            return [m] if (m := crowd("lowest_generator_auc", "measured", (column,), len(known), len(names))) else []
        reals = subject.scores[~subject.is_fake]
        found = []
        for name in known:
            fakes = subject.scores[subject.is_fake & (names == name)]
            said = f"{len(fakes):,} files of this generator against {len(reals):,} real ones"
            found += self._figures(("auc", "equal_error_rate", "tpr_at_fpr"), fakes, reals, said, {column: name})
        areas = _areas(found)
        lowest: AnyEstimate = LowestArea(parts=areas) if areas else Undefined(reason="there are no synthetic files")
        values = [a.value for a in areas]
        worst = known[int(np.nanargmin(values))] if any(map(math.isfinite, values)) else ""
        detail = f"lowest of {len(known):,} generators: {worst}" if worst else ""
        return [_one("lowest_generator_auc", lowest, len(names), 1.0, detail=detail), *found]

    def _by_group(self, subject: Subject, column: str, names: npt.NDArray[Any]) -> list[Measurement]:
        levels = sorted(set(names))
        if many := crowd("auc_difference", "measured", (column,), len(levels), len(names)):
            return [many]
        found = []
        for level in levels:
            fakes, reals = (subject.scores[(names == level) & own] for own in (subject.is_fake, ~subject.is_fake))
            said = f"{len(fakes):,} synthetic and {len(reals):,} real files"
            found += self._figures(("auc", "equal_error_rate"), fakes, reals, said, {column: level})
        gap: AnyEstimate = Undefined(reason="only one group is present, so there is nothing to compare it with")
        if len(levels) > 1:
            gap = WorstGap(parts=_areas(found))
        return [_one("auc_difference", gap, len(names), 0.0, sensitive=(column,)), *found]


def _areas(found: Sequence[Measurement]) -> tuple[AreaUnderCurve | Undefined, ...]:
    return tuple(m.estimate for m in found if m.metric == "auc" and isinstance(m.estimate, AreaUnderCurve | Undefined))


_one = partial(make_measurement, method="measured")


def _answers(detector: Detector, subject: Subject) -> list[Measurement]:
    card = detector.card
    probabilities = np.empty((subject.scores.size, 2))
    probabilities[:, card.fake], probabilities[:, 1 - card.fake] = subject.scores, 1.0 - subject.scores
    verdicts = detector.verdicts(subject.rows.X, probabilities)
    answers = np.asarray([v.answer for v in verdicts], object)
    right = np.where(subject.is_fake, "fake", TRACELESS)
    answered = answers != "cannot say"
    wrong = answered & (answers != right)
    ruled_out = {
        "fake": np.asarray([v.p_fake <= card.error_rate for v in verdicts], bool),
        "real": np.asarray([v.p_real <= card.error_rate for v in verdicts], bool),
    }
    found = [
        _one("coverage", _share(answered), answered.size, 1.0, detail=card.unproven or _silence(card)),
        _one("error_among_answered", _share(wrong[answered]), answered.size, 0.0, detail=_answered_text(answered)),
    ]
    for name, own in (("real", ~subject.is_fake), ("fake", subject.is_fake)):
        at: dict[str, str | float] = {"class": detector.classes[card.fake if name == "fake" else 1 - card.fake]}
        n = int(own.sum())
        own_answer = "fake" if name == "fake" else TRACELESS
        for answer, metric in METRIC_OF.items():
            ideal = 1.0 if answer == own_answer else 0.0 if answer != "cannot say" else None
            found.append(_one(metric, _share((answers == answer)[own]), n, ideal, at=at))
        said = _answered_text(answered[own])
        found.append(_one("error_among_answered", _share(wrong[own & answered]), n, 0.0, at=at, detail=said))
        excess: AnyEstimate = ExcessShare(successes=int(ruled_out[name][own].sum()), n=n, promised=card.error_rate)
        # Whoever cannot rule it out, or says nothing, breaks no promise and keeps none.
        if name in card.never_ruled_out:
            excess = Undefined(reason=f"no score rules out {name}, so a promise to do so seldom is kept by silence")
        elif not answered.any():
            excess = Undefined(reason=(card.unproven or "The detector answers none of these files.").rstrip("."))
        said = f"the card promises that at most {card.error_rate:g} of them are ruled out"
        found.append(_one("wrongly_ruled_out_excess", excess, n, 0.0, at=at, detail=said))
    return found


def _silence(card: DetectorCard) -> str:
    """Which answers the card's calibration scores make impossible, in words."""
    other = {"real": "fake", "fake": TRACELESS}
    return "; ".join(
        f"its calibration scores can never rule out {name}, so it never answers {other[name]}"
        for name in card.never_ruled_out
    )


def _answered_text(has_answer: BoolArray) -> str:
    return f"over the {int(has_answer.sum()):,} of {has_answer.size:,} files that were answered"


def _share(flags: BoolArray) -> Proportion:
    return Proportion(successes=int(flags.sum()), n=int(flags.size))


def _declared(rates: Sequence[KnownRate]) -> list[Measurement]:
    """What is on the card, unseen generators first; said to be the maker's word and held to no criterion."""
    ordered = sorted(rates, key=lambda rate: not rate.unseen)[:_MOST_DECLARED]
    found = []
    for rate in ordered:
        at: dict[str, str | float] = {"generator": rate.kind or "all", "unseen": "yes" if rate.unseen else "no"}
        interval = ""
        if rate.low is not None and rate.high is not None:
            interval = f"[{rate.low:.3g}, {rate.high:.3g}] at {rate.confidence:.0%} confidence, "
        found.append(
            _one(
                f"declared_{rate.metric}",
                Exact(known=rate.value),
                rate.n_real + rate.n_fake,
                None,
                method="declared",
                at=at,
                detail=f"{interval}{rate.n_fake:,} synthetic and {rate.n_real:,} real files",
                too_few="Declared by the detector's maker on its card; nothing of it was measured here.",
            )
        )
    return found
