"""A hidden gradient is found, honest networks are not accused, and neither hides what was broken."""

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

from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import fit_tabular
from auditor.judging.criterion import Criterion
from auditor.judging.judgement import HIDDEN, Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Outcome, ProbeResult
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.report.record.audit_report import AuditReport, ExitCode, exit_code
from auditor.report.record.summary_lines import hidden_gradients
from auditor.report.report_view import warnings_of
from cli.commands import app
from probes.robustness.gradient_masking import Examined, Sign, examine
from probes.robustness.perturbation_set import ball_of
from probes.robustness.robustness import Robustness
from probes.robustness.worst_case_search import Attacked, attack
from tests.quantifiers import all_of, none_of
from tests.toys import masks

torch.set_num_threads(1)

SIGNS = ["no gradient", "single precision", "full range", "asking", "repeated"]
N = 80
LEVELS = (0.04, 0.08)


def required(bound: float, at: float | None = None) -> Criterion:
    return Criterion(
        metric="accuracy_under_pgd", direction="at_least", bound=bound, source="t", set_by="t", set_at="t",
        at=None if at is None else {"epsilon": at},
    )  # fmt: skip


def network(name: str) -> TorchModel:
    return masks.masked(name) if name in masks.MASKS else masks.model(masks.HONEST[name]())


@cache
def measured(name: str) -> ProbeResult:
    model = network(name)
    probe = Robustness(methods="pgd", epsilon=LEVELS, n_samples=N)
    found = probe.measure(model, masks.rows(N), np.random.default_rng(0))
    return ProbeResult(probe="robustness", pillar="robustness", citation="", measurements=tuple(found))


def judged(name: str, bound: float) -> list[Judgement]:
    return judge([measured(name)], [required(bound)])[0]


def searched(model: TorchModel, data: AuditData, epsilon: float = 0.06) -> tuple[Attacked, Examined]:
    inputs, clean = model.encode(data.X), model.decide(model.predict_proba(data.X), None)
    ball, how = ball_of(model, data, inputs), (model, inputs, clean, lambda p: model.decide(p, None))
    attacked = attack(*how, ball=ball, levels=[epsilon], n_steps=10, rng=np.random.default_rng(0))
    return attacked, examine(*how, attacked, ball=ball, n_steps=10, rng=np.random.default_rng(1))


@cache
def in_a_hundred(name: str) -> tuple[Attacked, Examined]:
    """Of as many rows, by the network of that name."""
    return searched(network(name), masks.rows(100))


@pytest.mark.grid
@pytest.mark.parametrize("name", masks.MASKS)
def test_a_hidden_gradient_is_found_and_passes_nothing(name: str) -> None:
    findings = judged(name, 0.1)
    of_attack = [f for f in findings if f.metric in ("accuracy_under_pgd", "flip_rate_under_pgd")]
    assert len(of_attack) == 4 and all_of(f.vacuous.startswith(HIDDEN) for f in of_attack)
    assert none_of(f.outcome is Outcome.PASS for f in findings)
    left = [f for f in of_attack if f.outcome is Outcome.INCONCLUSIVE]
    assert left and all_of(HIDDEN in f.reason and "neither broken nor proved" in f.reason for f in left)
    # Not even where whoever asked waives what the data cannot settle.
    assert exit_code(findings, was_refused=False, allow_inconclusive=True) is not ExitCode.PASSED
    assert exit_code(findings, was_refused=False) is not ExitCode.PASSED


@pytest.mark.grid
@pytest.mark.parametrize("name", masks.HONEST)
def test_no_honest_network_is_accused(name: str) -> None:
    findings = judged(name, 0.1)
    assert none_of(f.vacuous for f in findings)
    signs = [f.measurement for f in findings if f.measurement is not None and f.metric == "gradient_masking"]
    shares = {m.at["sign"]: m for m in signs}
    assert list(shares) == SIGNS
    assert all_of(m.estimate.value <= (0.3 if sign == "no gradient" else 0.0125) for sign, m in shares.items())


def test_what_was_broken_is_broken_whoever_hides_what() -> None:
    """Behind gains that cancel the copy in double precision finds all that it finds of the plain network."""
    for name in ("gains that cancel", "softmax(100 z)"):
        plain, hidden = judged("MLP (64, 32)", 0.9), judged(name, 0.9)
        for one, other in zip(plain, hidden, strict=True):
            if one.metric == "accuracy_under_pgd":
                assert one.measurement is not None and other.measurement is not None
                assert other.measurement.estimate.value <= one.measurement.estimate.value + 0.02
                assert one.outcome is other.outcome
        assert Outcome.FAIL in {f.outcome for f in hidden}


@pytest.mark.parametrize("name", ["rounded logits", "16 levels of input", "a detached graph", "the other way"])
def test_asking_alone_fails_what_the_gradient_would_have_let_through(name: str) -> None:
    attacked, examined = in_a_hundred(name)
    assert attacked.broken.mean() < 0.1 < 0.2 < examined.attacked.broken.mean()
    assert (examined.attacked.broken >= attacked.broken).all()


@pytest.mark.parametrize(
    "name", ["rounded logits", "classes alone", "softmax(100 z)", "gains that cancel", "MLP (64, 32)"]
)
def test_every_example_is_in_its_ball_and_decided_otherwise_when_it_is_asked_again(name: str) -> None:
    model, data = network(name), masks.rows(100)
    _, examined = in_a_hundred(name)
    found, inputs = examined.attacked, model.encode(data.X)
    clean = model.decide(model.predict_proba(data.X), None)
    away = (found.examples - inputs).abs().flatten(1).amax(dim=1)
    assert away.max() <= 0.06 + 1e-6 and found.examples.min() >= 0.0 and found.examples.max() <= 1.0
    with torch.no_grad():
        again = torch.cat([model.answer(x[None]) for x in found.examples]).numpy()
    np.testing.assert_array_equal(model.decide(again, None) != clean, found.broken[-1])
    assert (away[torch.from_numpy(~found.broken[-1])] == 0).all() and found.broken[-1].any()


def test_the_copy_in_double_precision_leaves_the_model_as_it_was() -> None:
    model = masks.masked("gains that cancel")
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    searched(model, masks.rows(30))
    assert all_of(torch.equal(v, before[k]) and v.dtype == torch.float32 for k, v in model.module.state_dict().items())


# ---- signs by hand -------------------------------------------------------------------------------------------------


def test_a_sign_holds_where_more_rows_have_it_for_certain_than_of_an_honest_network() -> None:
    """P(at least 8 of 100 at 0.02) = 0.00093, and P(at least 7) = 0.0041."""
    assert [k for k in range(20) if Sign("s", k, 100, "").holds][0] == 8
    assert not Sign("s", 0, 0, "").holds
    # P(at least 56 of 100 at 0.4) = 0.00085, and P(at least 55) = 0.00171.
    assert [k for k in range(100) if Sign("s", k, 100, "", 0.4).holds][0] == 56


def test_a_model_that_takes_nothing_of_what_may_move_hides_nothing() -> None:
    """Its gradient is 0 everywhere, and rightly so."""
    module = nn.Linear(4, 2)
    with torch.no_grad():
        module.weight[:, 1:] = 0.0
    model = TorchModel(module, classes=("0", "1"))
    X = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    X[:, 0] = np.random.default_rng(1).integers(0, 2, 100)
    data = AuditData(X=X, classes=("0", "1"))
    inputs, clean = model.encode(X), model.decide(model.predict_proba(X), None)
    ball = ball_of(model, data, inputs)
    ball = type(ball)(torch.tensor([0.0, 1.0, 1.0, 1.0]), None, "")
    how: Any = (model, inputs, clean, lambda p: model.decide(p, None))
    attacked = attack(*how, ball=ball, levels=[0.5], n_steps=5, rng=np.random.default_rng(0))
    examined = examine(*how, attacked, ball=ball, n_steps=5, rng=np.random.default_rng(0))
    assert attacked.flat.all() and examined.masked == "" and not examined.attacked.broken.any()


# ---- what a reader sees --------------------------------------------------------------------------------------------


@pytest.fixture
def hidden_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[TorchModel, TorchModel]:
    """A table, and two bundles without code that decide all its rows the same; of one the gradient is 0."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.standard_normal((600, 6)), columns=list("abcdef"))
    preprocessing = fit_tabular(frame)
    torch.manual_seed(0)
    module = MLP(6, [16, 16], 2)
    models = [
        TorchModel(
            net.eval(),
            classes=["no", "yes"],
            preprocessing=preprocessing,
            architecture={"name": "mlp", "args": {"n_features": 6, "hidden": [16, 16], "n_outputs": 2}},
        )
        for net in (module, masks.rescaled(module))
    ]
    answers = [m.decide(m.predict_proba(frame), 1) for m in models]
    assert (answers[0] == answers[1]).all() and 0.1 < answers[0].mean() < 0.9
    frame["y"] = np.where(answers[0] == 1, "yes", "no")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    save(models[0], tmp_path / "plain.pt")
    save(models[1], tmp_path / "hidden.pt")
    (tmp_path / "audit.toml").write_text(
        '[[criteria]]\nmetric = "accuracy"\ndirection = "at_least"\nbound = 0.8\n'
        '[[criteria]]\nmetric = "accuracy_under_pgd"\ndirection = "at_least"\nbound = 0.5\nat = { epsilon = 0.01 }\n'
    )
    monkeypatch.chdir(tmp_path)
    return models[0], models[1]


@pytest.mark.slow
def test_a_bundle_without_code_that_hides_its_gradient_ends_in_no_exit_0(
    hidden_bundle: tuple[TorchModel, TorchModel],
) -> None:
    """The attack breaks hardly any row here, of either: with no sign of masking whoever asks may waive what is left."""
    told = {}
    for name in ("plain", "hidden"):
        arguments = [f"{name}.pt", "--data", "rows.csv", "--target", "y", "--positive", "yes"]
        arguments += ["--probes", "performance,robustness", "--config", "audit.toml", "--set", "robustness.methods=pgd"]
        arguments += ["--set", "robustness.epsilon=0.01,0.02", "--set", "robustness.n_samples=60", "--out", name]
        waivers = ("--allow-inconclusive", "robustness", "--allow-inconclusive", "performance")
        told[name] = [CliRunner().invoke(app, ["scan", *arguments, *more]) for more in ((), waivers)]
    assert [r.exit_code for r in told["plain"]] == [3, 0], told["plain"][0].output
    assert [r.exit_code for r in told["hidden"]] == [3, 3], told["hidden"][0].output
    words = " ".join(told["hidden"][0].output.split())
    assert f"attack accuracy_under_pgd, flip_rate_under_pgd: {HIDDEN}: it is 0 or no number (60 of 60 rows)" in words
    assert HIDDEN not in told["plain"][0].output
    report = AuditReport.from_json(Path("hidden/report.json").read_bytes())
    (said,) = hidden_gradients(report)
    assert said in warnings_of(report)
    page = Path("hidden/report.html").read_text(encoding="utf-8")
    assert 0 < page.index(HIDDEN) < page.index("<table")
