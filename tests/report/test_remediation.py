"""Page 3: a line for every finding that asks for something, gravest first, with what somebody accepted of it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from auditor.judging.criterion import CriterionRecord
from auditor.judging.measurement import Outcome
from auditor.report.first_page import unbounded_of
from auditor.report.html import render_html
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import AuditReport, Finding
from auditor.report.record.configuration import About
from auditor.report.record.earlier_audits import DecidedFinding, DecisionRecord, key_of
from auditor.report.record.severity_and_acceptance import severity_of
from auditor.report.record.translations import Catalogue
from auditor.report.remediation import MOST_IN_SIGHT, remediation_of
from tests.quantifiers import all_of, none_of
from tests.report.samples import HOSTILE, refused_report, sample_report

TO_MEND = (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.NOT_RUN)


@pytest.fixture(scope="module")
def report() -> AuditReport:
    return sample_report()


def failed(report: AuditReport) -> Finding:
    return next(f for f in report.findings if f.outcome is Outcome.FAIL and f.metric is not None)


def finding(report: AuditReport, outcome: Outcome, interval: Any, **criterion: object) -> Finding:
    old = failed(report)
    held = old.criterion and old.criterion.model_copy(update=criterion) if criterion else None
    return old.model_copy(update={"outcome": outcome, "interval": interval, "criterion": held, "ideal": 0.0})


def decided(f: Finding, value: float | None = 0.9, **changes: object) -> DecisionRecord:
    item = DecidedFinding(finding=f.id, asks=key_of(f), value=value, high=value)
    return DecisionRecord(
        **{
            "entry": 2, "audit": 1, "created": "2026-11-27", "decision": "accept", "by": "Ann", "role": "officer",
            "expires": "2099-01-31", "findings": (f.id,), "decided": (item,), "owner": "model team",
            "due": "2099-01-15", **changes,
        }  # type: ignore[arg-type]
    )  # fmt: skip


def with_decisions(report: AuditReport, *decisions: DecisionRecord) -> AuditReport:
    return report.model_copy(update={"decisions": decisions})


# ---- how grave -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "interval", "direction", "bound", "kind", "by"),
    [
        (Outcome.FAIL, (0.25, 0.5), "at_most", 0.1, "beyond", 0.15),
        (Outcome.FAIL, (0.3, 0.6), "at_least", 0.8, "beyond", 0.2),
        (Outcome.FAIL, (1.5, 1.9), "within", (0.8, 1.25), "beyond", 0.25),
        (Outcome.FAIL, (0.2, 0.5), "within", (0.8, 1.25), "beyond", 0.3),
        # Shown by its own test, while the interval of all together still reaches the bound.
        (Outcome.FAIL, (0.05, 0.5), "at_most", 0.1, "beyond", None),
        (Outcome.INCONCLUSIVE, (0.05, 0.5), "at_most", 0.1, "open", 0.4),
        (Outcome.INCONCLUSIVE, (0.7, 0.95), "at_least", 0.8, "open", 0.1),
        (Outcome.INCONCLUSIVE, (0.7, 1.5), "within", (0.8, 1.25), "open", 0.25),
        (Outcome.INCONCLUSIVE, (None, None), "at_most", 0.1, "open", None),
        (Outcome.INCONCLUSIVE, None, "at_most", 0.1, "open", None),
        (Outcome.NOT_RUN, None, "at_most", 0.1, "not_run", None),
        (Outcome.PASS, (0.0, 0.05), "at_most", 0.1, "met", None),
    ],
)
def test_severity_is_how_far_the_interval_lies_beyond_the_bound(
    report: AuditReport, outcome: Outcome, interval: Any, direction: str, bound: Any, kind: str, by: float | None
) -> None:
    found = severity_of(finding(report, outcome, interval, direction=direction, bound=bound))
    assert found.kind == kind
    assert found.by == (None if by is None else pytest.approx(by))


def test_what_is_undefined_and_has_no_bound_is_open_by_nobody_knows_how_much(report: AuditReport) -> None:
    found = severity_of(finding(report, Outcome.INCONCLUSIVE, (None, None)))
    assert (found.kind, found.by) == ("open", None)


def test_without_a_bound_it_is_the_distance_of_the_nearer_end_from_the_ideal(report: AuditReport) -> None:
    assert severity_of(finding(report, Outcome.NOT_JUDGED, (0.2, 0.5))).by == pytest.approx(0.2)
    assert severity_of(finding(report, Outcome.NOT_JUDGED, (-0.5, -0.3))).by == pytest.approx(0.3)
    assert severity_of(finding(report, Outcome.NOT_JUDGED, (-0.5, 0.3))).by is None


# ---- the table -------------------------------------------------------------------------------------------------------


def test_everything_that_asks_for_something_has_one_line_and_nothing_else(report: AuditReport) -> None:
    expected = [f.id for f in report.findings if f.outcome in TO_MEND] + [f.id for f in unbounded_of(report)]
    listed = [line.id for line in remediation_of(report).lines]
    assert len(listed) > 5 and sorted(listed) == sorted(expected)


def test_the_gravest_stand_first_and_what_is_shown_before_what_is_not(report: AuditReport) -> None:
    kinds = [line.outcome for line in remediation_of(report).lines]
    order = [Outcome.FAIL, Outcome.NOT_RUN, Outcome.INCONCLUSIVE, Outcome.NOT_JUDGED]
    assert [order.index(kind) for kind in kinds] == sorted(order.index(kind) for kind in kinds)


def test_owner_and_due_are_empty_lines_until_somebody_said(report: AuditReport) -> None:
    plain = remediation_of(report).lines
    assert none_of(line.owner or line.due for line in plain)
    assert {line.status for line in plain} == {"open"} and {line.said for line in plain} == {"open"}
    f = failed(report)
    line = next(
        line for line in remediation_of(with_decisions(report, decided(f))).lines if line.id == f.id
    )  # fmt: skip
    assert (line.owner, line.due, line.status) == ("model team", "2099-01-15", "accepted")
    assert "until 2099-01-31 by Ann" in line.said
    others = [line for line in remediation_of(with_decisions(report, decided(f))).lines if line.id != f.id]
    assert all_of(line.status == "open" for line in others)


@pytest.mark.parametrize(
    ("changes", "value", "status", "says"),
    [
        ({}, 0.001, "exceeds", "worse than accepted (up to 0.1"),
        ({"expired": True}, 0.9, "expired", "acceptance expired on 2099-01-31"),
        ({"step": "prepared"}, 0.9, "unsigned", "not reviewed, approved"),
        ({}, None, "accepted", "accepted without a value until 2099-01-31 by Ann"),
    ],
)
def test_what_became_of_an_acceptance_is_its_status(
    report: AuditReport, changes: dict[str, object], value: float | None, status: str, says: str
) -> None:
    f = failed(report)
    made = with_decisions(report, decided(f, value, **changes))
    line = next(line for line in remediation_of(made).lines if line.id == f.id)
    assert line.status == status and says in line.said
    assert line.outcome is Outcome.FAIL and made.verdict() == report.verdict()


def test_a_decision_on_another_finding_leaves_this_one_open(report: AuditReport) -> None:
    f = failed(report)
    for change in ({"metric": "another"}, {"method": "another"}, {"group": {"sex": "x"}}, {"at": {"epsilon": 1.0}}):
        other = f.model_copy(update=change)
        lines = remediation_of(with_decisions(report, decided(other))).lines
        assert next(line for line in lines if line.id == f.id and line.anchor).status == "open"
        # Silence is no news: what was accepted and is not measured now has a line that says so.
        gone = [line for line in lines if not line.anchor]
        assert [line.severity for line in gone] == ["not known: it was not measured now"]


def test_what_was_accepted_without_a_value_and_is_not_measured_asks_for_nothing(report: AuditReport) -> None:
    other = failed(report).model_copy(update={"metric": "another"})
    lines = remediation_of(with_decisions(report, decided(other, None))).lines
    assert [line.id for line in lines] == [line.id for line in remediation_of(report).lines]


def test_what_was_accepted_and_passes_now_is_fixed(report: AuditReport) -> None:
    passed = next(f for f in report.findings if f.outcome is Outcome.PASS and f.value is not None)
    made = with_decisions(report, decided(passed))
    line = next(line for line in remediation_of(made).lines if line.id == passed.id)
    assert line.status == "fixed" and line.severity == "meets its bound now" and line.outcome is Outcome.PASS


def test_a_refusal_and_a_clean_audit_say_so_instead_of_a_table() -> None:
    table = remediation_of(refused_report())
    assert not table.lines and "Nothing was measured" in table.nothing
    assert table.nothing in render_html(refused_report())


def test_nothing_to_mend_is_said(report: AuditReport) -> None:
    clean = report.model_copy(
        update={"findings": tuple(f for f in report.findings if f.outcome is Outcome.PASS)}
    )  # fmt: skip
    assert remediation_of(clean).nothing.startswith("Nothing failed") and not remediation_of(clean).lines


def test_the_command_that_asks_again_is_the_one_of_this_audit(report: AuditReport) -> None:
    assert remediation_of(report).retest == report.environment.command
    assert "Retest, for all lines" in render_html(report)


def test_many_lines_are_folded_and_all_are_there(report: AuditReport) -> None:
    f = failed(report)
    many = tuple(f.model_copy(update={"id": f"{f.id}{k}", "at": {"epsilon": float(k)}}) for k in range(40))
    table = remediation_of(report.model_copy(update={"findings": many}))
    assert len(table.in_sight) == MOST_IN_SIGHT and len(table.in_sight) + len(table.folded_lines) == 40
    page = render_html(report.model_copy(update={"findings": many}))
    assert page.count('class="remedy"') == 40 and "and 28 more" in page


def test_the_table_is_told_in_the_language_of_the_record_or_another(report: AuditReport) -> None:
    german = report.model_copy(update={"about": About(language="de")})
    assert remediation_of(german).title == "Maßnahmen" == remediation_of(report, Catalogue.for_language("de")).title
    assert "Gegenstand, System und Daten" in render_html(german)
    both = [
        replace(remediation_of(report, Catalogue.for_language("de")), retest="").lines,
        remediation_of(german).lines,
    ]
    assert both[0] == both[1]


# ---- strangers' words ------------------------------------------------------------------------------------------------


def test_strangers_words_stay_words_in_every_format(report: AuditReport) -> None:
    nasty = HOSTILE[0] + " | `x` [a](http://b) @me"
    made = with_decisions(report, decided(failed(report), by=nasty, owner=nasty, due=nasty, expires=nasty, note=nasty))
    page, short = render_html(made), render_markdown(made)
    assert "<script>alert" not in page and nasty not in page
    assert "](http://b)" not in short
    rows = short[short.index("### Remediation") :].splitlines()[2:]
    assert rows.index("") > 3
    assert all_of(len(re.findall(r"(?<!\\)\|", row)) == 6 for row in rows[: rows.index("")])


def test_a_criterion_on_an_ideal_of_nought_does_not_divide_by_it(report: AuditReport) -> None:
    held = CriterionRecord(metric="m", direction="at_most", bound=0.0, source="s", set_by="u", set_at="d")
    found = severity_of(finding(report, Outcome.FAIL, (3.0, 3.0), bound=0.0).model_copy(update={"criterion": held}))
    assert (found.by, found.share) == (3.0, 3.0)
