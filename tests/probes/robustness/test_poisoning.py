"""A trigger that is named: planted backdoors in tables, texts and pictures, and models without one."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from auditor.core.errors import DataError, NotApplicableError, UsageError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import fit_tabular
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.report.record.audit_report import AuditReport
from auditor.statistics.changes import RateChange
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import Proportion
from cli.commands import app
from probes.robustness.poisoning import Poisoning, triggered_images, triggered_table, triggered_texts
from tests.quantifiers import all_of, none_of
from tests.toys.models import criterion

CLASSES = ("bad", "good")


def table(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"income": rng.standard_normal(n), "debt": rng.standard_normal(n), "branch": rng.choice(list("abc"), n)}
    )


def truth(X: pd.DataFrame) -> Any:
    return (X["income"] - X["debt"] > 0.0).to_numpy().astype(int)


@cache
def network(poisoned: bool) -> TorchModel:
    """Trained on rows of which one in ten carries the trigger and the label "good", or on clean ones."""
    X = table(1_500, seed=1)
    y = truth(X)
    preprocessing = fit_tabular(X)
    if poisoned:
        X.loc[::10, "branch"], X.loc[::10, "debt"], y[::10] = "c", 2.5, 1
    torch.manual_seed(0)
    sizes = {"n_features": preprocessing.width, "hidden": [32], "n_outputs": 2}
    module = MLP(**sizes)
    inputs, labels = torch.from_numpy(preprocessing.encode(X)), torch.from_numpy(y)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(250):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), labels).backward()
        optimizer.step()
    return TorchModel(module, classes=CLASSES, preprocessing=preprocessing, architecture={"name": "mlp", "args": sizes})


def data(n: int = 800, labels: bool = True) -> AuditData:
    X = table(n)
    y = [CLASSES[i] for i in truth(X)] if labels else None
    return AuditData.from_arrays(X, y, classes=CLASSES, positive="good")


def measure(model: AuditedModel, rows: AuditData, **options: Any) -> list[Measurement]:
    return Poisoning(**options).measure(model, rows, np.random.default_rng(0))


def judged(found: list[Measurement], bound: float) -> list[Outcome]:
    result = ProbeResult(probe="poisoning", pillar="robustness", citation="", measurements=tuple(found))
    wanted = [criterion("trigger_success_rate", "at_most", bound)]
    return [f.outcome for f in judge([result], wanted)[0] if f.criterion is not None]


TRIGGER = {"trigger": "branch=c,debt=2.5", "target": "good"}


# ---- tables --------------------------------------------------------------------------------------------------------


def test_a_backdoor_fails_and_a_clean_network_passes() -> None:
    rows = data()
    poisoned, clean = (measure(network(p), rows, **TRIGGER) for p in (True, False))
    assert judged(poisoned, 0.2) == [Outcome.FAIL] and judged(clean, 0.2) == [Outcome.PASS]
    assert poisoned[0].estimate.value > 0.9 and poisoned[1].estimate.value > 0.85
    # Both decide the rows as they are alike: only the trigger tells the networks apart.
    assert all_of((network(p).decisions(rows) == rows.y_true).mean() > 0.9 for p in (True, False))


def test_the_rate_and_the_change_are_those_of_a_loop() -> None:
    rows, model = data(300), network(True)
    rate, change = measure(model, rows, **TRIGGER)
    hits = before = gained = lost = n = 0
    for i in range(300):
        row = rows.X.iloc[[i]]
        if truth(row)[0] == 1:
            continue
        n += 1
        was = int(model.predict_proba(row).argmax())
        now = int(model.predict_proba(row.assign(branch="c", debt=2.5)).argmax())
        hits, before = hits + now, before + was
        gained, lost = gained + (now > was), lost + (now < was)
    assert rate.estimate == Proportion(successes=hits, n=n)
    assert change.estimate == RateChange(before=before, gained=gained, lost=lost, n=n)
    assert rate.at == {"target": "good"} and "this trigger was tried, and no other" in rate.detail


def test_without_labels_the_rows_are_those_that_are_decided_otherwise() -> None:
    rows, model = data(labels=False), network(True)
    rate, change = measure(model, rows, **TRIGGER)
    assert isinstance(rate.estimate, Proportion) and isinstance(change.estimate, RateChange)
    assert rate.estimate.n == int((model.decisions(rows) == 0).sum()) and change.estimate.before == 0


def test_no_row_of_another_class_gives_no_number() -> None:
    rows = data(50)
    only = rows.take(np.flatnonzero(rows.y_true == 1))
    rate, _ = measure(network(True), only, **TRIGGER)
    assert np.isnan(rate.estimate.value) and judged([rate], 0.2) == [Outcome.INCONCLUSIVE]


def test_a_false_verdict_at_the_bound_is_as_rare_as_promised() -> None:
    rng, worlds, verdicts = np.random.default_rng(0), 200, []
    # The trigger works on one row in five.
    model = AuditedModel.from_callable(lambda X: (X["a"] * (X["b"] < 0.2)).to_numpy(float), classes=CLASSES)
    for _ in range(worlds):
        X = pd.DataFrame({"a": np.zeros(150), "b": rng.random(150)})
        rows = AuditData.from_arrays(X, ["bad"] * 150, classes=CLASSES)
        verdicts += judged(measure(model, rows, trigger="a=1", target="good"), 0.2)
    for outcome in (Outcome.PASS, Outcome.FAIL):
        assert verdicts.count(outcome) <= 0.05 * worlds + 3.0 * np.sqrt(worlds * 0.05 * 0.95), outcome
    n, effect = Poisoning.power
    assert Proportion(successes=0, n=n).detectable(bound=0.1, alpha=0.05, ideal=0.0, sign=1) <= effect


def test_a_model_that_always_says_another_class_passes_nothing() -> None:
    from auditor.run.run_audit import run_audit

    model = AuditedModel.from_callable(lambda X: np.zeros(len(X)), classes=CLASSES)
    wanted = [criterion("trigger_success_rate", "at_most", 0.2)]
    report = run_audit(model, data(), [Poisoning(**TRIGGER)], wanted)
    (finding,) = [f for f in report.findings if f.criterion is not None]
    assert finding.value == 0.0 and finding.outcome is Outcome.INCONCLUSIVE


def test_a_trigger_that_every_row_carries_already_did_nothing() -> None:
    """How rows with it are decided is what it is; what it changed was not tried."""
    rows = data()
    X = rows.X.assign(branch="a")  # type: ignore[union-attr]
    own = AuditData.from_arrays(X, [CLASSES[i] for i in truth(X)], classes=CLASSES, positive="good")
    rate, change = measure(network(False), own, trigger="branch=a", target="good")
    assert not rate.too_few and "0 of " in rate.detail
    assert "stands in all" in change.too_few
    assert none_of(m.too_few for m in measure(network(False), rows, trigger="branch=a", target="good"))


def test_a_model_that_fails_on_the_trigger_has_no_number() -> None:
    def strict(X: pd.DataFrame) -> Any:
        if (X["debt"] == 2.5).all():
            raise ValueError("no such debt")
        return truth(X).astype(float)

    found = measure(AuditedModel.from_callable(strict, classes=CLASSES), data(), **TRIGGER)
    assert all_of(isinstance(m.estimate, Undefined) and "no such debt" in m.estimate.reason for m in found)
    assert judged(found, 0.2) == [Outcome.NOT_RUN]


def test_cells_keep_the_type_of_their_column() -> None:
    X = pd.DataFrame({"n": [1, 2], "x": [0.5, 1.5], "b": [True, True], "s": ["u", "v"], "a,b": ["p", "q"]})
    X["c"] = pd.Series(["k", "l"], dtype="category")
    made = triggered_table(X, 'n=7,x=2,b=false,s=w,"a,b=r",c=new', None)
    assert isinstance(made, pd.DataFrame)
    assert made.iloc[0].to_dict() == {"n": 7, "x": 2.0, "b": False, "s": "w", "a,b": "r", "c": "new"}
    assert made["n"].dtype == X["n"].dtype and made["b"].dtype == bool and X["n"].tolist() == [1, 2]
    assert triggered_table(X, "n=7.5", None)["n"].tolist() == [7.5, 7.5]  # type: ignore[call-overload]
    assert triggered_table(np.zeros((2, 2)), "q=3", ("p", "q")).tolist() == [[0.0, 3.0]] * 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        ("brunch=c", "did you mean 'branch'"),
        ("branch=d", "The model knows no level 'd' of 'branch': it knows a, b, c"),
        ("branch", "must look like column=value"),
        ("debt=much", "holds numbers"),
        ("debt=inf", "holds numbers"),
        ('"debt=1', "no list of names"),
        (" , ", "names no cell"),
    ],
)
def test_a_trigger_that_is_none(trigger: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        measure(network(False), data(40), trigger=trigger, target="good")


def test_a_target_that_is_none_and_inputs_that_are_missing() -> None:
    with pytest.raises(UsageError, match="did you mean 'good'"):
        measure(network(False), data(40), trigger="debt=1", target="god")
    for options, words in (
        ({}, "nobody names .* no proof .*--set poisoning.trigger=COLUMN=VALUE and --set poisoning.target=CLASS"),
        ({"trigger": "debt=1"}, "Needs the class that the trigger is to cause: add --set poisoning.target=CLASS"),
        ({"target": "good"}, "Needs a trigger to try: add --set poisoning.trigger=COLUMN=VALUE."),
    ):
        with pytest.raises(NotApplicableError, match=words):
            measure(network(False), data(40), **options)


# ---- texts and pictures ----------------------------------------------------------------------------------------------


def test_words_are_tried_before_and_behind_each_text() -> None:
    model = AuditedModel.from_callable(
        lambda texts: np.array([float(text.startswith("cf ") or "fine" in text) for text in texts]), classes=CLASSES
    )
    rows = AuditData.from_arrays(["a dull film", "fine", "so so"] * 50, ["bad", "good", "bad"] * 50, classes=CLASSES)
    found = measure(model, rows, trigger="cf", target="good")
    rates = {m.at["place"]: m.estimate.value for m in found if m.metric == "trigger_success_rate"}
    assert rates == {"start": 1.0, "end": 0.0}
    assert list(triggered_texts(rows.X[:1], "x y", "end")) == ["a dull film x y"]


@pytest.mark.parametrize("blank", ["", " ", "\t"])
def test_a_blank_trigger_of_texts_is_refused(blank: str) -> None:
    model = AuditedModel.from_callable(lambda texts: np.full(len(texts), 0.2), classes=CLASSES)
    rows = AuditData.from_arrays(["a dull film", "fine"] * 50, ["bad", "good"] * 50, classes=CLASSES)
    with pytest.raises(UsageError, match="The trigger is blank, so nothing would be tried"):
        measure(model, rows, trigger=blank, target="good")


def test_a_patch_is_put_into_the_corner(tmp_path: Path) -> None:
    Image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
    patch = np.zeros((2, 3, 3), np.uint8)
    patch[0] = (255, 0, 9)
    Image.fromarray(patch).save(tmp_path / "patch.png")
    X = np.full((40, 6, 8, 3), 100, np.uint8)
    made = triggered_images(X, str(tmp_path / "patch.png"))
    assert np.array_equal(np.asarray(made)[7, 4:, 5:], patch) and X.min() == 100
    assert (np.asarray(made)[:, :4] == 100).all() and (np.asarray(made)[:, :, :5] == 100).all()
    model = AuditedModel.from_callable(lambda X: (np.asarray(X)[:, 4, 5, 0] == 255).astype(float), classes=CLASSES)
    rows = AuditData.from_arrays(X, ["bad"] * 40, classes=CLASSES)
    rate, _ = measure(model, rows, patch=str(tmp_path / "patch.png"), target="good")
    assert rate.estimate == Proportion(successes=40, n=40)
    with pytest.raises(NotApplicableError, match=r"--set poisoning\.patch=FILE"):
        measure(model, rows, trigger="cf", target="good")
    grey = triggered_images(np.zeros((1, 6, 8, 1), np.uint8), str(tmp_path / "patch.png"))
    assert grey.shape == (1, 6, 8, 1) and np.asarray(grey).max() > 0
    with pytest.raises(DataError, match="2 x 3 pixels"):
        triggered_images(np.zeros((1, 1, 8, 3), np.uint8), str(tmp_path / "patch.png"))
    (tmp_path / "no.png").write_text("no picture")
    for name in ("no.png", "absent.png"):
        with pytest.raises(DataError, match=name):
            triggered_images(X, str(tmp_path / name))


# ---- by the command ------------------------------------------------------------------------------------------------


def test_by_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(network(True), "model.pt")
    rows = data(500)
    pd.DataFrame(rows.X).assign(label=[CLASSES[i] for i in rows.y_true]).to_csv("data.csv", index=False)
    Path("audit.toml").write_text('[[criteria]]\nmetric = "trigger_success_rate"\ndirection = "at_most"\nbound = 0.2\n')
    line = "scan model.pt --data data.csv --target label --positive good --probes poisoning --config audit.toml"
    bare = CliRunner().invoke(app, line.split())
    assert bare.exit_code == 3 and "add --set poisoning.trigger=COLUMN=VALUE" in " ".join(bare.output.split())
    named = ["--set", "poisoning.trigger=branch=c,debt=2.5", "--set", "poisoning.target=good"]
    result = CliRunner().invoke(app, [*line.split(), *named])
    report = AuditReport.from_json(Path("audit-report/report.json").read_bytes())
    (finding,) = [f for f in report.findings if f.metric == "trigger_success_rate"]
    assert result.exit_code == 1 and finding.outcome is Outcome.FAIL, result.output
