"""Membership inference: whether the model's outputs reveal the members of its training data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import AuditorError
from auditor.core.rows import BoolArray, FloatArray
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.membership_scores import AttackHead, MembershipHead, MembershipScores
from auditor.run.planted.twin_costs import Forecast
from auditor.run.predictions import Answers
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Undefined
from probes.privacy.membership import (
    attack_scores,
    bavaria,
    label_only,
)
from probes.privacy.membership.attack_metrics import Attack, Sides, measurements, roc_figure, threshold_of
from probes.privacy.membership.attack_results import (
    ALONE,
    CHEAP,
    EXACT,
    MOST_FOR_RMIA,
    WITH_SHADOWS,
    as_part,
    by_group,
    contradictions,
    discovered,
    most_exposed,
    strongest_first,
    wholes,
    worst_groups,
)
from probes.privacy.membership.shadow_models import (
    REMARK_LEVEL,
    Pool,
    Shadows,
    blind_auc,
    detail_of,
    doubt,
    how_many,
    on_one_core,
    pool_of,
    refit_shadows,
    remark,
    train_shadows,
)
from probes.probe_inputs import whole_number
from probes.twins import distance_of, no_plant

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

_FEWEST_FOR_SHADOWS = 20
# Shadow models where an attack that takes a variance is asked for by name.
MANY = 64
_LOSSES_ONLY = "Only losses are here, and this attack reads the probabilities of the classes: add --score COLUMN."
_ROWS = {"text": "texts", "image": "images", "audio": "sound"}
_INDEPENDENT = "rows are taken as independent, given the audited model and the shadow models that all of them share"


# Of fewer non-members above a threshold nobody is as sure as judgements are that it is one of so few false alarms.
_FEWEST_CALLED = 10
# More than standard normal scores of any number of rows differ by.
_ABOVE_ALL = 100.0


class MembershipInference(BaseProbe):
    """Membership inference: training rows ("members") against unseen rows, by a score of each.

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
    - ``bavaria``, ``bavaria_offline``: likelihood ratio of Student's t, whose few models a row borrow from all rows
      (Brännvall, arXiv 2603.11799).
    - ``difficulty_calibration``: loss less its mean among models that did not learn the row (Watson et al., ICLR 2022).

    For each, with intervals that know how many members and non-members there are: ``attack_auc``,
    ``true_positive_rate_at_fpr``, ``true_positive_rate_at_no_false_positive``, ``discovered_members``,
    ``discovered_share``, ``worst_group_true_positive_rate_at_fpr``, ``true_positive_rate_at_fpr_difference`` and
    ``balanced_accuracy``.

    - ``attack_auc``: Also within each group of each sensitive feature, for one attack.
    - ``true_positive_rate_at_fpr``: At f = 1 % and 0.1 %. Its interval carries the threshold's own uncertainty. Given
      where ``n_non * f >= 1``, judged from 1,000 non-members on. The measure of what few victims suffer, which an AUC
      hides: whoever scores above all but a share f of the non-members is counted, so its upper end is the largest share
      of wholly exposed members that is not excluded.
    - ``worst_group_true_positive_rate_at_fpr``: The same at 0.1 % of the group of each sensitive feature that has most,
      over all attacks, at one threshold for all groups. Those with fewer than 400 members are one group.
    - ``true_positive_rate_at_no_false_positive``: Of 100 non-members at least. Its interval is that of the rate at this
      threshold. One attack names the most exposed rows, by number.
    - ``discovered_members``, ``discovered_share``: Benjamini-Hochberg on the shares of non-members that score as high.
      Of one attack, with the surest rows by number, also within each group. Shown and never judged: it finds rows that
      are hit, and does not show that nobody is.
    - ``true_positive_rate_at_fpr_difference``: Of one attack, beside each group's own AUC and rate. No criterion by
      default.
    - ``balanced_accuracy``: The threshold is the members' mean loss (the paper's), a likelihood ratio of 1, or the
      median of all scores. Its interval is that of the two rates at this threshold.

    The question is one: can somebody tell? So ``attack_auc`` and the two rates of all members stand once without a
    method, as the largest over all attacks (:class:`~auditor.statistics.attack_estimates.StrongestAttack`, with the
    figure of all ROC curves), and are judged as that; each attack's own numbers are parts, judged only where a
    criterion names the method. A PASS is INCONCLUSIVE where no attack with shadow models was tried, or only with a
    surrogate's: which attacks were tried, which were not, and why not stands beside it.

    Groups and records are shown of one attack, the first of those tried in an order that does not look at the
    result: BaVarIA, then with up to 16 shadow models RMIA and difficulty calibration, with more LiRA online; then
    quantile regression, label-only, loss. A row that stands more than once in the two files together takes no part,
    no copy of it: copies on both sides are no non-members, and leaving out only those among the non-members would
    leave them the rarer rows, on which any model has the larger loss. Of rows that stand once, chance alone decides
    the side where the split was random. Where trees can tell the files apart without asking the model at all, the
    details say so (Das, Zhang and Tramer, 2024; with any attack beyond the loss thresholds). Where the model does
    worse on ``--train`` than on ``--data`` (all but certainly, at a level of 0.1 %), nothing is judged: that is not
    the file it learned. Scores of rows under a shared set of shadow models are taken as independent given those
    models.

    methods: ``auto`` (the first three, and RMIA and BaVarIA with as many shadow models as cost little), ``all``, or
    names out of ``MembershipInference.methods``. n_shadows: an even number of shadow models, each trained on a
    random half of all rows, in pairs of complements, by the model's own architecture and recipe where it is a
    bundle, by its own kind and hyperparameters where it is an estimator or boosted trees, else by a stated surrogate;
    None for 64 where attacks with them are named, and for ``auto`` 16 or 8 that cost a tenth of ``shadow_seconds`` at
    most, else 4 that cost at most all of it, else none. Seconds of one core are counted for networks
    (:func:`auditor.training.ensembles.predicted_seconds`), and forecast by smaller fits for others. n_references:
    how many of them RMIA uses where it is named; with ``auto`` all. n_queries: perturbed copies a row for
    ``label_only``. checkpoint: an absolute path of a folder in which trained networks are kept, so that a run that was
    stopped goes on from there. Raises ValueError for other values.

    Sources: the papers above; TPR at low FPR: Carlini et al., IEEE S&P 2022.
    """

    name = "membership_inference"
    pillar = "privacy"
    goal = "Can somebody who sees the outputs tell who was in the training data?"
    citation = (
        "Yeom, Giacomelli, Fredrikson and Jha, CSF 2018; Carlini et al., IEEE S&P 2022; Zarifzadeh, Liu and Shokri, "
        "ICML 2024; Watson et al., ICLR 2022; Bertran et al., NeurIPS 2023; Choquette-Choo et al., ICML 2021"
    )
    methods = (*CHEAP, "label_only", *WITH_SHADOWS)
    needs = (Need.CLASSIFIER, Need.DATA, Need.LABELS, Need.TRAIN)
    forecast = Forecast(twin=0.015, number=0.0, million=8.5, own=8.0, own_million=140.0, training_rows=True)
    questions = (
        AuditQuestion(
            "few_members",
            metrics=("true_positive_rate_at*", "worst_group_*"),
            form="percent",
            headline=("true_positive_rate_at_no_false_positive",),
        ),
        AuditQuestion("members", metrics=("attack_auc",), form="pairs", headline=("attack_auc",)),
        AuditQuestion("members"),
    )
    ideal_when_same = {
        "attack_auc": "scores",
        "true_positive_rate_at_fpr": "scores",
        "true_positive_rate_at_no_false_positive": "scores",
        "true_positive_rate_at_fpr_difference": "scores",
        "worst_group_true_positive_rate_at_fpr": "scores",
        "discovered_members": "scores",
        "discovered_share": "scores",
        "balanced_accuracy": "scores",
    }
    exact = EXACT
    # Fewest members, and as many non-members, and the true AUC, found with 80 % power among 4 judgements at 5 %.
    power = (800, 0.60)
    untrusted_options = allow_untrusted("methods", "n_shadows", "n_references", "shadow_seconds", "n_queries")
    metrics = define_metrics(
        """
        attack_auc: P(score of a member > that of a non-member) + P(tie) / 2; [0, 1], ideal 0.5; at 0.6 somebody with
          access tells which of two rows was trained on in 6 of 10 pairs, and guessing does in 5; Yeom et al., CSF 2018
        true_positive_rate_at_fpr: share of members above the threshold that a share f of non-members exceeds; [0, 1],
          ideal f; at f = 0.01 a value of 0.1 means that one member in ten is recognised while one non-member in 100 is
          taken for one; Carlini et al., IEEE S&P 2022
        true_positive_rate_at_no_false_positive: share of members whose score is above that of every non-member; [0, 1],
          ideal 0; so many members are recognised without one false alarm; Carlini et al., IEEE S&P 2022
        discovered_members: how many members are exposed at a false discovery rate of 5 %; [0, inf), ideal 0; of so many
          named as members about one in 20 was not one; Bates et al., Ann. Statist. 51 (2023)
        discovered_share: discovered members / members; [0, 1], ideal 0; at 0.1 one member in ten can be named with few
          false alarms; Bates et al., Ann. Statist. 51 (2023)
        worst_group_true_positive_rate_at_fpr: max over groups of the share of members above the threshold that 0.1 % of
          all non-members exceed; [0, 1], ideal 0.001; at 0.1 one in ten of a group's members is recognised while one
          non-member in 1,000 is taken for one; Carlini et al., IEEE S&P 2022
        true_positive_rate_at_fpr_difference: max - min over groups of the share of members above the threshold that 1 %
          of all non-members exceed; [0, 1], ideal 0; at 0.1 members of one group are recognised 10 points more often
          than those of another; Carlini et al., IEEE S&P 2022
        balanced_accuracy: (TPR + 1 - FPR) / 2 at a threshold that is not chosen by its success; [0, 1], ideal 0.5; at
          0.6 members and others are told right in 6 of 10 cases; Yeom et al., CSF 2018
        """
    )

    def __init__(
        self,
        *,
        methods: str | Sequence[str] = "auto",
        n_shadows: int | None = None,
        n_references: int = 4,
        shadow_seconds: float = 60.0,
        n_queries: int = 30,
        checkpoint: str | None = None,
    ) -> None:
        named = tuple(methods.replace(",", " ").split()) if isinstance(methods, str) else tuple(methods)
        unknown = [m for m in named if m not in (*self.methods, "auto", "all")]
        if unknown or not named:
            known = ", ".join(self.methods)
            raise ValueError(f"methods must be auto, all or out of {known}, not {', '.join(unknown) or 'none'}")
        most = MANY if n_shadows is None else n_shadows
        for option, value in (("n_shadows", most), ("n_references", n_references)):
            whole_number(option, value, 2, 4096)
            if value % 2:
                raise ValueError(f"{option} must be even, not {value}: shadow models come in pairs of complements")
        if most < 4:
            raise ValueError(f"n_shadows must be at least 4, not {most}: a variance needs two models on each side")
        if n_references > most:
            raise ValueError(f"n_references must be at most n_shadows, {most}, not {n_references}")
        if isinstance(shadow_seconds, bool) or not 0.0 <= shadow_seconds < math.inf:
            raise ValueError(f"shadow_seconds must be a number of seconds from 0, not {shadow_seconds!r}")
        whole_number("n_queries", n_queries, 1, 10_000)
        if checkpoint is not None and not Path(checkpoint).is_absolute():
            raise ValueError(
                f"checkpoint must be an absolute path or an existing folder, not {checkpoint!r}: "
                "a scan measures in a folder of its own"
            )
        wanted = set(named) | ({*CHEAP, "rmia", "bavaria"} if "auto" in named else set())
        self.wanted = self.methods if "all" in named else tuple(m for m in self.methods if m in wanted)
        # Nobody asked for shadow models by name: they are trained as far as that costs little, or not at all.
        self.unasked = "auto" in named and not {"all", *WITH_SHADOWS} & set(named)
        self.n_shadows = n_shadows
        self.n_references = n_references
        self.shadow_seconds = shadow_seconds
        self.n_queries = n_queries
        self.checkpoint = checkpoint
        self.kept: MembershipScores | None = None

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements between ``data.members`` and ``data.evaluation``.

        Raises NotApplicableError without training rows or labels, or where shadow models cannot be trained.
        """
        pool = pool_of(model, data)
        detail = detail_of(pool, data.classes or model.classes)
        of_copies, of_shadows = rng.spawn(2)
        if any(not name.startswith("loss_threshold") for name in self.wanted):
            told_apart = remark(blind_auc(pool, pool.rows.generator(self.name)), REMARK_LEVEL)
            detail = f"{detail}; {told_apart}" if told_apart else detail
        attacks = [_by_loss(name, pool) for name in self.wanted if name.startswith("loss_threshold")]
        if "quantile_regression" in self.wanted:
            attacks.append(_by_quantiles(pool))
        if "label_only" in self.wanted:
            attacks.append(_by_labels(model, pool, self.n_queries, of_copies))
        shadows, not_made = self._shadows(model, pool, of_shadows)
        attacks += self._by_shadows(pool, shadows, not_made)
        if self.unasked and shadows is None:
            attacks = [a for a in attacks if a.method in ALONE]
        self.kept = _scores(self.name, attacks, pool, detail, shadows, not_made)
        return self.measure_scores(self.kept)

    def measure_scores(self, scores: MembershipScores) -> list[Measurement]:
        """The measurements, from the scores alone."""
        found = _all_measurements(scores)
        unfit = doubt(scores.right, scores.is_member)
        return [m if not unfit or _is_inapplicable(m) else replace(m, too_few=m.too_few or unfit) for m in found]

    def measure_planted(
        self, model: AuditedModel, data: AuditData, measured: Measurement, value: float, rng: np.random.Generator
    ) -> list[Measurement]:
        """The measurements of scores, of every attack that was made, in which the true value of a number is known."""
        kept, metric = self.kept, measured.metric
        if kept is None or measured.part or measured.group or measured.sensitive:
            raise no_plant(measured)
        scores, members = rng.normal(size=kept.is_member.size), kept.is_member
        if metric == "attack_auc":
            scores = scores + distance_of(np.asarray(value)) * members
        elif metric == "true_positive_rate_at_fpr":
            called = float(measured.at["false_positive_rate"])
            if called * np.count_nonzero(~members) < _FEWEST_CALLED:
                raise no_plant(measured)
            # So many members score above everybody else; the others are called as often as non-members are.
            share = max(value - called, 0.0) / (1.0 - called)
            scores = np.where(members & (rng.random(scores.size) < share), scores + _ABOVE_ALL, scores)
        else:
            raise no_plant(measured)
        planted = {name: np.where(kept.scored[name], scores, own) for name, own in kept.scores.items()}
        return self.measure_scores(replace(kept, scores=planted))

    def contradictions(self, scores: MembershipScores, answers: Answers | None, *, own_losses: bool) -> list[str]:
        """Contradictions between scores, or in the model's answers on the non-members, in words."""
        told = {attack.method for attack in scores.head.attacks} | set(scores.head.not_made)
        others = sorted(told ^ set(self.wanted))
        return [
            *(f"{name} was asked for, and nothing is said of it" for name in others if name not in told),
            *(f"{name} was not asked for" for name in others if name in told),
            *contradictions(scores, answers, own_losses=own_losses),
        ]

    def _shadows(
        self, model: AuditedModel, pool: Pool, rng: np.random.Generator
    ) -> tuple[Shadows | None, dict[str, str]]:
        """The shadow models, or why there are none, by the attacks that would have them."""
        asked = [name for name in WITH_SHADOWS if name in self.wanted]
        if not asked:
            return None, {}
        if why := _why_no_shadows(model, pool):
            return None, dict.fromkeys(asked, why)
        if not self.unasked:
            n = (self.n_shadows or MANY) if any("rmia" not in name for name in asked) else self.n_references
            if model.fits_anew:
                return refit_shadows(model, pool, n, rng), {}
            return train_shadows(model, pool, n, rng, checkpoint=self.checkpoint), {}
        try:
            if model.fits_anew:
                return refit_shadows(model, pool, self.n_shadows, rng, budget=self.shadow_seconds), {}
            with on_one_core():
                n = self.n_shadows or how_many(model, pool, self.shadow_seconds)
                return train_shadows(model, pool, n, rng, checkpoint=self.checkpoint), {}
        except (AuditorError, ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
            # What the model's own code raises in training says nothing of the attacks that need none.
            said = str(error) if isinstance(error, AuditorError) else f"{type(error).__name__}: {error}"
            return None, dict.fromkeys(asked, f"shadow models could not be trained. {' '.join(said.split())[:400]}")

    def _by_shadows(self, pool: Pool, shadows: Shadows | None, not_made: Mapping[str, str]) -> list[Attack]:
        if shadows is None or pool.probabilities is None:
            return [_skipped_attack(name, pool.n_rows, why) for name, why in not_made.items()]
        asked = [name for name in WITH_SHADOWS if name in self.wanted]
        n_references = min(len(shadows), MOST_FOR_RMIA) if self.unasked else self.n_references
        odds = attack_scores.log_odds(pool.probabilities, pool.labels)
        phi = np.clip(odds, -shadows.largest_odds, shadows.largest_odds)
        return [_by_one(name, pool, phi, shadows, n_references) for name in asked]


def _why_no_shadows(model: AuditedModel, pool: Pool) -> str:
    """Why shadow models would be of no use, whoever asks for them; "" where they are."""
    from auditor.training.training_rows import why_not_trained_alike

    if min(pool.n_members, pool.n_others) < _FEWEST_FOR_SHADOWS:
        return f"shadow models need at least {_FEWEST_FOR_SHADOWS} members and as many non-members"
    if pool.labels_only:
        return "the model gives labels without confidence, which this attack reads: ask for methods=label_only"
    if pool.probabilities is None:
        return _LOSSES_ONLY
    if pool.without_features:
        return "the rows have no columns that a shadow model could learn from"
    return why_not_trained_alike(model)


# ---- the attacks ---------------------------------------------------------------------------------------------------


def _attack(name: str, rows: Sides, scores: FloatArray, detail: str, scored: BoolArray | None = None) -> Attack:
    measured = np.ones(scores.size, bool) if scored is None else scored
    threshold, words = threshold_of(name, scores, measured, rows.is_member)
    return Attack(
        method=name, scores=scores, scored=measured, threshold=threshold, threshold_words=words, detail=detail
    )


def _skipped_attack(name: str, n: int, reason: str) -> Attack:
    return Attack(
        method=name,
        scores=np.zeros(n),
        scored=np.zeros(n, bool),
        threshold=0.0,
        threshold_words="",
        detail=reason,
        why_not=reason,
    )


def _by_loss(name: str, pool: Pool) -> Attack:
    knows = "threat model: an attacker who sees the probability of the true label"
    if name == "loss_threshold":
        scores = attack_scores.global_scores(pool.loss)
        return _attack(name, pool, scores, f"{knows}, and knows one threshold for all rows")
    scores = attack_scores.per_class_scores(pool.loss, pool.labels)
    return _attack(name, pool, scores, f"{knows}, and knows a threshold for each class")


def _by_quantiles(pool: Pool) -> Attack:
    name = "quantile_regression"
    order = pool.rows.order("quantile_regression")
    others = order[~pool.is_member[order]]
    public = np.zeros(pool.labels.size, bool)
    public[others[: others.size // 2]] = True
    if pool.rows.modality != "tabular":
        why = f"Quantile regression reads the columns of a table, and these rows are {_ROWS[pool.rows.modality]}."
        return replace(_skipped_attack(name, pool.n_rows, why), inapplicable=True)
    if int(public.sum()) < attack_scores.FEWEST_ROWS:
        need = 2 * attack_scores.FEWEST_ROWS
        return _skipped_attack(
            name, pool.n_rows, f"quantile regression needs at least {need} non-members, half of them to learn"
        )
    if pool.labels_only:
        return _skipped_attack(
            name, pool.n_rows, "the model gives labels without confidence, which quantile regression reads"
        )
    if pool.probabilities is None or pool.without_features:
        why = _LOSSES_ONLY if pool.probabilities is None else "Quantile regression reads features, and none are here."
        return replace(_skipped_attack(name, pool.n_rows, why), inapplicable=True)
    phi = attack_scores.log_odds(pool.probabilities, pool.labels)
    scores = attack_scores.quantile_scores(pool.rows.X, pool.labels, phi, public)
    knows = (
        "threat model: an attacker who sees the probability of the true label and has "
        f"{int(public.sum()):,} rows that the model did not learn, half of the non-members, which are not attacked"
    )
    return _attack(name, pool, scores, knows, scored=~public)


def _by_labels(model: AuditedModel, pool: Pool, n_queries: int, rng: np.random.Generator) -> Attack:
    scores = (
        label_only.scores(model, pool.rows, pool.labels, n_queries, rng) if pool.labels.size else np.empty(0)
    )  # a model need not take no rows
    detail = f"threat model: an attacker who sees decisions only, of each row and of {n_queries} perturbed copies of it"
    return _attack("label_only", pool, scores, detail)


def _by_one(name: str, pool: Pool, phi: FloatArray, shadows: Shadows, n_references: int) -> Attack:
    detail = f"{shadows.threat_model}; {shadows.fit(pool)}; {_INDEPENDENT}"
    if name.startswith("lira"):
        scored_by = (
            attack_scores.lira_online_scores if name.startswith("lira_online") else attack_scores.lira_offline_scores
        )
        scores = scored_by(phi, shadows.log_odds, shadows.inside, fixed=name.endswith("fixed_variance"))
    elif name.startswith("rmia"):
        few = shadows.first(n_references)
        offline = name == "rmia_offline"
        scores = attack_scores.rmia_scores(np.exp(-pool.loss), np.exp(-few.loss), few.inside, offline=offline)
        detail += f"; of the shadow models the first {n_references} are the reference models"
    elif name == "bavaria":
        scores = bavaria.online_scores(phi, shadows.log_odds, shadows.inside)
    elif name == "bavaria_offline":
        scores = bavaria.offline_scores(phi, shadows.log_odds, shadows.inside)
    else:
        scores = attack_scores.difficulty_scores(pool.loss, shadows.loss, shadows.inside)
    return _attack(name, pool, scores, detail)


def _is_inapplicable(measurement: Measurement) -> bool:
    estimate = measurement.estimate
    return isinstance(estimate, Undefined) and estimate.inapplicable


# ---- the measurements ----------------------------------------------------------------------------------------------


def _scores(
    probe: str, attacks: Sequence[Attack], pool: Pool, detail: str, shadows: Shadows | None, not_made: dict[str, str]
) -> MembershipScores:
    """All that the measurements follow from."""
    head = MembershipHead.model_construct(
        probe=probe,
        n=pool.n_rows,
        attacks=tuple(
            AttackHead(method=a.method, detail=a.detail, why_not=a.why_not, inapplicable=a.inapplicable)
            for a in attacks
        ),
        detail=detail,
        not_made=not_made,
        n_shadows=0 if shadows is None else len(shadows),
        known=shadows is not None and shadows.known,
        unlike="" if shadows is None else shadows.unlike(pool),
        share_left_out=pool.share_left_out,
        judges_decisions=pool.right is not None,
        features=tuple(pool.groups),
    )
    made = [a for a in attacks if not a.why_not]
    return MembershipScores(
        head=head,
        number=pool.number,
        is_member=pool.is_member,
        labels=pool.labels,
        right=pool.right,
        scores={a.method: a.scores for a in made},
        scored={a.method: a.scored for a in made},
        groups=pool.groups,
    )


def _all_measurements(membership_scores: MembershipScores) -> list[Measurement]:
    head = membership_scores.head
    attacks = [
        replace(_skipped_attack(each.method, membership_scores.n_rows, each.why_not), inapplicable=each.inapplicable)
        if each.why_not
        else _attack(
            each.method,
            membership_scores,
            membership_scores.scores[each.method],
            each.detail,
            membership_scores.scored[each.method],
        )
        for each in head.attacks
    ]
    order = strongest_first(head.n_shadows)
    shown = min((a for a in attacks if not a.why_not), key=lambda a: order.index(a.method), default=None)
    parts = {attack.method: measurements(attack, membership_scores, head.detail) for attack in attacks}
    found = wholes(attacks, parts, head)
    of_groups = worst_groups(attacks, membership_scores, head)
    found += [replace(m, weak=found[0].weak, tried=found[0].tried) for m in of_groups]
    found[0] = replace(found[0], figure=roc_figure(attacks, membership_scores))
    for attack in attacks:
        own = parts[attack.method]
        if attack is shown:
            exposed = most_exposed(attack, membership_scores)
            own = [
                replace(m, detail=f"{exposed}; {m.detail}")
                if exposed and m.metric == "true_positive_rate_at_no_false_positive"
                else m
                for m in own
            ]
            own += [*discovered(attack, membership_scores), *by_group(attack, membership_scores)]
        found += map(as_part, own)
    return found
