"""The pool of members and non-members that is attacked, and shadow models: each trained on a random half of it.

Networks are trained all together; estimators and boosted trees are fitted one after the other.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import DataError, NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray, take_rows
from auditor.statistics.estimate import Undefined
from auditor.statistics.rank_estimates import AreaUnderCurve, area_under_curve
from auditor.statistics.rate_pairs import difference_lower_bounds
from probes.privacy.membership.attack_scores import as_numbers, cross_entropy, log_odds

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


# Level of the remarks in ``detail``: they accuse the files, so they are made only where they are all but certain.
REMARK_LEVEL = 0.001
WORSE = (
    "the model does worse on --train than on --data, which a model does not do on the rows it learned from: is --train "
    "the file it was trained on"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class Pool:
    """The labelled rows that occur once in the two files together, members first.

    rows: n of them. probabilities (n, n_classes) of the audited model, None where its losses are all that is known of
    it. labels (n,), loss (n,). is_member (n,).
    number (n,): the row's number in its own file, from 1. ``left_out``: remarks on rows that take no part;
    ``share_left_out``: of the labelled rows of --train, those that stand more than once.
    """

    rows: AuditData
    probabilities: FloatArray | None
    labels: IntArray
    loss: FloatArray
    is_member: BoolArray
    number: IntArray
    left_out: tuple[str, ...]
    share_left_out: float = 0.0

    @property
    def n_members(self) -> int:
        """The number of members."""
        return int(self.is_member.sum())

    @property
    def n_others(self) -> int:
        """The number of non-members."""
        return int((~self.is_member).sum())

    @property
    def labels_only(self) -> bool:
        """Whether the model returns only labels: every probability is 0 or 1."""
        return self.probabilities is not None and bool(np.isin(self.probabilities, (0.0, 1.0)).all())

    @property
    def n_rows(self) -> int:
        """Rows of both files that take part."""
        return int(self.labels.size)

    @property
    def without_features(self) -> bool:
        """Whether nothing is known about a row except the model's answer."""
        return _without_features(self.rows)

    @property
    def right(self) -> BoolArray | None:
        """(n,) whether the model decides on the true class; None if only its losses are known."""
        return None if self.probabilities is None else self.probabilities.argmax(axis=1) == self.labels

    @property
    def groups(self) -> dict[str, list[str]]:
        """The groups (n,) by sensitive feature."""
        frame = self.rows.sensitive_features
        if frame is None:
            return {}
        return {str(name): [str(each) for each in frame[name].astype("string")] for name in frame.columns}

    @property
    def members(self) -> FloatArray:
        """Losses of the members."""
        return self.loss[self.is_member]

    @property
    def non_members(self) -> FloatArray:
        """Losses of the non-members."""
        return self.loss[~self.is_member]


def pool_of(model: AuditedModel, data: AuditData) -> Pool:
    """The rows that take part in the attack.

    Raises NotApplicableError without training rows or labels, DataError for a label that is none of the classes.
    """
    if data.members is None or data.is_member is None:
        raise NotApplicableError("Needs the model's training data: add --train FILE.")
    sides = (data.members, data.evaluation)
    if data.y_true is None:
        raise NotApplicableError("Needs true labels: add --target COLUMN.")
    losses = None if data.recorded is None else data.recorded.losses
    if data.y_true.size and int(data.y_true.max()) >= model.n_outputs and losses is None:
        raise DataError(
            f"A label of the data is class {int(data.y_true.max())}, and the model has {model.n_outputs} classes, "
            "counted from 0: name the classes in the order of the model's outputs with --classes."
        )
    places = (np.flatnonzero(data.is_member), np.flatnonzero(~data.is_member))
    taking, remarks, probabilities, share_left_out = [], list[str](), [], 0.0
    for what, side, alone in zip(("--train", "--data"), sides, _unrepeated(*sides), strict=True):
        labelled = np.asarray(side.y_true) >= 0
        taking.append(np.flatnonzero(labelled & alone))
        if what == "--train":
            share_left_out = float((labelled & ~alone).sum() / max(int(labelled.sum()), 1))
        if losses is None:
            probabilities.append(model.outputs(side)[taking[-1]])
        for n, why in (
            (int((~labelled).sum()), "without a label took no part"),
            (int((labelled & ~alone).sum()), "that stand more than once in the two files took no part"),
        ):
            if n:
                remarks.append(f"{n:,} rows of {what} {why}")
    taken = np.concatenate([place[take] for place, take in zip(places, taking, strict=True)])
    rows = data.take(taken)
    labels = np.asarray(rows.y_true, np.int64)
    if _without_features(data):
        remarks.append("rows that stand more than once were not looked for, because no features are here")
    return Pool(
        rows=rows,
        probabilities=None if losses is not None else np.concatenate(probabilities),
        labels=labels,
        loss=losses[taken] if losses is not None else cross_entropy(np.concatenate(probabilities), labels),
        is_member=np.repeat([True, False], [take.size for take in taking]),
        number=np.concatenate(taking).astype(np.int64) + 1,
        left_out=tuple(remarks),
        share_left_out=share_left_out,
    )


def _without_features(rows: AuditData) -> bool:
    import pandas as pd

    return isinstance(rows.X, pd.DataFrame) and not len(rows.X.columns)


def _unrepeated(*sides: AuditData) -> list[BoolArray]:
    """For each side, (n,) whether no other row of any side has the same features and the same label."""
    if all(map(_without_features, sides)):
        return [np.ones(len(rows), bool) for rows in sides]
    keys = [rows.keys for rows in sides]
    _, inverse, counts = np.unique(np.concatenate(keys), return_inverse=True, return_counts=True)
    return np.split(counts[inverse] == 1, np.cumsum([len(k) for k in keys])[:-1])


def detail_of(pool: Pool, classes: tuple[str, ...]) -> str:
    """The number of rows, the model's performance on either side, and differences of the files."""
    parts = [f"{pool.n_members:,} members and {pool.n_others:,} non-members", *pool.left_out]
    if not pool.n_members or not pool.n_others:
        return "; ".join(parts)
    if pool.probabilities is None:
        return "; ".join([*parts, "losses as they were given: whose loss it is, and of what, is not known here"])
    correct, n = _right(pool, pool.probabilities)
    parts.append(f"accuracy {correct[0] / n[0]:.3f} on members, {correct[1] / n[1]:.3f} on non-members")
    if pool.labels_only:
        parts.append("the model gives labels without confidence, so the loss says only whether they are right")
    return "; ".join([*parts, *_remarks(pool, correct, n, classes)])


def doubt(right: BoolArray | None, is_member: BoolArray) -> str:
    """The reason why the files forbid a judgement, in a sentence; or "". right, is_member (n,).

    right, is_member (n,).
    """
    if right is None or is_member.all() or not is_member.any() or not _does_worse(*_count_correct(right, is_member)):
        return ""
    return f"{WORSE[0].upper()}{WORSE[1:]}? Whoever was not trained on is no member, and no attack can find them."


def _right(pool: Pool, probabilities: FloatArray) -> tuple[IntArray, IntArray]:
    """(2,) right decisions, and rows, of members and of non-members."""
    return _count_correct(probabilities.argmax(axis=1) == pool.labels, pool.is_member)


def _count_correct(right: BoolArray, is_member: BoolArray) -> tuple[IntArray, IntArray]:
    correct, n = ((right & is_member).sum(), (right & ~is_member).sum()), (is_member.sum(), (~is_member).sum())
    return np.asarray(correct, np.int64), np.asarray(n, np.int64)


def _does_worse(correct: IntArray, n: IntArray) -> bool:
    return bool(difference_lower_bounds(correct, n=n, alpha=REMARK_LEVEL)[1, 0] > 0.0)


def _remarks(pool: Pool, correct: IntArray, n: IntArray, classes: tuple[str, ...]) -> list[str]:
    """What the two files give away about themselves, each said only where chance would say it once in a thousand."""
    found = []
    if _does_worse(correct, n):
        found.append(WORSE)
    widths = max(len(classes), int(pool.labels.max()) + 1)
    counts = [np.bincount(pool.labels[side], minlength=widths) for side in (pool.is_member, ~pool.is_member)]
    gaps = np.abs(counts[0] / n[0] - counts[1] / n[1])
    widest = int(gaps.argmax())
    pair = np.asarray([counts[0][widest], counts[1][widest]], np.int64)
    if difference_lower_bounds(pair, n=n, alpha=REMARK_LEVEL / widths).max() > 0.05:
        name = classes[widest] if widest < len(classes) else str(widest)
        found.append(
            f"label {name} is {pair[0] / n[0]:.1%} of the members and {pair[1] / n[1]:.1%} of the "
            "non-members: the files differ by more than membership, and part of what the attack finds may be that"
        )
    return found


FEWEST_ROWS = 100


def blind_auc(pool: Pool, rng: np.random.Generator) -> AreaUnderCurve | Undefined:
    """AUC of a classifier of rows and labels alone, gradient-boosted trees with separate training and test halves.

    0.5 where members and non-members are drawn alike. Undefined for texts and images, and below 100 rows on a side.
    """
    if pool.rows.modality != "tabular" or min(pool.n_members, pool.n_others) < FEWEST_ROWS:
        return Undefined(reason=f"the blind baseline needs a table with {FEWEST_ROWS} members and as many non-members")
    from sklearn.ensemble import HistGradientBoostingClassifier

    columns = np.column_stack([as_numbers(pool.rows.X), pool.labels.astype(np.float64)])
    tried = np.zeros(pool.labels.size, bool)
    for side in (pool.is_member, ~pool.is_member):
        own = rng.permutation(np.flatnonzero(side))
        tried[own[own.size // 2 :]] = True
    learner = HistGradientBoostingClassifier(
        max_iter=40, max_leaf_nodes=8, min_samples_leaf=20, early_stopping=False, random_state=0
    )
    scores = learner.fit(columns[~tried], pool.is_member[~tried]).decision_function(columns[tried])
    return area_under_curve(positives=scores[pool.is_member[tried]], negatives=scores[~pool.is_member[tried]])


def remark(estimate: AreaUnderCurve | Undefined, level: float) -> str:
    """The baseline's remark on the two files if its result is almost certainly no chance; else ""."""
    if isinstance(estimate, Undefined):
        return ""
    low, _ = estimate.bounds(level)
    if low <= 0.5:
        return ""
    return (
        f"the two files can be told apart without asking the model (AUC {estimate.value:.3f} on rows held back): they "
        "differ by more than membership, and part of what the attacks find may be that"
    )


FEWEST = 4
# More than the fewest are trained while they cost little, because they find little more: of a network that had learned
# noisy labels, RMIA with 4 reference models had an area of 0.574, with 16 of 0.578.
MORE, SHARE_FOR_MORE = (16, 8), 0.1
# Losses of models of one recipe on other halves of the rows differ by less; those of another recipe or scale by more.
_MOST_UNLIKE, _LOSS_ROOM = 2.0, 0.02
# Of probabilities of the true label, and of rows for which it exceeds one half; halves of other sizes differ by less.
_SKILL_ROOM = 0.05
_MEMORY_COUNTED_ON = 1 << 28
# Parts of the rows on which a fit is timed before it is made of all; rows of each class and of all that are in both.
_PILOTS, _ROWS_OF_A_CLASS, _FEWEST_TIMED = (16, 4), 10, 500
# No fit is taken for cheaper or dearer than these powers of its number of rows.
_LEAST_POWER, _MOST_POWER = 1.0, 3.0
# Nearer to 0 and 1 probabilities tell rounding, and no difference of models.
_LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True, eq=False, kw_only=True)
class Shadows:
    """The outputs of k shadow models for every row of a pool of n.

    loss, log_odds (k, n): cross-entropy and log(p_y / (1 - p_y)) of the true label. inside (k, n): who learned which
    row. ``threat_model``: what an attacker must know and do to have them, in words. ``known``: whether architecture and
    recipe are the audited model's own, and no surrogate's. ``largest_odds``: where log odds end, as probabilities of
    exactly 0 and 1 have none.
    """

    loss: FloatArray
    log_odds: FloatArray
    inside: BoolArray
    threat_model: str
    known: bool = True
    largest_odds: float = math.inf

    def __len__(self) -> int:
        """How many models there are."""
        return len(self.inside)

    def first(self, k: int) -> Shadows:
        """The first k models alone."""
        return replace(self, loss=self.loss[:k], log_odds=self.log_odds[:k], inside=self.inside[:k])

    def fit(self, pool: Pool) -> str:
        """The models' performance on rows they learned and on others, beside the audited one, in words."""
        learned, others = float(self.loss[self.inside].mean()), float(self.loss[~self.inside].mean())
        return (
            f"their mean loss is {learned:.3g} on rows they learned and {others:.3g} on others, the audited model's "
            f"{float(pool.members.mean()):.3g} on members and {float(pool.non_members.mean()):.3g} on non-members: the "
            f"less "
            "alike these are, the less the attack can see"
        )

    def unlike(self, pool: Pool) -> str:
        """The reason why the models differ from the audited one, in a sentence; "" if their losses are similar.

        Of a recipe that is not the one it was trained by, or outputs that were scaled afterwards, they are far from it,
        and an attack that compares it with them sees nothing of what it gives away. Compared are the mean loss, the
        mean probability of the true label and the share of rows where that exceeds one half, on rows learned and not.
        """
        sides = (("learned", self.inside, pool.is_member), ("did not learn", ~self.inside, ~pool.is_member))
        own_loss = np.minimum(pool.loss, self.largest_odds)
        for what, theirs, own in sides:
            losses = float(self.loss[theirs].mean()), float(own_loss[own].mean())
            low, high = sorted(loss + _LOSS_ROOM for loss in losses)
            compared = [("loss", losses, high > _MOST_UNLIKE * low)]
            for name, value in (("probability of the true label", _probability), ("accuracy", _is_likelier)):
                both = float(value(self.loss[theirs]).mean()), float(value(own_loss[own]).mean())
                compared.append((name, both, abs(both[0] - both[1]) > _SKILL_ROOM))
            for name, (mean, of_model), differs in compared:
                if differs:
                    return (
                        f"Nothing was found, and the shadow models are not like the audited one: their mean {name} on "
                        f"rows they {what} is {mean:.3g}, its own {of_model:.3g}. What the file says of its training "
                        "may not be what it was trained by, or its outputs were scaled afterwards."
                    )
        return ""


def _probability(loss: FloatArray) -> FloatArray:
    return np.exp(-loss)


def _is_likelier(loss: FloatArray) -> BoolArray:
    return loss < math.log(2.0)


def how_many(model: AuditedModel, pool: Pool, budget: float) -> int:
    """The default number of shadow models of a network: 16 or 8 for at most a tenth of ``budget``, else 4 within it.

    ``budget``: seconds of one core. What training takes is counted and not timed
    (:func:`auditor.training.ensembles.predicted_seconds`), so that the same audit trains the same number everywhere.
    Raises NotApplicableError where no model like the audited one can be trained, or four would cost more.
    """
    import torch

    from auditor.training.ensembles import predicted_seconds
    from auditor.training.retrain_recipe import blueprint_of

    blueprint = blueprint_of(model, pool.rows.X)
    with torch.no_grad():
        encoded = blueprint.encode(pool.rows.X)

    def seconds(number: int) -> float:
        return predicted_seconds(
            blueprint.make,
            encoded,
            n_models=number,
            n_learned=len(pool.labels) // 2,
            n_classes=model.n_outputs,
            recipe=blueprint.recipe,
            outputs=blueprint.outputs,
            # What the process may use differs from run to run; the answer must not.
            memory_bytes=_MEMORY_COUNTED_ON,
        )

    return _affordable(seconds, budget)


def _affordable(seconds: Callable[[int], float], budget: float) -> int:
    """The number that costs little of ``budget``, in ``seconds`` of so many models, or the fewest.

    Raises NotApplicableError where these cost more than all of it.
    """
    for number in MORE:
        if seconds(number) <= SHARE_FOR_MORE * budget:
            return number
    needed = seconds(FEWEST)
    if needed <= budget:
        return FEWEST
    raise NotApplicableError(
        f"{FEWEST} shadow models are counted to take {math.ceil(needed):,} s of one core, and {budget:g} s are "
        f"allowed: --set membership_inference.shadow_seconds={math.ceil(needed)}"
    )


@contextmanager
def on_one_core() -> Iterator[None]:
    """Context with one core for default trainings, as in their cost estimate: threads of small networks wait."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def train_shadows(
    model: AuditedModel, pool: Pool, n_shadows: int, rng: np.random.Generator, *, checkpoint: str | None = None
) -> Shadows:
    """Train ``n_shadows`` models like the audited one, in pairs on the two halves of random splits of the pool.

    Without regard to who is a member, so every row is in for half of the models. Raises NotApplicableError where no
    model like it can be trained.
    """
    import torch

    from auditor.training.ensembles import random_halves, train_together
    from auditor.training.retrain_recipe import blueprint_of

    blueprint = blueprint_of(model, pool.rows.X)
    with torch.no_grad():
        encoded = blueprint.encode(pool.rows.X)
    inside = random_halves(n_shadows, len(pool.labels), rng)
    labels = torch.from_numpy(pool.labels).to(encoded.device)
    trained = train_together(
        blueprint.make,
        encoded,
        labels,
        inside,
        seeds=[int(s) for s in rng.integers(2**62, size=n_shadows)],
        recipe=blueprint.recipe,
        outputs=blueprint.outputs,
        keep=partial(of_the_label, labels=labels),
        checkpoint=checkpoint,
    )
    return Shadows(
        loss=trained.kept[..., 0],
        log_odds=trained.kept[..., 1],
        inside=inside,
        known=blueprint.known,
        threat_model="; ".join([f"{_threat(pool, inside)}, of {blueprint.described}", *trained.notes]),
    )


def _threat(pool: Pool, inside: BoolArray) -> str:
    """What an attacker must know and do to have the models that learned these rows (k, n)."""
    size = int(inside[0].sum())
    words = f"{len(inside)} shadow models on {size:,} rows each, a random half of --train and --data together"
    if pool.n_members and not 0.8 <= size / pool.n_members <= 1.25:
        words += f" where the target had {pool.n_members:,}, so they are not quite like it"
    return (
        f"threat model: an attacker who sees the probability of the true label and has rows like these trains {words}"
    )


def refit_shadows(
    model: AuditedModel, pool: Pool, n_shadows: int | None, rng: np.random.Generator, *, budget: float = math.inf
) -> Shadows:
    """Shadow models of an estimator or of boosted trees: the same kind with the same hyperparameters, fitted anew.

    ``n_shadows``: None for 16 or 8 that take a tenth of ``budget`` at most, else 4 within it, in seconds of processor
    time as they are forecast by fits on a sixteenth and a quarter of the rows. Raises ModelError where the model cannot
    be fitted so, NotApplicableError where four would cost more.
    """
    from auditor.training.ensembles import random_halves

    of_halves, of_fits = rng.spawn(2)
    inside = random_halves(n_shadows or MORE[0], pool.n_rows, of_halves)
    notes: tuple[str, ...] = ()

    def fitted(places: IntArray) -> FloatArray:
        nonlocal notes
        X = take_rows(pool.rows.X, places)
        new = model.fitted_anew(X, pool.labels[places], None, of_fits, {})
        notes = new.provenance.notes
        return new.predict_proba(pool.rows.X)

    if n_shadows is None:
        first = of_fits.permutation(np.flatnonzero(inside[0]))
        inside = inside[: _number_by_pilots(fitted, first, pool.labels[first], budget)]
    answers = np.stack([fitted(np.flatnonzero(learned)) for learned in inside])
    assert pool.probabilities is not None
    largest = _largest_odds(answers, pool.probabilities)
    odds = np.clip([log_odds(answer, pool.labels) for answer in answers], -largest, largest)
    described = " ".join(notes).rstrip(".")
    return Shadows(
        loss=np.logaddexp(0.0, -odds),
        log_odds=odds,
        inside=inside,
        largest_odds=largest,
        threat_model=f"{_threat(pool, inside)}, of the target's own kind: {described}",
    )


def _number_by_pilots(
    fitted: Callable[[IntArray], FloatArray], places: IntArray, labels: IntArray, budget: float
) -> int:
    """The affordable number of models that learn ``places`` (m,), by the processor time of smaller ones."""
    of_class = np.zeros(len(places), np.bool_)
    for label in np.unique(labels):
        of_class[np.flatnonzero(labels == label)[:_ROWS_OF_A_CLASS]] = True
    ordered = places[np.argsort(~of_class, kind="stable")]
    power, size, seconds, number = _LEAST_POWER, 0, 0.0, FEWEST
    for part in _PILOTS:
        pilot = ordered[: max(len(ordered) // part, int(of_class.sum()), _FEWEST_TIMED)]
        began = time.process_time()
        fitted(pilot)
        took = max(time.process_time() - began, 1e-9)
        if 0 < size < len(pilot):
            power = min(max(math.log(took / seconds) / math.log(len(pilot) / size), _LEAST_POWER), _MOST_POWER)
        size, seconds = len(pilot), took
        whole = took * (len(ordered) / size) ** power
        number = _affordable(lambda n: n * whole, budget)  # noqa: B023
        if size == len(ordered):
            break
    return number


def _largest_odds(*probabilities: FloatArray) -> float:
    """The log odds of half of the least probability other than 0 that is told."""
    least = min(
        (float(part.min()) for p in probabilities for part in (p[p > _LEAST_PROBABILITY],) if part.size), default=0.0
    )
    smallest = max(0.5 * min(least, 0.5), _LEAST_PROBABILITY)
    return math.log1p(-smallest) - math.log(smallest)


def of_the_label(logits: Tensor, *, labels: Tensor) -> Tensor:
    """(k, n, 2) cross-entropy and log odds of the true label, from logits (k, n, n_classes)."""
    import torch

    z = logits.double()
    own = labels.view(1, -1, 1).expand(len(z), -1, 1)
    others = z.scatter(2, own, -torch.inf).logsumexp(dim=2)
    odds = z.gather(2, own).squeeze(2) - others
    return torch.stack([torch.nn.functional.softplus(-odds), odds], dim=2)
