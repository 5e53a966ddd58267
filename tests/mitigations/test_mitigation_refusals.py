"""What no mitigation can do, said in a sentence before anything is trained: wrong options, models and rows."""

from __future__ import annotations

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch

from auditor.core.errors import ConfigError, DataError, ModelError
from auditor.data.audit_data import AuditData
from auditor.models.regression_model import TorchRegressor
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Training, make_mitigation
from mitigations import MITIGATIONS
from tests.mitigations.planted_rows import biased_rows, trained

TRAINED = [
    "adversarial_debiasing", "balanced_resampling", "correlation_remover", "counterfactual_augmentation", "dp_sgd",
    "exponentiated_gradient", "fair_gan", "grid_search", "group_dro", "min_diff", "reweighing",
]  # fmt: skip
POST = ["group_calibration", "reject_option", "threshold_optimizer"]


@pytest.fixture(scope="module")
def rows() -> AuditData:
    return biased_rows(200, 1)


@pytest.fixture(scope="module")
def model(rows: AuditData) -> TorchModel:
    return trained(rows, epochs=1)


def refused(name: str, model: object, rows: AuditData, kind: type[Exception], said: str) -> None:
    def never(words: str) -> None:
        raise AssertionError(f"trained: {words}")

    with pytest.raises(kind, match=said):
        MITIGATIONS[name]().mitigate(model, rows, np.random.default_rng(0), Training(progress=never))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "option", "value", "said"),
    [
        ("dp_sgd", "epsilon", 0, "epsilon must be a positive number, not 0"),
        ("dp_sgd", "epsilon", -1.0, "epsilon must be a positive number"),
        ("dp_sgd", "epsilon", math.nan, "epsilon must be a positive number"),
        ("dp_sgd", "epsilon", "three", "epsilon must be a number, not 'three'"),
        ("dp_sgd", "epsilon", None, "epsilon must be a number, not None"),
        ("dp_sgd", "epsilon", True, "epsilon must be a number, not True"),
        ("dp_sgd", "noise_seed", -1, "noise_seed must be 0 or more"),
        ("adversarial_debiasing", "epochs", 2.5, "epochs must be a whole number, not 2.5"),
        ("min_diff", "batch_size", "7", "batch_size must be a whole number, not '7'"),
        ("counterfactual_augmentation", "control_arm", "no", "control_arm must be true or false, not 'no'"),
        ("counterfactual_augmentation", "learning_rate", math.inf, "learning_rate must be a positive number"),
        ("preference_tuning", "pairs", 3, "pairs must be a text, not 3"),
    ],
)
def test_a_value_of_an_option_is_refused_by_its_kind(name: str, option: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_mitigation(MITIGATIONS[name], {option: value})


def test_values_of_the_right_kind_are_taken() -> None:
    for name, options in (
        ("dp_sgd", {"epsilon": 1, "delta": None, "epochs": 3}),
        ("counterfactual_augmentation", {"categories": ["gender"], "copies": 2, "impute": True}),
        ("adversarial_debiasing", {"alpha": np.float32(0.5), "epochs": np.int64(3), "constraint": "equalized_odds"}),
    ):
        made = make_mitigation(MITIGATIONS[name], options)
        assert {key: getattr(made, key) for key in options} == options


# Deprecated, and still what people have files of.
@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
@pytest.mark.parametrize("name", TRAINED)
def test_a_program_of_torchscript_is_not_trained(name: str, rows: AuditData) -> None:
    program = torch.jit.trace(torch.nn.Linear(4, 2), torch.zeros(2, 4))
    x = np.random.default_rng(0).normal(size=(len(rows), 4)).astype(np.float32)
    data = AuditData.from_arrays(
        pd.DataFrame(x, columns=list("abcd")), rows.y_true, classes=[0, 1], positive=1,
        sensitive_features=rows.sensitive_features,
    )  # fmt: skip
    instead = "train a network privately" if name == "dp_sgd" else "use threshold_optimizer"
    refused(name, TorchModel(program, classes=[0, 1]), data, ModelError, f"only predicts: {instead}")


@pytest.mark.parametrize("name", [*TRAINED, *POST])
def test_a_model_that_predicts_a_number_is_sent_elsewhere(name: str, rows: AuditData) -> None:
    other = TorchRegressor(torch.nn.Linear(3, 1))
    refused(name, other, rows, ModelError, "is for classifiers, and this is a regressor")


@pytest.mark.parametrize("name", [*TRAINED, *POST])
def test_rows_without_a_label_are_said_to_be_none(name: str, model: TorchModel, rows: AuditData) -> None:
    none = rows.take(np.zeros(0, np.int64))
    refused(name, model, none, DataError, "row has a label: fill the target column")


def test_what_is_trained_anew_only_wants_to_know_how(model: TorchModel, rows: AuditData) -> None:
    bare = TorchModel(model.module, classes=[0, 1], preprocessing=model.preprocessing, architecture=model.architecture)
    refused("fair_gan", bare, rows, ModelError, r"save it with recipe=Recipe\(\.\.\.\)\): use reweighing")


def test_a_network_that_cannot_be_made_anew_is_sent_to_what_trains_on(model: TorchModel, rows: AuditData) -> None:
    own = TorchModel(
        copy.deepcopy(model.module), classes=[0, 1], preprocessing=model.preprocessing, recipe=model.recipe
    )
    refused("fair_gan", own, rows, ModelError, "use reweighing, which trains any torch network, from its own weights")
    made = MITIGATIONS["reweighing"](epochs=1).mitigate(own, rows, np.random.default_rng(0), Training())
    assert not torch.equal(
        *(torch.cat([p.detach().reshape(-1) for p in m.module.parameters()]) for m in (own, made.model))  # type: ignore[attr-defined]
    )
