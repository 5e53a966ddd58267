"""Networks that others have placed are asked where they lie: spread by a device map, offloaded, of four bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from auditor.model.placement import device_of, moved, stays
from auditor.model.torch_model import TorchModel
from auditor.while_training.audit import TrainingAudit
from probes.fairness.group_fairness import GroupFairness
from probes.robustness.robustness import Robustness
from tests.while_training.worlds import network, rows


class Pinned(nn.Sequential):
    """What transformers and bitsandbytes raise when somebody moves such a network."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        raise ValueError("`.to` is not supported for this model")


class Linear4bit(nn.Linear):
    """By its name one of bitsandbytes."""


def pinned(how: str) -> Pinned:
    model = Pinned(*network())
    if how == "device map":
        model.hf_device_map = {"": "cpu"}  # type: ignore[assignment]
    elif how == "layers":
        model[4] = Linear4bit(8, 2)
    elif how == "inside":
        model[4].is_loaded_in_4bit = True  # type: ignore[assignment]
    else:
        setattr(model, how, True)
    return model


WAYS = ["device map", "layers", "inside", "is_loaded_in_4bit", "is_loaded_in_8bit", "is_quantized"]


@pytest.mark.parametrize("how", WAYS)
def test_a_network_that_must_not_be_moved_is_audited_where_it_lies(how: str) -> None:
    model = pinned(how).train()
    assert stays(model) and moved(model, torch.device("meta")) is model
    audit = TrainingAudit(probes=[GroupFairness(), Robustness()], data=rows(200), n_peeks=1, max_overhead=None)
    audit.step(model)
    assert not audit.faults and model.training
    values = [m.estimate.value for m in audit.peeks[0].results[0].measurements if m.metric == "selection_rate"]
    selected = TorchModel(nn.Sequential(*model), classes=["0", "1"]) if how == "device map" else None
    assert len(values) == 2 and not stays(network())
    if selected is not None:
        decided = selected.predict_proba(np.asarray(rows(200).X)).argmax(axis=1)
        sex = np.asarray(rows(200).sensitive_features)[:, 0]
        assert sorted(values) == pytest.approx(sorted(decided[sex == g].mean() for g in ("f", "m")))


def test_any_other_network_is_moved() -> None:
    model = nn.Linear(2, 2)
    assert moved(model, torch.device("meta")) is model and device_of(model).type == "cpu"
    assert next(model.parameters()).device.type == "meta"


def test_what_accelerate_offloads_answers_as_it_did() -> None:
    accelerate = pytest.importorskip("accelerate", reason="needs the extra distributed")
    data = rows(300)

    def found(model: nn.Module) -> list[float]:
        audit = TrainingAudit(probes=[GroupFairness()], data=data, n_peeks=1, max_overhead=None)
        audit.step(model)
        assert not audit.faults
        return [m.estimate.value for m in audit.peeks[0].results[0].measurements]

    offloaded = accelerate.cpu_offload(network(), execution_device=torch.device("cpu"))
    assert {p.device.type for p in offloaded.parameters()} == {"meta"} and device_of(offloaded).type == "cpu"
    assert found(offloaded) == found(network())
    assert {p.device.type for p in offloaded.parameters()} == {"meta"}
