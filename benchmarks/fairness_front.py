"""Accuracy against equalized odds on COMPAS and Adult: the in-processing suite against fairlearn's two ways.

For each data set and seed, a plain MLP 64-32 and, of each family, eight models over a range of its setting:

- ours: the same MLP against an adversary, with a penalty on the gap between mean scores, and with both
- fairlearn's AdversarialFairnessClassifier on the same MLP, by the same number of epochs and the same batches
- fairlearn's ExponentiatedGradient on logistic regression; its decisions are drawn at random, and counted as what is to
  be expected of them

A family's figure is the hypervolume between its models and the reference point: the plain model's accuracy less 5
points, and its gap. It is the area of (accuracy, gap) that at least one of the models is as good as, over ``0.05 x the
plain gap``. The models that count are those that no other of the family beats in both on the validation rows; all is
measured on the test rows. The figure for all eight, whatever validation says, stands beside it. ``ratio`` is the mean
of ours over data sets and seeds, over the mean of the better of the two peers, taken run by run.

A peer that diverges for one setting has no model there, which is printed and stands under ``diverged``.

Beside it: the adversary alone with alpha chosen on the validation rows (the smallest gap at no more than 2 points of
accuracy lost there), on the test rows, with 95 % t-intervals over the seeds.

``--seeds N`` runs fewer than 5. Takes 12 minutes of one core.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Training
from benchmarks.common import emit
from benchmarks.debiasing_data import DATASETS, RECIPES, Judged, Split, judged, judged_model, plain_mlp, rows_of, split
from mitigations.training.adversarial_debiasing import AdversarialDebiasing

Options = dict[str, float]
SEEDS, BAR, ACCURACY_LOST, LOST_ON_VALIDATION = 5, 1.0, 0.05, 0.02
ALPHAS = (0.3, 1.0, 3.0, 10.0)
ADVERSARY: tuple[Options, ...] = tuple({"alpha": alpha} for alpha in ALPHAS)
PENALTY: tuple[Options, ...] = tuple({"alpha": 0.0, "gap_weight": weight} for weight in (0.1, 0.5))
BOTH: tuple[Options, ...] = ({"alpha": 1.0, "gap_weight": 0.2}, {"alpha": 10.0, "gap_weight": 0.1})
PEER_ALPHAS = (0.03, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0)
PEER_BOUNDS = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15)


@dataclass(frozen=True)
class Point:
    """One model, as the validation rows and the test rows show it."""

    validation: Judged
    test: Judged


def hypervolume(points: Sequence[Judged], reference: Judged) -> float:
    """Area of the (accuracy, gap) between the reference and the best of the points, 0 where none is better in both."""
    area, least = 0.0, reference.gap
    for point in sorted(points, key=lambda p: -p.accuracy):
        if point.accuracy > reference.accuracy and point.gap < least:
            area += (point.accuracy - reference.accuracy) * (least - point.gap)
            least = point.gap
    return area


def unbeaten(points: Sequence[Point]) -> list[Point]:
    """Those that no other is better than in one of accuracy and gap and no worse in the other, on validation rows."""

    def beats(a: Judged, b: Judged) -> bool:
        return a.accuracy >= b.accuracy and a.gap <= b.gap and a != b

    return [p for p in points if not any(beats(q.validation, p.validation) for q in points)]


def ours(plain: TorchModel, of: Split, seed: int, which: Sequence[Options]) -> list[Point]:
    """The suite's models with these options, trained for as many epochs as the recipe says."""
    assert plain.recipe is not None
    found = []
    for options in which:
        method = AdversarialDebiasing(epochs=plain.recipe.epochs, **options)  # type: ignore[arg-type]
        new = method.mitigate(plain, of.train, np.random.default_rng(seed), Training()).model
        found.append(Point(judged_model(new, of.validation), judged_model(new, of.test)))
    return found


def tried(settings: Sequence[float], make: Callable[[float], Point], what: str, diverged: list[str]) -> list[Point]:
    """The models of those settings that came to one; what became of the others is added to ``diverged``."""
    found = []
    for setting in settings:
        try:
            found.append(make(setting))
        except (ValueError, RuntimeError, FloatingPointError) as error:
            diverged.append(f"{what} at {setting:g}: {' '.join(str(error).split())[:120]}")
            print(f"  {diverged[-1]}", file=sys.stderr)
    return found


def adversarial_classifier(plain: TorchModel, of: Split, seed: int) -> Callable[[float], Point]:
    """fairlearn's adversarial classifier of an alpha."""
    from fairlearn.adversarial import AdversarialFairnessClassifier

    assert plain.recipe is not None and of.train.sensitive_features is not None
    x, v, t = (plain.encode(rows.X).numpy() for rows in (of.train, of.validation, of.test))

    def make(alpha: float) -> Point:
        peer = AdversarialFairnessClassifier(
            backend="torch", predictor_model=[64, "relu", 32, "relu"], adversary_model=[],
            constraints="equalized_odds", alpha=alpha, epochs=plain.recipe.epochs, batch_size=plain.recipe.batch_size,
            learning_rate=plain.recipe.learning_rate, shuffle=True, random_state=seed,
        ).fit(x, of.train.y_true, sensitive_features=of.train.sensitive_features.iloc[:, 0])  # fmt: skip
        chances = (np.asarray(peer.predict(rows), np.float64).ravel() for rows in (v, t))
        return Point(*(judged(c, rows) for c, rows in zip(chances, (of.validation, of.test), strict=True)))

    return make


def exponentiated_gradient(plain: TorchModel, of: Split, seed: int) -> Callable[[float], Point]:
    """fairlearn's mixture of logistic regressions of a bound."""
    from fairlearn.reductions import EqualizedOdds, ExponentiatedGradient
    from sklearn.linear_model import LogisticRegression

    assert of.train.sensitive_features is not None
    x, v, t = (plain.encode(rows.X).numpy() for rows in (of.train, of.validation, of.test))

    def make(bound: float) -> Point:
        peer = ExponentiatedGradient(
            LogisticRegression(solver="liblinear", random_state=seed), EqualizedOdds(difference_bound=bound)
        ).fit(x, of.train.y_true, sensitive_features=of.train.sensitive_features.iloc[:, 0])
        chances = (peer._pmf_predict(rows)[:, 1] for rows in (v, t))
        return Point(*(judged(c, rows) for c, rows in zip(chances, (of.validation, of.test), strict=True)))

    return make


def chosen(plain: Point, points: Sequence[Point]) -> Point:
    """The smallest gap on the validation rows at no more than 2 points of accuracy lost there, else the plain model."""
    allowed = [p for p in points if p.validation.accuracy >= plain.validation.accuracy - LOST_ON_VALIDATION]
    return min(allowed, key=lambda p: p.validation.gap, default=plain)


def interval(values: Sequence[float]) -> str:
    """Mean and 95 % t-interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.4f}"
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:.4f} [{mean - half:.4f}, {mean + half:.4f}]"


def debiased(plain: Sequence[Point], after: Sequence[Point]) -> dict[str, object]:
    """Before and after of the models that were chosen, one for each seed."""
    pairs = list(zip(plain, after, strict=True))
    before, now = (statistics.mean(p.test.gap for p in side) for side in (plain, after))
    return {
        "gap_before": interval([p.test.gap for p in plain]),
        "gap_after": interval([p.test.gap for p in after]),
        "gap_change": interval([b.test.gap - a.test.gap for a, b in pairs]),
        "gap_down_by": round(1.0 - now / before, 3),
        "accuracy_before": interval([p.test.accuracy for p in plain]),
        "accuracy_change": interval([b.test.accuracy - a.test.accuracy for a, b in pairs]),
    }


def main() -> None:
    """Runs the comparison and prints it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    n_seeds = int(sys.argv[sys.argv.index("--seeds") + 1]) if "--seeds" in sys.argv else SEEDS
    names = ("ours", "adversarial_classifier", "exponentiated_gradient")
    kept: dict[str, list[float]] = {name: [] for name in names}
    whole: dict[str, list[float]] = {name: [] for name in names}
    more: dict[str, object] = {}
    diverged: list[str] = []
    started = time.process_time()
    for data in DATASETS:
        rows = rows_of(data)
        befores, afters = [], []
        for seed in range(n_seeds):
            of = split(rows, seed)
            model = plain_mlp(of, RECIPES[data], seed)
            plain = Point(judged_model(model, of.validation), judged_model(model, of.test))
            reference = Judged(plain.test.accuracy - ACCURACY_LOST, plain.test.gap)
            families = {
                "ours": ours(model, of, seed, (*ADVERSARY, *PENALTY, *BOTH)),
                "adversarial_classifier": tried(
                    PEER_ALPHAS, adversarial_classifier(model, of, seed), f"adversary, {data} seed {seed}", diverged
                ),
                "exponentiated_gradient": tried(
                    PEER_BOUNDS, exponentiated_gradient(model, of, seed), f"gradient, {data} seed {seed}", diverged
                ),
            }
            for name, points in families.items():
                scale = ACCURACY_LOST * plain.test.gap
                kept[name].append(hypervolume([p.test for p in unbeaten(points)], reference) / scale)
                whole[name].append(hypervolume([p.test for p in points], reference) / scale)
            befores.append(plain)
            afters.append(chosen(plain, families["ours"][: len(ADVERSARY)]))
            said = {name: round(found[-1], 3) for name, found in kept.items()}
            print(f"{data} seed {seed}: {said} after {time.process_time() - started:.0f} s", file=sys.stderr)
            print(f"  plain {plain.test}, chosen {afters[-1].test}", file=sys.stderr)
        more[data] = debiased(befores, afters)
        last = slice(-n_seeds, None)
        more[f"{data}_hypervolumes"] = {name: round(statistics.mean(v[last]), 3) for name, v in kept.items()}

    def better(of: dict[str, list[float]]) -> float:
        return statistics.mean(map(max, of["adversarial_classifier"], of["exponentiated_gradient"]))

    mine = statistics.mean(kept["ours"])
    emit(
        "fairness_front", ours=mine, peer=better(kept), ratio=mine / better(kept), bar=BAR, threads=1,
        unit="hypervolume over 0.05 x the plain gap", seeds=n_seeds,
        ratio_with_all_models=round(statistics.mean(whole["ours"]) / better(whole), 3), diverged=diverged, **more,
    )  # fmt: skip


if __name__ == "__main__":
    main()
