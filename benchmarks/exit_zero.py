"""Of fair and good models: the share of whole default scans that exit 0, by kind, groups and rows.

Four models, each trained once on 20,000 rows whose groups mean nothing: about .8 true positives, .13 false ones, 42 %
positive labels. The boosted ones are regularised, since their library's defaults memorise: of gradient boosting's an
attack has an area of .57, which rightly FAILs. Every scan is of rows drawn anew, in this process, by ``auditor.scan``
with nothing but the groups named. That the command exits alike is shown by ``--command``, once for each model, at 1,000
and at 3,000 rows. A share has its exact interval of 95 %, and beside it what kept scans from exit 0.

``--train`` adds the training rows, and so the attacks on membership. Beside the whole scans: the fairness budget alone,
from counts that are drawn, at true positives .8, false ones .2 and 40 % positive labels.

``python -m benchmarks.exit_zero`` prints Markdown: ``--budget`` the budget alone, else ``--model NAME``, one or all.
"""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from auditor.judging.budgets import CONJUNCTION, DEFAULT_RATE
from auditor.statistics.groups import WorstDifference
from auditor.statistics.intervals import clopper_pearson
from auditor.statistics.rates import RateTable
from benchmarks.common import machine

GROUPS: dict[str, tuple[float, ...]] = {
    "2 equal": (0.5, 0.5),
    "90/10": (0.9, 0.1),
    "3 equal": (1 / 3, 1 / 3, 1 / 3),
    "60/30/10": (0.6, 0.3, 0.1),
    "8 equal": (1 / 8,) * 8,
}
ROWS = (1_000, 3_000, 10_000, 30_000, 100_000)
_WEIGHTS, TRAINING_ROWS = np.asarray([2.2, -1.6, 1.0, 0.6]), 20_000


# ---- the fairness budget alone -------------------------------------------------------------------------------------


def drawn_gaps(
    rng: np.random.Generator,
    shares: Sequence[float],
    rows: int,
    *,
    base: float = 0.4,
    rates: Sequence[float] = (0.8, 0.2),
) -> tuple[WorstDifference, WorstDifference]:
    """Demographic parity and equalized odds of groups that are all alike: ``rates`` of true and false positives."""
    n = rng.multinomial(rows, shares)
    positive = rng.binomial(n, base)
    true, false = rng.binomial(positive, rates[0]), rng.binomial(n - positive, rates[1])
    selected, odds_true, odds_false = (
        RateTable(rate=name, successes=tuple(k.tolist()), n=tuple(m.tolist()))
        for name, k, m in (
            ("selection_rate", true + false, n),
            ("true_positive_rate", true, positive),
            ("false_positive_rate", false, n - positive),
        )
    )
    return WorstDifference(tables=(selected,)), WorstDifference(tables=(odds_true, odds_false))


def budget_passes(gaps: Sequence[WorstDifference], bound: float = 0.10) -> bool:
    """Whether all gaps PASS as one claim, which is how the judge has a budget of which everything passes."""
    return all(gap.p_value(bound, "at_most") <= CONJUNCTION * DEFAULT_RATE for gap in gaps)


def budget_share(shares: Sequence[float], rows: int, worlds: int, seed: int = 0) -> float:
    """The share of worlds of the fairness budget that pass."""
    rng = np.random.default_rng((seed, rows, len(shares)))
    return sum(budget_passes(drawn_gaps(rng, shares, rows)) for _ in range(worlds)) / worlds


# ---- whole scans ---------------------------------------------------------------------------------------------------


def drawn_rows(rng: np.random.Generator, rows: int, shares: Sequence[float]) -> pd.DataFrame:
    """Four features, a label that depends on them, and a group that depends on nothing."""
    x = rng.normal(size=(rows, 4))
    label = rng.random(rows) < 1.0 / (1.0 + np.exp(0.6 - x @ _WEIGHTS))
    group = np.asarray([f"group {letter}" for letter in "ABCDEFGH"])[rng.choice(len(shares), rows, p=shares)]
    return pd.DataFrame(x, columns=list("abcd")).assign(group=group, y=label.astype(int))


def command(*arguments: str, folder: Path) -> int:
    """The exit code of the command."""
    words = [str(Path(sys.executable).with_name("auditor")), *arguments]
    return subprocess.run(words, cwd=folder, capture_output=True, check=False).returncode


def models(folder: Path, training: pd.DataFrame, asked: str) -> Iterator[tuple[str, Path, Any]]:
    """Name, file and the model itself, of all that have ``asked`` in their names: the files are the command's."""
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    from auditor import load_model

    for name, model in (
        ("logistic regression", LogisticRegression()),
        (
            "gradient boosting",
            GradientBoostingClassifier(max_depth=2, min_samples_leaf=200, subsample=0.5, random_state=0),
        ),
        (
            "LightGBM",
            LGBMClassifier(
                n_estimators=60,
                num_leaves=4,
                min_child_samples=200,
                subsample=0.5,
                subsample_freq=1,
                verbose=-1,
                random_state=0,
                n_jobs=1,
            ),  # fmt: skip
        ),
    ):
        if asked not in name:
            continue
        fitted = model.fit(training[list("abcd")], training["y"])
        path = folder / f"{name}.pkl"
        path.write_bytes(pickle.dumps(fitted))
        yield name, path, fitted
    if asked not in "MLP bundle":
        return
    training.to_csv(folder / "all.csv", index=False)
    of = ("--target", "y", "--positive", "1", "--drop", "group", "--test-share", "0.1", "--out", "mlp.pt")
    code = command("train", "all.csv", *of, "--train-out", "train.csv", "--test-out", "test.csv", folder=folder)
    if code:
        raise RuntimeError(f"auditor train ended with exit code {code}")
    yield "MLP bundle", folder / "mlp.pt", load_model(str(folder / "mlp.pt"))


def scan(model: Any, rows: pd.DataFrame, training: pd.DataFrame | None) -> tuple[int, list[str]]:
    """The exit code of a default scan, and what kept it from 0."""
    from auditor import scan as scanned

    train = None if training is None else (training[list("abcd")], training["y"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = scanned(
            model, rows[list("abcd")], rows["y"], sensitive_features=rows["group"], train=train, positive=1
        )
    kept = ("FAIL", "INCONCLUSIVE", "NOT_RUN")
    return report.exit_code, [
        f.id.split("/")[-2] if f.id.count("/") > 1 else f.id for f in report.findings if f.outcome.value in kept
    ]


@dataclass(frozen=True)
class Cell:
    """Whole scans of one model, and what kept how many of them from exit 0."""

    codes: Sequence[int]
    kept: Counter[str]

    @classmethod
    def of(
        cls, model: Any, rows: int, shares: Sequence[float], worlds: int, training: pd.DataFrame | None = None
    ) -> Cell:
        """Scans of so many worlds."""
        made = [
            scan(model, drawn_rows(np.random.default_rng((rows, w)), rows, shares), training) for w in range(worlds)
        ]
        return cls(codes=[code for code, _ in made], kept=Counter(why for code, found in made if code for why in found))

    @property
    def share(self) -> float:
        return self.codes.count(0) / len(self.codes)

    def __str__(self) -> str:
        zero, n = self.codes.count(0), len(self.codes)
        low, high = clopper_pearson([zero], n=n, alpha=0.025)
        failed = f", {self.codes.count(1)} exit 1" if 1 in self.codes else ""
        kept = "".join(f"; {why} {times}" for why, times in self.kept.most_common())
        return f"{zero} of {n} ({float(low[0]):.2f} to {float(high[0]):.2f}){failed}{kept}"


def agrees(path: Path, model: Any, folder: Path, rows: pd.DataFrame) -> bool:
    """Whether the command exits as the call does, of the same file and rows."""
    rows.to_csv(folder / "rows.csv", index=False)
    of = "--data rows.csv --target y --sensitive group --positive 1 --out report --force".split()
    pickled = ("--trust-pickle",) if path.suffix == ".pkl" else ()
    told = command("scan", path.name, *of, *pickled, folder=folder)
    ours = scan(model, rows, None)[0]
    print(f"{path.name}, {len(rows):,} rows: the command exits {told}, the call {ours}", flush=True)
    return told == ours


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=list(ROWS))
    parser.add_argument("--groups", nargs="+", default=list(GROUPS), choices=list(GROUPS))
    parser.add_argument("--times", type=int, default=20, help="scans, or worlds of the budget, of each cell")
    parser.add_argument("--model", default="", help="the only one to scan with")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--budget", action="store_true")
    parser.add_argument("--command", action="store_true", help="only hold the command's exit code to the call's")
    return parser.parse_args()


def table(head: str, sizes: Sequence[int], lines: Iterable[tuple[str, Iterator[str]]]) -> None:
    """Prints Markdown, cell by cell."""
    print(f"\n| {head} | " + " | ".join(f"{n:,}" for n in sizes) + " |\n| --- |" + " --- |" * len(sizes), flush=True)
    for name, cells in lines:
        print(f"| {name} |", end="", flush=True)
        for cell in cells:
            print(f" {cell} |", end="", flush=True)
        print(flush=True)


def main() -> None:
    """Prints a table."""
    asked, started = parsed(), time.process_time()
    print(machine())
    if asked.budget:
        table("fairness budget alone", asked.rows, (
            (name, (f"{budget_share(GROUPS[name], n, asked.times):.2f}" for n in asked.rows)) for name in asked.groups
        ))  # fmt: skip
    else:
        with tempfile.TemporaryDirectory() as made:
            scans_of(asked, Path(made))
    print(f"{time.process_time() - started:.0f} s of processor time, without the commands")


def scans_of(asked: argparse.Namespace, folder: Path) -> None:
    """Whole scans of every model and what kept them from exit 0; or, if asked, whether the command exits alike."""
    training = drawn_rows(np.random.default_rng(0), TRAINING_ROWS, GROUPS["2 equal"])
    chosen = list(models(folder, training, asked.model))
    if asked.command:
        for _, path, model in chosen:
            for n in (1_000, 3_000):
                assert agrees(path, model, folder, drawn_rows(np.random.default_rng(n), n, GROUPS["2 equal"]))
        return

    def cells(name: str, model: Any, shares: Sequence[float]) -> Iterator[str]:
        own = pd.read_csv(folder / "train.csv") if name == "MLP bundle" else training
        for n in asked.rows:
            yield str(Cell.of(model, n, shares, asked.times, own if asked.train else None))

    lines = (
        (f"{name}, {groups}", cells(name, model, GROUPS[groups]))
        for name, _, model in chosen
        for groups in asked.groups
    )
    table("whole scans with --train" if asked.train else "whole scans", asked.rows, lines)


if __name__ == "__main__":
    main()
