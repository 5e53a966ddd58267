"""Cells of rule packs say no more than is known: what columns hold, what became of it, who asks, and since when."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import date
from fnmatch import fnmatchcase
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from auditor.core.errors import ConfigError, DataError, UsageError
from auditor.evidence.dossier_files import tradeoff_beside
from auditor.judging.input_files import EEO1, ROLES, Roles, roles_of
from auditor.judging.measurement import Outcome
from auditor.judging.policy import CERTAINTY, EvidenceRule, load_policies, pack_names, parse_policy
from auditor.report.document_files import render_pdf
from auditor.report.html import policies_of, render_html
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import INTAKE, AuditReport, Finding
from auditor.report.record.configuration import About
from auditor.report.record.control_record import CELL_KINDS, OLD_AFTER, CellRecord
from auditor.report.record.controls import Beside, fitting, with_policies
from auditor.report.record.earlier_audits import RegistrationRecord
from auditor.report.report_view import rows_of, warnings_of
from cli.terminal import print_report
from probes import PROBES
from probes.robustness.robustness import Robustness
from tests.evidence.dossiers import render_dossier
from tests.quantifiers import all_of, none_of
from tests.report.samples import report_of, sample_report

PACKS = {pack.name: pack for pack in load_policies(pack_names())[0]}
SEVEN = ("eu-ai-act", "gdpr", "iso-42001", "nist-ai-rmf", "nyc-ll144", "us-adverse-impact", "us-co-sb26-189")
DAY = date(2026, 11, 27)
EMPTY = report_of([])
KINDS = [o for o in Outcome if o not in (Outcome.NOT_RUN, Outcome.NOT_APPLICABLE)]


def finding(probe: str, metric: str | None = "m", outcome: Outcome = Outcome.NOT_JUDGED, **changes: Any) -> Finding:
    silent = outcome in (Outcome.NOT_RUN, Outcome.NOT_APPLICABLE)
    number = changes.get("metric", metric)
    own: dict[str, Any] = {
        "id": "/".join(map(str, (probe, number, *(changes.get(k, "") for k in ("method", "group", "sensitive"))))),
        "probe": probe, "method": None, "pillar": "fairness", "metric": None if silent else metric, "group": {},
        "sensitive": (), "at": {}, "value": None if silent else 0.5, "interval": None if silent else (0.4, 0.6),
        "confidence": 0.95, "p_fail": None, "p_pass": None, "n_samples": 100, "outcome": outcome, "criterion": None,
        "minimum_detectable_effect": None, "n_required": None, "citation": "", "detail": "",
        "reason": "it lacks an input" if silent else "",
    }  # fmt: skip
    return Finding(**(own | changes))


def record(*findings: Finding, **changes: Any) -> AuditReport:
    return EMPTY.model_copy(update={"findings": findings, **changes})


def cell(report: AuditReport, pack: str, control: str, what: str, as_of: date = DAY, **given: Any) -> CellRecord:
    held = with_policies(report, [PACKS[pack]], as_of, **given)
    (own,) = [c for c in held.controls if c.id == control]
    (found,) = [c for c in own.cells if c.what == what] or [c for c in own.cells if c.what.startswith(what)]
    return found


# ---- what columns hold -----------------------------------------------------------------------------------------------

SEX = Roles(columns={"sex": "gender"})
BOTH = Roles(columns={"sex": "gender", "race_ethnicity": "race"})
RACES = ("White", "Black or African American", "Asian")


def impact(*columns: str, method: str = "selection_rate", levels: Sequence[str] = RACES) -> list[Finding]:
    found = [
        finding("adverse_impact", "impact_ratio_min", method=method, sensitive=columns),
        finding("adverse_impact", "unknown_count", method=method, sensitive=columns),
    ]
    for level in levels:
        group = dict.fromkeys(columns, level)
        found.append(finding("adverse_impact", method, method=method, group=group))
        found.append(finding("adverse_impact", "impact_ratio", method=method, group=group))
    return found


LL144_SEX = [
    ("5-301(b)", "selection rate of every sex"),
    ("5-301(b)", "impact ratio against the most selected sex"),
    ("5-301, unknown", "people whose sex"),
]


@pytest.mark.parametrize(("control", "what"), LL144_SEX)
def test_marital_status_is_not_sex(control: str, what: str) -> None:
    married = record(*impact("marital", levels=["married", "single"]))
    found = cell(married, "nyc-ll144", control, what)
    assert found.kind == "not measured" and found.findings == ()
    assert found.reason == "No column is said to hold sex." and '[roles], write sex = "COLUMN"' in found.how
    unasked = cell(record(roles=SEX), "nyc-ll144", control, what)
    assert unasked.kind == "not measured" and unasked.reason == "adverse_impact was not asked."
    named = cell(married.model_copy(update={"roles": SEX}), "nyc-ll144", control, what)
    assert named.kind == "not measured" and "gender was not compared" in named.reason
    own = record(*impact("gender", levels=["f", "m"]), *impact("marital", levels=["x", "y"]), roles=SEX)
    shown = cell(own, "nyc-ll144", control, what)
    assert shown.kind == "evidence" and none_of("marital" in name for name in shown.findings)


def test_an_intersection_needs_both_roles_and_no_third_column() -> None:
    what = "impact ratio of sex and race/ethnicity together"
    two = impact("gender", "race")
    assert cell(record(*two, roles=BOTH), "nyc-ll144", "5-301(b)", what).kind == "evidence"
    lacking = cell(record(*two, roles=SEX), "nyc-ll144", "5-301(b)", what)
    assert lacking.reason == "No column is said to hold race_ethnicity." and "race_ethnicity =" in lacking.how
    three = cell(record(*impact("gender", "race", "marital"), roles=BOTH), "nyc-ll144", "5-301(b)", what)
    assert three.kind == "not measured" and "only together with other columns" in three.reason
    assert "and no third" in three.how


@pytest.mark.parametrize(
    ("levels", "roles", "kind", "reason"),
    [
        (("White", "Asian"), {}, "evidence", ""),
        (("white", "BLACK or african-american", "Asian (Not Hispanic or Latino)"), {}, "evidence", ""),
        (("W", "Asian"), {}, "not measured", "'W', which is no category of Component 1"),
        (("W", "Asian"), {"W": "White"}, "evidence", ""),
        (("Chinese", "Indian"), {"Chinese": "Asian", "Indian": "Asian"}, "not measured", "more than one value of one"),
        ((), {}, "not measured", "nothing that the record names"),
    ],
)
def test_race_is_held_to_the_levels_of_eeo_1(levels: Any, roles: dict[str, str], kind: str, reason: str) -> None:
    own = Roles(columns={"race_ethnicity": "race"}, levels={"race_ethnicity": roles})
    for what in ("selection rate of every category of race", "impact ratio against the most selected category of race"):
        if levels or what.startswith("impact"):
            found = cell(record(*impact("race", levels=levels), roles=own), "nyc-ll144", "5-301(b)", what)
            assert found.kind == kind and reason in found.reason
    if "W" in levels and kind == "not measured":
        assert '[roles.levels.race_ethnicity], write "W" = "CATEGORY"' in found.how
        assert all_of(name in found.how for name in EEO1)


def test_a_label_is_a_level_too() -> None:
    about = About(labels={"race.1": "White", "race.2": "Asian"})
    own = record(*impact("race", levels=["1", "2"]), roles=Roles(columns={"race_ethnicity": "race"}), about=about)
    assert cell(own, "nyc-ll144", "5-301(b)", "selection rate of every category of race").kind == "evidence"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"sexx": "gender"}, "no role 'sexx'; did you mean 'sex'"),
        ({"sex": 3}, "sex must be the name of a column"),
        ({"sex": " "}, "sex must be the name of a column"),
        ({"sex": "a", "age": "a"}, "column 'a' has two roles"),
        ({"sex": "a", "levels": 3}, "levels must be tables"),
        ({"sex": "a", "levels": {"race_ethnicity": {"1": "White"}}}, "levels of race_ethnicity need its column"),
        ({"race_ethnicity": "r", "levels": {"race_ethnicity": {"1": "Whte"}}}, "no category of EEO-1.*'White'"),
        ({"race_ethnicity": "r", "levels": {"race_ethnicity": {"1": 1}}}, "must be a table of texts"),
        ([], "must be a table"),
    ],
)
def test_a_wrong_role_names_the_nearest(table: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        roles_of(table, "audit.toml: [roles]")


def test_roles_are_a_closed_list_and_nothing_is_none() -> None:
    assert roles_of({}, "x") is None and {"sex", "race_ethnicity", "age", "disability", "religion"} <= set(ROLES)
    own = roles_of({"race_ethnicity": "r", "levels": {"race_ethnicity": {"1": "White"}}}, "x")
    assert own is not None and own.keys == ("r", "r.1") and own.category("race_ethnicity", "1", "eeo-1") == "White"


# ---- what became of it -----------------------------------------------------------------------------------------------


def a_name(pattern: str) -> str:
    """Some name of a pattern, of its last alternative."""
    return pattern.split("|")[-1].replace("*", "x")


def of_rule(rule: EvidenceRule, outcome: Outcome, roles: Roles) -> Finding:
    probe = next(name for name in (*PROBES, INTAKE) if any(fnmatchcase(name, one) for one in rule.probes))
    columns = tuple(roles.columns[role] for role in rule.roles) or ("a", "b")[: rule.features]
    return finding(probe, a_name(rule.metric), outcome, method=a_name(rule.method), sensitive=columns)


RULES = [
    (pack.name, control.id, rule)
    for pack in PACKS.values() for control in pack.controls for rule in control.evidence
    if rule.shown_by in ("findings", "attempts")
]  # fmt: skip
ALL_ROLES = Roles(columns={role: f"column_{role}" for role in ROLES})


def test_what_became_of_a_finding_is_what_its_cell_says() -> None:
    for name, control, rule in RULES:
        for outcome in KINDS:
            own = of_rule(rule, outcome, ALL_ROLES)
            level = finding("adverse_impact", "selection_rate", group={"column_race_ethnicity": "White"})
            report = record(own, *([level] if rule.levels else []), roles=ALL_ROLES)
            found = cell(report, name, control, rule.what)
            if outcome is Outcome.FAIL or found.outcomes:
                assert found.kind == "evidence" and found.outcomes.get(outcome.value), (name, control, rule.what)
            assert (found.outcome is Outcome.FAIL) == (outcome is Outcome.FAIL), (name, control, rule.what)


def test_the_gravest_outcome_names_the_cell() -> None:
    for worst, others in (
        ("FAIL", {"PASS": 9, "INCONCLUSIVE": 1}),
        ("INCONCLUSIVE", {"PASS": 9}),
        ("NOT_RUN", {"PASS": 1}),
    ):
        own = CellRecord(kind="evidence", what="w", outcomes={**others, worst: 1})
        assert own.outcome is Outcome(worst)
    assert CellRecord(kind="evidence", what="w", outcomes={"NOT_JUDGED": 3}).outcome is Outcome.NOT_JUDGED
    assert CellRecord(kind="attestation needed", what="w").outcome is None


@pytest.mark.parametrize("name", pack_names())
def test_without_a_finding_nothing_is_evidence_but_the_day_of_the_audit(name: str) -> None:
    aged = {rule.what for c in PACKS[name].controls for rule in c.evidence if rule.shown_by == "age"}
    for findings in ([], [finding(p, None, Outcome.NOT_APPLICABLE) for p in PROBES],
                     [finding(p, None, Outcome.NOT_RUN) for p in PROBES]):  # fmt: skip
        held = with_policies(record(*findings, roles=ALL_ROLES), [PACKS[name]], DAY)
        kinds = {c.kind for control in held.controls for c in control.cells if c.what not in aged}
        assert kinds <= {"not measured", "attestation needed"} and held.controls


def test_a_probe_for_other_models_is_no_reproach_and_one_that_lacks_an_input_is() -> None:
    text = "it is for a language model"
    other = finding("extraction", None, Outcome.NOT_APPLICABLE, other_kind=True, reason=text)
    found = cell(record(other), "gdpr", "EDPB 28/2024, extraction", "training texts")
    assert (found.kind, found.reason, found.how) == ("not for this kind of model", text, "")
    lacking = finding("lm_membership", None, Outcome.NOT_APPLICABLE, reason="Needs training texts.")
    table = finding("membership_inference", None, Outcome.NOT_APPLICABLE, other_kind=True, reason="for tables")
    mixed = cell(record(table, lacking), "gdpr", "EDPB 28/2024, membership", "attacks on")
    assert (mixed.kind, mixed.reason) == ("not measured", "Needs training texts.")
    told = finding("membership_inference", "attack_auc", Outcome.FAIL)
    assert cell(record(told, lacking), "gdpr", "EDPB 28/2024, membership", "attacks on").outcome is Outcome.FAIL


def test_a_control_for_other_kinds_of_model_asks_nothing_of_this_one() -> None:
    """A general-purpose duty is not evidenced by the parameters of a table's model, and nobody need attest it."""
    other = [
        finding(probe, None, Outcome.NOT_APPLICABLE, other_kind=True, reason="Needs a language model.")
        for probe in ("lm_membership", "generation_bias")
    ]
    size = finding("intake", "n_parameters", Outcome.NOT_JUDGED)

    def cells(*findings: Finding) -> dict[str, list[CellRecord]]:
        held = with_policies(record(*findings), [PACKS["eu-ai-act"]], DAY)
        return {control.id: list(control.cells) for control in held.controls}

    of_table, general = cells(size, *other), "Art. 53(1)(a), Annex XI 1.1"
    assert {(c.kind, c.reason) for c in of_table[general]} == {
        ("not for this kind of model", "Needs a language model.")
    }
    assert len(of_table[general]) == 2 and of_table["Art. 14"][0].kind != "not for this kind of model"
    of_language = cells(size, other[0], finding("generation_bias", "regard_gap", Outcome.NOT_JUDGED))
    assert [c.kind for c in of_language[general]] == ["evidence", "attestation needed"]
    assert [c.kind for c in cells(size)[general]] == ["evidence", "attestation needed"]


def test_what_passes_is_a_measurement_and_never_a_green_row_of_law() -> None:
    pack = parse_policy(
        'name = "house"\ntitle = "House"\nsource = "s"\nchecked_on = 2026-01-01\ncertainty = "text"\n[[controls]]\n'
        'id = "one"\ntitle = "First"\nevidence = [\n{ what = "a", probe = "one", how = "h" },\n'
        '{ what = "b", probe = "two", how = "h" }]\n',
        "house.toml",
    )
    detail = "earned its display WITH RESERVATIONS: a check was not run"
    report = with_policies(
        record(finding("one", "m", Outcome.PASS, id="1"), finding("two", "m", Outcome.PASS, id="2", detail=detail)),
        [pack],
        DAY,
    )
    first, second = policies_of(report, rows_of(report.findings))[0].controls[0].cells
    assert (first.state, first.slug) == ("1 measurement; does not show that this is met", "not-judged")
    assert second.state == "1 measurement, with reservations; does not show that this is met"
    html, dossier = render_html(report), render_dossier(report, [pack], DAY)
    assert "cell is-pass" not in html and html.count("does not show that this is met") == 2 and detail in html
    assert detail in render_markdown(report) and dossier.count("which does not show that this is met") == 2


def pdf_text(content: bytes) -> str:
    import pypdfium2

    document = pypdfium2.PdfDocument(content)
    return " ".join(" ".join(page.get_textpage().get_text_range() for page in document).split())


def test_every_rendering_says_outcome_kind_source_day_and_certainty(capsys: pytest.CaptureFixture[str]) -> None:
    pack = parse_policy(
        'name = "house"\nversion = "7"\ntitle = "House"\nsource = "house rules"\nchecked_on = 2026-01-01\n'
        'certainty = "text"\n[[controls]]\nid = "one"\ntitle = "First"\nsource = "chapter 1"\nevidence = [\n'
        '{ what = "gaps", probe = "group_fairness", metric = "*_difference", how = "h" },\n'
        '{ what = "memory", probe = "extraction", how = "h", source = "chapter 2", certainty = "memory" }]\n',
        "house.toml",
    )
    base = sample_report()
    other = finding("extraction", None, Outcome.NOT_APPLICABLE, other_kind=True, reason="it is for a language model")
    report = with_policies(base.model_copy(update={"findings": (*base.findings, other), "roles": SEX}), [pack], DAY)
    gaps, memory = report.controls[0].cells
    assert (gaps.outcome, gaps.cited) == (Outcome.FAIL, f"chapter 1, looked up on 2026-01-01, {CERTAINTY['text']}")
    assert memory.cited == f"chapter 2, noted on 2026-01-01, {CERTAINTY['memory']}"
    print_report(report, [], verbose=True)
    html, markdown, terminal = render_html(report), render_markdown(report), capsys.readouterr().out
    dossier = render_dossier(report, [pack], DAY)
    paper = pdf_text(render_pdf(report, appendix=True))
    for said in (html, markdown, dossier, paper):
        plain = re.sub(r"\s+", " ", said.replace("\\", ""))
        assert "not for this kind of model" in plain.casefold() and "it is for a language model" in plain
        assert "chapter 2, noted on 2026-01-01, from general knowledge, not looked up" in plain
        assert "chapter 1, looked up on 2026-01-01" in plain and "read in the primary text" in plain
        assert "Version 7, SHA-256" in plain and pack.sha256[:16] in plain
    assert "<strong>Evidence: FAIL</strong>" in html and "cell is-not-applicable" in html
    assert "**Evidence: FAIL** (" in markdown and "**FAIL** (" in dossier and "Evidence: FAIL" in paper
    tally = "1 evidence (1 FAIL), 0 attestation needed, 0 not measured, 1 not for this kind of model."
    (shown,) = policies_of(report, rows_of(report.findings))
    assert shown.tally == f"{tally} 0 of 1 control without any evidence."
    for said in (html, markdown, dossier, paper, " ".join(terminal.split())):
        assert tally in said.replace("\\", "") and "sex is the column gender" in said.replace("\\", "")


def test_hostile_roles_and_reasons_stay_text() -> None:
    nasty = "<script>alert(1)</script>|`x`[a](http://b)\u202e\x1b[31m"
    other = finding("extraction", None, Outcome.NOT_APPLICABLE, other_kind=True, reason=nasty)
    roles = Roles(columns={"sex": nasty}, levels={})
    report = with_policies(record(other, *impact(nasty, levels=[nasty]), roles=roles), list(PACKS.values()), DAY)
    html, markdown = render_html(report), render_markdown(report)
    dossier = render_dossier(report, list(PACKS.values()), DAY)
    for said in (html, markdown, dossier):
        assert "\x1b" not in said and "\u202e" not in said
    assert "<script>alert" not in html
    for said in (markdown, dossier):
        blocks = MarkdownIt("commonmark").enable("table").parse(said)
        tokens = [t for block in blocks for t in (block, *(block.children or []))]
        assert tokens and not [t for t in tokens if t.type in ("html_block", "html_inline")]
        assert not [t for t in tokens if t.type == "link_open" and t.attrs.get("href") == "http://b"]
    assert render_pdf(report, appendix=True).startswith(b"%PDF")


# ---- what is no finding ----------------------------------------------------------------------------------------------

ANN = RegistrationRecord(path="r.json", sha256="a" * 64, registered="2026-11-20", by="Ann", signed_with="b" * 64)
REGISTERED = [("eu-ai-act", "Art. 9(8)", "criteria"), ("eu-ai-act", "Annex IV 2(g), reports", "plan of the test"),
              ("iso-42001", "A.6.2.4", "criteria signed"), ("nist-ai-rmf", "MAP 2.3", "plan")]  # fmt: skip


@pytest.mark.parametrize(("pack", "control", "what"), REGISTERED)
def test_a_signed_registration_that_was_followed_is_evidence_and_no_other(pack: str, control: str, what: str) -> None:
    followed = cell(record(registration=ANN), pack, control, what)
    assert followed.kind == "evidence" and "The run followed its registration" in followed.said
    assert followed.outcome is None and "signed with the key" in followed.said
    for changed, why in (
        ({"signed_with": None}, "Nobody signed it"),
        ({"deviations": ("The seed.",)}, "DEVIATES"),
        ({"deviations": ("The seed.",), "signed_with": None}, "DEVIATES"),
    ):
        found = cell(record(registration=ANN.model_copy(update=changed)), pack, control, what)
        assert found.kind == "not measured" and why in found.reason and "auditor evidence register" in found.how
    assert "not registered" in cell(EMPTY, pack, control, what).reason


@pytest.mark.parametrize(
    ("as_of", "kind", "said"),
    [
        (date(2026, 11, 24), "evidence", "0 days old on 2026-11-24, and 365 on 2027-11-24"),
        (date(2027, 11, 24), "evidence", "365 days old"),
        (date(2027, 11, 25), "not measured", "it is 366 days old, more than 365"),
        (date(2026, 11, 23), "not measured", "after 2026-11-23"),
    ],
)
def test_an_audit_is_a_year_old_by_the_date_of_its_record(as_of: date, kind: str, said: str) -> None:
    found = cell(EMPTY, "nyc-ll144", "5-301(a)", "days since", as_of)
    assert found.kind == kind and said in found.said + found.reason


TRADED = [("us-adverse-impact", "alternatives"), ("eu-ai-act", "Annex IV 2(b)"), ("eu-ai-act", "Art. 10(2)(g)"),
          ("iso-42001", "A.6.2.3"), ("nist-ai-rmf", "MANAGE 1.3")]  # fmt: skip


@pytest.mark.parametrize(("pack", "control"), TRADED)
def test_a_trade_off_is_evidence_of_the_search_where_it_was_given(pack: str, control: str) -> None:
    (rule,) = [r for c in PACKS[pack].controls if c.id == control for r in c.evidence if r.shown_by == "tradeoff"]
    none = cell(EMPTY, pack, control, rule.what)
    assert none.kind == "not measured" and "auditor tradeoff" in none.how
    found = cell(EMPTY, pack, control, rule.what, tradeoff=Beside(said="3 other models tried."))
    assert (found.kind, found.said, found.outcome) == ("evidence", "3 other models tried.", None)
    assert cell(EMPTY, pack, control, rule.what, tradeoff=Beside(reason="of another")).reason == "of another"


def tradeoff_file(path: Path, *verdicts: str, **changes: Any) -> Path:
    points = [{"name": f"point {i}", "verdict": v} for i, v in enumerate(("present model", *verdicts))]
    content = {
        "tradeoff_version": "1", "made_by": "auditor mitigate", "model": {"sha256": EMPTY.model.sha256},
        "data": {"sha256": EMPTY.data.sha256}, "metric": "accuracy", "disparity": "demographic_parity_difference",
        "tolerance": 0.02, "points": points, "headline": "ignored",
    }  # fmt: skip
    path.write_text(json.dumps(content | changes))
    return path


def test_a_trade_off_is_read_and_is_of_this_model(tmp_path: Path) -> None:
    shown = "less discriminatory alternative"
    found = tradeoff_beside(tradeoff_file(tmp_path / "t.json", shown, "not shown", "not made"), EMPTY)
    assert "2 other models tried by auditor mitigate" in found.said and "1 of them shown" in found.said
    assert "point 1" in found.said and not found.reason and "Its rows are others" not in found.said
    none = tradeoff_beside(tradeoff_file(tmp_path / "t.json", "not shown", data={"sha256": "c" * 64}), EMPTY)
    assert "not to say that there is none" in none.said and "Its rows are others" in none.said
    other = tradeoff_beside(tradeoff_file(tmp_path / "t.json", shown, model={"sha256": "c" * 64}), EMPTY)
    assert not other.said and "another model" in other.reason
    assert "holds no other model" in tradeoff_beside(tradeoff_file(tmp_path / "t.json", "not made"), EMPTY).reason
    with pytest.raises(UsageError, match="no trade-off at"):
        tradeoff_beside(tmp_path / "none.json", EMPTY)
    for text in ("{}", "no", "[]"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match="is no trade-off .*give the tradeoff.json"):
            tradeoff_beside(tmp_path / "bad.json", EMPTY)


def test_the_dossier_takes_a_trade_off(tmp_path: Path) -> None:
    from cli.commands import app

    given = tradeoff_file(tmp_path / "t.json", "not shown")
    (tmp_path / "report.json").write_text(EMPTY.to_json())
    out = tmp_path / "d.md"
    arguments = ["policy", "dossier", str(tmp_path / "report.json"), "--policy", "us-adverse-impact", "--out", str(out)]
    done = CliRunner().invoke(app, [*arguments, "--tradeoff", str(given)])
    assert done.exit_code == 0, done.output
    assert "1 other model tried by auditor mitigate" in out.read_text()


def test_what_was_not_tried_is_read_off_the_findings() -> None:
    what = "attacks of this tool"
    findings = (
        finding("membership_inference", "attack_auc", Outcome.PASS),
        finding("extraction", None, Outcome.NOT_APPLICABLE, other_kind=True, reason="It is for a language model."),
        finding("attribute_inference", None, Outcome.NOT_APPLICABLE, reason="Name the attribute."),
    )
    found = cell(record(*findings), "gdpr", "EDPB 28/2024, attempts", what)
    assert found.kind == "evidence" and found.said.startswith("Tried: membership_inference (1 number). Not tried: ")
    assert "extraction: It is for a language model;" in found.said
    assert "attribute_inference: Name the attribute" in found.said and "model_inversion: it was not asked" in found.said
    nothing = cell(EMPTY, "gdpr", "EDPB 28/2024, attempts", what)
    assert nothing.kind == "not measured" and "Tried: none." in nothing.reason


# ---- the seven packs, cell by cell -----------------------------------------------------------------------------------

FAIL, PASS, OPEN = Outcome.FAIL, Outcome.PASS, Outcome.NOT_JUDGED
CELLS: list[tuple[str, str, str, dict[str, Any], Outcome]] = [
    ("eu-ai-act", "Annex IV 2(g), accuracy", "accuracy of all", {"probe": "performance", "metric": "accuracy"}, PASS),
    ("eu-ai-act", "Art. 10(2)(f)", "biases in what", {"probe": "group_fairness", "metric": "x_difference"}, FAIL),
    ("eu-ai-act", "Art. 10(2)(h)", "training rows", {"probe": "label_conflicts", "metric": "label_conflict_rate"},
     FAIL),
    ("eu-ai-act", "Annex IV 6", "what changed", {"probe": "change", "metric": "flip_rate"}, OPEN),
    ("eu-ai-act", "Art. 13(3)", "accuracy that", {"probe": "performance", "metric": "balanced_accuracy"}, PASS),
    ("eu-ai-act", "Art. 13(3)", "robustness", {"probe": "robustness", "metric": "accuracy_under_noise"}, FAIL),
    ("eu-ai-act", "Art. 13(3)", "attacks",
     {"probe": "robustness", "metric": "robust_accuracy", "method": "certificate"}, FAIL),
    ("eu-ai-act", "Art. 13(3)", "confidentiality", {"probe": "membership_inference", "metric": "attack_auc"}, FAIL),
    ("eu-ai-act", "Art. 14", "explanations", {"probe": "feature_attribution", "metric": "faithfulness_gain"}, PASS),
    ("eu-ai-act", "Art. 27", "gaps", {"probe": "group_fairness", "metric": "x_difference"}, FAIL),
    ("eu-ai-act", "Art. 86", "whether", {"probe": "token_attribution", "metric": "faithfulness_gain"}, FAIL),
    ("eu-ai-act", "Annex IV 2(h)", "confidentiality: what", {"probe": "canary_exposure", "metric": "exposure"}, FAIL),
    ("eu-ai-act", "Annex XI 1.2", "biases", {"probe": "stereotype", "metric": "stereotype_score"}, FAIL),
    ("eu-ai-act", "Art. 53(1)(b) to (d)", "training texts", {"probe": "extraction", "metric": "extraction_rate"}, FAIL),
    ("eu-ai-act", "Art. 55, Annex XI 2", "whether a benchmark", {"probe": "contamination", "metric": "m"}, OPEN),
    ("gdpr", "EDPB 28/2024, extraction", "secrets", {"probe": "canary_exposure", "metric": "exposure"}, FAIL),
    ("gdpr", "EDPB 28/2024, extraction", "texts of a benchmark", {"probe": "contamination", "metric": "m"}, FAIL),
    ("gdpr", "Art. 25", "a private", {"probe": "dp_claim", "metric": "dp_epsilon"}, PASS),
    ("gdpr", "Art. 32", "what can be learned", {"probe": "model_inversion", "metric": "m"}, FAIL),
    ("iso-42001", "A.5.4", "impact ratios", {"probe": "adverse_impact", "metric": "impact_ratio_min"}, FAIL),
    ("iso-42001", "A.6.2.6", "what changed", {"probe": "change", "metric": "flip_rate"}, OPEN),
    ("iso-42001", "A.7.4", "training rows", {"probe": "label_conflicts", "metric": "label_conflict_rate"}, FAIL),
    ("iso-42001", "A.10.3", "weights", {"probe": "weight_changes", "metric": "changed_weight_share"}, OPEN),
    ("nist-ai-rmf", "MAP 2.2", "confidence", {"probe": "out_of_distribution", "metric": "confident_ood_rate"}, FAIL),
    ("nist-ai-rmf", "MAP 5.1", "how large", {"probe": "group_fairness", "metric": "x_difference"}, FAIL),
    ("nist-ai-rmf", "MANAGE 1.1", "whether", {"probe": "performance", "metric": "skill_over_majority"}, FAIL),
    ("nist-ai-rmf", "MANAGE 3.2", "weights", {"probe": "weight_changes", "metric": "changed_weight_share"}, OPEN),
    ("nist-ai-rmf", "MEASURE 2.7", "decisions", {"probe": "detector_robustness", "metric": "largest_auc_drop"}, FAIL),
    ("nist-ai-rmf", "MEASURE 2.10", "what can be", {"probe": "attribute_inference", "metric": "m"}, FAIL),
    ("nist-ai-rmf", "MEASURE 4.3", "changes", {"probe": "change", "metric": "flip_rate"}, OPEN),
    ("us-co-sb26-189", "6-1-1702(1)(c)", "differences", {"probe": "group_fairness", "metric": "x_difference"}, FAIL),
    ("us-co-sb26-189", "6-1-1702(2)", "what changed", {"probe": "change", "metric": "flip_rate"}, OPEN),
    ("us-co-sb26-189", "6-1-1704, adverse outcome", "whether",
     {"probe": "feature_attribution", "metric": "faithfulness_gain"}, FAIL),
    ("us-adverse-impact", "1607.4(D), rates", "impact ratios by sex",
     {"probe": "adverse_impact", "metric": "impact_ratio_min", "method": "selection_rate",
      "sensitive": ("gender",)}, FAIL),
    ("nyc-ll144", "5-301(c)", "impact ratio of scoring rates by sex",
     {"probe": "adverse_impact", "metric": "impact_ratio_min", "method": "scoring_rate",
      "sensitive": ("gender",)}, FAIL),
]  # fmt: skip


@pytest.mark.parametrize(
    ("pack", "control", "what", "of", "outcome"), CELLS, ids=[f"{c[0]}-{c[1]}-{c[2][:9]}" for c in CELLS]
)
def test_a_corrected_cell(pack: str, control: str, what: str, of: dict[str, Any], outcome: Outcome) -> None:
    own = finding(**of, outcome=outcome)
    found = cell(record(own, roles=SEX), pack, control, what)
    assert (found.kind, found.outcome, found.findings) == ("evidence", outcome, (own.id,))
    assert found.source and found.checked_on == "2026-11-27" and found.certainty in CERTAINTY.values()
    other = finding("ale", "ale_local_effect", outcome)
    assert cell(record(other, roles=SEX), pack, control, what).kind == "not measured"


def test_each_of_the_seven_packs_has_a_cell_here() -> None:
    assert {c[0] for c in CELLS} == set(SEVEN) <= set(PACKS)
    assert all_of(PACKS[name].version == "2" for name in SEVEN)


@pytest.mark.parametrize("control", ["Annex IV 2(h)", "Art. 13(3)"])
def test_every_attack_and_certificate_is_among_adversarial_examples(control: str) -> None:
    what = "adversarial" if control.startswith("Annex") else "attacks"
    drawn = {"noise", "missing", "typos", "corruption"}
    for method in Robustness.methods:
        own = finding("robustness", f"accuracy_under_{method}", FAIL, method=method)
        found = cell(record(own), "eu-ai-act", control, what)
        assert (found.kind == "evidence") == (method not in drawn), method
    for metric in ("robust_accuracy", "certified_accuracy", "gradient_masking", "flip_rate_difference_under_pgd"):
        assert (
            cell(record(finding("robustness", metric, FAIL, method="pgd")), "eu-ai-act", control, what).outcome is FAIL
        )


DUTIES = {
    "eu-ai-act": ["Art. 10(2)(g)", "Art. 10(2)(h)", "Art. 10(4)", "Art. 11, 18", "Art. 14", "Art. 17", "Art. 26",
                  "Art. 27",
                  "Art. 49", "Annex IV 9, Art. 72", "Art. 86", "Art. 50(1)", "Art. 50(3)", "Art. 5(1)(ba), (bb)",
                  "Art. 53(1)(a), Annex XI 1.1", "Art. 55, Annex XI 2"],
    "us-co-sb26-189": ["6-1-1702(2)", "6-1-1704(1)", "6-1-1705(1)(a)(I)", "6-1-1705(1)(a)(II)"],
    "gdpr": ["Art. 25", "Art. 32"],
    "nist-ai-rmf": ["GOVERN 1.1", "GOVERN 6.2", "MAP 1.1", "MAP 5.2", "MANAGE 1.1", "MANAGE 4.3"],
    "nyc-ll144": ["5-301(a)", "5-302, historical", "5-302, test", "5-303, summary", "5-303, distribution date"],
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(DUTIES))
def test_duties_are_complete(name: str) -> None:
    assert set(DUTIES[name]) <= {control.id for control in PACKS[name].controls}


def test_iso_42001_has_all_38_controls_by_themselves_and_says_how_many_are_silent() -> None:
    ids = [control.id for control in PACKS["iso-42001"].controls]
    assert len(ids) == 38 and none_of("," in name or " to " in name for name in ids)
    (shown,) = policies_of(with_policies(EMPTY, [PACKS["iso-42001"]], DAY), [])
    assert shown.tally.endswith("38 of 38 controls without any evidence.")
    report = with_policies(record(finding("group_fairness", "x_difference", FAIL)), [PACKS["iso-42001"]], DAY)
    (told,) = policies_of(report, rows_of(report.findings))
    assert "2 evidence (2 FAIL)" in told.tally and told.tally.endswith("36 of 38 controls without any evidence.")


def test_nist_has_its_four_functions_by_number() -> None:
    ids = [control.id for control in PACKS["nist-ai-rmf"].controls]
    counted = {name: sum(i.startswith(name + " ") for i in ids) for name in ("GOVERN", "MAP", "MEASURE", "MANAGE")}
    assert counted == {"GOVERN": 19, "MAP": 18, "MEASURE": 22, "MANAGE": 13}


def test_dates_of_their_own_are_not_from_memory() -> None:
    dated = [(p, c) for p in PACKS.values() for c in p.controls if c.applies_from != p.applies_from]
    assert dated and none_of(c.certainty == "memory" for _, c in dated)


# ---- a constant model, an image model --------------------------------------------------------------------------------


def test_a_constant_model_is_evidence_of_nothing_good() -> None:
    hollow = finding(
        "group_fairness", "demographic_parity_difference", Outcome.INCONCLUSIVE, vacuous="It answers all alike."
    )
    found = cell(record(hollow), "eu-ai-act", "Art. 10(2)(f)", "biases in what")
    assert (found.kind, found.outcome) == ("evidence", Outcome.INCONCLUSIVE)


def test_packs_of_an_image_model_reproach_nothing_that_is_for_others() -> None:
    texts = ("extraction", "lm_membership", "canary_exposure", "contamination", "pii_leakage", "attribute_inference")
    findings = [
        finding(p, None, Outcome.NOT_APPLICABLE, other_kind=True, reason="It is for another kind.") for p in texts
    ]
    findings.append(finding("membership_inference", None, Outcome.NOT_APPLICABLE, reason="Needs --train."))
    findings.append(finding("model_inversion", None, Outcome.NOT_APPLICABLE, reason="Needs --train."))
    held = with_policies(record(*findings), [PACKS["gdpr"]], DAY)
    cells = {c.what: c.kind for control in held.controls for c in control.cells}
    assert list(cells.values()).count("not for this kind of model") == 5
    assert cells["images of a class drawn from the model"] == "not measured"


# ---- the pack itself -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "old"), [(OLD_AFTER, False), (OLD_AFTER + 1, True)])
def test_an_old_pack_says_so_on_every_page(days: int, old: bool, capsys: pytest.CaptureFixture[str]) -> None:
    pack = PACKS["gdpr"]
    day = date.fromordinal(pack.checked_on.toordinal() + days)
    report = with_policies(EMPTY, [pack], day)
    said = f"The rule pack gdpr was looked up on {pack.checked_on}, {days} days before {day}"
    assert (said in " ".join(warnings_of(report))) == old
    print_report(report, [], verbose=True)
    paper = pdf_text(render_pdf(report, appendix=True))
    for page in (render_html(report), render_markdown(report), capsys.readouterr().out, paper,
                 render_dossier(report, [pack], day)):  # fmt: skip
        assert (said in " ".join(page.replace("\\", "").split())) == old


def test_a_pack_that_nobody_can_have_looked_up_is_no_young_one(tmp_path: Path) -> None:
    report = with_policies(EMPTY, [PACKS["gdpr"]], date(2026, 11, 27))
    told = report.policies[0].model_copy(update={"checked_on": "soon"})
    assert "looked up on soon, which is no day" in " ".join(
        warnings_of(report.model_copy(update={"policies": (told,)}))
    )
    text = (files("auditor.judging") / "policies" / "gdpr.toml").read_text(encoding="utf-8")
    own = re.sub("checked_on = [0-9-]+", "checked_on = 2999-01-01", text.replace('"gdpr"', '"mine"', 1), count=1)
    (tmp_path / "mine.toml").write_text(own)
    with pytest.raises(ConfigError, match="a day to come"):
        load_policies([str(tmp_path / "mine.toml")])


@pytest.mark.parametrize("name", ["gdpr", "GDPR "])
def test_a_pack_of_ones_own_does_not_go_by_the_name_of_a_shipped_one(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    text = (files("auditor.judging") / "policies" / "gdpr.toml").read_text(encoding="utf-8")
    head, mark, controls = text.partition("[[controls]]")
    own = "".join(line for line in head.splitlines(keepends=True) if not line.startswith("name"))
    path.write_text(f'name = "{name}" # mine\n{own}{mark}{controls}')
    with pytest.raises(ConfigError, match="is that of a pack of auditor's own"):
        load_policies([str(path)])
    path.write_text(text)
    (same,), _ = load_policies([str(path)])
    assert same.sha256 == PACKS["gdpr"].sha256
    (tmp_path / "gdpr.toml").write_text(own + mark + controls.replace("title =", "title  =", 1))
    with pytest.raises(ConfigError, match="give it another name"):
        load_policies([str(tmp_path / "gdpr.toml")])


def test_version_and_digest_are_those_of_the_text_and_memory_decides_nothing() -> None:
    text = (
        'title = "t"\nsource = "s"\nchecked_on = 2026-11-24\ncertainty = "text"\nversion = "3"\n'
        '[[controls]]\nid = "1"\ntitle = "c"\nattestation = [{ what = "w", role = "r" }]\n'
    )
    own = parse_policy(text, "house.toml")
    held = with_policies(EMPTY, [own], DAY).policies[0]
    assert (held.version, held.sha256) == ("3", own.sha256) and own.sha256 != parse_policy(text + "\n", "h.toml").sha256
    bound = '[[criteria]]\nmetric = "accuracy"\ndirection = "at_least"\nbound = 0.5\n'
    assert parse_policy(text + bound, "house.toml").criteria
    with pytest.raises(ConfigError, match="line 4: what is known from memory decides nothing"):
        parse_policy(text.replace('"text"', '"memory"') + bound, "house.toml")


RULE = '{ what = "w", probe = "performance", how = "h"'


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (RULE + ', role = "sexx" }', "line 9: there is no role 'sexx'; did you mean 'sex'"),
        (RULE + ', role = ["sex", "rac"] }', "line 9: there is no role 'rac'"),
        (RULE + ', levels = "eeo1" }', "line 9: there is no list 'eeo1' of levels; did you mean 'eeo-1'"),
        (RULE + ', shown_by = "tradeof" }', "line 9: shown_by is one of .*did you mean 'tradeoff'"),
        (RULE + ', certainty = "sure" }', "line 9: certainty must be one of"),
        ('{ what = "w", how = "h" }', "line 6: probe must be a text"),
        ('{ what = "w", how = "h", shown_by = "age", days = -1 }', "line 9: days must be a whole number"),
    ],
)
def test_a_mistake_in_a_rule_is_named(rule: str, message: str) -> None:
    text = (
        'title = "t"\nsource = "s"\nchecked_on = 2026-11-24\ncertainty = "text"\n\n[[controls]]\nid = "1"\n'
        'title = "c"\n'
        f"evidence = [{rule}]\n"
    )
    with pytest.raises(ConfigError, match=message):
        parse_policy(text, "house.toml")


def test_either_of_two_names_fits_and_a_rule_of_roles_takes_no_others() -> None:
    rule = EvidenceRule(what="w", probe="a|b*", metric="x|y_*", how="h", roles=("sex",))
    assert rule.fits("a", "x", None) and rule.fits("bee", "y_1", None)
    assert not rule.fits("c", "x", None) and not rule.fits("a", "xy", None)
    of = [
        finding("a", "x", sensitive=("gender",)),
        finding("a", "x", sensitive=("gender", "race"), id="2"),
        finding("a", "x", id="3"),
    ]
    assert fitting(rule, of, SEX) == [of[0]] and fitting(rule, of) == []


def test_cells_of_before_there_was_more_to_say_read_as_they_were() -> None:
    bare = CellRecord(kind="not measured", what="w", how="h")
    assert bare.model_dump(mode="json").keys() == {"kind", "what", "findings", "outcomes", "role", "how", "reason"}
    assert bare.cited == "" and len(CELL_KINDS) == 4
