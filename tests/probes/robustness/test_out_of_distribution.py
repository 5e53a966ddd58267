"""Confidence about strange inputs: the rate and its interval, planted models, and what an attacker would try."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import norm
from typer.testing import CliRunner

from auditor.core.errors import DataError, NotApplicableError, UsageError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import ImagePreprocessing, fit_tabular
from auditor.judging.criterion import Criterion
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.networks.architectures import MLP, BiLSTMText, SmallCNN
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.report.record.audit_report import AuditReport
from auditor.run.run_audit import run_audit
from auditor.run.scan import probe_specs
from auditor.run.scan_options import flags
from auditor.statistics.rank_estimates import AreaUnderCurve, TruePositiveRateAt
from cli.commands import app
from cli.scan_request import configure
from probes import PROBES
from probes.performance.performance import Performance
from probes.robustness.out_of_distribution import OutOfDistribution, confident_ood_rate
from probes.robustness.out_of_distribution_inputs import makers
from tests.quantifiers import all_of, none_of
from tests.toys import models as toys
from tests.toys.words import fit_text

CLASSES = ("0", "1")


def at_most(bound: float, **more: Any) -> Criterion:
    return toys.criterion("confident_ood_rate", "at_most", bound, **more)


def table(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "x": rng.standard_normal(n),
            "y": 3.0 * rng.standard_normal(n),
            "children": rng.integers(0, 5, n),
            "job": rng.choice(["clerk", "cook", "nurse"], n),
        }
    )


def sure(X: pd.DataFrame) -> Any:
    """P(class 1) of a linear model, which is the surer the farther away it is asked."""
    return 1.0 / (1.0 + np.exp(-np.clip(3.0 * X["x"] - X["y"] / 3.0, -30, 30)))


def careful(X: pd.DataFrame) -> Any:
    """The same, but undecided wherever a number is none that it knows."""
    known = (X["x"].abs() < 5.0) & (X["y"].abs() < 15.0) & X["children"].between(0, 4)
    return np.where(known, sure(X), 0.5)


def data(n: int = 800, seed: int = 0, **more: Any) -> AuditData:
    X = table(n, seed)
    return AuditData.from_arrays(X, (sure(X) > 0.5).astype(int), classes=CLASSES, positive="1", **more)


def measure(predict: Callable[[Any], Any], rows: AuditData, seed: int = 0, **options: Any) -> list[Measurement]:
    model = AuditedModel.from_callable(predict, classes=CLASSES)
    return OutOfDistribution(**options).measure(model, rows, np.random.default_rng(seed))


def rates(found: list[Measurement], method: str = "msp") -> dict[object, float]:
    return {m.at["case"]: m.estimate.value for m in found if m.metric == "confident_ood_rate" and m.method == method}


def judged(found: list[Measurement], *criteria: Criterion) -> list[Outcome]:
    result = ProbeResult(probe="out_of_distribution", pillar="robustness", citation="", measurements=tuple(found))
    return [f.outcome for f in judge([result], criteria)[0] if f.criterion is not None]


# ---- the rate ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [8, 1, 0])
def test_the_rate_is_that_of_a_loop_over_thresholds(decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    for n, m in ((30, 40), (99, 20), (333, 50)):
        rows, strange = np.round(rng.standard_normal(n), decimals), np.round(rng.standard_normal(m) - 1.0, decimals)
        threshold = max(t for t in rows if np.mean(rows >= t) >= 0.95)
        estimate, _ = confident_ood_rate(rows=rows, strange=strange)
        assert estimate.value == np.mean(strange >= threshold)


def test_the_interval_holds_the_true_rate_with_the_threshold_estimated() -> None:
    rng = np.random.default_rng(0)
    worlds, alpha = 600, 0.05
    # Scores in steps of a fifth: equal ones are the rule, and the true rate is that of the grid.
    grid = np.arange(-40, 41) * 0.2
    for true_mean, decimals in ((-2.2, None), (-0.5, None), (-1.4, 0.2)):
        if decimals is None:
            threshold, truth = norm.ppf(0.05), norm.sf(norm.ppf(0.05), true_mean)
        else:
            reach = norm.sf(grid - 0.1)
            threshold = grid[np.flatnonzero(reach >= 0.95)[-1]]
            truth = norm.sf(threshold - 0.1, true_mean)
        low = high = 0
        for _ in range(worlds):
            rows, strange = rng.standard_normal(150), true_mean + rng.standard_normal(120)
            if decimals is not None:
                rows, strange = (np.round(s / 0.2) * 0.2 for s in (rows, strange))
            a, b = confident_ood_rate(rows=rows, strange=strange)[0].bounds(alpha)
            low, high = low + (a > truth + 1e-12), high + (b < truth - 1e-12)
        # Three standard errors above the promised 5 %.
        assert max(low, high) <= worlds * alpha + 3.0 * np.sqrt(worlds * alpha * 0.95), (true_mean, low, high)


def test_a_false_verdict_at_the_bound_is_as_rare_as_promised() -> None:
    rng, worlds = np.random.default_rng(1), 300
    truth = float(norm.sf(norm.ppf(0.05), -2.0))
    verdicts = []
    for _ in range(worlds):
        estimate, tied = confident_ood_rate(rows=rng.standard_normal(200), strange=rng.standard_normal(200) - 2.0)
        m = Measurement(metric="confident_ood_rate", estimate=estimate, n_samples=400, ideal=0.0, too_few=tied)
        verdicts += judged([m], at_most(truth))
    for outcome in (Outcome.PASS, Outcome.FAIL):
        assert verdicts.count(outcome) <= 0.05 * worlds + 3.0 * np.sqrt(worlds * 0.05 * 0.95), outcome


def test_a_fault_is_found() -> None:
    rng, found = np.random.default_rng(2), 0
    for _ in range(50):
        estimate, _ = confident_ood_rate(rows=rng.standard_normal(500), strange=rng.standard_normal(1_000) - 1.0)
        m = Measurement(metric="confident_ood_rate", estimate=estimate, n_samples=1_500, ideal=0.0)
        found += judged([m], at_most(0.5)) == [Outcome.FAIL]
    assert found >= 40


def test_too_few_rows_show_nothing_good() -> None:
    # With 0.95^58 > 5 % all of fewer than 59 rows may lie above the threshold, whatever the strange inputs do.
    for n in (2, 20, 58):
        estimate, _ = confident_ood_rate(rows=np.arange(n) + 1.0, strange=np.zeros(1_000))
        assert estimate.bounds(0.05)[1] == 1.0
    assert confident_ood_rate(rows=np.arange(59) + 1.0, strange=np.zeros(1_000))[0].bounds(0.05)[1] < 0.01


def test_equal_scores_count_as_confident_and_many_of_them_are_not_judged() -> None:
    estimate, tied = confident_ood_rate(rows=np.ones(300), strange=np.ones(200))
    assert estimate.value == 1.0 and "200 of the 200" in tied
    few, not_tied = confident_ood_rate(rows=np.ones(300), strange=np.r_[np.ones(5), np.zeros(195)])
    assert few.value == 5 / 200 and not not_tied


# ---- models --------------------------------------------------------------------------------------------------------


def test_a_careful_model_passes_where_a_sure_one_fails() -> None:
    rows = data()
    assert judged(measure(careful, rows, cases="far"), at_most(0.1)) == [Outcome.PASS]
    assert judged(measure(sure, rows, cases="far"), at_most(0.1)) == [Outcome.FAIL]
    areas = {m.at["case"]: m.estimate for m in measure(careful, rows) if m.metric == "ood_auroc"}
    assert isinstance(areas["far"], AreaUnderCurve) and areas["far"].value == 1.0


@pytest.mark.parametrize(
    "predict",
    [
        lambda X: np.full(len(X), 0.9),
        lambda X: (np.asarray(X["x"]) > 0).astype(int),
        lambda X: np.where(np.asarray(X["x"]) > 0, 1.0, 0.0),
    ],
    ids=["constant", "labels", "saturated"],
)
def test_a_model_without_degrees_of_confidence_neither_passes_nor_fails(predict: Callable[[Any], Any]) -> None:
    found = measure(predict, data(), cases=["far", "uniform"])
    assert set(judged(found, at_most(0.1))) == {Outcome.INCONCLUSIVE}
    assert all_of(value == 1.0 for value in rates(found).values())


def test_a_constant_network_passes_by_no_score() -> None:
    rows = data()
    preprocessing = fit_tabular(rows.X)
    torch.manual_seed(0)
    module = MLP(preprocessing.width, [16], 2)
    module.layers[2].weight.data.zero_()
    model = TorchModel(module, classes=CLASSES, preprocessing=preprocessing)
    probe = OutOfDistribution(cases="far")
    report = run_audit(model, rows, [Performance(), probe], [at_most(0.5)])
    found = [f for f in report.findings if f.metric == "confident_ood_rate"]
    assert {f.method for f in found} == {"msp", "energy", "mahalanobis", "knn"}
    # Its features see what is strange, and it makes nothing of them.
    assert min(f.value for f in found if f.value is not None) < 0.5
    assert none_of(f.outcome is Outcome.PASS for f in found)
    assert all_of(f.outcome is Outcome.INCONCLUSIVE for f in found if f.method in ("msp", "energy", "mahalanobis"))


def test_every_score_of_a_network_is_a_finding_of_its_own() -> None:
    rows = data()
    preprocessing = fit_tabular(rows.X)
    torch.manual_seed(0)
    model = TorchModel(MLP(preprocessing.width, [16], 2), classes=CLASSES, preprocessing=preprocessing)
    found = OutOfDistribution().measure(model, rows, np.random.default_rng(0))
    assert {(m.method, m.at["case"]) for m in found} == {
        (method, case) for method in OutOfDistribution.methods for case in ("permuted", "uniform", "far")
    }
    assert all_of(isinstance(m.estimate, TruePositiveRateAt) for m in found if m.metric == "confident_ood_rate")
    few = OutOfDistribution(methods=["knn"], cases="far").measure(model, rows, np.random.default_rng(0))
    own = [m for m in found if m.method == "knn" and m.at["case"] == "far"]
    assert [m.estimate for m in few] == [m.estimate for m in own]


def test_which_rows_set_the_threshold_no_seed_decides() -> None:
    rows = data()
    first, second = (measure(careful, rows, seed=seed, cases="far") for seed in (0, 1))
    kept = [m.estimate for m in first] + [m.estimate for m in second]
    shuffled = rows.take(np.random.default_rng(5).permutation(len(rows)))
    again = [m.estimate for m in measure(careful, shuffled, cases="far")]
    assert kept[0] == kept[2] and again[0] == kept[0]


def test_scores_are_fitted_on_training_rows_where_they_are_there() -> None:
    rows = data(900, is_member=np.arange(900) < 500)
    (rate, _) = measure(careful, rows, cases="far")
    assert isinstance(rate.estimate, TruePositiveRateAt) and rate.estimate.n_negative == 400
    assert "500 training rows" in rate.detail


# ---- strange inputs ------------------------------------------------------------------------------------------------


def test_strange_tables_keep_columns_and_types() -> None:
    X = table(300)
    X["flag"] = X["x"] > 0
    X["level"] = X["job"].astype("category")
    X["maybe"] = pd.Series([1, None, 3] * 100, dtype="Int64")
    rows = AuditData.from_arrays(X, classes=CLASSES)
    rng = np.random.default_rng(0)
    for name, make in makers(rows).items():
        made = make(500, rng)
        assert list(made.columns) == list(X.columns) and len(made) == 500
        assert set(made["job"]) <= set(X["job"]) and made["flag"].dtype == bool
        assert made["children"].dtype == np.int64 and made["level"].dtype == X["level"].dtype
        inside = made["children"].between(0, 4) & made["x"].between(X["x"].min(), X["x"].max())
        assert inside.all() if name != "far" else not inside.any(), name


def test_permuted_rows_keep_each_column_and_lose_what_binds_them() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(2_000)
    rows = AuditData.from_arrays(pd.DataFrame({"a": x, "b": -x}), classes=CLASSES)
    made = makers(rows)["permuted"](2_000, rng)
    assert abs(np.corrcoef(made["a"], made["b"])[0, 1]) < 0.1 and set(made["a"]) <= set(x)


def test_strange_pictures_and_sound() -> None:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 50, (6, 5, 7, 3)).astype(np.uint8)
    made = {name: make(4, rng) for name, make in makers(AuditData(X=pictures)).items()}
    assert set(made) == {"noise", "constant", "shuffled"}
    assert made["noise"].max() > 200 and all_of(m.shape == (4, 5, 7, 3) for m in made.values())
    assert all_of(len(np.unique(p.reshape(-1, 3), axis=0)) == 1 for p in made["constant"])
    known = {tuple(sorted(map(tuple, p.reshape(-1, 3)))) for p in pictures}
    assert all_of(tuple(sorted(map(tuple, p.reshape(-1, 3)))) in known for p in made["shuffled"])
    sound = makers(AuditData(X=rng.integers(-9, 9, (5, 400)).astype(np.int16)))
    assert set(sound) == {"noise", "shuffled"} and sound["shuffled"](3, rng).shape == (3, 400)


def test_strange_texts() -> None:
    texts = np.asarray(["a good film", "bad", "", "quite a long dull evening"], object)
    made = makers(AuditData(X=texts))
    rng = np.random.default_rng(0)
    words = {word for text in texts for word in text.split()}
    assert all_of(set(text.split()) <= words for text in made["shuffled"](30, rng))
    assert max(map(len, made["characters"](30, rng))) == 25


def test_a_network_of_texts() -> None:
    texts = [f"the {a} film was {b}" for a in ("old", "new", "long") for b in ("good", "bad", "dull", "fine")] * 10
    preprocessing = fit_text(texts, length=8)
    module = BiLSTMText(len(preprocessing.vocabulary) + 2, 2, 8, 8, 8)
    rows = AuditData.from_arrays(texts, [0, 1] * 60, classes=CLASSES)
    model = TorchModel(module, classes=CLASSES, preprocessing=preprocessing)
    found = OutOfDistribution(n_strange=50).measure(model, rows, np.random.default_rng(0))
    assert {m.at["case"] for m in found} == {"shuffled", "characters"} and {m.method for m in found} == set(
        OutOfDistribution.methods
    )


# ---- inputs of the user's ------------------------------------------------------------------------------------------


def test_given_inputs_are_those_that_are_not_among_the_rows(tmp_path: Path) -> None:
    rows = data()
    strange = table(60, seed=9).assign(x=80.0)
    pd.concat([strange, table(800).head(40), strange.head(1), strange.head(1)]).to_csv(
        tmp_path / "strange.csv", index=False
    )
    (rate, _) = measure(sure, rows, ood=str(tmp_path / "strange.csv"), cases="given")
    assert isinstance(rate.estimate, TruePositiveRateAt) and rate.estimate.n_positive == 60
    assert (
        rate.estimate.value == 1.0
        and "42 inputs that stand among the rows, or a second time, were left out" in rate.detail
    )


def test_rows_as_their_own_strange_inputs_are_refused(tmp_path: Path) -> None:
    table(800).to_csv(tmp_path / "same.csv", index=False)
    with pytest.raises(DataError, match="All 800 inputs of --ood stand among the rows too"):
        measure(sure, data(), ood=str(tmp_path / "same.csv"))


def test_inputs_like_the_rows_are_answered_as_they_are() -> None:
    (rate, _) = measure(sure, data(1_500), ood=table(1_000, seed=4), cases="given")
    low, high = rate.estimate.bounds(0.01)
    assert low <= 0.95 <= high and judged([rate], at_most(0.5)) == [Outcome.FAIL]


@pytest.mark.parametrize(
    ("content", "error", "words"),
    [
        ("x,y,children\n1,2,3\n", UsageError, "no column 'job'"),
        ("x,y,children,job\n", DataError, "no rows"),
        ("", DataError, "empty"),
    ],
)
def test_a_file_that_is_none_says_what_it_lacks(
    tmp_path: Path, content: str, error: type[Exception], words: str
) -> None:
    (tmp_path / "strange.csv").write_text(content)
    with pytest.raises(error, match=words):
        measure(sure, data(), ood=str(tmp_path / "strange.csv"))


def test_a_folder_for_a_table_and_no_inputs_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be a table"):
        measure(sure, data(), ood=str(tmp_path))
    with pytest.raises(DataError, match="none at all"):
        measure(sure, data(), ood=table(0))


def test_one_strange_input_shows_next_to_nothing() -> None:
    (rate, area) = measure(careful, data(), ood=table(1).assign(x=99.0), cases="given")
    assert rate.estimate.value == 0.0 and rate.estimate.bounds(0.05)[1] > 0.9
    assert judged([rate], at_most(0.1)) == [Outcome.INCONCLUSIVE] and area.estimate.kind == "undefined"


# ---- what may go wrong -----------------------------------------------------------------------------------------------


def strict(X: pd.DataFrame) -> Any:
    if (X["x"].abs() > 10.0).any():
        raise ValueError("x is out of range")
    return sure(X)


def test_an_input_that_is_refused_with_an_error_shows_nothing() -> None:
    strange = table(200, seed=3)
    strange.loc[:99, "x"] = 50.0
    (rate, area) = measure(strict, data(), ood=strange, cases="given")
    assert isinstance(rate.estimate, TruePositiveRateAt) and rate.estimate.n_positive == 100
    assert "refused 100 of 200 others, which are left out (ValueError: x is out of range)" in rate.detail
    assert rate.estimate.value > 0.85 and 0.4 < area.estimate.value < 0.6
    assert judged([rate], at_most(0.5)) == [Outcome.FAIL]


@pytest.mark.parametrize(
    "predict", [strict, lambda X: np.where(X["x"].abs() > 10.0, np.nan, sure(X))], ids=["error", "no number"]
)
def test_a_model_that_refuses_everything_strange_passes_nothing(predict: Callable[[Any], Any]) -> None:
    rate, area = measure(predict, data(), ood=table(80, seed=1).assign(x=99.0), cases="given")
    assert np.isnan(rate.estimate.value) and "refused 80 of 80" in rate.detail
    assert judged([rate], at_most(0.1)) == [Outcome.INCONCLUSIVE] and np.isnan(area.estimate.value)


def test_a_network_without_numbers_far_away_is_no_better() -> None:
    rows = toys.rows(400)
    model = toys.model(lambda skill, group, seen: skill / (skill.abs() < 20.0).float() * (skill.abs() < 20.0))
    rate, _ = OutOfDistribution(methods="msp", cases="far").measure(model, rows, np.random.default_rng(0))
    assert np.isnan(rate.estimate.value) and "refused 1,000 of 1,000 others" in rate.detail


def test_few_rows_and_a_model_that_is_not_there() -> None:
    with pytest.raises(NotApplicableError, match="at least 4 rows"):
        measure(sure, data(3))
    assert len(measure(sure, data(4))) == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"methods": "energy"}, "energy needs a network"),
        ({"cases": "given"}, "given needs"),
        ({"cases": "noise"}, "noise needs"),
    ],
)
def test_what_does_not_apply_says_so(options: dict[str, str], words: str) -> None:
    with pytest.raises(NotApplicableError, match=words):
        measure(sure, data(40), **options)


@pytest.mark.parametrize(
    "options", [{"methods": "best"}, {"cases": "near"}, {"k": 0}, {"n_strange": 1}, {"methods": []}]
)
def test_options_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        OutOfDistribution(**options)


# ---- by the command ------------------------------------------------------------------------------------------------


def test_by_the_command_with_a_requirement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    X = table(700)
    preprocessing = fit_tabular(X)
    module = MLP(preprocessing.width, [], 2)
    module.layers[0].weight.data.zero_()
    module.layers[0].weight.data[1, 0] = 3.0
    sizes = {"n_features": preprocessing.width, "hidden": [], "n_outputs": 2}
    model = TorchModel(
        module, classes=["no", "yes"], preprocessing=preprocessing, architecture={"name": "mlp", "args": sizes}
    )
    save(model, "model.pt")
    X.assign(label=np.where(X["x"] > 0, "yes", "no")).to_csv("data.csv", index=False)
    table(400, seed=1).assign(x=lambda f: 40.0 * np.sign(f["x"])).to_csv("strange.csv", index=False)
    Path("audit.toml").write_text(
        '[audit]\nood = "strange.csv"\n[[criteria]]\nmetric = "confident_ood_rate"\nmethod = "msp"\n'
        'direction = "at_most"\nbound = 0.5\n[probes.out_of_distribution]\ncases = ["given"]\n'
    )
    line = "scan model.pt --data data.csv --target label --positive yes --probes out-of-distribution"
    result = CliRunner().invoke(app, [*line.split(), "--config", "audit.toml"])
    report = AuditReport.from_json(Path("audit-report/report.json").read_bytes())
    (finding,) = [f for f in report.findings if f.metric == "confident_ood_rate" and f.criterion is not None]
    assert result.exit_code == 1, result.output
    assert finding.outcome is Outcome.FAIL and finding.at == {"case": "given"} and finding.value == 1.0


def test_a_flag_that_names_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table(50).to_csv("data.csv", index=False)
    line = "scan --predict m:f --classes 0,1 --data data.csv --ood nowhere.csv --probes out-of-distribution"
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 2 and "There is no file or folder of strange inputs at 'nowhere.csv'" in result.output


def test_the_column_of_the_texts_is_that_of_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("data.csv", "strange.csv"):
        Path(name).write_text("review,who\ngood,me\n")
    asked = configure({"data": "data.csv", "text": "review", "ood": "strange.csv"}, None, [])
    options = {spec.name: spec.options for spec in probe_specs(asked, PROBES)}
    assert options["out_of_distribution"] == {"ood": str(tmp_path / "strange.csv"), "column": "review"}
    assert none_of("ood" in own for name, own in options.items() if name != "out_of_distribution")
    assert flags()["ood"].is_path and not flags()["ood"].writes


def test_by_the_command_with_a_folder_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image = pytest.importorskip("PIL.Image", reason="the extra 'images' is not installed")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(200):
        where = Path("data", "dark" if i % 2 else "light")
        where.mkdir(parents=True, exist_ok=True)
        Image.fromarray((rng.integers(0, 60, (8, 8, 3)) + 190 * (i % 2 == 0)).astype(np.uint8)).save(where / f"{i}.png")
    Path("strange", "deep").mkdir(parents=True)
    for i in range(90):
        grey = np.tile(np.arange(0, 256, 32, dtype=np.uint8)[:, None, None], (1, 8, 3))
        Image.fromarray(rng.permuted(grey, axis=0)).save(Path("strange", "deep", f"{i}.png"))
    torch.manual_seed(0)
    sizes = {"channels": 3, "n_outputs": 2, "width": 4}
    model = TorchModel(
        SmallCNN(**sizes),
        classes=["dark", "light"],
        preprocessing=ImagePreprocessing(size=(8, 8)),
        architecture={"name": "small_cnn", "args": sizes},
    )
    save(model, "model.pt")
    line = "scan model.pt --data data --ood strange --probes out-of-distribution"
    result = CliRunner().invoke(app, line.split())
    report = AuditReport.from_json(Path("audit-report/report.json").read_bytes())
    found = [f for f in report.findings if f.probe == "out_of_distribution"]
    assert {f.at["case"] for f in found} == {"noise", "constant", "shuffled", "given"}, result.output
    assert all_of("90 strange inputs" in f.detail for f in found if f.at["case"] == "given")
