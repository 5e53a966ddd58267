"""What the log of an evaluation shows: exact bounds, missing scores bounded both ways, lies that the file shows."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from statsmodels.stats.proportion import proportion_confint

import auditor
from auditor.core.errors import UsageError
from auditor.data.audit_data import AuditData
from auditor.judging.criterion import Criterion
from auditor.judging.measurement import Measurement, Outcome
from auditor.loading.job_specs import DataSpec, RecordedSpec
from auditor.loading.rows.data_without_model import load_logged
from auditor.report.comparing.compare_audits import compare
from auditor.report.first_page import first_page
from auditor.report.record.audit_report import AuditReport
from auditor.run.run_audit import run_audit
from auditor.statistics.changes import RateChange
from auditor.statistics.values import RatioBetween, RatioOfTotals
from probes.performance.recorded_evaluation import RecordedEvaluation
from tests.toys import logs
from tests.toys.models import criterion

RIGHT = [1.0] * 45 + [0.0] * 5
ALPHA = 0.025


def spec_of(path: Path, **more: Any) -> DataSpec:
    """A log's options; a run of HELM has more than one score."""
    score = ("exact_match",) if (path / "run_spec.json").exists() else ()
    return DataSpec(path=str(path), recorded=RecordedSpec(score=score, is_log=True), **more)


def measured(path: Path, probe: RecordedEvaluation | None = None, **more: Any) -> dict[str, Measurement]:
    """The numbers of all samples by metric."""
    model, data = load_logged(spec_of(path, **more))
    found = (probe or RecordedEvaluation()).measure(model, data, np.random.default_rng(0))
    return {m.metric: m for m in found if not m.group}


def audited(path: Path, *criteria: Criterion, **more: Any) -> AuditReport:
    model, data = load_logged(spec_of(path, **more))
    return run_audit(model, data, [RecordedEvaluation()], list(criteria))


def outcome(path: Path, *criteria: Criterion, **more: Any) -> Outcome:
    found = audited(path, *criteria, **more).findings
    return next(f.outcome for f in found if f.metric == criteria[0].metric and not f.group)


def scores_of(k: int, n: int) -> list[float]:
    return [1.0] * k + [0.0] * (n - k)


# ---- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (5, 5), (18, 20), (45, 50), (717, 1_000)])
def test_the_interval_of_accuracy_is_clopper_and_pearsons(k: int, n: int, tmp_path: Path) -> None:
    path = logs.write_json(tmp_path / "a.json", logs.inspect_log(scores_of(k, n)))
    found = measured(path)["accuracy"].estimate
    assert found.interval(0.95) == pytest.approx(proportion_confint(k, n, 0.05, "beta"), abs=1e-12)


@pytest.mark.grid
@pytest.mark.parametrize(
    ("p", "n"), list(itertools.product((0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99), (1, 5, 20, 50, 120)))
)
def test_the_interval_covers_at_every_p_and_n(p: float, n: int) -> None:
    from tests.toys.models import graded

    covered = 0.0
    for k in range(n + 1):
        data = graded(n, right=(0.0, 0.0))
        assert data.recorded is not None and data.recorded.graded is not None
        data.recorded.graded[:k, 0] = 1.0
        found = RecordedEvaluation().measure(None, data, np.random.default_rng(0))[0]  # type: ignore[arg-type]
        low, high = found.estimate.interval(0.95)
        covered += scipy.stats.binom.pmf(k, n, p) * (low <= p <= high)
    assert covered >= 0.95


def test_what_errored_is_bounded_both_ways_and_never_left_out(tmp_path: Path) -> None:
    # 80 of 90 that did not fail are right; the harness reports .889 and success.
    log = logs.inspect_log(scores_of(80, 100), errored=range(90, 100))
    found = measured(logs.write_json(tmp_path / "a.json", log))
    accuracy = found["accuracy"].estimate
    assert accuracy.value == 0.8
    low, high = proportion_confint(80, 100, 0.05, "beta")[0], proportion_confint(90, 100, 0.05, "beta")[1]
    assert accuracy.interval(0.95) == pytest.approx((low, high), abs=1e-12)
    assert found["unscored_entries"].estimate.value == 10.0
    assert "10 of 100 entries errored" in found["accuracy"].detail


def test_repeats_are_no_samples(tmp_path: Path) -> None:
    once = measured(logs.write_json(tmp_path / "a.json", logs.inspect_log(RIGHT)))["accuracy"].estimate
    thrice = [score for score in RIGHT for _ in range(3)]
    path = logs.write_json(tmp_path / "b.json", logs.inspect_log(thrice, epochs=3))
    assert measured(path)["accuracy"].estimate == once
    mixed = [float((i // 3 + i % 3) % 4 > 0) for i in range(150)]
    mean = measured(logs.write_json(tmp_path / "c.json", logs.inspect_log(mixed, epochs=3)))["mean_score"]
    assert mean.n_samples == 50 and mean.estimate.kind == "bounded_mean"
    assert mean.estimate.value == pytest.approx(np.mean(mixed))


@pytest.mark.parametrize("scores", [[0.25, 0.5, 1.0] * 40, [0.25, 0.5, None] * 40])
def test_a_mean_between_zero_and_one_has_bounds_at_every_skew(scores: list[float | None], tmp_path: Path) -> None:
    found = measured(logs.write_json(tmp_path / "a.json", logs.inspect_log(scores)))["mean_score"].estimate
    low, high = found.interval(0.95)
    known = [s for s in scores if s is not None]
    least, most = sum(known) / len(scores), (sum(known) + len(scores) - len(known)) / len(scores)
    assert 0.0 < low < least <= most < high <= 1.0
    assert isinstance(found, RatioBetween) == (None in scores)


def test_scores_on_a_scale_of_their_own_need_its_ends(tmp_path: Path) -> None:
    path = logs.write_json(tmp_path / "a.json", logs.inspect_log([7.0, 9.0, 3.0] * 20))
    unknown = measured(path)["mean_score"].estimate
    assert math.isnan(unknown.value) and "recorded_evaluation.high" in unknown.model_dump_json()
    found = measured(path, RecordedEvaluation(low=0, high=10))["mean_score"].estimate
    assert found.limits == (0.0, 10.0) and found.value == pytest.approx(19 / 3)


def test_clusters_widen_the_interval(tmp_path: Path) -> None:
    scores = [float(i // 12 % 4 > 0) for i in range(240)]
    log = logs.inspect_log(scores)
    for i, sample in enumerate(log["samples"]):
        sample["metadata"]["block"] = i // 12
    path = logs.write_json(tmp_path / "a.json", log)
    alone, together = (measured(path, cluster=c)["accuracy"].estimate for c in (None, "block"))
    assert isinstance(together, RatioOfTotals) and together.n == 20
    assert together.value == alone.value
    widths = [high - low for low, high in (alone.interval(0.95), together.interval(0.95))]
    assert widths[1] > 2.0 * widths[0]
    log["samples"][0]["scores"] = {}
    path = logs.write_json(tmp_path / "b.json", log)
    assert isinstance(measured(path, cluster="block")["accuracy"].estimate, RatioBetween)


def test_groups_are_compared_with_what_has_no_score(tmp_path: Path) -> None:
    scores: list[float | None] = [float(i % 2 or i % 4 == 0) for i in range(400)]
    path = logs.write_json(tmp_path / "a.json", logs.inspect_log(scores))
    gap = measured(path, sensitive=("sex",))["accuracy_difference"].estimate
    assert gap.value == 0.5 and gap.kind == "worst_difference" and gap.interval(0.95)[0] > 0.4
    scores[:10] = [None] * 10
    path = logs.write_json(tmp_path / "b.json", logs.inspect_log(scores))
    wider = measured(path, sensitive=("sex",))["accuracy_difference"].estimate
    assert wider.kind == "worst_bracket_difference"
    assert wider.interval(0.95)[0] < gap.interval(0.95)[0] and wider.interval(0.95)[1] > gap.interval(0.95)[1]
    limit = criterion("accuracy_difference", "at_most", 0.1)
    assert outcome(path, limit, sensitive=("sex",)) is Outcome.FAIL


def test_too_many_groups_are_not_compared_and_lose_no_other_number(tmp_path: Path) -> None:
    model, data = load_logged(spec_of(logs.write_json(tmp_path / "a.json", logs.inspect_log([1.0] * 1_001))))
    many = replace(data, sensitive_features=pd.DataFrame({"group": [f"g{i}" for i in range(1_001)]}))
    found = {m.metric: m for m in RecordedEvaluation().measure(model, many, np.random.default_rng(0)) if not m.group}
    assert "1,001 groups" in found["accuracy_difference"].estimate.model_dump_json()
    assert found["accuracy"].estimate.value == 1.0


def test_a_model_that_has_nothing_right_passes_no_gap(tmp_path: Path) -> None:
    path = logs.write_json(tmp_path / "a.json", logs.inspect_log([0.0] * 400))
    assert outcome(path, criterion("accuracy_difference", "at_most", 0.1), sensitive=("sex",)) is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(("k", "expected"), [(380, Outcome.PASS), (320, Outcome.INCONCLUSIVE), (240, Outcome.FAIL)])
def test_accuracy_is_held_against_a_criterion(k: int, expected: Outcome, tmp_path: Path) -> None:
    path = logs.write_json(tmp_path / "a.json", logs.inspect_log(scores_of(k, 400)))
    assert outcome(path, criterion("accuracy", "at_least", 0.8)) is expected


# ---- the same samples ------------------------------------------------------------------------------------------------


def test_two_logs_are_paired_by_sample(tmp_path: Path) -> None:
    before, after = scores_of(60, 100), [0.0] * 5 + [1.0] * 85 + [0.0] * 10
    first = logs.write_json(tmp_path / "a.json", logs.inspect_log(before))
    log = logs.inspect_log(after)
    log["samples"].reverse()
    second = logs.write_json(tmp_path / "b.json", log)
    change = measured(second, RecordedEvaluation(reference=str(first)))["accuracy_change"]
    assert change.estimate == RateChange(before=60, gained=30, lost=5, n=100)
    assert "sha256" in change.detail and change.too_few == ""
    log["samples"][3]["scores"] = {}
    second = logs.write_json(tmp_path / "c.json", log)
    wider = measured(second, RecordedEvaluation(reference=str(first)))["accuracy_change"].estimate
    assert wider.kind == "ratio_between" and wider.interval(0.95)[0] <= 0.25 <= wider.interval(0.95)[1]


@pytest.mark.slow
def test_two_audits_of_logs_are_compared_on_the_same_samples(tmp_path: Path) -> None:
    paths = [
        logs.write_json(tmp_path / f"{name}.json", logs.inspect_log(scores))
        for name, scores in (("a", scores_of(200, 300)), ("b", scores_of(270, 300)))
    ]
    before = auditor.scan(None, log=str(paths[0]))
    after = auditor.scan(None, log=str(paths[1]), reference=str(paths[0]))
    assert {f.probe for f in after.findings} == {"intake", "recorded_evaluation"}
    found = compare(before, after)
    assert [(row.metric, row.paired, row.verdict) for row in found.rows] == [("accuracy", True, "better")]
    assert found.exit_code == 0
    others = logs.write_json(tmp_path / "c.json", logs.inspect_log(scores_of(180, 200)))
    with pytest.raises(UsageError, match="same rows"):
        compare(before, auditor.scan(None, log=str(others)))


def test_logs_of_other_samples_are_not_compared(tmp_path: Path) -> None:
    first = logs.write_json(tmp_path / "a.json", logs.inspect_log(RIGHT))
    lines = logs.write_lines(tmp_path / "b.jsonl", [{"id": f"x{i}", "score": 1, "match": 1} for i in range(50)])
    model, data = load_logged(DataSpec(path=str(first), recorded=RecordedSpec(is_log=True)))
    report = run_audit(model, data, [RecordedEvaluation(reference=str(lines))], [])
    assert [f.outcome for f in report.findings if f.probe == "recorded_evaluation"] == [Outcome.NOT_RUN]


# ---- lies ------------------------------------------------------------------------------------------------------------

Lie = tuple[str, Callable[[Path], Path]]


def _inspect(change: Callable[[logs.Log], object], *, epochs: int = 1) -> Callable[[Path], Path]:
    def write(to: Path) -> Path:
        log = logs.inspect_log([score for score in RIGHT for _ in range(epochs)], epochs=epochs)
        change(log)
        return logs.write_json(to / "a.json", log)

    return write


def _copy(log: logs.Log) -> None:
    log["samples"].append(dict(log["samples"][0], uuid="other"))


def _renumbered(log: logs.Log) -> None:
    log["samples"][1] = dict(log["samples"][0], epoch=2)


def _total(log: logs.Log) -> None:
    del log["samples"][45:]
    log["results"] |= {"total_samples": 45, "completed_samples": 45}
    log["results"]["scores"][0]["metrics"]["accuracy"]["value"] = 1.0


def _rewritten(folder: Path, name: str, change: Callable[[Any], object]) -> Path:
    """A folder of which one file was changed: its lines, or the document that it is."""
    path = next(folder.glob(name))
    lines = path.suffix == ".jsonl"
    content = [json.loads(line) for line in path.read_text().splitlines()] if lines else json.loads(path.read_text())
    change(content)
    logs.write_lines(path, content) if lines else logs.write_json(path, content)
    return folder


def _lm_eval(name: str, change: Callable[[Any], object]) -> Callable[[Path], Path]:
    return lambda to: _rewritten(logs.lm_eval_folder(to / "a", {"arc": RIGHT}), name, change)


def _helm(name: str, change: Callable[[Any], object]) -> Callable[[Path], Path]:
    return lambda to: _rewritten(logs.helm_folder(to / "a", RIGHT), name, change)


LIES: dict[str, Lie] = {
    "an edited score": (
        "contradicted_metrics", _inspect(lambda log: log["samples"][49]["scores"]["match"].update(value=1.0)),
    ),
    "an edited number": (
        "contradicted_metrics",
        _inspect(lambda log: log["results"]["scores"][0]["metrics"]["accuracy"].update(value=0.96)),
    ),
    "dropped samples": ("unread_entries", _inspect(lambda log: log["samples"].pop())),
    "dropped samples and all counts edited": ("unread_entries", _inspect(_total)),
    "a copied repeat": ("repeated_epochs", _inspect(_copy)),
    "a copied repeat with another number": ("repeated_epochs", _inspect(_renumbered, epochs=2)),
    "another model's name": ("other_models", _inspect(lambda log: log["eval"].update(model="maker/model-2"))),
    "a sample of another model": (
        "other_models", _inspect(lambda log: log["samples"][7]["output"].update(model="stronger")),
    ),
    "fewer repeats set than made": (
        "changed_epochs", _inspect(lambda log: log["eval"]["config"].update(epochs=1), epochs=3),
    ),
    "an archive with another summary": (
        "contradicted_metrics",
        lambda to: logs.write_archive(
            to / "a.eval", logs.inspect_log(RIGHT),
            change=lambda s: s["scores"]["match"].update(value=1.0 - s["scores"]["match"]["value"])
            if s["id"] == 3 else None,
        ),
    ),
    "lm-eval: an edited score": ("contradicted_metrics", _lm_eval("samples*", lambda rows: rows[49].update(acc=1.0))),
    "lm-eval: a copied repeat": ("repeated_epochs", _lm_eval("samples*", lambda rows: rows.append(rows[0]))),
    "lm-eval: another model's name": ("other_models", _lm_eval("results*", lambda own: own.update(model_name="a/gpt"))),
    "lm-eval: other repeats": (
        "changed_epochs", _lm_eval("results*", lambda own: own["configs"]["arc"].update(repeats=3)),
    ),
    "HELM: an edited score": (
        "contradicted_metrics", _helm("per_inst*", lambda rows: rows[49]["stats"][0].update(mean=1.0)),
    ),
    "HELM: a copied repeat": ("repeated_epochs", _helm("per_inst*", lambda rows: rows.append(rows[0]))),
    "HELM: other repeats": (
        "changed_epochs", _helm("per_inst*", lambda rows: rows.append({**rows[0], "train_trial_index": 1})),
    ),
    "EEE: an edited score": (
        "contradicted_metrics",
        lambda to: logs.eee_folder(
            to / "a", RIGHT, score=0.92, edited=lambda rows: rows[49]["evaluation"].update(score=1.0)
        ),
    ),
    "lm-eval: an edited number": (
        "contradicted_metrics", lambda to: logs.lm_eval_folder(to / "a", {"arc": RIGHT}, **{"acc,none": 0.95}),
    ),
    "lm-eval: dropped samples": (
        "unread_entries", lambda to: logs.lm_eval_folder(to / "a", {"arc": RIGHT}, effective=60),
    ),
    "HELM: an edited number": ("contradicted_metrics", lambda to: logs.helm_folder(to / "a", RIGHT, mean=0.95)),
    "HELM: another model": ("other_models", lambda to: logs.helm_folder(to / "a", RIGHT, model="other/gpt")),
    "HELM: dropped samples": ("unread_entries", lambda to: logs.helm_folder(to / "a", RIGHT, instances=60)),
    "EEE: an edited number": ("contradicted_metrics", lambda to: logs.eee_folder(to / "a", RIGHT, score=0.95)),
    "EEE: dropped samples": ("unread_entries", lambda to: logs.eee_folder(to / "a", RIGHT, num_samples=60)),
    "EEE: another model": ("other_models", lambda to: logs.eee_folder(to / "a", RIGHT, model="other/gpt")),
    "garak: an edited number": (
        "contradicted_metrics", lambda to: logs.garak_report(to / "a.jsonl", [[1.0 - s] for s in RIGHT], passed=48),
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_that_the_file_shows_is_named_and_passes_nothing(lie: str, tmp_path: Path) -> None:
    metric, write = LIES[lie]
    path = write(tmp_path)
    found = measured(path)
    assert found[metric].estimate.value >= 1.0
    assert found["accuracy"].too_few
    assert outcome(path, criterion("accuracy", "at_least", 0.3)) is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("lie", [None, "an edited score", "dropped samples", "another model's name"])
def test_a_log_that_contradicts_itself_is_got_again_and_no_limit_is_asked_for(lie: str | None, tmp_path: Path) -> None:
    path = HONEST["Inspect"](tmp_path) if lie is None else LIES[lie][1](tmp_path)
    page = first_page(audited(path, criterion("accuracy", "at_least", 0.3)))
    steps = " ".join(action.sentence for action in page.actions)
    assert ("Get the log again" in steps, "Set a limit" in steps) == (lie is not None, False)


HONEST: dict[str, Callable[[Path], Path]] = {
    "Inspect": _inspect(lambda log: None),
    "Inspect, three repeats": _inspect(lambda log: None, epochs=3),
    "Inspect, archive": lambda to: logs.write_archive(to / "a.eval", logs.inspect_log(RIGHT)),
    "Inspect, errors": lambda to: logs.write_json(to / "a.json", logs.inspect_log(RIGHT, errored=(0, 3))),
    "lm-eval": lambda to: logs.lm_eval_folder(to / "a", {"arc": RIGHT, "arc_easy": RIGHT}),
    "HELM": lambda to: logs.helm_folder(to / "a", RIGHT),
    "EEE": lambda to: logs.eee_folder(to / "a", RIGHT),
    "garak": lambda to: logs.garak_report(to / "a.jsonl", [[1.0 - s] for s in RIGHT]),
}


@pytest.mark.parametrize("kind", HONEST)
def test_an_honest_log_passes(kind: str, tmp_path: Path) -> None:
    path = HONEST[kind](tmp_path)
    assert measured(path)["accuracy"].too_few == ""
    assert outcome(path, criterion("accuracy", "at_least", 0.5)) is Outcome.PASS


def test_data_without_a_log_is_not_applicable() -> None:
    data = AuditData(X=np.asarray(["a"], object))
    model, _ = load_logged_of_toys()
    report = run_audit(model, data, [RecordedEvaluation()], [])
    assert [f.outcome for f in report.findings if f.probe == "recorded_evaluation"] == [Outcome.NOT_APPLICABLE]


def load_logged_of_toys() -> tuple[Any, Any]:
    from tests.toys.models import TOYS

    toys = TOYS["recorded_evaluation"]
    return toys.ideal(), toys.data()
