"""Bundles of tables with everything that an encoding can meet, and rules by group over them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from auditor.data.preprocessing import CategoricalColumn, NumericColumn, TabularPreprocessing
from auditor.models.audited_model import AuditedModel
from auditor.models.networks.architectures import MLP, MLPVote
from auditor.models.output_kind import Outputs
from auditor.models.postprocessing import (
    GroupRule,
    IsotonicMap,
    PlattScaling,
    PostprocessedModel,
    Postprocessing,
    Steps,
)
from auditor.models.torch_model import TorchModel
from auditor.run.api import load_model

ENCODING = TabularPreprocessing(
    columns=(
        NumericColumn(name="age", mean=41.7, scale=13.3, impute=38.0),
        CategoricalColumn(name="job code", levels=("10", "clerk", "True", "2")),
        NumericColumn(name="gain", mean=1e6 / 3, scale=7e5),
        CategoricalColumn(name="owner", levels=("True", "False")),
        CategoricalColumn(name="sex", levels=("f", "m")),
        NumericColumn(name="zone", mean=2.0, scale=0.7),
    )
)


def rows(n: int = 900, *, spelled: bool = True) -> pd.DataFrame:
    """A table with missing values, unseen levels and columns that the model does not take; ``spelled``: and levels
    under several spellings."""
    rng = np.random.default_rng(3)
    jobs = ["10", "clerk", "True", "2", "unseen", "10.5", "clerk "]
    jobs += ["10.0", "TRUE", "true", "2.000", "02", "-2.0", "10.0.0"] if spelled else []
    table = pd.DataFrame(
        {
            "note": rng.choice(["x", "y"], n),
            "age": rng.normal(40, 12, n),
            "job code": rng.choice(jobs, n),
            "gain": rng.integers(0, 2 * 10**6, n),
            "owner": rng.choice(["True", "False"], n),
            "sex": rng.choice(["f", "m", "d"], n),
            "zone": rng.choice([1.0, 2.0, 3.5], n),
            "region": rng.choice(["north", "south", "7"], n),
        }
    )
    for name in ("age", "job code", "owner", "sex", "zone", "region"):
        table[name] = table[name].mask(pd.Series(rng.random(n) < 0.1))
    return table


def network(kind: str) -> tuple[nn.Module, Outputs]:
    """A network of a kind with weights that decide both ways, and what it returns."""
    width = ENCODING.width
    with torch.random.fork_rng():
        torch.manual_seed(5)
        if kind == "vote":
            vote = MLPVote(4, width, (8,), 1, threshold=0.5)
            vote.weights.copy_(torch.tensor([0.3, 0.2, 0.25, 0.1, 0.05]))
            found: nn.Module = vote
        elif kind == "one number":
            found = MLP(width, (16,), 1)
        elif kind == "three classes":
            found = MLP(width, (16, 8), 3)
        elif kind == "own":
            found = nn.Sequential(
                nn.Linear(width, 12, bias=False), nn.BatchNorm1d(12), nn.GELU(), nn.Linear(12, 9), nn.Tanh(),
                nn.Dropout(0.5), nn.Linear(9, 8), nn.SiLU(), nn.Linear(8, 7), nn.LeakyReLU(0.1), nn.Linear(7, 6),
                nn.ELU(), nn.Linear(6, 6), nn.SELU(), nn.Linear(6, 6), nn.Softplus(), nn.Linear(6, 2), nn.Sigmoid(),
                nn.Linear(2, 2),
            )  # fmt: skip
            batch_norm = found[1]
            assert isinstance(batch_norm, nn.BatchNorm1d) and batch_norm.running_var is not None
            batch_norm.running_var.uniform_(0.5, 2.0)
        else:
            found = MLP(width, (16, 8), 2)
    with torch.no_grad():
        last = [m for m in found.modules() if isinstance(m, nn.Linear)][-1]
        if kind != "vote":
            # About as many rows on either side.
            encoded = torch.from_numpy(ENCODING.encode(rows()))
            last.bias -= found.eval()(encoded).median(dim=0).values
            last.weight *= 12.0
            last.bias *= 12.0
    return found, "probabilities" if kind == "vote" else "logits"


def bundle(kind: str = "plain", threshold: float = 0.5) -> TorchModel:
    """A classifier of the planted rows."""
    module, outputs = network(kind)
    arguments = {"n_features": ENCODING.width, "hidden": [16, 8], "n_outputs": 2}
    return TorchModel(
        module,
        architecture={"name": "mlp", "args": arguments} if kind == "plain" else None,
        classes=("mid", "high", "low") if kind == "three classes" else ("yes", "no"),
        preprocessing=ENCODING,
        outputs=outputs,
        threshold=threshold,
    )


def steps(*cuts: float) -> Steps:
    """Chances 0 and 1 in turns."""
    return Steps(thresholds=cuts, chances=tuple(float(i % 2) for i in range(len(cuts) + 1)))


def group_rule(kind: str) -> Postprocessing:
    """A rule by group: of one column or of three, a number and a column that is no feature among them."""
    if kind == "thresholds":
        groups = (
            GroupRule(group=("f",), rule=steps(0.4)),
            GroupRule(group=("d",), rule=steps(0.2, 0.5, 0.7)),
            GroupRule(group=("(missing)",), rule=steps(0.55)),
        )
        return Postprocessing(columns=("sex",), positive=1, groups=groups, otherwise=steps(0.6))
    many = [
        (("f", "1", "north"), IsotonicMap(scores=(0.1, 0.45, 0.5, 0.8), values=(0.0, 0.4, 0.7, 0.9))),
        (("m", "3.5", "7"), PlattScaling(slope=1.3, intercept=-0.4)),
        (("(missing)", "(missing)", "south"), IsotonicMap(scores=(0.5,), values=(0.3,))),
        (("d", "2", "(missing)"), IsotonicMap(scores=(0.2, 0.9), values=(0.9, 0.95))),
    ]
    groups = tuple(GroupRule(group=group, rule=rule) for group, rule in many)
    return Postprocessing(
        columns=("sex", "zone", "region"), positive=0, groups=groups, otherwise=PlattScaling(slope=1.0, intercept=0.0)
    )


def ruled(kind: str, threshold: float = 0.5) -> AuditedModel:
    """The plain bundle under a rule by group."""
    return PostprocessedModel(bundle(threshold=threshold), group_rule(kind))


def converted(path: Path, opset: int, *, zipmap: bool, matrix: bool) -> AuditedModel:
    """A scikit-learn pipeline as a converter writes it, and as it is read."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    convert = pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    types = pytest.importorskip("skl2onnx.common.data_types", reason="skl2onnx is not installed")
    X = sold()
    y = np.where(X["age"] / 20 + X["gain"] + (X["sex"] == "f") > 4.0, "yes", "no")
    forest = RandomForestClassifier(7, max_depth=5, random_state=0)
    if matrix:
        own, initial = forest.fit(X[["age", "gain"]].to_numpy(), y), [("X", types.FloatTensorType([None, 2]))]
    else:
        encoder = ColumnTransformer([("sex", OneHotEncoder(handle_unknown="ignore"), ["sex"])], remainder="passthrough")
        own = make_pipeline(encoder, forest).fit(X, y)
        initial = [(name, types.FloatTensorType([None, 1])) for name in ("age", "gain")]
        initial.append(("sex", types.StringTensorType([None, 1])))
    made = convert.to_onnx(
        own, initial_types=initial, options={"zipmap": zipmap}, target_opset={"": opset, "ai.onnx.ml": 3}
    )
    path.write_bytes(made.SerializeToString())
    return load_model(path, features="age,gain" if matrix else None)


def sold(n: int = 600) -> pd.DataFrame:
    """The rows that it takes."""
    rng = np.random.default_rng(1)
    X = pd.DataFrame({"age": rng.normal(40, 12, n).astype(np.float32), "gain": rng.normal(2, 1, n).astype(np.float32)})
    return X.assign(sex=rng.choice(["f", "m"], n))
