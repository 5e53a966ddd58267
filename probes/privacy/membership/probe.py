"""Membership inference: can somebody who sees the model's outputs tell who was in its training data?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.finding.measurement import Answer, Measurement, Pillar
from auditor.rows import FloatArray
from auditor.run.probe import Need
from auditor.statistics.estimate import Undefined
from probes.inputs import whole_number
from probes.privacy.membership import (
    blind,
    difficulty_calibration,
    label_only,
    lira,
    loss_threshold,
    quantile_regression,
    rmia,
)
from probes.privacy.membership.metrics import Attack, by_group, measurements, most_exposed, roc_figure
from probes.privacy.membership.pool import REMARK_LEVEL, Pool, detail_of, doubt, pool_of
from probes.privacy.membership.shadows import Shadows, train_shadows

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.model.audited_model import AuditedModel

CHEAP = ("loss_threshold", "loss_threshold_per_class", "quantile_regression")
WITH_SHADOWS = (
    "lira_online",
    "lira_online_fixed_variance",
    "lira_offline",
    "lira_offline_fixed_variance",
    "rmia",
    "rmia_offline",
    "difficulty_calibration",
)
# The attack that groups and records are shown of: the first of these that was asked for, whatever it finds.
STRONGEST_FIRST = (*WITH_SHADOWS, "quantile_regression", "label_only", "loss_threshold_per_class", "loss_threshold")
_FEWEST_FOR_SHADOWS = 20
_LOSSES_ONLY = "Only losses are here, and this attack reads the probabilities of the classes: add --score COLUMN."
_ROWS = {"text": "texts", "image": "images", "audio": "sound"}
_INDEPENDENT = "rows are taken as independent, given the audited model and the shadow models that all of them share"


class MembershipInference:
    """Membership inference: rows the model was trained on ("members") against rows it never saw, by a score of each.

    Members are the rows of ``--train``, non-members those of ``--data``; rows without a label take no part. With the
    loss -log p(y | x) and phi = log(p_y / (1 - p_y)), higher scores meaning members:

    - ``loss_threshold``: -loss; ``loss_threshold_per_class``: its rank within the class (Yeom et al., CSF 2018).
    - ``quantile_regression``: phi against its quantiles given the row, learned from a random half of the non-members,
      which is then not attacked (Bertran et al., NeurIPS 2023). Tables only.
    - ``label_only``: share of perturbed copies still decided as the true label (Choquette-Choo et al., ICML 2021).
    - ``lira_online``, ``lira_offline``, each also ``..._fixed_variance``: likelihood ratio of phi among shadow models
      that did and did not learn the row (Carlini et al., IEEE S&P 2022).
    - ``rmia``, ``rmia_offline``: pairwise likelihood ratios, by ``n_references`` reference models (Zarifzadeh et al.,
      ICML 2024).
    - ``difficulty_calibration``: loss less its mean among models that did not learn the row (Watson et al., ICLR 2022).

    For each, with intervals that know how many members and non-members there are:

    - ``attack_auc``: ``P(score of a member > that of a non-member) + P(tie) / 2``; [0, 1], ideal 0.5. The first one
      holds the figure of all ROC curves. Also within each group of each sensitive feature, for one attack.
    - ``true_positive_rate_at_fpr``: share of members above the threshold that a share f of non-members exceeds, at
      f = 1 % and 0.1 %; [0, 1], ideal f. Its interval carries the threshold's own uncertainty. Given where
      ``n_non * f >= 1``, judged where it is at least 10. The measure of what few victims suffer, which an AUC hides.
    - ``true_positive_rate_at_no_false_positive``: share of members above every non-member, of 100 at least; [0, 1],
      ideal 0. Its interval is that of the rate at this threshold. Of one attack, with the most exposed rows by number.
    - ``balanced_accuracy``: ``(TPR + 1 - FPR) / 2`` at a threshold that is not chosen by its success: the members' mean
      loss (the paper's), a likelihood ratio of 1, or the median of all scores; [0, 1], ideal 0.5. Its interval is that
      of the two rates at this threshold.

    Groups and records are shown of the first attack asked for in the order LiRA, RMIA, difficulty calibration, quantile
    regression, label-only, loss. A row that stands more than once in the two files together takes no part, no copy of
    it: copies on both sides are no non-members, and leaving out only those among the non-members would leave them the
    rarer rows, on which any model has the larger loss. Of rows that stand once, chance alone decides the side where the
    split was random. Where trees can tell the files apart without asking the model at all, the details say so (Das,
    Zhang and Tramer, 2024; with any attack beyond the loss thresholds). Where the model does worse on ``--train`` than
    on ``--data`` (all but certainly, at a level of 0.1 %), nothing is judged: that is not the file it learned. Scores
    of rows under a shared set of shadow models are taken as independent given those models.

    methods: ``auto`` (the first three), ``all``, or names out of ``MembershipInference.methods``. n_shadows: an even
    number of shadow models, each trained on a random half of all rows, in pairs of complements, by the model's own
    architecture and recipe where it is a bundle, else by a stated surrogate. n_references: how many of them RMIA uses.
    n_queries: perturbed copies a row for ``label_only``. checkpoint: an absolute path of a folder in which trained
    shadow models are kept, so that a run that was stopped goes on from there. Raises ValueError for other values.

    Sources: the papers above; TPR at low FPR: Carlini et al., IEEE S&P 2022.
    """

    name: ClassVar[str] = "membership_inference"
    pillar: ClassVar[Pillar] = "privacy"
    goal: ClassVar[str] = "Can somebody who sees the outputs tell who was in the training data?"
    citation: ClassVar[str] = (
        "Yeom, Giacomelli, Fredrikson and Jha, CSF 2018; Carlini et al., IEEE S&P 2022; Zarifzadeh, Liu and Shokri, "
        "ICML 2024; Watson et al., ICLR 2022; Bertran et al., NeurIPS 2023; Choquette-Choo et al., ICML 2021"
    )
    methods: ClassVar[tuple[str, ...]] = (*CHEAP, "label_only", *WITH_SHADOWS)
    needs: ClassVar[tuple[Need, ...]] = (Need.CLASSIFIER, Need.DATA, Need.LABELS, Need.TRAIN)
    ideal_when_same: ClassVar[Mapping[str, Answer]] = {
        "attack_auc": "scores",
        "true_positive_rate_at_fpr": "scores",
        "true_positive_rate_at_no_false_positive": "scores",
        "balanced_accuracy": "scores",
    }
    # Fewest members, and as many non-members, and the true AUC, found with 80 % power among 4 judgements at 5 %.
    power = (800, 0.60)

    def __init__(
        self,
        *,
        methods: str | Sequence[str] = "auto",
        n_shadows: int = 64,
        n_references: int = 4,
        n_queries: int = 30,
        checkpoint: str | None = None,
    ) -> None:
        named = tuple(methods.replace(",", " ").split()) if isinstance(methods, str) else tuple(methods)
        unknown = [m for m in named if m not in (*self.methods, "auto", "all")]
        if unknown or not named:
            known = ", ".join(self.methods)
            raise ValueError(f"methods must be auto, all or out of {known}, not {', '.join(unknown) or 'none'}")
        for option, value in (("n_shadows", n_shadows), ("n_references", n_references)):
            whole_number(option, value, 2, 4096)
            if value % 2:
                raise ValueError(f"{option} must be even, not {value}: shadow models come in pairs of complements")
        if n_shadows < 4:
            raise ValueError(f"n_shadows must be at least 4, not {n_shadows}: a variance needs two models on each side")
        if n_references > n_shadows:
            raise ValueError(f"n_references must be at most n_shadows, {n_shadows}, not {n_references}")
        whole_number("n_queries", n_queries, 1, 10_000)
        if checkpoint is not None and not Path(checkpoint).is_absolute():
            raise ValueError(
                f"checkpoint must be an absolute path or an existing folder, not {checkpoint!r}: "
                "a scan measures in a folder of its own"
            )
        wanted = set(named) | (set(CHEAP) if "auto" in named else set())
        self.wanted = self.methods if "all" in named else tuple(m for m in self.methods if m in wanted)
        self.n_shadows = n_shadows
        self.n_references = n_references
        self.n_queries = n_queries
        self.checkpoint = checkpoint

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements between ``data.members`` and ``data.evaluation``.

        Raises NotApplicableError without training rows or labels, or where shadow models cannot be trained.
        """
        pool = pool_of(model, data)
        detail = detail_of(pool, data.classes or model.classes)
        of_copies, of_shadows = rng.spawn(2)
        if any(not name.startswith("loss_threshold") for name in self.wanted):
            told_apart = blind.remark(blind.blind_auc(pool, pool.rows.generator(self.name)), REMARK_LEVEL)
            detail = f"{detail}; {told_apart}" if told_apart else detail
        attacks = [
            _attack(name, pool, *_loss_scores(name, pool)) for name in self.wanted if name.startswith("loss_threshold")
        ]
        if "quantile_regression" in self.wanted:
            attacks.append(_by_quantiles(pool))
        if "label_only" in self.wanted:
            attacks.append(_by_labels(model, pool, self.n_queries, of_copies))
        if any(name in WITH_SHADOWS for name in self.wanted):
            attacks += self._by_shadows(model, pool, of_shadows)
        found = _all_measurements(attacks, pool, detail)
        unfit = doubt(pool)
        return [m if not unfit or _never(m) else replace(m, too_few=m.too_few or unfit) for m in found]

    def _by_shadows(self, model: AuditedModel, pool: Pool, rng: np.random.Generator) -> list[Attack]:
        from auditor.training.weighted import why_not_trained_alike

        asked = [name for name in WITH_SHADOWS if name in self.wanted]
        if min(pool.n_members, pool.n_others) < _FEWEST_FOR_SHADOWS:
            why = f"shadow models need at least {_FEWEST_FOR_SHADOWS} members and as many non-members"
            return [_without(name, pool, why) for name in asked]
        if pool.labels_only:
            why = "the model gives labels without confidence, which this attack reads: ask for methods=label_only"
            return [_without(name, pool, why) for name in asked]
        if pool.probabilities is None:
            return [_without(name, pool, _LOSSES_ONLY) for name in asked]
        if why := why_not_trained_alike(model):
            return [_without(name, pool, why) for name in asked]
        n = self.n_shadows if any("rmia" not in name for name in asked) else self.n_references
        shadows = train_shadows(model, pool, n, rng, checkpoint=self.checkpoint)
        phi = loss_threshold.log_odds(pool.probabilities, pool.labels)
        return [_by_one(name, pool, phi, shadows, self.n_references) for name in asked]


# ---- the attacks ---------------------------------------------------------------------------------------------------


def _attack(name: str, pool: Pool, scores: FloatArray, threshold: float, words: str, detail: str) -> Attack:
    return Attack(
        method=name,
        scores=scores,
        scored=np.ones(scores.size, bool),
        threshold=threshold,
        threshold_words=words,
        detail=detail,
    )


def _without(name: str, pool: Pool, why: str) -> Attack:
    n = pool.labels.size
    return Attack(
        method=name,
        scores=np.zeros(n),
        scored=np.zeros(n, bool),
        threshold=0.0,
        threshold_words="",
        detail=why,
        why_not=why,
    )


def _median(scores: FloatArray) -> tuple[float, str]:
    return (float(np.median(scores)) if scores.size else 0.0), "the median of all scores"


def _loss_scores(name: str, pool: Pool) -> tuple[FloatArray, float, str, str]:
    knows = "threat model: an attacker who sees the probability of the true label"
    if name == "loss_threshold":
        mean = float(pool.members.mean()) if pool.n_members else 0.0
        words = f"the members' mean loss, {mean:.4g}"
        return loss_threshold.global_scores(pool.loss), -mean, words, f"{knows}, and knows one threshold for all rows"
    scores = loss_threshold.per_class_scores(pool.loss, pool.labels)
    return scores, *_median(scores), f"{knows}, and knows a threshold for each class"


def _by_quantiles(pool: Pool) -> Attack:
    name = "quantile_regression"
    order = pool.rows.order("quantile_regression")
    others = order[~pool.is_member[order]]
    public = np.zeros(pool.labels.size, bool)
    public[others[: others.size // 2]] = True
    if pool.rows.modality != "tabular":
        why = f"Quantile regression reads the columns of a table, and these rows are {_ROWS[pool.rows.modality]}."
        return replace(_without(name, pool, why), inapplicable=True)
    if int(public.sum()) < quantile_regression.FEWEST_ROWS:
        need = 2 * quantile_regression.FEWEST_ROWS
        return _without(name, pool, f"quantile regression needs at least {need} non-members, half of them to learn")
    if pool.labels_only:
        return _without(name, pool, "the model gives labels without confidence, which quantile regression reads")
    if pool.probabilities is None or pool.without_features:
        why = _LOSSES_ONLY if pool.probabilities is None else "Quantile regression reads features, and none are here."
        return replace(_without(name, pool, why), inapplicable=True)
    phi = loss_threshold.log_odds(pool.probabilities, pool.labels)
    scores = quantile_regression.scores(pool.rows.X, pool.labels, phi, public)
    threshold, words = _median(scores[~public])
    attack = _attack(
        name,
        pool,
        scores,
        threshold,
        words,
        "threat model: an attacker who sees the probability of the true label and has "
        f"{int(public.sum()):,} rows that the model did not learn, half of the non-members, which are not attacked",
    )
    return replace(attack, scored=~public)


def _by_labels(model: AuditedModel, pool: Pool, n_queries: int, rng: np.random.Generator) -> Attack:
    scores = (
        label_only.scores(model, pool.rows, pool.labels, n_queries, rng) if pool.labels.size else np.empty(0)
    )  # a model need not take no rows
    detail = f"threat model: an attacker who sees decisions only, of each row and of {n_queries} perturbed copies of it"
    return _attack("label_only", pool, scores, *_median(scores), detail)


def _by_one(name: str, pool: Pool, phi: FloatArray, shadows: Shadows, n_references: int) -> Attack:
    detail = f"{shadows.threat_model}; {shadows.fit(pool)}; {_INDEPENDENT}"
    if name.startswith("lira"):
        fixed = name.endswith("fixed_variance")
        if name.startswith("lira_online"):
            scores = lira.online_scores(phi, shadows.log_odds, shadows.inside, fixed=fixed)
            return _attack(name, pool, scores, 0.0, "a likelihood ratio of 1", detail)
        scores = lira.offline_scores(phi, shadows.log_odds, shadows.inside, fixed=fixed)
    elif name.startswith("rmia"):
        few = shadows.first(n_references)
        offline = name == "rmia_offline"
        scores = rmia.scores(np.exp(-pool.loss), np.exp(-few.loss), few.inside, offline=offline)
        detail += f"; of the shadow models the first {n_references} are the reference models"
    else:
        scores = difficulty_calibration.scores(pool.loss, shadows.loss, shadows.inside)
    return _attack(name, pool, scores, *_median(scores), detail)


def _never(measurement: Measurement) -> bool:
    estimate = measurement.estimate
    return isinstance(estimate, Undefined) and estimate.inapplicable


# ---- the measurements ----------------------------------------------------------------------------------------------


def _all_measurements(attacks: Sequence[Attack], pool: Pool, detail: str) -> list[Measurement]:
    shown = min((a for a in attacks if not a.why_not), key=lambda a: STRONGEST_FIRST.index(a.method), default=None)
    figure, found = roc_figure(attacks, pool), []
    for attack in attacks:
        own = measurements(attack, pool, detail)
        if figure is not None and not attack.why_not:
            own[0], figure = replace(own[0], figure=figure), None
        if attack is shown:
            exposed = most_exposed(attack, pool)
            own = [
                replace(m, detail=f"{exposed}; {m.detail}")
                if exposed and m.metric == "true_positive_rate_at_no_false_positive"
                else m
                for m in own
            ]
            own += by_group(attack, pool)
        found += own
    return found
