"""Looks: the history counts earlier audits of the same rows, names what changed, and a campaign spends one rate."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

pytest.importorskip("sqlalchemy", reason="the extra `history` is not installed")

from auditor.core.errors import DataError, UsageError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import fit_tabular
from auditor.evidence.history.check_history import wrong_in_history
from auditor.evidence.history.earlier_looks import Asked, Known, looks_of, miscounted, next_look
from auditor.evidence.history.entries import GENESIS, AuditEntry, Entry
from auditor.evidence.history.ledger import Ledger
from auditor.judging.budgets import Family
from auditor.judging.criterion import Criterion, CriterionRecord, Direction
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.networks.architectures import MLP
from auditor.models.saved_models import save
from auditor.models.torch_model import TorchModel
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import AuditReport, Refusal
from auditor.report.record.earlier_audits import CampaignRecord
from auditor.statistics.rates import Proportion
from auditor.statistics.significance_tests import look_share
from cli.commands import app
from tests.evidence.ledgers import of_known_files
from tests.evidence.test_evidence import evidence
from tests.quantifiers import all_of
from tests.statistics.worlds import WORLDS, most_misses


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def required(metric: str, direction: Direction, bound: float) -> CriterionRecord:
    return CriterionRecord(metric=metric, direction=direction, bound=bound, source="s", set_by="b", set_at="2027")


GAP, SKILL = required("demographic_parity_difference", "at_most", 0.1), required("roc_auc", "at_least", 0.5)


@pytest.fixture(scope="module")
def report() -> AuditReport:
    return of_known_files(evidence(n=60).report, criteria=(GAP, SKILL))


def changed(report: AuditReport, **parts: Any) -> AuditReport:
    """The report with some of what is in its data, model, environment and family otherwise, and other parts whole."""
    update = {
        name: getattr(report, name).model_copy(update=value) if isinstance(value, dict) else value
        for name, value in parts.items()
    }
    return report.model_copy(update=update)


ASKED = Asked(probes=("group_fairness",), options={})


class History:
    """Entries in memory, one after another, each with its looks."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def audit(
        self, report: AuditReport, asked: Asked = ASKED, campaign: CampaignRecord | None = None, *, counts: bool = True
    ) -> AuditReport:
        if counts:
            looks = looks_of(self.known, self.head, report, asked, campaign)
            report = report.model_copy(update={"looks": looks})
        number = len(self.entries) + 1
        payload = AuditEntry.from_report(report).model_dump_json()
        self.entries.append(Entry.from_previous(number, self.head, f"2027-01-{number:02d}", "audit", payload))
        return report

    @property
    def known(self) -> Known:
        return Known.from_entries(self.entries)

    @property
    def head(self) -> str:
        return self.entries[-1].hash if self.entries else GENESIS


def said(report: AuditReport) -> str:
    assert report.looks is not None
    return report.looks.describe()


# ---- counted ---------------------------------------------------------------------------------------------------------


def test_looks_at_the_same_rows_are_counted_and_their_outcomes_named(report: AuditReport) -> None:
    history = History()
    first = history.audit(changed(report, exit_code=3))
    assert first.looks is not None and (first.looks.rows, first.looks.model, first.looks.head) == (1, 1, GENESIS)
    assert said(first) == "First look at these rows that this history knows of."
    history.audit(changed(report, exit_code=1))
    third = history.audit(report)
    assert said(third).startswith("Third look at these rows; earlier: not settled at entry 1, FAIL at entry 2. ")
    assert "--campaign spends one over all" in said(third)
    assert "Third look at these rows" in render_markdown(third).replace("\\", "")
    assert third.looks is not None and third.looks.model == 3 and third.looks.changed == ()


def test_other_rows_other_models_and_refusals_are_told_apart(report: AuditReport) -> None:
    history = History()
    history.audit(changed(report, data={"sha256": "1" * 64, "rows_sha256": "2" * 64}, exit_code=1))
    history.audit(changed(report, model={"sha256": "b" * 64}, exit_code=0))
    history.audit(changed(report, refusal=Refusal(code="data_refused", reason="None."), exit_code=4))
    found = history.audit(report)
    assert found.looks is not None and (found.looks.rows, found.looks.model) == (2, 2)
    assert said(found).startswith(
        "Second look at these rows; earlier: PASS at entry 2 (another model). "
        "1 earlier audit of this model on other rows: FAIL at entry 1."
    )


def test_rows_that_were_shuffled_or_saved_anew_are_the_same_rows_and_unknown_ones_are_not(report: AuditReport) -> None:
    history = History()
    history.audit(report)
    again = history.audit(changed(report, data={"sha256": "9" * 64}))
    assert again.looks is not None and again.looks.rows == 2
    unknown = history.audit(changed(report, data={"sha256": None, "rows_sha256": None}, model={"sha256": None}))
    assert unknown.looks is not None and (unknown.looks.rows, unknown.looks.model) == (None, None)
    assert unknown.looks.earlier == () and said(unknown) == "No rows were given whose looks could be counted."


def test_an_audit_from_before_looks_were_counted_is_a_look_too(report: AuditReport) -> None:
    history = History()
    history.audit(changed(report, exit_code=1), counts=False)
    found = history.audit(report)
    assert found.looks is not None and found.looks.rows == 2 and "FAIL at entry 1" in said(found)


def test_what_changed_since_is_named(report: AuditReport) -> None:
    history = History()
    history.audit(report)
    history.audit(report, Asked(probes=("group_fairness", "score_fairness"), options={"--threshold": 0.5}))
    wider, new = required(GAP.metric, "at_most", 0.4), required("accuracy_difference", "at_most", 0.97)
    found = history.audit(
        changed(
            report,
            criteria=(wider, new),
            environment={"seed": 7},
            family={"error_rate": 0.1, "multiplicity": "bonferroni"},
        ),
        Asked(probes=("group_fairness", "subgroup_discovery"), options={"--threshold": 0.3, "group_fairness.x": [1]}),
    )
    assert found.looks is not None
    assert found.looks.changed == (
        "demographic_parity_difference had to be at most 0.1 at entries 1 and 2, and at most 0.4 now.",
        "Required at entries 1 and 2, and not now: roc_auc (at least 0.5).",
        "Not required at entries 1 and 2, and now: accuracy_difference (at most 0.97).",
        "The error rate was 0.05 at entries 1 and 2, and is 0.1 now.",
        "The allowance for multiplicity was holm at entries 1 and 2, and is bonferroni.",
        "The seed was 0 at entries 1 and 2, and is 7 now.",
        "The probe subgroup_discovery was not asked at entries 1 and 2, and now.",
        "--threshold was not set at entry 1, and is 0.3 now.",
        "group_fairness.x was not set at entries 1 and 2, and is 1 now.",
        "The probe score_fairness was asked at entry 2, and not now.",
        "--threshold was 0.5 at entry 2, and is 0.3 now.",
    )
    assert "3 more changes stand in report.json" in said(found)


def test_a_larger_share_of_a_budget_is_named(report: AuditReport) -> None:
    history = History()
    history.audit(report)
    larger = GAP.model_copy(update={"budget": "own", "rate": 0.1, "weight": 3.0, "primary": True})
    found = history.audit(changed(report, criteria=(larger, SKILL))).looks
    assert found is not None and found.changed == (
        "demographic_parity_difference was judged in the budget of its pillar (weight 1) at entry 1, and in the budget "
        "own (rate 0.1, weight 3, primary) now.",
    )


def test_of_many_requirements_that_are_gone_what_failed_comes_first(report: AuditReport) -> None:
    found = next(f for f in report.findings if f.criterion is not None)
    failed = found.model_copy(update={"outcome": Outcome.FAIL, "criterion": GAP})
    many = [required(f"metric_{i}", "at_most", 0.9) for i in range(8)]
    history = History()
    passed = failed.model_copy(update={"outcome": Outcome.PASS, "criterion": many[0]})
    history.audit(changed(report, criteria=(*many, GAP), findings=(passed, failed)))
    [only] = history.audit(changed(report, criteria=())).looks.changed  # type: ignore[union-attr]
    assert only.startswith("Required at entry 1, and not now: demographic_parity_difference (at most 0.1), metric_0 ")
    assert only.endswith("metric_3 (at most 0.9) and 4 more.")


def test_on_other_rows_only_requirements_are_compared(report: AuditReport) -> None:
    history = History()
    history.audit(report)
    moved = changed(
        report,
        data={"sha256": "1" * 64, "rows_sha256": "2" * 64},
        environment={"seed": 3},
        criteria=(required(GAP.metric, "at_most", 0.4), SKILL),
    )
    found = history.audit(moved)
    assert found.looks is not None
    assert found.looks.changed == (f"{GAP.metric} had to be at most 0.1 at entry 1, and at most 0.4 now.",)


def test_a_record_without_looks_is_spelled_as_it_was(report: AuditReport) -> None:
    plain = changed(report, data={"rows_sha256": None})
    spelled = json.loads(plain.to_json())
    assert "looks" not in spelled and "rows_sha256" not in spelled["data"]
    history = History()
    found = history.audit(report)
    assert "campaign" not in json.loads(found.to_json())["looks"]
    assert AuditReport.from_json(found.to_json()) == found


# ---- checked ---------------------------------------------------------------------------------------------------------


def test_a_claim_that_the_history_does_not_bear_out_is_found(report: AuditReport) -> None:
    history = History()
    history.audit(report)
    second = history.audit(changed(report, exit_code=1))
    assert second.looks is not None
    known, head = Known.from_entries(history.entries[:1]), history.entries[0].hash
    assert miscounted(known, None, head, second) == [] and wrong_in_history(history.entries, second) == []

    def wrong(**looks: Any) -> str:
        claim = second.model_copy(update={"looks": second.looks.model_copy(update=looks)})  # type: ignore[union-attr]
        return "; ".join(miscounted(known, None, head, claim))

    assert "it says look 1 at its rows and 2 at its model, and this is look 2 and 2" in wrong(rows=1)
    assert "other earlier looks" in wrong(earlier=(second.looks.earlier[0].model_copy(update={"exit_code": 0}),))
    assert "other changes" in wrong(changed=("The seed was 0.",))
    assert "counted in another history" in wrong(head=GENESIS)
    spent = CampaignRecord(name="c", look=2, error_rate=0.05)
    assert "look 2 of campaign c, and is look 1" in wrong(campaign=spent)
    assert wrong_in_history(history.entries, changed(second, exit_code=0)) == ["no entry of this history is this audit"]
    assert "missing" in wrong_in_history(history.entries[1:], second)[0]
    with pytest.raises(DataError, match="cannot be counted: entry 1 is missing"):
        Known.from_entries(history.entries[1:])


def test_the_ledger_takes_no_look_that_was_counted_before_another_came(tmp_path: Path, report: AuditReport) -> None:
    ledger = Ledger(tmp_path / "h.db")
    first = ledger.append_after(GENESIS, "audit", AuditEntry.from_report(report))
    assert first is not None and first.number == 1
    assert ledger.append_after(GENESIS, "audit", AuditEntry.from_report(report)) is None
    assert ledger.append_after(first.hash, "audit", AuditEntry.from_report(report)) is not None
    assert len(list(ledger.entries())) == 2
    ledger.close()


# ---- campaigns -------------------------------------------------------------------------------------------------------


def test_a_campaign_spends_no_more_than_its_rate() -> None:
    assert look_share(1) == 0.5 and look_share(3) == pytest.approx(1 / 12)
    shares = np.asarray([look_share(k) for k in range(1, 10_001)])
    assert shares.sum() == pytest.approx(1 - 1 / 10_001) and (np.diff(shares) < 0).all()
    assert sum(look_share(k, 7) for k in range(1, 20)) == pytest.approx(1.0) and look_share(8, 7) == 0.0
    for look, planned in ((0, None), (-1, 3), (1, 0)):
        with pytest.raises(ValueError, match="counted from 1"):
            look_share(look, planned)


def test_the_looks_of_a_campaign_are_counted_by_its_name(report: AuditReport) -> None:
    history = History()
    history.audit(report)
    for k in (1, 2):
        campaign = next_look(history.known, "q3", 3, 0.05)
        assert (campaign.look, campaign.level) == (k, pytest.approx(0.05 / 3))
        # On other rows: a row left out begins no campaign anew.
        history.audit(changed(report, data={"sha256": str(k) * 64, "rows_sha256": None}), campaign=campaign)
    known = history.known
    assert next_look(known, "q4", None, 0.1).look == 1
    with pytest.raises(UsageError, match="spends an error rate of 0.05 since entry 2: say --error-rate 0.05"):
        next_look(known, "q3", 3, 0.1)
    with pytest.raises(UsageError, match="was begun --campaign-looks 3 at entry 2: go on with that"):
        next_look(known, "q3", None, 0.05)
    last = history.audit(report, campaign=next_look(known, "q3", 3, 0.05))
    assert "Look 3 of 3 planned of campaign q3: level 0.0167 of 0.05." in said(last)
    with pytest.raises(UsageError, match=r"has spent its 3 looks \(entries 2, 3 and 4\): begin another"):
        next_look(history.known, "q3", 3, 0.05)


def best_of(looks: int, shares: Sequence[float], *, truth: float, outcome: Outcome, seed: int) -> int:
    """In how many worlds any of several looks at the same rows comes to an outcome that is false.

    Each look asks about another model: a model's decisions are wrong for a share ``truth`` of the rows, and models are
    dependent, since half of what they get wrong is the same. The judgement is the scan's own.
    """
    rng = np.random.default_rng(seed)
    n, false = 200, 0
    criterion = Criterion(
        metric="error_rate", direction="at_most", bound=0.1, source="test", set_by="test", set_at="today"
    )
    outcomes: dict[tuple[int, int], Outcome] = {}
    for _ in range(WORLDS):
        shared = rng.random(n)
        for k in range(looks):
            own = np.where(rng.random(n) < 0.5, shared, rng.random(n))
            wrong = int((own < truth).sum())
            if (wrong, k) not in outcomes:
                measured = Measurement(
                    metric="error_rate",
                    method="m",
                    estimate=Proportion(successes=wrong, n=n),
                    n_samples=n,
                    ideal=0.0,
                    ideal_when_same="nothing",
                )
                result = ProbeResult(probe="p", pillar="fairness", citation="", measurements=(measured,))
                [found], _ = judge([result], [criterion], Family(error_rate=0.05 * shares[k]))
                outcomes[wrong, k] = found.outcome
            if outcomes[wrong, k] is outcome:
                false += 1
                break
    return false


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.PASS])
@pytest.mark.parametrize("planned", [None, 6])
def test_the_best_of_six_looks_of_a_campaign_keeps_the_rate(planned: int | None, outcome: Outcome) -> None:
    """The true share is at the bound, so that every FAIL and every PASS is false; without a campaign they add up."""
    shares = [look_share(k, planned) for k in range(1, 7)]
    truth = 0.1 if outcome is Outcome.FAIL else 0.1 + 1e-9
    assert best_of(6, shares, truth=truth, outcome=outcome, seed=3) <= most_misses()
    assert best_of(6, [1.0] * 6, truth=truth, outcome=outcome, seed=3) > most_misses()


# ---- a scan ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, rows, and the same rows shuffled and saved as Parquet."""
    folder = tmp_path_factory.mktemp("looks")
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=400).round(3), "c": rng.choice(list("uvw"), 400)})
    preprocessing = fit_tabular(frame)
    model = TorchModel(
        MLP(preprocessing.width, [], 2),
        classes=["no", "yes"],
        preprocessing=preprocessing,
        architecture={"name": "mlp", "args": {"n_features": preprocessing.width, "hidden": [], "n_outputs": 2}},
    )
    save(model, folder / "model.pt")
    frame["y"], frame["sex"] = rng.choice(["yes", "no"], 400), rng.choice(["f", "m"], 400)
    frame.to_csv(folder / "test.csv", index=False)
    frame.sample(frac=1.0, random_state=1).to_parquet(folder / "shuffled.parquet", index=False)
    frame.iloc[1:].to_csv(folder / "less.csv", index=False)
    return folder


ROWS = ("--target", "y", "--positive", "yes", "--sensitive", "sex", "--history")


def scan(folder: Path, where: Path, *more: object, data: str = "test.csv", probes: str = "group_fairness") -> Result:
    paths = (folder / "model.pt", "--data", folder / data, "--db", where / "h.db", "--out", where / "out")
    return run("scan", *paths, *ROWS, "--probes", probes, *more)


def recorded(where: Path) -> AuditReport:
    return AuditReport.from_json((where / "out" / "report.json").read_text())


@pytest.mark.slow
def test_a_scan_says_which_look_it_is_and_verify_believes_the_history(folder: Path, tmp_path: Path) -> None:
    scan(folder, tmp_path)
    # Streamed the first time and read whole the second: the same rows either way.
    again = scan(
        folder, tmp_path, "--seed", 3, "--bundle", tmp_path / "a.zip", data="shuffled.parquet",
        probes="group_fairness,adverse_impact",
    )  # fmt: skip
    assert "looks   Second look at these rows; earlier: " in again.output
    assert "The seed was 0 at entry 1, and is 3 now." in again.output
    assert "The probe adverse_impact was not asked at entry 1" in again.output
    less = scan(folder, tmp_path, "--quiet", data="less.csv")
    assert less.exit_code in (1, 3), less.output
    assert recorded(tmp_path).looks is not None and recorded(tmp_path).looks.rows == 1  # type: ignore[union-attr]
    assert run("history", "--verify", "--db", tmp_path / "h.db").exit_code == 0
    good = run("evidence", "verify", tmp_path / "a.zip", "--db", tmp_path / "h.db", "--require", "history")
    assert good.exit_code == 0 and "its looks are what was entered before it" in good.output, good.output
    unasked = run("evidence", "verify", tmp_path / "a.zip", "--require", "history")
    assert unasked.exit_code == 3 and "for the history to say" in unasked.output
    scan(folder, tmp_path / "other", "--quiet")
    strange = run("evidence", "verify", tmp_path / "a.zip", "--db", tmp_path / "other" / "h.db")
    assert strange.exit_code == 1 and "no entry of this history is this audit" in strange.output


@pytest.mark.slow
def test_a_campaign_is_judged_at_its_level_and_ends(folder: Path, tmp_path: Path) -> None:
    own = ("--campaign", "spring", "--campaign-looks", 2)
    first = scan(folder, tmp_path, *own)
    assert "Look 1 of 2 planned of campaign spring: level 0.025 of 0.05." in first.output
    second = scan(folder, tmp_path, *own, "--bundle", tmp_path / "a.zip", data="less.csv")
    assert "Look 2 of 2 planned" in second.output
    report = recorded(tmp_path)
    assert report.family.error_rate == 0.025
    assert report.looks is not None and report.looks.changed == ()
    assert (
        run("evidence", "verify", tmp_path / "a.zip", "--db", tmp_path / "h.db", "--require", "history").exit_code == 0
    )
    over = scan(folder, tmp_path, *own)
    assert over.exit_code == 2 and "has spent its 2 looks (entries 1 and 2)" in over.output
    assert recorded(tmp_path) == report
    other = scan(folder, tmp_path, "--campaign", "spring")
    assert other.exit_code == 2 and "was begun --campaign-looks 2 at entry 1" in other.output
    assert run("history", "--verify", "--db", tmp_path / "h.db").exit_code == 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["--campaign", "a"], "add --history"),
        (["--history", "--campaign-looks", "3"], "name it with --campaign"),
        (["--history", "--campaign", "a", "--multiplicity", "none"], "no promise that a campaign could keep"),
        (["--history", "--campaign", " "], "a name of 1 to 100 characters"),
        (["--history", "--campaign", "a", "--campaign-looks", "0"], "--campaign-looks"),
    ],
)
def test_flags_that_make_no_campaign(folder: Path, tmp_path: Path, given: list[str], says: str) -> None:
    found = run("scan", folder / "model.pt", "--out", tmp_path / "out", "--db", tmp_path / "h.db", *given)
    if "--history" not in given:
        found = run("scan", folder / "model.pt", "--out", tmp_path / "out", *given)
    assert found.exit_code == 2 and says in found.output
    assert not (tmp_path / "out" / "report.json").exists()


def test_no_verdict_of_a_campaign_is_written_where_its_look_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: AuditReport
) -> None:
    """Another audit is entered while this one is measured, then the ledger cannot be written."""
    import cli.scan
    from cli.scan import entered
    from cli.scan_request import configure

    configured = configure({"model": "m.pt", "history": True, "campaign": "c", "db": str(tmp_path / "h.db")}, None, [])
    ledger = Ledger(tmp_path / "h.db")
    nothing = Known.from_entries([])
    mine = next_look(nothing, "c", None, 0.05)
    looks = looks_of(nothing, GENESIS, report, ASKED, mine)
    ledger.append("audit", AuditEntry.from_report(report.model_copy(update={"looks": looks})))
    again: list[CampaignRecord | None] = []

    def judged_again(look: CampaignRecord | None) -> AuditReport:
        again.append(look)
        return report

    class Asks:
        probes: tuple[Any, ...] = ()

    found, campaign, line = entered(configured, Asks(), report, mine, judged_again)  # type: ignore[arg-type]
    assert [look.look for look in again if look is not None] == [2] == [campaign.look if campaign else 0]
    assert found.looks is not None and found.looks.campaign == campaign and "entry 2" in line
    monkeypatch.setattr(Ledger, "append_after", lambda *_: None)
    monkeypatch.setattr(cli.scan, "_ATTEMPTS", 2)
    with pytest.raises(UsageError, match="written to all the time"):
        entered(configured, Asks(), report, mine, judged_again)  # type: ignore[arg-type]
    assert len(list(ledger.entries())) == 2
    ledger.close()


def test_a_row_left_out_makes_other_rows_and_a_campaign_does_not_mind() -> None:
    rng = np.random.default_rng(0)
    data = AuditData.from_arrays(pd.DataFrame({"a": rng.normal(size=50)}), rng.integers(0, 2, 50), classes=["0", "1"])
    assert len({data.digest, data.take(slice(1, None)).digest}) == 2
    assert all_of(data.take(np.random.default_rng(s).permutation(50)).digest == data.digest for s in range(3))
