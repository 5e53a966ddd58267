"""Models that decide by a group on rows as they come, and show a coin to whoever perturbs rows; and honest ones.

The scaffolding of Slack, Hilgard, Jia, Singh and Lakkaraju, "Fooling LIME and SHAP", AIES 2020: a detector tells rows
with features exchanged from real ones, and chooses between two faces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from auditor.data.audit_data import AuditData
from auditor.models.audited_model import AuditedModel

Floats = npt.NDArray[np.float64]
Kind = Literal["lookup", "radius", "trees", "forest", "imputed"]
COIN = "coin"
# Share of real rows that a learnt detector is made to take for real, whatever else it takes for real then.
SEEN = 0.88


@dataclass(frozen=True, eq=False, kw_only=True)
class World:
    """Rows in numbers with their label; ``group`` is the column that an adversary decides by."""

    name: str
    train: pd.DataFrame
    test: pd.DataFrame
    labels: npt.NDArray[np.int64]
    test_labels: npt.NDArray[np.int64]
    group: str

    def data(self) -> AuditData:
        """The rows to audit, with their groups."""
        return AuditData.from_arrays(
            self.test,
            np.asarray(["no", "yes"])[self.test_labels],
            classes=["no", "yes"],
            positive="yes",
            sensitive_features=self.test[[self.group]].astype(str),
        )


def world(name: str, frame: pd.DataFrame, labels: npt.ArrayLike, group: str, rng: np.random.Generator) -> World:
    """Half the rows to train on and half to audit, text as codes, and a coin that decides nothing beside them."""
    coded = pd.DataFrame(
        {c: pd.factorize(v)[0] if v.dtype.kind not in "iufb" else v.fillna(v.median()) for c, v in frame.items()}
    ).astype(float)
    coded[COIN] = rng.integers(0, 2, len(coded)).astype(float)
    y = np.asarray(labels, np.int64)
    order = rng.permutation(len(coded))
    one, other = order[: len(order) // 2], order[len(order) // 2 :]
    return World(
        name=name,
        train=coded.iloc[one].reset_index(drop=True),
        test=coded.iloc[other].reset_index(drop=True),
        labels=y[one],
        test_labels=y[other],
        group=group,
    )


def generated(n: int = 1600, seed: int = 0) -> World:
    """Eight columns that hang together, as those of people do: what is exchanged alone is out of place."""
    rng = np.random.default_rng(seed)
    age, means = rng.normal(size=(2, n))
    race = (rng.random(n) < 0.35).astype(float)
    columns: dict[str, Floats] = {"race": race}
    for j in range(8):
        tied = (age, means, 0.7 * age + 0.7 * means, 0.7 * age - 0.7 * means)[j % 4]
        columns[f"x{j}"] = tied + rng.normal(0.0, 0.25, n)
    y = means + 0.5 * age - 0.4 * race + rng.normal(0.0, 0.5, n) > 0.0
    return world("generated", pd.DataFrame(columns), y, "race", rng)


# ---- adversaries -----------------------------------------------------------------------------------------------------


def exchanged(rows: Floats, rng: np.random.Generator, times: int = 4) -> Floats:
    """Each row several times with some of its features, few or many, from another row."""
    base = np.tile(rows, (times, 1))
    gone = rng.random(base.shape) < rng.random((len(base), 1))
    gone[np.arange(len(base)), rng.integers(base.shape[1], size=len(base))] = True
    return np.where(gone, rows[rng.integers(len(rows), size=len(base))], base)


def by_neighbours(rows: Floats, rng: np.random.Generator, n_near: int = 10) -> Floats:
    """Each row with some features of a row that is near it."""
    from sklearn.neighbors import NearestNeighbors

    scaled = rows / np.maximum(rows.std(axis=0), 1e-9)
    near = NearestNeighbors(n_neighbors=n_near + 1).fit(scaled).kneighbors(scaled, return_distance=False)[:, 1:]
    donors = rows[near[np.arange(len(rows)), rng.integers(n_near, size=len(rows))]]
    gone = rng.random(rows.shape) < rng.random((len(rows), 1))
    return np.where(gone, donors, rows)


def is_real(kind: Kind, world: World, rng: np.random.Generator) -> Callable[[Floats], npt.NDArray[np.bool_]]:
    """Whether rows are as they come, as each adversary tells it.

    lookup: the audited rows themselves, by heart; radius: near a row that is known; trees, forest: learnt, as Slack et
    al. do; imputed: a forest that takes rows with values of their neighbours for real.
    """
    from scipy.spatial import KDTree
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

    rows = world.train.to_numpy()
    if kind == "lookup":
        known = {row.tobytes() for row in world.test.to_numpy()}
        return lambda X: np.asarray([np.ascontiguousarray(row).tobytes() in known for row in X], bool)
    if kind == "radius":
        scale = np.maximum(rows.std(axis=0), 1e-9)
        near = KDTree(rows / scale)
        limit = float(np.quantile(near.query(rows / scale, k=2)[0][:, 1], SEEN))
        # Beyond the limit nobody looks.
        beyond = float(np.nextafter(limit, np.inf))
        return lambda X: np.isfinite(near.query(X / scale, distance_upper_bound=beyond)[0])
    held = np.arange(len(rows)) % 5 == 0
    learnt = rows[~held]
    fakes = exchanged(learnt, rng)
    reals = np.concatenate([learnt, by_neighbours(learnt, rng)]) if kind == "imputed" else learnt
    X = np.concatenate([reals, fakes])
    y = np.arange(len(X)) < len(reals)
    if kind == "trees":
        detector = HistGradientBoostingClassifier(max_iter=60, random_state=0, class_weight="balanced")
    else:
        detector = RandomForestClassifier(60, min_samples_leaf=2, class_weight="balanced", random_state=0, n_jobs=1)
    detector.fit(X, y)

    def chance(X: Floats) -> Floats:
        if kind == "trees":
            return np.asarray(detector.predict_proba(X)[:, 1], np.float64)
        # The forest's own answer, without what it makes ready for each of thousands of small questions.
        few = np.ascontiguousarray(X, np.float32)
        return np.asarray(np.mean([one.tree_.predict(few)[:, 1] for one in detector.estimators_], axis=0), np.float64)

    limit = float(np.quantile(chance(rows[held]), 1.0 - SEEN))
    return lambda X: chance(X) >= limit


def scaffold(
    kind: Kind, world: World, rng: np.random.Generator, *, by: Callable[[pd.DataFrame], Any] | None = None
) -> AuditedModel:
    """Refuses a group, or what ``by`` says, on rows that look real, and tosses the coin on the others."""
    real = is_real(kind, world, rng)
    names = list(world.test.columns)
    favoured = float(world.train[world.group].mode()[0])

    def predict(X: Any) -> Floats:
        rows = pd.DataFrame(np.asarray(X, float), columns=names)
        own = rows[world.group] == favoured if by is None else by(rows)
        yes = np.where(real(rows.to_numpy()), own, rows[COIN] > 0.5)
        return np.stack([~yes, yes], axis=1) * 0.9 + 0.05

    return AuditedModel.from_callable(predict, classes=["no", "yes"], features=names)


# ---- honest models ---------------------------------------------------------------------------------------------------


def _linear() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _trees() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=0)


def _forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(60, random_state=0, n_jobs=1)


def _mlp() -> Any:
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), MLPClassifier((32, 32), early_stopping=True, max_iter=200, random_state=0))


ESTIMATORS: Mapping[str, Callable[[], Any]] = {"linear": _linear, "trees": _trees, "forest": _forest, "mlp": _mlp}


def honest(kind: str, world: World, labels: npt.NDArray[np.int64] | None = None) -> AuditedModel:
    """A model that learnt the labels, or others in their place, and has one face."""
    fitted = ESTIMATORS[kind]().fit(world.train.to_numpy(), world.labels if labels is None else labels)
    return AuditedModel.from_callable(
        lambda X: fitted.predict_proba(np.asarray(X, float)), classes=["no", "yes"], features=list(world.test.columns)
    )


def network(world: World, seed: int = 0) -> AuditedModel:
    """The same as a network that can be differentiated."""
    import torch
    from torch import nn

    from auditor.models.torch_model import TorchModel

    rows = torch.from_numpy(world.train.to_numpy()).float()
    y = torch.from_numpy(world.labels)
    centre, scale = rows.mean(0), rows.std(0).clamp_min(1e-6)
    first = nn.Linear(rows.shape[1], rows.shape[1])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(
            first, nn.Linear(rows.shape[1], 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)
        )
        with torch.no_grad():
            first.weight.copy_(torch.diag(1.0 / scale))
            first.bias.copy_(-centre / scale)
        for own in first.parameters():
            own.requires_grad_(False)
        optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=3e-3)
        for _ in range(400):
            some = torch.randint(len(rows), (256,))
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(rows[some]), y[some]).backward()
            optimizer.step()
    return TorchModel(module.eval(), classes=["no", "yes"])
