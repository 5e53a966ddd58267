"""Feature attribution: what do the model's scores rest on, and can the explanation be trusted?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, get_args

import numpy as np

from auditor.arrays import FloatArray
from auditor.errors import NotApplicableError
from auditor.finding import Measurement, Pillar
from auditor.probe import Need
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.kinds import AnyEstimate
from auditor.statistics.means import ratio_of_means
from auditor.statistics.ranks import quantile
from probes.attribution.explained import Attributions, feature_names
from probes.attribution.integrated_gradients import PADDING, Baseline, integrated_gradients
from probes.attribution.shapley import final_estimator, is_linear, is_tree, shap_linear, shap_permutation, shap_tree
from probes.inputs import as_frame, chosen_classes, differentiable, draw, whole_number
from probes.proxies import LEAST_STRENGTH, Screen, screen

if TYPE_CHECKING:
    from auditor.data import AuditData
    from auditor.model import AuditedModel

LEVEL = 0.95
# log(alpha) / log(0.95) rows are the fewest that bound a 95 % quantile from above; so many do at alpha = 0.05 / 20.
FEWEST_ROWS = 120
_PLANNED_TAIL = 0.05 / 20
_CONVENTION = 0.01
MOST_WORDS = 20
_BASELINE_ROWS = 10_000
_N_SAMPLES = 256
_N_IMAGES = 128


class FeatureAttribution:
    """What the model's scores rest on, by integrated gradients or Shapley values, and how far the sums are off.

    The explained score f is the log-odds of the favourable class, or of the class decided on where no label is
    favourable; for ``shap_permutation`` and forests it is the probability. ``a`` (n, d): signed attribution of each of
    d raw features, summed over the columns that a feature was encoded as, for each of n sampled rows;
    ``A_i = sum_j |a_ij|``.

    - ``global_importance`` at a feature (for texts: at each of the 20 words with most): ``sum_i |a_ij| / sum_i A_i``, a
      share in [0, 1]; no value is ideal. Images: not measured
    - ``sensitive_attribution_share``: the same over features that are sensitive features themselves; [0, 1], ideal 0
    - ``proxy_attribution_share``: the same over features that stand in for a sensitive feature, as
      :func:`probes.proxies.screen` finds them; [0, 1], ideal 0
    - ``completeness_error``: 95 % quantile over rows of ``|sum_j a_ij - (f(x_i) - f(baseline))|`` in units of
      ``max f - min f`` over samples and baselines; [0, inf), ideal 0. Undefined where f is constant

    The two shares are measured on tables with sensitive features. Shares carry delta-method intervals over the sampled
    rows; one of a feature that no sampled row uses has no width. The interval of a word holds for that word, not for
    its having been chosen as one of the 20.

    methods: ``auto``, or names out of ``FeatureAttribution.methods``; ``auto`` takes integrated gradients where the
    model can be differentiated, else the first of shap's that applies. n_samples: rows explained, drawn without
    replacement; by default 256, or 128 images. n_steps: steps of the path integral, doubled up to ``max_steps`` for
    rows that miss completeness by more than half a per cent. baseline: ``mean``, ``zero`` (tables, images), ``blur``
    (images), ``pad`` (texts), or ``auto``: mean, blur or pad, and mean for texts whose padding is embedded as zeros. (A
    network that normalises its input jumps at a blank one, so ``zero`` and such a ``pad`` can break completeness.)
    n_background: rows that shap averages over, at most 100. n_permutations: walks through the features that
    ``shap_permutation`` takes for each row. proxy_strength: least Cramer's V of a proxy.

    Raises NotApplicableError where a method does not apply, and says what would.

    Sources: Sundararajan, Taly and Yan, ICML 2017; Lundberg and Lee, NeurIPS 2017; Strumbelj and Kononenko, KAIS 41
    (2014).
    """

    name: ClassVar[str] = "feature_attribution"
    pillar: ClassVar[Pillar] = "attribution"
    goal: ClassVar[str] = "Which inputs do the model's scores rest on, sensitive features and their proxies among them?"
    citation: ClassVar[str] = "Sundararajan, Taly and Yan, ICML 2017; Lundberg and Lee, NeurIPS 2017"
    methods: ClassVar[tuple[str, ...]] = ("integrated_gradients", "shap_linear", "shap_tree", "shap_permutation")
    needs: ClassVar[tuple[Need, ...]] = (Need.CLASSIFIER, Need.DATA)
    # Rows explained, and the true share of rows with an error beyond the bound (0.05 is allowed) that is found with
    # 80 % power among 4 judgements at 5 %.
    power = (256, 0.12)

    def __init__(
        self,
        *,
        methods: str | Sequence[str] = "auto",
        n_samples: int | None = None,
        n_steps: int = 50,
        max_steps: int = 400,
        baseline: Baseline = "auto",
        n_background: int = 50,
        n_permutations: int = 2,
        proxy_strength: float = LEAST_STRENGTH,
    ) -> None:
        wanted = (methods,) if isinstance(methods, str) else tuple(methods)
        unknown = [m for m in wanted if m not in (*self.methods, "auto")]
        if unknown or not wanted:
            known = ", ".join(self.methods)
            raise ValueError(f"methods must be auto or out of {known}, not {', '.join(unknown) or 'none'}")
        if baseline not in get_args(Baseline):
            raise ValueError(f"baseline must be one of {', '.join(get_args(Baseline))}, not {baseline!r}")
        whole_number("n_samples", n_samples, 2)
        whole_number("n_steps", n_steps, 1)
        whole_number("max_steps", max_steps, 1)
        whole_number("n_background", n_background, 1, 100)
        whole_number("n_permutations", n_permutations, 1)
        if not 0.0 <= proxy_strength <= 1.0:
            raise ValueError(f"proxy_strength must lie in [0, 1], not {proxy_strength!r}")
        self.wanted = wanted
        self.n_samples = n_samples
        self.n_steps = n_steps
        self.max_steps = max_steps
        self.baseline: Baseline = baseline
        self.n_background = n_background
        self.n_permutations = n_permutations
        self.proxy_strength = proxy_strength

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements over sampled evaluation rows; see the class for what they are."""
        if model.n_outputs < 2:
            raise NotApplicableError("Explains a choice between classes, and this model has one class only.")
        rows = data.evaluation
        if not len(rows):
            nothing = Undefined(reason="there are no rows")
            return [Measurement(metric="completeness_error", estimate=nothing, n_samples=0, ideal=0.0)]
        sample = draw(rows, self.n_samples or (_N_IMAGES if rows.modality == "image" else _N_SAMPLES), rng)
        explained = [self._explain(method, model, data, sample, rng) for method in self._methods_for(model, sample)]
        features = _Features.of(model, rows, rng, self.proxy_strength) if rows.modality == "tabular" else None
        return [m for e in explained for m in _measurements(e, features, rows)]

    def _methods_for(self, model: AuditedModel, sample: AuditData) -> list[str]:
        if "auto" not in self.wanted:
            return list(dict.fromkeys(self.wanted))
        if differentiable(model) is not None:
            return ["integrated_gradients"]
        final = final_estimator(model, sample, sample)
        if final is not None and is_linear(final):
            return ["shap_linear"]
        return ["shap_tree" if final is not None and is_tree(final) else "shap_permutation"]

    def _explain(
        self, method: str, model: AuditedModel, data: AuditData, sample: AuditData, rng: np.random.Generator
    ) -> Attributions:
        # What the model was trained on is what "absent" means to it; without that, the evaluation rows stand in.
        reference = data.members if data.members is not None else data.evaluation
        classes = chosen_classes(model, sample)
        if method == "integrated_gradients":
            own = differentiable(model)
            if own is None:
                raise NotApplicableError(
                    "integrated_gradients needs a model that can be differentiated, and this one only predicts: give a "
                    "model bundle or a Hugging Face folder, or ask for methods = shap_permutation."
                )
            return integrated_gradients(
                model,
                own,
                sample,
                draw(reference, _BASELINE_ROWS, rng),
                classes,
                n_steps=self.n_steps,
                max_steps=self.max_steps,
                baseline=self.baseline,
            )
        background = draw(reference, self.n_background, rng)
        if method == "shap_permutation":
            return shap_permutation(model, sample, background, classes, n_permutations=self.n_permutations, rng=rng)
        final = final_estimator(model, sample, background)
        names = feature_names(model, sample)
        if method == "shap_linear" and final is not None and is_linear(final):
            return shap_linear(final, sample, classes, names)
        if method == "shap_tree" and final is not None and is_tree(final):
            return shap_tree(final, sample, classes, names)
        kind = "logistic regression" if method == "shap_linear" else "forest, or boosted trees of two classes,"
        raise NotApplicableError(
            f"{method} needs a scikit-learn {kind} on columns that are numbers without gaps: ask for "
            "methods = shap_permutation, which needs predictions only."
        )


@dataclass(frozen=True)
class _Features:
    """What is known of a table's columns: the sensitive features, those the model takes, and proxies among the rest."""

    sensitive: tuple[str, ...]
    taken: tuple[str, ...]
    screen: Screen

    @classmethod
    def of(
        cls, model: AuditedModel, rows: AuditData, rng: np.random.Generator, least_strength: float
    ) -> _Features | None:
        """Looks at the columns that the model takes and at the groups of the same rows; None without groups."""
        groups = rows.sensitive_features
        if groups is None:
            return None
        names = feature_names(model, rows)
        sensitive = tuple(str(c) for c in groups.columns)
        frame = as_frame(rows.X, model.features)
        frame = frame.set_axis([str(c) for c in frame.columns], axis=1)[[n for n in names if n not in sensitive]]
        found = screen(frame, groups, rng, least_strength=least_strength)
        return cls(sensitive, tuple(n for n in names if n in sensitive), found)


def _measurements(explained: Attributions, features: _Features | None, rows: AuditData) -> list[Measurement]:
    found = [_completeness(explained, len(rows))]
    magnitudes = np.abs(explained.values)
    if not explained.output_range or not np.isfinite(magnitudes).all():
        return found
    if features is not None:
        found += _shares(explained, features)
    if rows.modality == "tabular":
        return found + [_importance(explained, magnitudes, j, "feature", "") for j in range(len(explained.units))]
    words = [j for j in np.argsort(-magnitudes.sum(axis=0), kind="stable").tolist() if magnitudes[:, j].any()]
    words = [j for j in words if explained.units and explained.units[j] != PADDING]
    detail = f"one of the {min(MOST_WORDS, len(words))} words with the largest shares, out of {len(words):,}"
    return found + [_importance(explained, magnitudes, j, "word", detail) for j in words[:MOST_WORDS]]


def _importance(explained: Attributions, magnitudes: FloatArray, j: int, kind: str, detail: str) -> Measurement:
    return Measurement(
        metric="global_importance",
        method=explained.method,
        estimate=ratio_of_means(magnitudes[:, j], magnitudes.sum(axis=1)),
        n_samples=len(magnitudes),
        at={kind: explained.units[j]},
        detail=detail,
    )


def _shares(explained: Attributions, features: _Features) -> list[Measurement]:
    taken = f"the model takes {', '.join(features.taken)}" if features.taken else "the model takes none of them"
    proxies = {a.feature for a in features.screen.proxies}
    proxy_share = _share("proxy_attribution_share", explained, features, proxies, features.screen.describe())
    few = features.screen.too_few
    return [
        _share("sensitive_attribution_share", explained, features, set(features.taken), taken),
        replace(proxy_share, too_few=few, n_needed=features.screen.n_needed) if few else proxy_share,
    ]


def _share(metric: str, explained: Attributions, features: _Features, which: set[str], detail: str) -> Measurement:
    magnitudes = np.abs(explained.values)
    columns = [j for j, name in enumerate(explained.units) if name in which]
    estimate: AnyEstimate = Exact(known=0.0)
    if columns:
        estimate = ratio_of_means(magnitudes[:, columns].sum(axis=1), magnitudes.sum(axis=1))
    return Measurement(
        metric=metric,
        method=explained.method,
        estimate=estimate,
        n_samples=len(magnitudes),
        ideal=0.0,
        sensitive=features.sensitive,
        detail=detail,
    )


def _completeness(explained: Attributions, n_rows: int) -> Measurement:
    errors = explained.errors
    estimate: AnyEstimate
    too_few, needed = "", None
    if not explained.output_range:
        estimate = Undefined(
            reason="the explained score is the same for every sampled row and for the baseline, so it has no range"
        )
    elif not np.isfinite(errors).all():
        broken = int((~np.isfinite(errors)).sum())
        estimate = Undefined(reason=f"the attributions of {broken:,} of {len(errors):,} sampled rows are not finite")
    else:
        estimate = quantile(errors, LEVEL)
        needed = FEWEST_ROWS if len(errors) < FEWEST_ROWS else None
        # Few rows can show that an explanation is broken, which must not be hushed up, but not that it is sound.
        if needed is not None and estimate.bounds(_PLANNED_TAIL)[0] <= _CONVENTION:
            cause = f"the data have {n_rows:,}" if n_rows < FEWEST_ROWS else f"n_samples is {len(errors):,}"
            too_few = f"A {LEVEL:.0%} quantile has an upper bound from {FEWEST_ROWS} rows on, and {cause}."
    span = f"; the scores span {explained.output_range:.3g}" if explained.output_range else ""
    return Measurement(
        metric="completeness_error",
        method=explained.method,
        estimate=estimate,
        n_samples=len(errors),
        ideal=0.0,
        detail=explained.detail + span,
        too_few=too_few,
        n_needed=needed,
    )
