"""A forger with the right key says that other code measured or another rule judged: nothing becomes true by it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from auditor.data.audit_data import AuditData
from auditor.evidence.comparison_evidence import write_evidence
from auditor.evidence.container import pack
from auditor.evidence.evidence_bundle import Evidence
from auditor.evidence.manifest import LOG, RECORD, RESULTS, code_digests
from auditor.evidence.manifest import in_order as spelled
from auditor.evidence.verify import replay
from auditor.judging import input_files
from auditor.judging.figure_types import ColouredText, Figure
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.judging.policy import load_policies, parse_policy
from auditor.models.audited_model import AuditedModel
from auditor.report.comparing.compare_audits import compare
from auditor.report.record.audit_report import RULE, AuditReport, Summary
from auditor.report.record.controls import with_policies
from auditor.statistics.rates import Proportion
from cli.commands import app
from cli.verify import FROM_ANSWERS
from tests.evidence.verify.forged import (  # noqa: F401
    audited,
    bent,
    checked,
    code_of_once,
    known_intervals,
    left_behind,
    with_probe,
    wrong,
)
from tests.evidence.verify.test_second_check import example  # noqa: F401
from tests.evidence.verify.whole import HOUSE, Whole, whole
from tests.quantifiers import all_of

Record = dict[str, Any]
# What the tutorial requires of its own bundle.
REQUIRED = "signature,registration,packs,configuration"
OTHER = {"responsible-auditor": "0" * 64}
NUMBER = "group_fairness/between_groups/demographic_parity_difference/g"


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Its one judged number, .289 with an interval from .051 to .489, FAILs."""
    return whole(tmp_path_factory.mktemp("failed"), bound=0.02)


@pytest.fixture(scope="module")
def undecided(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """The same number, INCONCLUSIVE."""
    return whole(tmp_path_factory.mktemp("undecided"), bound=0.3)


def run(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(map(str, words)))
    return result.exit_code, " ".join(result.output.split())


def verified(bundle: Whole, path: Path) -> tuple[int, str]:
    keys = [word for name in ("auditor", "registrar", "decider") for word in ("--key", bundle.keys / f"{name}.key.pub")]
    return run("evidence", "verify", path, *keys, "--require", REQUIRED)


def forged(bundle: Whole, path: Path, *, rule: int = RULE, finding: Record | None = None, **parts: bytes) -> Path:
    """The bundle, said to be of other code, its judged finding changed, and all else made to follow from that."""

    def change(record: Record) -> None:
        if rule != RULE:
            record["family"] = {key: record["family"][key] for key in ("error_rate", "multiplicity", "m")}
            record["family"] |= {"rule": rule} if rule != 1 else {}
        next(f for f in record["findings"] if f["id"] == NUMBER).update(finding or {})
        outcomes = [Outcome(f["outcome"]) for f in record["findings"]]
        record["summary"] = Summary.from_outcomes(outcomes).model_dump(by_alias=True)
        report = AuditReport.model_validate_json(json.dumps(record))
        packs = [*load_policies(["eu-ai-act"])[0], parse_policy(HOUSE, "house.toml")]
        report = with_policies(report, packs, date.fromisoformat(report.policies[0].as_of))
        record.update(report.model_dump(mode="json"), exit_code=int(report.verdict()))

    here = code_digests()["responsible-auditor"]
    log = bundle.entries[LOG].replace(here.encode(), b"0" * 64)
    assert log != bundle.entries[LOG]
    return bundle.forged(path, change, **{LOG: log, **parts})


# ---- another rule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [1, RULE + 1])
def test_a_fail_that_is_called_a_pass_is_wrong_by_any_rule(failed: Whole, tmp_path: Path, rule: int) -> None:
    """The interval is drawn around nothing, within the bound."""
    finding = {"outcome": "PASS", "interval": [0.0, 0.01], "p_fail": 1.0, "p_pass": 0.001, "reason": "It is inside."}
    path = forged(failed, tmp_path / "audit.zip", rule=rule, finding=finding)
    code, said = verified(failed, path)
    assert code == 1 and f"the value of {NUMBER} lies outside its own interval" in said
    code, said = run("gate", path)
    assert code == 4 and "contradicts itself" in said
    assert run("report", path)[0] == 4 and not (tmp_path / "report.html").exists()


@pytest.mark.grid
@pytest.mark.parametrize(
    "finding",
    [
        {"outcome": "PASS"},
        {"outcome": "PASS", "interval": [0.0, 0.5]},
        {"outcome": "PASS", "interval": None},
        {"outcome": "NOT_JUDGED"},
        {"value": 0.01, "outcome": "PASS", "interval": [0.0, 0.015]},
        {"outcome": "PASS", "criterion": None},
    ],
)
def test_an_outcome_that_its_interval_and_bound_do_not_carry_is_wrong_by_any_rule(
    failed: Whole, tmp_path: Path, finding: Record
) -> None:
    code, said = verified(failed, forged(failed, tmp_path / "audit.zip", rule=1, finding=finding))
    assert code == 1 and f"WRONG {NUMBER}" in said


def test_a_fail_inside_its_bound_is_wrong_by_any_rule(undecided: Whole, tmp_path: Path) -> None:
    path = forged(undecided, tmp_path / "audit.zip", rule=1, finding={"outcome": "FAIL"})
    assert "its interval says otherwise" in undecided.wrong(path)[NUMBER]


def test_counts_and_exit_code_follow_from_the_findings_by_any_rule(failed: Whole, tmp_path: Path) -> None:
    def change(record: Record) -> None:
        record["family"] = {key: record["family"][key] for key in ("error_rate", "multiplicity", "m")}
        record["exit_code"] = 0

    here = code_digests()["responsible-auditor"]
    log = failed.entries[LOG].replace(here.encode(), b"0" * 64)
    assert "exit code 1" in failed.wrong(failed.forged(tmp_path / "audit.zip", change, **{LOG: log}))["summary"]


@pytest.mark.parametrize("rule", [0, 1, RULE + 1])
def test_outcomes_that_cannot_be_judged_again_are_no_pass_whatever_is_required(
    undecided: Whole, tmp_path: Path, rule: int
) -> None:
    """A narrower interval within the bound: only the rule could tell, and it is none that this version knows."""
    finding = {"outcome": "PASS", "interval": [0.28, 0.295], "p_fail": 1.0, "p_pass": 0.001, "reason": ""}
    path = forged(undecided, tmp_path / "audit.zip", rule=rule, finding=finding)
    code, said = verified(undecided, path)
    assert code == 3 and said.startswith("NOT PROVEN, and required: outcomes.")
    assert f"NOT CHECKED outcomes: outcomes and intervals follow rule {rule} of another version of auditor" in said
    assert "outcomes: verify it with the version of auditor that made it" in said
    code, said = run("gate", path)
    assert code == 3 and "exit 3" in said and f"follow rule {rule}. This version" in said
    code, said = run("report", path, "--format", "html,markdown", "--out", tmp_path)
    assert code == 0 and f"follow rule {rule}. This version" in said
    for name in ("report.html", "report.md"):
        assert f"follow rule {rule}. This version" in (tmp_path / name).read_text()


def test_a_shipped_file_of_another_version_is_not_checked(
    failed: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which profile came with it only that version can tell; a file that this code is said to have read is wrong."""
    honest = forged(failed, tmp_path / "f.zip")
    monkeypatch.setattr(replay, "shipped", lambda *what: None)
    code, said = verified(failed, failed.path)
    assert code == 1 and "WRONG request.json: " in said
    code, said = verified(failed, honest)
    assert code == 3 and "NOT CHECKED outcomes, request.json: " in said


@pytest.mark.parametrize(
    ("path", "origin", "n"),
    [("auditor-default-3", "shipped", 0), ("auditor-default-3", "given", 1), ("house.toml", "given", 0)],
)
def test_a_name_that_means_a_shipped_profile_is_no_other_file(path: str, origin: Any, n: int) -> None:
    """The command takes the shipped one by that name, wherever another file of it lies."""
    own = input_files.shipped("profiles", "auditor-default-3", "criteria")
    assert own is not None
    inputs: Any = SimpleNamespace(of_role=lambda *roles: [replace(own, path=path, origin=origin)])
    assert len(list(replay._shipped_differences(inputs))) == n


def test_a_comparison_of_such_audits_is_none_that_is_proven(undecided: Whole, tmp_path: Path) -> None:
    finding = {"outcome": "PASS", "interval": [0.28, 0.295], "p_fail": 1.0, "p_pass": 0.001, "reason": ""}
    path = forged(undecided, tmp_path / "audit.zip", rule=1, finding=finding)
    key = undecided.keys / "auditor.key"
    run("compare", undecided.path, path, "--bundle", tmp_path / "c.zip", "--sign", key, "--out", tmp_path)
    code, said = run("evidence", "verify", tmp_path / "c.zip", "--key", f"{key}.pub", "--require", "signature")
    assert code == 3 and "NOT PROVEN, and required: outcomes" in said


def test_the_same_rule_is_judged_again_whichever_code_measured(failed: Whole, tmp_path: Path) -> None:
    honest = forged(failed, tmp_path / "honest.zip")
    assert failed.wrong(honest) == {} and verified(failed, honest)[0] == 0
    finding = {"outcome": "PASS", "interval": [0.0, 0.29], "p_fail": 1.0, "p_pass": 0.001, "reason": ""}
    assert NUMBER in failed.wrong(forged(failed, tmp_path / "audit.zip", finding=finding))


# ---- other code ------------------------------------------------------------------------------------------------------


def said_by_another(made: Evidence) -> Evidence:
    return replace(made, code=OTHER)


@pytest.mark.grid
@pytest.mark.parametrize("include_rows", [True, False])
@pytest.mark.parametrize("probe", [name for name in FROM_ANSWERS if name != "regression_fairness"])
@pytest.mark.usefixtures("known_intervals")
def test_a_number_that_is_taken_out_is_missing(tmp_path: Path, probe: str, include_rows: bool) -> None:
    made = said_by_another(audited(include_rows=include_rows))
    assert not wrong(checked(made, tmp_path / "a.zip"))
    gone = "demographic_parity_difference" if probe == "group_fairness" else None

    def without(measurements: Sequence[Any]) -> tuple[Any, ...]:
        first = next(m for m in measurements if gone in (None, m.metric))
        return tuple(m for m in measurements if m is not first)

    assert "is missing" in str(wrong(checked(with_probe(made, probe, without), tmp_path / "b.zip")))


def _halved(figure: Figure) -> Figure:
    series = [s.model_copy(update={"y": tuple(y and y / 2 for y in s.y)}) for s in figure.series]
    return figure.model_copy(update={"series": tuple(series)})


def _narrowed(figure: Figure) -> Figure:
    return figure.model_copy(update={"series": tuple(s.model_copy(update={"high": s.y}) for s in figure.series)})


def _bound_moved(figure: Figure) -> Figure:
    return figure.model_copy(update={"criterion": 0.77})


def _pictured(figure: Figure) -> Figure:
    return figure.model_copy(update={"texts": (ColouredText(words=("well",), values=(1.0,)),)})


@pytest.mark.parametrize("change", [_halved, _narrowed, _bound_moved, _pictured])
@pytest.mark.usefixtures("known_intervals")
def test_a_figure_of_other_values_than_the_findings_is_wrong(
    tmp_path: Path, change: Callable[[Figure], Figure]
) -> None:
    made = said_by_another(audited(include_rows=True))
    figures = (*made.report.figures[1:], change(made.report.figures[0]))
    found = checked(replace(made, report=made.report.model_copy(update={"figures": figures})), tmp_path / "a.zip")
    assert made.report.figures[0].id in wrong(found)["figures"]


@pytest.mark.usefixtures("known_intervals")
def test_figures_that_another_version_laid_out_otherwise_are_not_checked(tmp_path: Path) -> None:
    made = said_by_another(audited(include_rows=True))
    report = made.report.model_copy(update={"figures": made.report.figures[::-1]})
    found = checked(replace(made, report=report), tmp_path / "a.zip")
    assert not wrong(found) and "outcomes" not in found.lacks(())
    assert [check.name for check in found.checks if check.state == "not checked"] == ["figures"]


@pytest.mark.parametrize("what", ["dropped", "all dropped", "renamed", "renamed as another", "doubled", "added"])
@pytest.mark.usefixtures("known_intervals")
def test_a_figure_less_or_more_or_by_another_name_leaves_outcomes_open(tmp_path: Path, what: str) -> None:
    """Else whoever holds the key leaves out the picture of what FAILs, and names other code for it."""
    made = said_by_another(audited(include_rows=True))
    first, *rest = made.report.figures
    figures = {
        "dropped": rest,
        "all dropped": [],
        "renamed": [first.model_copy(update={"id": f"then/{first.id}"}), *rest],
        "renamed as another": [first.model_copy(update={"id": rest[0].id}), *rest],
        "doubled": [first, first, *rest],
        "added": [first, *rest, first.model_copy(update={"id": "then"})],
    }[what]
    report = made.report.model_copy(update={"figures": tuple(figures)})
    found = checked(replace(made, report=report), tmp_path / "a.zip")
    assert found.exit_code(("signature",)) in (1, 3)
    if not wrong(found):
        assert "outcomes" in found.lacks(())


def _of_each_other(figure: Figure) -> Figure:
    """Of each series what another one is called."""
    names = [series.name for series in figure.series]
    series = zip(figure.series, names[::-1], strict=True)
    return figure.model_copy(update={"series": tuple(s.model_copy(update={"name": name}) for s, name in series)})


@pytest.mark.parametrize("what", ["alt", "title", "caption", "x_label", "y_label", "features", "names", "places"])
@pytest.mark.usefixtures("known_intervals")
def test_what_a_figure_says_in_words_leaves_outcomes_open_where_this_version_says_otherwise(
    tmp_path: Path, what: str
) -> None:
    """Else whoever holds the key says of one group what was found of another, and names other code for it."""
    made = said_by_another(audited(include_rows=True))
    figures = list(made.report.figures)
    i = next(i for i, f in enumerate(figures) if len({s.name for s in f.series}) > 1 or what not in ("names", "places"))
    if what == "names":
        figures[i] = _of_each_other(figures[i])
    elif what == "places":
        turned = [s.model_copy(update={"x": s.x[::-1]}) for s in figures[i].series]
        figures[i] = figures[i].model_copy(update={"series": tuple(turned)})
    else:
        value = ("race",) if what == "features" else "accuracy: a 0.99"
        figures[i] = figures[i].model_copy(update={what: value})
    assert figures != list(made.report.figures)
    found = checked(
        replace(made, report=made.report.model_copy(update={"figures": tuple(figures)})), tmp_path / "a.zip"
    )
    assert not wrong(found) and found.exit_code(("signature",)) == 3 and "outcomes" in found.lacks(())


@pytest.mark.usefixtures("known_intervals")
def test_a_probes_own_figure_shows_what_its_answers_come_to(tmp_path: Path) -> None:
    def redrawn(measurements: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(m if m.figure is None else replace(m, figure=_halved(m.figure)) for m in measurements)

    made = with_probe(said_by_another(audited(include_rows=True)), "score_fairness", redrawn)
    assert "figure a[0][0] says" in wrong(checked(made, tmp_path / "a.zip"))["score_fairness from rows"]


@pytest.mark.usefixtures("known_intervals")
def test_rows_that_are_answered_alike_cannot_be_talked_away(tmp_path: Path) -> None:
    """Without them a model that says the same to everybody would PASS."""
    rng = np.random.default_rng(0)
    n = 2_000
    data = AuditData.from_arrays(
        pd.DataFrame({"x": rng.normal(0, 1, n)}),
        np.where(rng.integers(0, 2, n) == 1, "yes", "no"),
        classes=["no", "yes"],
        positive="yes",
        sensitive_features={"g": rng.choice(["a", "b"], n)},
    )
    model = AuditedModel.from_callable(lambda X: np.ones(len(X)), classes=["no", "yes"], features=["x"])
    made = said_by_another(left_behind(model, data, ("group_fairness",), include_rows=True))
    assert all_of(result.alike for result in made.results)
    assert not checked(made, tmp_path / "a.zip").lacks(())
    talked = bent(made, [replace(result, alike=()) for result in made.results])
    assert talked.report.summary.passed > made.report.summary.passed
    found = checked(talked, tmp_path / "b.zip")
    assert found.lacks(()) == ("outcomes",) and found.exit_code(("signature",)) == 3


@pytest.mark.usefixtures("known_intervals")
def test_a_probe_of_another_pillar_is_judged_in_another_budget(tmp_path: Path) -> None:
    made = said_by_another(audited(include_rows=True))
    moved = bent(made, [replace(result, pillar="robustness") for result in made.results])
    found = checked(moved, tmp_path / "a.zip")
    assert found.lacks(()) == ("outcomes",) and found.exit_code(("signature",)) == 3


@pytest.mark.usefixtures("known_intervals")
@pytest.mark.parametrize("include_rows", [False, True])
def test_a_number_is_not_said_to_be_of_more_rows(tmp_path: Path, include_rows: bool) -> None:
    made = said_by_another(audited(include_rows=include_rows))

    def of_many(measurements: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(replace(m, n_samples=1_000_000) for m in measurements)

    found = checked(with_probe(made, "group_fairness", of_many), tmp_path / "a.zip")
    assert found.lacks(()) == ("outcomes",) and found.exit_code(("signature",)) == 3


@pytest.mark.usefixtures("known_intervals")
@pytest.mark.parametrize("by_code", [False, True])
def test_a_number_that_code_of_the_users_measured_is_not_judged_as_the_tools_own(tmp_path: Path, by_code: bool) -> None:
    made = said_by_another(audited(include_rows=True))
    measured = Measurement(
        metric="demographic_parity_difference", estimate=Proportion(successes=0, n=5_000), n_samples=5_000, ideal=0.0
    )
    own = ProbeResult(probe="Own", pillar="fairness", citation="", measurements=(measured,), by_code=by_code)
    request = {**made.request, "options": {**made.request["options"], "probe": ["own:Own"]}}
    found = bent(replace(made, request=request), [*made.results, own])
    assert any(f.probe == "Own" and f.outcome is Outcome.PASS for f in found.report.findings) is not by_code
    verification = checked(found, tmp_path / "a.zip")
    assert verification.lacks(()) == (() if by_code else ("outcomes",)) and not wrong(verification)
    assert verification.exit_code(("signature",)) == (0 if by_code else 3)


def test_an_enclosed_record_that_contradicts_itself_is_wrong(failed: Whole, tmp_path: Path) -> None:
    before = AuditReport.from_json(failed.entries[RECORD])
    findings = [f.model_copy(update={"outcome": Outcome.PASS}) if f.id == NUMBER else f for f in before.findings]
    forged_one = before.model_copy(update={"findings": tuple(findings)})
    write_evidence(compare(before, forged_one), tmp_path / "c.zip")
    code, said = run("evidence", "verify", tmp_path / "c.zip", "--allow-unsigned")
    assert code == 1 and f"{NUMBER} is a PASS, and its interval says otherwise" in said


# ---- rates and parts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [-0.05, 0.0, 1.0, 1e300])
def test_an_error_rate_that_is_none_is_said_in_words(failed: Whole, tmp_path: Path, rate: float) -> None:
    results, record = (json.loads(failed.entries[name]) for name in (RESULTS, RECORD))
    results["family"]["error_rate"] = record["family"]["error_rate"] = rate
    path = failed.forged(tmp_path / "audit.zip", **{RESULTS: spelled(results)})
    code, said = verified(failed, path)
    assert code == 1 and "results.json: cannot be read: family.error_rate" in said
    # What nobody could sign as the statement of a record.
    path.write_bytes(pack(failed.entries | {RECORD: spelled(record)}))
    code, said = verified(failed, path)
    assert code == 1 and "record.json: cannot be read: family.error_rate" in said
    assert run("gate", path)[0] == run("report", path)[0] == 4


@pytest.mark.parametrize("change", [{"rate": -0.05}, {"weight": -1.0}, {"rate": 1e300}, {"weight": 1e308}])
def test_a_criterion_of_numbers_that_no_audit_writes_is_wrong(
    failed: Whole, tmp_path: Path, change: dict[str, float]
) -> None:
    results = json.loads(failed.entries[RESULTS])
    results["criteria"][0] |= change
    assert verified(failed, failed.forged(tmp_path / "audit.zip", **{RESULTS: spelled(results)}))[0] == 1


@pytest.mark.grid
@pytest.mark.parametrize("other_code", [False, True])
@pytest.mark.parametrize("name", ["decisions/0.json", "registration.json", "packs/9-house.toml", "letter.txt"])
def test_a_part_that_nothing_names_is_wrong_by_both_verifiers(
    failed: Whole,
    example: ModuleType,  # noqa: F811
    tmp_path: Path,
    name: str,
    other_code: bool,
) -> None:
    entries = failed.entries
    content = entries.get(name, b'name = "house"\n')
    kept = {n: c for n, c in entries.items() if n != name}

    def silent(record: Record) -> None:
        if name in entries:
            key = name.partition("/")[0].removesuffix(".json")
            record[key] = [] if key == "decisions" else None

    bundle = Whole(tmp_path / "kept.zip", failed.keys)
    bundle.path.write_bytes(pack(kept))
    digest = code_digests()["responsible-auditor"].encode()
    log = entries[LOG].replace(digest, b"0" * 64) if other_code else entries[LOG]
    path = bundle.forged(tmp_path / "audit.zip", silent, **{name: content, LOG: log})
    code, said = verified(failed, path)
    assert code == 1
    assert any(words in said for words in (name, "decisions: entry 2 is enclosed", "one is enclosed"))
    assert example.check(path.read_bytes())[0] == [name]
    assert example.check(failed.path.read_bytes())[0] == []


# ---- what two changes at once brought to light -----------------------------------------------------------------------


def test_a_schema_that_nobody_knows_is_none_whichever_code_wrote_it(failed: Whole, tmp_path: Path) -> None:
    record = json.loads(failed.entries[RECORD]) | {"schema_version": "final"}
    path = tmp_path / "audit.zip"
    path.write_bytes(pack(failed.entries | {RECORD: spelled(record)}))
    code, said = verified(failed, path)
    assert code == 1 and "its schema 'final' is none that this version knows" in said


def test_findings_in_another_order_are_not_those_that_were_judged(failed: Whole, tmp_path: Path) -> None:
    path = failed.forged(tmp_path / "audit.zip", lambda record: record["findings"].reverse())
    assert failed.wrong(path)["findings"] == "they stand in another order than they were judged in"


def test_a_count_of_clusters_that_nothing_comes_to_is_open(failed: Whole, tmp_path: Path) -> None:
    def clustered(record: Record) -> None:
        record["data"]["effective_n"] = 59.0

    found = failed.verified(failed.forged(tmp_path / "audit.zip", clustered))
    assert ("record.json: data.effective_n", "rows") in [(each.where, each.needs) for each in found.open]
