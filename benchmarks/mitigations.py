"""Every mitigation of tables against doing nothing, fairlearn and AIF360, on five real data sets and several seeds.

For each data set and seed a plain MLP 64-32, stopped early, and of each method (ours and the peers') a model for each
of its settings, the first of which is its default. All is trained on 55 % of at most 6,000 rows, and measured on 30 %
that nothing was chosen by: accuracy, and the gap that the method is for (``equalized_odds_difference`` or
``demographic_parity_difference``). Decisions that are drawn at random count as what is to be expected of them.

- *against doing nothing*: of the default setting, the change of gap and accuracy, with 95 % t-intervals over the seeds.
  ``better`` must be shown: the gap smaller, and accuracy not more than 2 points lower on average. ``worse`` need only
  be seen: the gap more than a point larger on average, or accuracy more than 2 points lower, for which ``cost`` stands
  where the gap was more than a point smaller. ``equal``: none of these. ``refused``: it made no model on any seed.
- *hypervolume*: the area of (accuracy, gap) that at least one of a method's models is as good as, from the plain
  accuracy less 5 points and the plain gap, over ``0.05 x the plain gap``; models count that no other of the method
  beats on the validation rows. ``better``, ``equal``, ``worse`` than a peer: by the 95 % t-interval of the difference.

The defaults were chosen on other data sets (``--chosen-on`` runs on those). ``--seeds N`` (5), ``--only a,b`` methods,
``--data a,b``; ``--out FILE`` keeps every model's numbers, a line each, and goes on where it stopped; ``--experience
mitigations/experience.toml`` writes there what each of our methods says of itself, and leaves those that were not run.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import time
import tomllib
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import stats

from auditor.core.errors import AuditorError
from auditor.data.audit_data import AuditData
from auditor.models.postprocessing import PostprocessedModel
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Training
from benchmarks import fairness_data
from benchmarks.common import machine
from benchmarks.debiasing_data import Split, plain_mlp
from benchmarks.mitigation_peers import PEERS
from mitigations import MITIGATIONS

Aim = Literal["equalized_odds", "demographic_parity"]
Options = dict[str, object]
ACCURACY_LOST, MARGIN, WIDER = 0.05, 0.02, 0.01
EO: Aim = "equalized_odds"
DP: Aim = "demographic_parity"
# What each method is for, the settings that it is tried with, and the peers that are the same method.
OURS: dict[str, tuple[Aim, tuple[Options, ...], tuple[str, ...]]] = {
    "min_diff": (EO, ({},), ()),
    "group_dro": (EO, ({},), ()),
    "adversarial_debiasing": (EO, ({},), ("fairlearn AdversarialFairnessClassifier",)),
    "exponentiated_gradient": (EO, ({}, {"difference_bound": 0.05}), ("fairlearn ExponentiatedGradient",)),
    "grid_search": (EO, ({},), ("fairlearn GridSearch",)),
    "threshold_optimizer": (
        EO,
        ({}, {"deterministic": True}),
        ("fairlearn ThresholdOptimizer", "AIF360 EqOddsPostprocessing"),
    ),
    "reject_option": (DP, ({},), ("AIF360 RejectOptionClassification",)),
    "reweighing": (DP, ({},), ("AIF360 Reweighing",)),
    "balanced_resampling": (DP, ({},), ("AIF360 Reweighing",)),
    "correlation_remover": (DP, ({},), ("fairlearn CorrelationRemover",)),
    # The same model; the control arm is only told of.
    "counterfactual_augmentation": (DP, ({"control_arm": False},), ()),
    "fair_gan": (DP, ({},), ()),
}
# Those for demographic parity by their nature or as they were set.
PEERS_FOR_PARITY = ("fairlearn CorrelationRemover", "AIF360 Reweighing", "AIF360 RejectOptionClassification")


@dataclass(frozen=True)
class Shown:
    """What some rows show of a model."""

    accuracy: float
    equalized_odds: float
    demographic_parity: float
    balanced_accuracy: float
    favourable: float


@dataclass(frozen=True)
class Point:
    """One model; ``family`` is the method, ``refused`` why there is none."""

    data: str
    seed: int
    family: str
    setting: str
    seconds: float
    validation: Shown | None
    test: Shown | None
    refused: str = ""


def shown(chances: npt.NDArray[np.floating], rows: AuditData) -> Shown:
    """Of (n,) chances of the favourable decision."""
    assert rows.y_true is not None and rows.sensitive_features is not None
    y, group = rows.y_true, rows.sensitive_features.iloc[:, 0].to_numpy()
    groups = np.unique(group)
    rates = np.asarray([[chances[(group == g) & (y == label)].mean() for g in groups] for label in (0, 1)], np.float64)
    right = np.where(y == 1, chances, 1.0 - chances)
    return Shown(
        accuracy=float(right.mean()),
        equalized_odds=float(np.ptp(rates, axis=1).max()),
        demographic_parity=float(np.ptp([chances[group == g].mean() for g in groups])),
        balanced_accuracy=float(np.mean([right[y == label].mean() for label in (0, 1)])),
        favourable=float(chances.mean()),
    )


def chances_of(model: Any, rows: AuditData) -> npt.NDArray[np.floating]:
    """Decisions as 0 and 1, or the chances of those that are drawn."""
    drawn = (
        model.postprocessing.decides
        if isinstance(model, PostprocessedModel)
        else getattr(getattr(model, "module", None), "decision_seed", None) is not None
    )
    if drawn:
        return np.asarray(model.predict_proba(rows.X)[:, 1], np.float64)
    return np.asarray(model.decisions(rows), np.float64)


def ours(name: str, plain: TorchModel, of: Split, seed: int, data: str) -> Iterator[Point]:
    """The models of one of our methods, one for each setting."""
    for options in OURS[name][1]:
        setting = ", ".join(f"{k}={v}" for k, v in options.items()) or "default"
        started = time.process_time()
        try:
            made = MITIGATIONS[name](**options).mitigate(plain, of.train, np.random.default_rng(seed), Training()).model
        except AuditorError as error:
            yield Point(data, seed, name, setting, time.process_time() - started, None, None, str(error))
            continue
        spent = time.process_time() - started
        both = [shown(chances_of(made, rows), rows) for rows in (of.validation, of.test)]
        yield Point(data, seed, name, setting, spent, both[0], both[1])


def theirs(name: str, plain: TorchModel, of: Split, seed: int, data: str) -> Iterator[Point]:
    """The models of a peer."""
    made = PEERS[name](plain, of, seed)
    while True:
        started = time.process_time()
        try:
            setting, v, t = next(made)
        except StopIteration:
            return
        except (ValueError, RuntimeError) as error:
            yield Point(data, seed, name, "failed", time.process_time() - started, None, None, str(error))
            return
        spent = time.process_time() - started
        yield Point(data, seed, name, setting, spent, shown(v, of.validation), shown(t, of.test))


# ---- figures -------------------------------------------------------------------------------------------------------


def hypervolume(points: Sequence[Point], plain: Point, aim: Aim) -> float:
    """Over 0.05 x the plain gap, of the points that no other beats on the validation rows; 0 without any."""
    assert plain.test is not None
    least = gap_of(plain.test, aim)
    scale, floor = ACCURACY_LOST * least, plain.test.accuracy - ACCURACY_LOST
    made = [(p.validation, p.test) for p in points if p.validation is not None and p.test is not None]

    def beats(a: Shown, b: Shown) -> bool:
        return a.accuracy >= b.accuracy and gap_of(a, aim) <= gap_of(b, aim) and a != b

    kept = [t for v, t in made if not any(beats(w, v) for w, _ in made)]
    area = 0.0
    for point in sorted(kept, key=lambda p: -p.accuracy):
        if point.accuracy > floor and gap_of(point, aim) < least:
            area += (point.accuracy - floor) * (least - gap_of(point, aim))
            least = gap_of(point, aim)
    return area / scale if scale else 0.0


def gap_of(at: Shown, aim: Aim) -> float:
    """The gap that the aim is about."""
    return at.equalized_odds if aim == EO else at.demographic_parity


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % t-interval."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, -np.inf, np.inf
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def against_nothing(points: Sequence[Point], plains: dict[int, Point], aim: Aim) -> dict[str, object]:
    """Of the default setting: how gap and accuracy change, and what that shows."""
    made = [p for p in points if p.test is not None]
    if not made:
        return {"verdict": "refused", "why": points[0].refused}
    gaps, accuracies = [], []
    for p in made:
        before = plains[p.seed].test
        assert p.test is not None and before is not None
        gaps.append(gap_of(p.test, aim) - gap_of(before, aim))
        accuracies.append(p.test.accuracy - before.accuracy)
    gap, accuracy = interval(gaps), interval(accuracies)
    smaller = gap[2] < 0.0
    if accuracy[0] < -MARGIN:
        verdict = "cost" if gap[0] < -WIDER else "worse"
    else:
        verdict = "worse" if gap[0] > WIDER else "better" if smaller else "equal"
    return {
        "verdict": verdict,
        "gap": f"{gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}]",
        "accuracy": f"{accuracy[0]:+.3f} [{accuracy[1]:+.3f}, {accuracy[2]:+.3f}]",
        "favourable": round(statistics.mean(p.test.favourable for p in made if p.test), 3),
        "seconds": round(statistics.mean(p.seconds for p in made), 2),
        "refused": len(points) - len(made),
    }


def summary(points: Sequence[Point]) -> dict[str, Any]:
    """All figures, by data set."""
    found: dict[str, Any] = {}
    for data in dict.fromkeys(p.data for p in points):
        of: dict[str, list[Point]] = defaultdict(list)
        for p in points:
            if p.data == data:
                of[p.family].append(p)
        plains = {p.seed: p for p in of.pop("nothing")}
        volumes: dict[tuple[str, Aim], list[float]] = {}
        nothing: dict[str, Any] = {}
        for family, made in of.items():
            for aim in (EO, DP):
                volumes[family, aim] = [
                    hypervolume([p for p in made if p.seed == s], plain, aim) for s, plain in plains.items()
                ]
            first = made[0].setting
            nothing[family] = against_nothing([p for p in made if p.setting == first], plains, aim_of(family))
        found[data] = {
            "seeds": sorted(plains),
            "plain": {aim: statistics.mean(gap_of(p.test, aim) for p in plains.values() if p.test) for aim in (EO, DP)}
            | {"accuracy": statistics.mean(p.test.accuracy for p in plains.values() if p.test)},
            "against_nothing": nothing,
            "hypervolume": {family: round(statistics.mean(volumes[family, aim_of(family)]), 3) for family in of},
            "against_peers": {
                f"{name} / {peer}": compared(volumes[name, aim], volumes[peer, aim])
                for name, (aim, _, peers) in OURS.items()
                for peer in peers
                if name in of and peer in of
            },
            "best": {aim: best(volumes, aim) for aim in (EO, DP)},
        }
    return found


def aim_of(family: str) -> Aim:
    """What a method is for."""
    return OURS[family][0] if family in OURS else DP if family in PEERS_FOR_PARITY else EO


def compared(mine: Sequence[float], peer: Sequence[float]) -> str:
    """Means, their ratio, and what the paired differences show."""
    difference = interval([a - b for a, b in zip(mine, peer, strict=True)])
    word = "better" if difference[1] > 0.0 else "worse" if difference[2] < 0.0 else "equal"
    a, b = statistics.mean(mine), statistics.mean(peer)
    return f"{word}: {a:.3f} / {b:.3f} = {a / b if b else np.inf:.2f}"


def best(volumes: dict[tuple[str, Aim], list[float]], aim: Aim) -> str:
    """The method of ours, and the peer, with the largest mean hypervolume for an aim, and how they compare."""
    sides = []
    for mine in (True, False):
        held = {f: v for (f, a), v in volumes.items() if a == aim and (f in OURS) == mine}
        if not held:
            return ""
        sides.append(max(held, key=lambda f: statistics.mean(held[f])))
    return f"{sides[0]} against {sides[1]}: {compared(volumes[sides[0], aim], volumes[sides[1], aim])}"


# ---- what mitigations say of themselves -----------------------------------------------------------------------------

TITLES = {"adult": "Adult", "compas": "COMPAS", "law_school": "law school", "cps": "CPS", "hmda": "HMDA"}
VERDICTS = ("better", "equal", "worse", "cost", "refused")


def experience(found: dict[str, Any], day: date) -> dict[str, dict[str, Any]]:
    """Of a summary, the tables of ``mitigations/experience.toml``, by method."""
    tables: dict[str, dict[str, Any]] = {}
    for name, (aim, _, peers) in OURS.items():
        sets = [data for data, of in found.items() if name in of["against_nothing"]]
        if not sets:
            continue
        n = max(len(found[data]["seeds"]) for data in sets)
        when = f"{aim.replace('_', ' ')}, {day.day} {day:%B %Y}, {n} seed{'s' if n > 1 else ''}"
        tables[name] = {"when": when, **by_verdict({d: found[d]["against_nothing"][name]["verdict"] for d in sets})}
        sentences = []
        for peer in peers:
            maker, _, method = peer.partition(" ")
            told = {data: found[data]["against_peers"].get(f"{name} / {peer}", "").partition(":")[0] for data in sets}
            if words := [f"{word} on {', '.join(where)}" for word, where in by_verdict(told).items()]:
                sentences.append(f"Beside {maker}'s {method}: {'; '.join(words)}")
        if sentences:
            tables[name]["peers"] = sentences
    return tables


def by_verdict(verdicts: dict[str, str]) -> dict[str, list[str]]:
    """The titles of the data sets of each verdict, without those that there are none of."""
    found = {word: [TITLES[data] for data, each in verdicts.items() if each == word] for word in VERDICTS}
    return {word: where for word, where in found.items() if where}


def write_experience(path: Path, tables: dict[str, dict[str, Any]]) -> None:
    """Write tables into the file, instead of those of the same methods; the comment at its top stays."""
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    comment = "".join(line for line in before.splitlines(keepends=True) if line.startswith("#"))
    # What JSON says of texts and lists of them is TOML.
    blocks = [
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in table.items())
        for name, table in (tomllib.loads(before) | tables).items()
    ]
    path.write_text("\n".join([*([comment] if comment else []), *blocks]), encoding="utf-8")


# ---- running -------------------------------------------------------------------------------------------------------


def read(path: Path | None) -> list[Point]:
    """The points of an earlier run; the last line may be half written."""
    if path is None or not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            raw = json.loads(line)
        except json.JSONDecodeError:
            continue
        sides = {k: None if raw[k] is None else Shown(**raw[k]) for k in ("validation", "test")}
        found.append(Point(**raw | sides))
    return found


def points_of(data: str, seed: int, done: set[str], families: Sequence[str], source: Any) -> Iterator[list[Point]]:
    """The points of each method that is not done yet."""
    missing = [f for f in ("nothing", *families) if f not in done]
    if not missing:
        return
    of = fairness_data.split(source(), seed)
    plain = plain_mlp(of, fairness_data.RECIPES.get(data, fairness_data.RECIPE), seed)
    for family in missing:
        if family == "nothing":
            both = [shown(chances_of(plain, rows), rows) for rows in (of.validation, of.test)]
            yield [Point(data, seed, family, "default", 0.0, both[0], both[1])]
        else:
            yield list((ours if family in OURS else theirs)(family, plain, of, seed, data))


def argument(name: str) -> str | None:
    """What follows a flag on the command line."""
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else None


def main() -> None:
    """Runs the comparison and prints it."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    tuning = "--chosen-on" in sys.argv
    sets = fairness_data.CHOSEN_ON if tuning else fairness_data.REPORTED
    wanted, only = argument("--data"), argument("--only")
    families = only.split(",") if only else [*OURS, *PEERS]
    out = None if (where := argument("--out")) is None else Path(where)
    if (file := argument("--experience")) is not None and tuning:
        sys.exit("--experience is of the data sets that nothing was chosen on: leave out --chosen-on.")
    points = read(out)
    # Splits that nothing was chosen on either.
    seeds = range(100, 100 + int(argument("--seeds") or 3)) if tuning else range(int(argument("--seeds") or 5))
    for seed in seeds:
        for data, source in sets.items():
            if wanted and data not in wanted.split(","):
                continue
            done = {p.family for p in points if (p.data, p.seed) == (data, seed)}
            for made in points_of(data, seed, done, families, source):
                points += made
                if out is not None:
                    with out.open("a") as lines:
                        lines.write("".join(json.dumps(asdict(p)) + "\n" for p in made))
                spent = sum(p.seconds for p in made)
                print(f"{data} seed {seed}: {made[0].family} {spent:.1f} s", file=sys.stderr, flush=True)
    found = summary(points)
    if file is not None:
        write_experience(Path(file), experience(found, date.today()))
    print(json.dumps({"machine": machine(), "threads": 1, "data": found}, indent=1))


if __name__ == "__main__":
    main()
