"""Feature attribution: the features that determine the scores, and the trustworthiness of the explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.core.errors import OtherKindError
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.option_parsers import check_choice
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Undefined
from probes.attribution.attribution_grades import FEWEST_ROWS, LEVEL, grades_of
from probes.attribution.attribution_task import Problem, pose
from probes.attribution.attribution_units import Baseline, output_range
from probes.attribution.explanation_contents import Features, explanation_measurements, explanation_of, samples_figure
from probes.attribution.faithfulness import FRACTIONS, ends
from probes.attribution.gradient import Effort
from probes.attribution.image_units import grid_of
from probes.attribution.method_selection import Checks, Parts, Verdict, judge_methods
from probes.attribution.methods import METHODS, applicable
from probes.attribution.randomization_tests import FEWEST_COPIES, teach_shuffled
from probes.attribution.stability import N_PERTURBATIONS
from probes.erasure import BINS, ERASURE_METRICS, STEPS
from probes.fairness.proxies import LEAST_STRENGTH
from probes.fairwashing import real_rows
from probes.probe_inputs import (
    UNSKILLED,
    chosen_classes,
    chosen_methods,
    differentiable,
    draw,
    operations,
    skill,
    whole_number,
)

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

__all__ = ["FEWEST_ROWS", "LEVEL", "FeatureAttribution"]

_BASELINE_ROWS = 10_000
_N_SAMPLES = {"tabular": 256, "text": 128, "image": 128}
# Leaving out each of d columns reads a row of d values d times: beyond these values in all, fewer rows are explained.
_MOST_VALUES, _FEWEST_SAMPLES = 100_000_000, 64
# Samples, networks graded and networks explained by the sanity checks: what keeps a scan on one core within seconds.
_N_CHECKED = {"tabular": 48, "text": 32, "image": 32}
_N_EXPLAINED = {"tabular": FEWEST_COPIES, "text": 8, "image": 4}
_MOST_PARAMETERS = 20_000_000
# Steps of the path integral; of pictures that large networks are made for each step takes a tenth of a second.
_STEPS, _MOST_STEPS = 50, 400
_LARGE_PIXELS = 112 * 112
_LARGE_SAMPLES, _LARGE_CHECKED, _LARGE_STEPS, _LARGE_MOST_STEPS, _LARGE_RANKING_STEPS = 32, 4, 64, 128, 16
# Of pictures on processors: a core does some 10^11 of them a second, a tenth of that for layers that it is slow at.
_MOST_OPERATIONS, _FEWEST_PICTURES = 3 * 10**13, 4
_GRADIENT_PASSES = 3
# What is asked by itself, in the order of preference where methods are not told apart: first those whose parts add up.
_GRADIENT = ("integrated_gradients", "input_x_gradient", "saliency", "grad_cam")
_SHAPLEY = ("shap_linear", "shap_tree", "shap_permutation")
_FALLBACK = ("occlusion",)


class FeatureAttribution(BaseProbe):
    """Feature attribution of the model's scores, by an explanation tested as faithful, or none.

    The explained score f is the log-odds of the favourable class, or of the class decided on where no label is
    favourable; of a model that only predicts it is the probability. Units are the raw features of a table, the words or
    tokens of a text by position, patches of an image. ``a`` (n, d): signed attributions of n sampled rows.

    **The rule.** Methods are ranked by their gain on one half of the sampled rows; the best (or the first in the table
    that is not shown to be worse) is confirmed on the other half. It is shown where the lower bound of its gain there,
    at 0.25 %, lies above 0, its parts add up if they are meant to, it passes the sanity checks, and real rows of a
    table are not decided by what it hides (:func:`probes.fairwashing.real_rows`). Else it is refused:
    INCONCLUSIVE, with the reason, and nothing that it says is in the report. ``method`` forces one, which is marked
    UNEARNED where it is. WITH RESERVATIONS is one whose randomisation checks were not run, settled nothing or were
    waived, and one of an unskilled model; its figures say so too.

    A span is the largest less the smallest of all scores computed of a sample; a random attribution has a gain of 0.
    Numbers as published are called ``raw_*``. Of methods that are not of points
    ``sensitivity_max`` is taken with noise in the rows themselves, see :func:`probes.attribution.stability.stability`.
    Completeness is over samples and baselines, undefined where f is constant, and measured of the chosen method alone,
    where its parts are meant to add up. An explanation is refused unless both overlaps are shown to be below 0.7, that
    of labels over samples; and the gain must exceed the mean plus 4 standard deviations of what the same explanation
    gains on 40 networks drawn anew. Of shuffled labels, 5 networks of the model's architecture learn by its recipe, of
    which those count that are shown to fit their own labels better than chance (exact binomial test against the share
    of the most frequent one, at 1 % over all); that needs ``label_randomisation``, a model bundle with its recipe,
    --train and --target, and is undefined where none fits. Importance is at each feature, for texts at each of the 20
    words with most, and not measured of images. Proxies are those that :func:`probes.fairness.proxies.screen` finds. A
    criterion rests on the mean shares: totals of rows have no limits.

    Shares and group differences are measured on tables with sensitive features. Shares of the total carry delta-method
    intervals over the sampled rows, for display. The interval of a word holds for that word, not for its having been
    chosen as one of the 20.

    Of pictures, where more than 3e13 operations are counted on a processor, networks drawn anew are left out, then
    integrated gradients, then pictures down to 4, unless an option asks for them; the report says which.

    methods: ``auto``, or names out of ``FeatureAttribution.methods``; ``auto`` asks integrated_gradients,
    input_x_gradient, saliency and, of images, grad_cam where the model can be differentiated and its gradient is not 0
    at every row and on the way to its baseline, as that of hard thresholds is; else the first of shap's that applies,
    else occlusion, and the report says why. method: the one to force. n_samples: rows explained, drawn without
    replacement; by default 256, or 128 texts or images, or 32 pictures of 112 x 112 pixels or more; of tables of more
    than 625 columns fewer, and 64 from 1,250 on. n_steps: steps of the path integral, 50 by default, doubled up to
    ``max_steps``, 400, for rows that miss completeness by more than half a per cent; for such pictures 64 and 128, 16
    for ranking, and completeness is told of the confirming half alone. baseline: where gradient paths begin, see
    :func:`probes.attribution.attribution_task.pose`. n_background:
    rows that shap averages over, at most 100. n_permutations: walks through the features that ``shap_permutation``
    takes for each row. n_copies: networks drawn anew, 40 by default; 0 leaves this sanity check out, as does a refusal
    for another reason. label_randomisation: trains those 5 networks, which takes as long as 5 trainings; off by
    default. proxy_strength: least Cramer's V of a proxy. show_samples: whether texts and pictures, which are rows of
    the data, may stand in the report. max_memory: bytes that one pass may take.

    Raises NotApplicableError where a method does not apply, and says what would.

    Sources: DeYoung et al., ACL 2020; Adebayo et al., NeurIPS 2018; Sundararajan, Taly and Yan, ICML 2017; Lundberg and
    Lee, NeurIPS 2017; Petsiuk, Das and Saenko, BMVC 2018; Yeh et al., NeurIPS 2019.
    """

    name = "feature_attribution"
    pillar = "attribution"
    goal = "Which inputs do the model's scores rest on, sensitive features and their proxies among them?"
    citation = "DeYoung et al., ACL 2020; Adebayo et al., NeurIPS 2018; Sundararajan et al., ICML 2017"
    methods = tuple(METHODS)
    needs = (Need.CLASSIFIER, Need.DATA)
    questions = (AuditQuestion("arithmetic", metrics=("completeness_error",)), AuditQuestion("explanation"))
    ideal_when_same = {
        "sensitive_attribution_share": "scores",
        "proxy_attribution_share": "scores",
        "mean_sensitive_attribution_share": "scores",
        "mean_proxy_attribution_share": "scores",
        "attribution_difference_by_group": "scores",
    }
    # Rows explained, and the true share of rows with an error beyond the bound (0.05 is allowed) that is found with
    # 80 % power among 4 judgements at 5 %.
    power = (256, 0.12)
    # Rows explained, half of which confirm, and the true gain over a random attribution (more than 0 is required) that
    # is found with 80 % power at 0.25 %, where gains of -1 and 1 make it hardest; 0.18 where they deviate by 0.45.
    gain_power: ClassVar[tuple[int, float]] = (256, 0.37)
    untrusted_options = allow_untrusted(
        "methods", "method", "n_samples", "n_steps", "max_steps", "baseline", "n_background", "n_permutations",
        "n_copies", "label_randomisation",
    )  # fmt: skip
    metrics = define_metrics(
        """
        faithfulness_gain: mean over the confirming half of the comprehensiveness of the explanation less that of a
          random attribution, in units of the sample's span; [-1, 1], ideal the largest; above 0 removing what the
          explanation names moves the score more than removing anything does; DeYoung et al., ACL 2020
        faithfulness_gain_over_occlusion: mean comprehensiveness of the explanation less that of occlusion, in units of
          the sample's span; [-1, 1], ideal the largest; above 0 it names what matters better than leaving out one unit
          at a time; DeYoung et al., ACL 2020
        comprehensiveness: mean drop of the score without the top 5, 10, 20, 35 and 50 % of the units, in spans; [-1,
          1], ideal the largest; high where the score falls once that is gone; DeYoung et al., ACL 2020
        sufficiency: mean drop of the score with the top 5, 10, 20, 35 and 50 % of the units alone, in spans; [-1, 1],
          ideal the smallest; low where what it names gives the score alone; DeYoung et al., ACL 2020
        deletion_auc: area under the explained score f as units go, the most important first; [0, 1], ideal the
          smallest; low where the score falls early; Petsiuk, Das and Saenko, BMVC 2018
        insertion_auc: area under the explained score f as units come, the most important first; [0, 1], ideal the
          largest; high where the score rises early; Petsiuk, Das and Saenko, BMVC 2018
        infidelity: median over samples of captum's E[(I . a - (f(x) - f(x without I)))^2] over random sets I of units,
          in squared spans; [0, inf), ideal 0; small where the explanation foretells what leaving units out does; Yeh et
          al., NeurIPS 2019
        sensitivity_max: median over samples of captum's largest ||a(x + e) - a(x)|| / ||a(x)|| over noise e of up to 2
          % of the range; [0, inf), ideal 0; at 1 a small change turns the explanation into another as large as itself;
          Yeh et al., NeurIPS 2019
        completeness_error: 95 % quantile over rows of |sum_j a_ij - (f(x_i) - f(baseline))| in units of max f - min f;
          [0, inf), ideal 0; at 0.01 the parts miss their sum by a hundredth of the range of scores in all but 5 % of
          the rows; Sundararajan, Taly and Yan, ICML 2017
        parameter_randomisation_overlap: how far the explanation names the same top fifth of the units when every
          parameter is drawn anew, beyond chance; [-1, 1], ideal 0; at 1 the explanation does not depend on what the
          model learned; Adebayo et al., NeurIPS 2018
        label_randomisation_overlap: how far the explanation names the same top fifth of the units, beyond chance, for
          networks that learned shuffled labels; [-1, 1], ideal 0; at 1 the explanation does not depend on which labels
          the model learned; Adebayo et al., NeurIPS 2018
        method_agreement: mean rank correlation of the attributions with those of occlusion, a method of another family;
          [-1, 1], ideal 1; low values are a sign of fairwashing, or of a model that cannot be explained unit by unit;
          Krishna et al., TMLR 2024
        skill_over_majority: accuracy less the share of the most frequent label, paired over rows; [-1, 1], ideal 1 less
          that share; not above 0 an explanation explains an unskilled model's noise; Murphy, MWR 1988
        global_importance: of a feature or word j, sum_i |a_ij| / sum_i A_i with A_i = sum_j |a_ij|; [0, 1], no ideal;
          at 0.2 a fifth of all that moves the scores is this feature; Lundberg and Lee, NeurIPS 2017
        sensitive_attribution_share, proxy_attribution_share: global importance of the sensitive features, or of their
          proxies, together; [0, 1], ideal 0; at 0.1 a tenth of all that moves the scores is features that tell the
          group; Datta et al., CCS 2017
        mean_sensitive_attribution_share, mean_proxy_attribution_share: mean over rows of the share |a_ij| / A_i of the
          sensitive features, or of their proxies; [0, 1], ideal 0; at 0.1 a tenth of what moves a row's score is
          features that tell the group, on average; Datta et al., CCS 2017
        attribution_difference_by_group: largest difference between two groups of the mean share |a_ij| / A_i of one
          feature, bounded for all features and pairs together; [0, 1], ideal 0; at 0.1 a feature weighs 10 points more
          in the scores of one group than of another; Lundberg and Lee, NeurIPS 2017
        """,
        *ERASURE_METRICS,
    )

    def __init__(
        self,
        *,
        methods: str | Sequence[str] = "auto",
        method: str | None = None,
        n_samples: int | None = None,
        n_steps: int | None = None,
        max_steps: int | None = None,
        baseline: Baseline = "auto",
        n_background: int = 50,
        n_permutations: int = 2,
        n_copies: int | None = None,
        label_randomisation: bool = False,
        proxy_strength: float = LEAST_STRENGTH,
        show_samples: bool = False,
        max_memory: int | None = None,
    ) -> None:
        wanted = (
            chosen_methods(methods, self.methods)
            if method is None
            else chosen_methods(method, self.methods, "method must be one")
        )
        check_choice("baseline", baseline, Baseline)
        whole_number("n_samples", n_samples, 2)
        whole_number("n_steps", n_steps, 1)
        whole_number("max_steps", max_steps, 1)
        whole_number("n_background", n_background, 1, 100)
        whole_number("n_permutations", n_permutations, 1)
        whole_number("n_copies", n_copies, 0)
        whole_number("max_memory", max_memory, 1)
        if not 0.0 <= proxy_strength <= 1.0:
            raise ValueError(f"proxy_strength must lie in [0, 1], not {proxy_strength!r}")
        for option, value in (("show_samples", show_samples), ("label_randomisation", label_randomisation)):
            if not isinstance(value, bool):
                raise ValueError(f"{option} must be true or false, not {value!r}")
        self.wanted = wanted
        self.forced = method is not None
        self.n_samples = n_samples
        self.n_steps = n_steps
        self.max_steps = max_steps
        self.baseline: Baseline = baseline
        self.n_background = n_background
        self.n_permutations = n_permutations
        self.n_copies = n_copies
        self.label_randomisation = label_randomisation
        self.proxy_strength = proxy_strength
        self.show_samples = show_samples
        self.max_memory = max_memory

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on sampled evaluation rows; see the class for their definitions."""
        if model.n_outputs < 2:
            raise OtherKindError("Explains a choice between classes, and this model has one class only.")
        rows = data.evaluation
        if rows.modality == "audio":
            raise OtherKindError("Explains columns, words and pixels, and these data are sound.")
        if len(rows) < 2:
            there = "is one row" if len(rows) else "are no rows"
            return _undefined(f"there {there}, and a method is chosen on some rows and confirmed on others", len(rows))
        large = _is_large(rows)
        plan = self._plan(model, rows)
        sample = draw(rows, plan.n_samples, rng)
        order = sample.order(self.name)
        first, second = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
        parts = Parts(
            first=self._pose(model, data, sample.take(first), rng),
            second=self._pose(model, data, sample.take(second), rng),
            few=self._pose(
                model, data, sample.take(second[: _LARGE_CHECKED if large else _N_CHECKED[rows.modality]]), rng
            ),
        )
        reason = _nothing_to_explain(parts)
        if reason:
            return _undefined(reason, len(sample)) + skill(model, rows)
        n_steps = self.n_steps or (_LARGE_STEPS if large else _STEPS)
        most = self.max_steps or max(n_steps, _LARGE_MOST_STEPS if large else _MOST_STEPS)
        effort = Effort(n_steps=n_steps, max_steps=most, n_permutations=self.n_permutations)
        quick = replace(effort, n_steps=_LARGE_RANKING_STEPS, max_steps=_LARGE_RANKING_STEPS) if large else None
        verdict = judge_methods(
            parts,
            [m for m in self._methods_for(parts.first) if m not in plan.left_out],
            rng,
            effort,
            self._checks(model, data, rng, plan),
            force=self.forced,
            ranking_effort=quick,
        )
        verdict = replace(verdict, left_out={**verdict.left_out, **plan.left_out})
        skilled = skill(model, rows)
        if verdict.is_shown:
            unskilled = [m.detail for m in skilled if m.detail.startswith(UNSKILLED)]
            verdict = replace(verdict, reservations=(*unskilled, *verdict.reservations))
        explanation = explanation_of(verdict, parts.first, sample.take(np.concatenate([first, second])))
        features = Features.from_rows(model, rows, rng, self.proxy_strength)
        found = grades_of(verdict, len(rows))
        found[0] = replace(found[0], detail=f"{found[0].detail}{plan.note}")
        found += skilled
        if verdict.is_shown:
            found = _with_samples(found, verdict, self.show_samples)
        return found + explanation_measurements(verdict, explanation, features, rng)

    def _pose(self, model: AuditedModel, data: AuditData, sample: AuditData, rng: np.random.Generator) -> Problem:
        # What the model was trained on is what "absent" means to it; without that, the evaluation rows stand in.
        reference = data.members if data.members is not None else data.evaluation
        n_background = self.n_background if differentiable(model) is None else _BASELINE_ROWS
        return pose(
            model,
            sample,
            draw(reference, n_background, rng),
            chosen_classes(model, sample),
            baseline=self.baseline,
            rng=rng,
            max_memory=self.max_memory,
        )

    def _methods_for(self, problem: Problem) -> list[str]:
        if "auto" not in self.wanted:
            return list(dict.fromkeys(self.wanted))
        known = applicable(problem)
        slopes = [m for m in _GRADIENT if m in known]
        # Grad-CAM alone is no answer where the input itself has no gradient.
        if any(m != "grad_cam" for m in slopes):
            return slopes
        others = [m for m in (*_SHAPLEY, *_FALLBACK) if m in known][:1]
        if differentiable(problem.model) is None:
            return others
        # A network's gradient methods are named all the same, so that the report says why they were not asked.
        modality = problem.sample.modality
        return [*(m for m in _GRADIENT if modality in METHODS[m].modalities), *others]

    def _plan(self, model: AuditedModel, rows: AuditData) -> _Plan:
        """What is left out of an explanation of pictures that would take more than ``_MOST_OPERATIONS``."""
        n, copies, why = self.n_samples or min(len(rows), default_samples(rows)), self.n_copies, "n_copies is 0"
        asks = f"n_copies = {FEWEST_COPIES} asks for it"
        if copies is None:
            large = getattr(model, "n_parameters", 0) > _MOST_PARAMETERS
            copies = 0 if large else FEWEST_COPIES
            why = f"it has more than {_MOST_PARAMETERS:,}, and copies cost; {asks}" if large else why
        plan = _Plan(n_samples=n, n_copies=copies, why_no_copies=why)
        each = operations(model, rows) if rows.modality == "image" else 0
        if not each:
            return plan
        auto = "auto" in self.wanted
        large, patches = _is_large(rows), int(np.prod(grid_of(np.shape(rows.X)[1:3])))
        most = self.max_steps or (_LARGE_MOST_STEPS if large else _MOST_STEPS)
        checked = _LARGE_CHECKED if large else _N_CHECKED["image"]
        steps = (_LARGE_RANKING_STEPS if large else most) + most

        def cost(n: int, copies: int, integrated: bool) -> int:
            return each * _passes(n, checked, patches, steps if integrated else 0, copies)

        if cost(n, copies, auto) <= _MOST_OPERATIONS:
            return plan
        whole = f"{cost(n, copies, auto):.1e} operations in all, beyond {_MOST_OPERATIONS:.0e}"
        if self.n_copies is None and copies:
            copies = 0
            plan = replace(plan, n_copies=0, why_no_copies=f"it would take {whole}; {asks}")
        if auto and cost(n, copies, auto) > _MOST_OPERATIONS:
            auto = False
            plan = replace(
                plan, left_out={_GRADIENT[0]: f"it would take {whole}; methods = {_GRADIENT[0]} asks for it"}
            )
        if self.n_samples is None and cost(n, copies, auto) > _MOST_OPERATIONS:
            fewer = max(min(n, _FEWEST_PICTURES), n * _MOST_OPERATIONS // cost(n, copies, auto))
            note = f". Of {n:,} pictures {fewer:,} were explained: all would take {whole}"
            plan = replace(plan, n_samples=fewer, note=note)
        return plan

    def _checks(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, plan: _Plan) -> Checks:
        return Checks(
            n_copies=plan.n_copies,
            n_explained=min(plan.n_copies, _N_EXPLAINED[data.evaluation.modality]),
            why_none=plan.why_no_copies,
            teach=(lambda: teach_shuffled(model, data.members, rng)) if self.label_randomisation else None,
            real=(lambda values, names: real_rows(model, data.evaluation, values, names, rng))
            if data.evaluation.modality == "tabular"
            else None,
        )


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is explained, and why something is left out."""

    n_samples: int
    n_copies: int
    why_no_copies: str
    left_out: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def _passes(n: int, n_checked: int, n_units: int, steps: int, n_copies: int) -> int:
    """Scores of pictures that an explanation of n takes, by the methods of gradients: ranked, confirmed, checked."""
    curves, n_methods = 2 * len(FRACTIONS), len(_GRADIENT)
    ranked = curves * (n_methods + 1) + _GRADIENT_PASSES * n_methods
    confirmed = n_units + 3 * curves + 2 * (N_PERTURBATIONS + 1) + 2 * len(BINS) + len(STEPS) + 2
    checked = (N_PERTURBATIONS + 1) * _GRADIENT_PASSES * (8 if steps else 1)
    on_copies = n_copies * (2 * curves + 2) + (n_units + 12 * 8 * _GRADIENT_PASSES if n_copies else 0)
    return n * (ranked + confirmed + steps * _GRADIENT_PASSES) // 2 + min(n // 2, n_checked) * (checked + on_copies)


def default_samples(rows: AuditData) -> int:
    """Rows explained where nobody names a number: fewer of large pictures and of tables beyond 625 columns."""
    if rows.modality == "tabular":
        width: int = max(1, np.shape(rows.X)[1])
        affordable = _MOST_VALUES // (width * width)
        return min(_N_SAMPLES["tabular"], max(_FEWEST_SAMPLES, affordable))
    return _LARGE_SAMPLES if _is_large(rows) else _N_SAMPLES[rows.modality]


def _is_large(rows: AuditData) -> bool:
    return rows.modality == "image" and int(np.prod(np.shape(rows.X)[1:3])) >= _LARGE_PIXELS


def _nothing_to_explain(parts: Parts) -> str:
    """Why no method could say anything: the score is the same everywhere, or is no number."""
    scores = np.concatenate([np.concatenate(ends(p.units, np.arange(len(p)))) for p in (parts.first, parts.second)])
    if not np.isfinite(scores).all():
        bad = int((~np.isfinite(scores)).sum())
        return f"{bad:,} of {scores.size:,} scores, of sampled rows and of what is left without them, are not finite"
    if not output_range(scores, scores):
        return "the explained score is the same for every sampled row and with nothing left of it, so it has no range"
    return ""


def _undefined(reason: str, n_rows: int) -> list[Measurement]:
    nothing = Undefined(reason=reason)
    return [
        Measurement(metric="faithfulness_gain", estimate=nothing, n_samples=n_rows),
        Measurement(metric="completeness_error", estimate=nothing, n_samples=n_rows, ideal=0.0),
    ]


def _with_samples(measurements: list[Measurement], verdict: Verdict, pictures: bool) -> list[Measurement]:
    """Texts or maps beside the first measurement that has no figure yet."""
    figure = samples_figure(verdict, pictures=pictures)
    if figure is None:
        return measurements
    at = next(i for i, m in enumerate(measurements) if m.figure is None)
    return [replace(m, figure=figure) if i == at else m for i, m in enumerate(measurements)]
