"""Weights beside those of a reference: planted changes of layers, files of either kind, and models without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from typer.testing import CliRunner

from auditor.core.errors import ModelError, NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import NumericColumn, TabularPreprocessing
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.report.record.audit_report import AuditReport
from auditor.run.run_audit import no_data
from auditor.statistics.estimate import Exact, Undefined
from cli.commands import app
from probes.robustness.weight_changes import WeightChanges, changes
from tests.quantifiers import all_of
from tests.toys.models import criterion

SIZES = {"n_features": 3, "hidden": [4], "n_outputs": 2}


def network(seed: int = 0) -> TorchModel:
    torch.manual_seed(seed)
    columns = tuple(NumericColumn(name=name) for name in "abc")
    return TorchModel(
        MLP(**SIZES),
        classes=["no", "yes"],
        preprocessing=TabularPreprocessing(columns=columns),
        architecture={"name": "mlp", "args": SIZES},
    )


def measure(
    model: AuditedModel, reference: Any, rows: AuditData | None = None
) -> dict[tuple[str, object], Measurement]:
    found = WeightChanges(reference=reference).measure(model, rows or no_data(), np.random.default_rng(0))
    return {(m.metric, m.at.get("layer")): m for m in found}


def saved(model: TorchModel, path: Path) -> TorchModel:
    save(model, path)
    loaded = load_model(ModelSpec(path=str(path)))
    assert isinstance(loaded, TorchModel)
    return loaded


def test_the_same_file_has_changed_nowhere(tmp_path: Path) -> None:
    model = saved(network(), tmp_path / "m.pt")
    found = measure(model, str(tmp_path / "m.pt"))
    assert set(found) == {("digest_changed", None), ("changed_weight_share", None)}
    assert all_of(m.estimate == Exact(known=0.0) for m in found.values())


def test_a_layer_that_was_changed_is_named_with_how_far(tmp_path: Path) -> None:
    saved(network(), tmp_path / "before.pt")
    other = network()
    with torch.no_grad():
        other.module.layers[2].weight[1, :2] += 0.5
    now = saved(other, tmp_path / "now.pt")
    found = measure(now, str(tmp_path / "before.pt"))
    w, w0 = (m.module.layers[2].weight.detach().double().numpy() for m in (now, network()))
    away = np.sqrt(((w - w0) ** 2).sum()) / max(np.sqrt((w**2).sum()), np.sqrt((w0**2).sum()))
    assert found["digest_changed", None].estimate == Exact(known=1.0)
    share = found["changed_weight_share", None]
    assert share.estimate == Exact(known=2 / 26) and "1 of 4 tensors differ (layers.2.weight)" in share.detail
    assert found["weight_change", "layers.2.weight"].estimate.value == pytest.approx(away)
    assert len(found) == 3 and "2 of 8 weights" in found["weight_change", "layers.2.weight"].detail


def test_a_requirement_of_unchanged_weights() -> None:
    for other, outcome in ((network(), Outcome.PASS), (network(1), Outcome.FAIL)):
        result = ProbeResult(
            probe="weight_changes",
            pillar="robustness",
            citation="",
            measurements=tuple(measure(network(), other).values()),
        )
        wanted = [criterion("changed_weight_share", "at_most", 0.0)]
        assert [f.outcome for f in judge([result], wanted)[0] if f.criterion] == [outcome]


@pytest.mark.parametrize("form", ["safetensors", "state_dict"])
def test_weights_alone_are_a_reference(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"weights.{form}"
    state = {name: tensor.clone() for name, tensor in network().module.state_dict().items()}
    state["layers.0.bias"] += 1.0
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    found = measure(network(), str(path))
    assert found["changed_weight_share", None].estimate == Exact(known=4 / 26)
    assert ("weight_change", "layers.0.bias") in found and len(found) == 2


def test_a_reference_that_would_run_code_is_refused(tmp_path: Path) -> None:
    import pickle

    class Calls:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path(tmp_path / "ran").touch, ())

    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"w": Calls()}))
    with pytest.raises(ModelError):
        measure(network(), str(tmp_path / "bad.pkl"))
    assert not (tmp_path / "ran").exists()


def test_tensors_without_counterpart_have_changed_whole() -> None:
    now = {"a": torch.ones(3), "b": torch.ones(2, 2), "new": torch.ones(5)}
    before = {"a": torch.ones(3), "b": torch.ones(2, 3), "old": torch.ones(7)}
    found = changes(now, before)
    assert (found.changed, found.n, found.unmatched) == (6 + 5 + 7, 21, ("b", "new", "old"))
    assert "3 have no counterpart of their shape (b, new, old)" in found.describe()


def test_weights_that_are_no_numbers() -> None:
    nan, ones = torch.tensor([np.nan, 1.0]), torch.ones(2)
    assert changes({"a": nan}, {"a": nan.clone()}).changed == 0
    model, other = network(), network()
    with torch.no_grad():
        other.module.layers[0].weight[0, 0] = np.nan
    layer = measure(other, model)["weight_change", "layers.0.weight"]
    assert isinstance(layer.estimate, Undefined) and changes({"a": nan}, {"a": ones}).changed == 1


def test_at_most_twenty_layers_are_listed_the_most_changed_first() -> None:
    names = [f"l{i:02}" for i in range(30)]
    now = {name: torch.full((4,), 1.0 + i) for i, name in enumerate(names, 1)}
    before = {name: torch.ones(4) for name in names}
    assert [layer.name for layer in changes(now, before).layers][:2] == ["l29", "l28"]

    class Many(torch.nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.parts = torch.nn.ParameterList([torch.full((2,), 1.0 + by * i) for i in range(30)])

    one, two = (TorchModel(Many(by), classes=["0", "1"]) for by in (0.0, 1.0))
    found = measure(one, two)
    assert sum(metric == "weight_change" for metric, _ in found) == 20
    assert found["changed_weight_share", None].estimate == Exact(known=29 / 30)


def test_without_a_reference_and_without_anything_to_compare() -> None:
    with pytest.raises(NotApplicableError, match="add --reference MODEL"):
        measure(network(), None)
    plain = AuditedModel.from_callable(lambda X: np.zeros(len(X)), classes=["no", "yes"])
    with pytest.raises(NotApplicableError, match="weights, or a file"):
        measure(plain, network())


def test_by_the_command_without_any_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(network(), "before.pt")
    save(network(1), "now.pt")
    Path("audit.toml").write_text('[[criteria]]\nmetric = "digest_changed"\ndirection = "at_most"\nbound = 0.5\n')
    line = "scan now.pt --reference before.pt --probes weight-changes --config audit.toml"
    result = CliRunner().invoke(app, line.split())
    report = AuditReport.from_json(Path("audit-report/report.json").read_bytes())
    assert {f.metric: f.outcome for f in report.findings}["digest_changed"] is Outcome.FAIL
    assert result.exit_code == 1, result.output
