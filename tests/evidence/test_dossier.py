"""The dossier: every field that the record can fill is filled and linked, and nothing else is."""

from __future__ import annotations

import re
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from auditor.data.audit_data import AuditData
from auditor.evidence.dossier_parts import NOT_MEASURED, impact_tables
from auditor.evidence.write_dossier import ATTESTATION_NEEDED, MOST_ROWS
from auditor.judging.figure_types import EARNED, RESERVED
from auditor.judging.policy import Policy, load_policies, pack_names, parse_policy
from auditor.models.audited_model import AuditedModel
from auditor.report import report_view
from auditor.report.html import render_html
from auditor.report.record import number_text as text
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.configuration import About
from auditor.report.record.controls import with_policies
from auditor.report.record.earlier_audits import RegistrationRecord
from auditor.run.run_audit import run_audit
from cli.commands import app
from probes.fairness.adverse_impact import AdverseImpact
from tests.evidence.dossiers import render_dossier
from tests.quantifiers import all_of, none_of
from tests.report.samples import refused_report, sample_report

DAY = date(2026, 11, 24)


@cache
def sampled(hostile: bool = False) -> AuditReport:
    return sample_report(hostile=hostile)


def pack(name: str) -> Policy:
    return load_policies([name])[0][0]


def dossier(report: AuditReport, name: str = "eu-ai-act", href: str | None = "report.html") -> str:
    return render_dossier(report, [pack(name)], DAY, report_href=href)


def section(text: str, control: str) -> str:
    start = text.index(f"\n### {control}: ")
    return text[start : (text + "\n### ").index("\n### ", start + 5)]


# ---- what is filled in -----------------------------------------------------------------------------------------------


@pytest.mark.grid
@pytest.mark.parametrize("name", pack_names())
def test_every_control_is_a_section_and_every_attestation_a_field_for_its_role(name: str) -> None:
    policy, said = pack(name), dossier(sampled(), name)
    heads = re.findall(r"^### (.*?): ", said, re.MULTILINE)
    assert len(heads) == len(policy.controls)
    wanted = [rule.role for control in policy.controls for rule in control.attestation]
    assert re.findall(rf"^\| {ATTESTATION_NEEDED} \((.*?)\) \|", said, re.MULTILINE) == wanted
    assert said.count("| Statement | |\n| Name and function | |\n| Date and signature | |\n") == len(wanted)
    assert "**Not legal advice.**" in said and policy.checked_on.isoformat() in said
    assert "It sets no pass mark." in said


@pytest.mark.parametrize("name", pack_names())
def test_what_the_report_says_of_a_control_the_dossier_says_too(name: str) -> None:
    report = with_policies(sampled(), [pack(name)], DAY)
    said = dossier(sampled(), name)
    for control in report.controls:
        own = section(said, control.id)
        for cell in control.cells:
            if cell.kind == "not measured":
                assert f"**{NOT_MEASURED}**: {cell.what}" in own.replace("\\", "") and cell.how in own.replace("\\", "")
            if cell.kind == "evidence":
                for outcome, n in cell.outcomes.items():
                    assert f"{n} {outcome.replace('_', ' ')}" in own


def test_findings_are_filled_in_with_intervals_and_linked() -> None:
    report = sampled()
    rows = report_view.rows_of(report.findings)
    own = section(dossier(report), "Annex IV 3")
    by_group = [r for r in rows if r.finding.probe == "group_fairness" and r.name.endswith("rate") and r.finding.group]
    assert len(by_group) > 10
    for row in by_group:
        line = next(x for x in own.splitlines() if f"report.html#{row.anchor}>" in x)
        assert row.value in line and row.interval in line and row.where in line
        assert line.endswith(f"[{row.anchor.replace('-', ' ')}](<report.html#{row.anchor}>) |")
    page = render_html(report)
    assert all_of(f'id="{row.anchor}"' in page for row in by_group)
    assert "finding 12" in dossier(report, href=None) and "](<" not in dossier(report, href=None)


def test_what_passed_with_reservations_says_so() -> None:
    report = sampled()
    finding = next(
        f for f in report.findings if f.probe == "group_fairness" and f.group and f.metric == "selection_rate"
    )
    assert "RESERVATIONS" not in section(dossier(report), "Annex IV 3")
    reserved = finding.model_copy(update={"detail": f"{EARNED} {RESERVED}: a check was waived"})
    changed = report.model_copy(update={"findings": (reserved,)})
    assert "WITH RESERVATIONS: a check was waived" in section(dossier(changed), "Annex IV 3")


def test_a_long_table_is_cut_and_says_so() -> None:
    report = sampled()
    many = [f.model_copy(update={"id": f"{f.id}/{i}"}) for i in range(60) for f in report.findings if f.group][
        : 3 * MOST_ROWS
    ]
    own = section(dossier(report.model_copy(update={"findings": tuple(many)})), "Annex IV 3")
    assert "more, in the full report." in own and own.count("\n| `") <= 2 * MOST_ROWS


def test_digests_versions_environment_and_criteria_are_those_of_the_record() -> None:
    report = sampled()
    said = dossier(report)
    model = section(said, "Annex IV 1")
    assert report.model.sha256 and report.model.sha256 in model and "torch 2.10.0" in model and "12,481" in model
    data = section(said, "Annex IV 2(d)")
    assert report.data.sha256 and report.data.sha256 in data
    assert report.data.train_sha256 and report.data.train_sha256 in data and "3,660" in data
    tests = section(said, "Annex IV 2(g), accuracy")
    assert "Credit Risk Committee" in tests and "at least 0.8" in tests and "at most 5" in tests
    assert report_view.document_id(report) in said
    # A part that stands under an earlier control is not said twice.
    assert said.count(report.model.sha256) == 1 and "under Annex IV 1." in section(said, "Annex IV 2(c)")


def test_what_is_missing_is_said_and_not_left_out() -> None:
    report = refused_report()
    said = dossier(report)
    assert "pickle" in said and "Refused" in said
    assert "NOT REGISTERED" in section(said, "Art. 9(8)")
    assert "No decision" in section(said, "Annex IV 5, Art. 9")
    bare = report.model_copy(
        update={"criteria": (), "data": report.data.model_copy(update={"path": None, "n_rows": None})}
    )
    assert f"**{NOT_MEASURED}**: no evaluation data" in dossier(bare)
    assert "No criterion was set" in section(dossier(bare), "Annex IV 2(g), accuracy")


def test_a_registration_is_evidence_of_what_was_set_before() -> None:
    record = RegistrationRecord(
        path="r.json", sha256="a" * 64, registered="2026-11-20", by="Ann", deviations=("The seed.",)
    )
    own = section(dossier(sampled().model_copy(update={"registration": record})), "Art. 9(8)")
    assert "DEVIATES" in own and "- The seed." in own and "NOT REGISTERED" not in own


def test_what_is_not_in_force_says_so() -> None:
    assert "Not in force on the day of this dossier, from 2027-12-02" in section(dossier(sampled()), "Annex IV 3")
    assert "Not in force" not in section(dossier(sampled()), "Art. 50(2)")
    later = render_dossier(sampled(), [pack("eu-ai-act")], date(2028, 1, 1))
    assert "Not in force" not in later


def test_several_packs_stand_in_one_dossier() -> None:
    policies = [pack("gdpr"), pack("nyc-ll144")]
    said = render_dossier(sampled(), policies, DAY)
    assert re.findall(r"^## (.*)$", said, re.MULTILINE) == [p.title for p in policies]


# ---- the public summary of Local Law 144 -----------------------------------------------------------------------------

PEOPLE = pd.DataFrame(
    {
        "sex": ["female"] * 40 + ["male"] * 50 + [None] * 5 + ["female"],
        "race": ["a", "b"] * 45 + ["a"] * 5 + [None],
    }
)
CHOSEN = np.r_[np.arange(40) % 4 == 0, np.arange(50) % 2 == 0, np.ones(6, bool)]


def audited(**options: object) -> AuditReport:
    model = AuditedModel.from_callable(lambda X: X[:, 0].astype(float), classes=["0", "1"])
    data = AuditData.from_arrays(
        CHOSEN[:, None].astype(float), classes=["0", "1"], positive="1", sensitive_features=PEOPLE
    )
    return run_audit(model, data, [AdverseImpact(**options)], [], seed=0)  # type: ignore[arg-type]


def test_the_tables_are_those_counted_by_hand() -> None:
    report = audited()
    tables = {t.features: t for t in impact_tables(report.findings, "selection_rate")}
    assert list(tables) == [("sex",), ("race",), ("sex", "race")]
    frame = PEOPLE.assign(chosen=CHOSEN)
    for features, table in tables.items():
        known = frame.dropna(subset=list(features))
        grouped = known.groupby(list(features))["chosen"]
        expected = {k: (int(g.size), int(g.sum())) for k, g in grouped}
        assert {c.names: (c.n, c.selected) for c in table.categories} == expected
        top = max(k / n for n, k in expected.values())
        for c in table.categories:
            assert c.rate == pytest.approx(c.selected / c.n)
            assert c.ratio is not None and c.ratio.value == pytest.approx(c.selected / c.n / top)
        assert table.unknown == len(frame) - len(known)
    # By hand: 41 women, of whom 10 of the 40 and the last one; 50 men, every second of them.
    sex = {c.names[0]: (c.n, c.selected) for c in tables["sex",].categories}
    assert sex == {"female": (41, 11), "male": (50, 25)} and tables["sex",].unknown == 5


def test_the_summary_prints_each_category_with_its_interval_and_no_verdict() -> None:
    report = audited()
    own = section(dossier(report, "nyc-ll144"), "5-301(b)")
    ratio = next(f for f in report.findings if f.metric == "impact_ratio" and f.group == {"sex": "female"})
    line = next(x for x in own.splitlines() if x.startswith("| female | 41 |"))
    cells = [c.strip() for c in line.strip("|").split("|")]
    assert cells[:5] == ["female", "41", "11", text.number(11 / 41), text.number((11 / 41) / 0.5)]
    assert cells[5] == f"{text.interval(ratio.interval)} at {text.confidence(ratio.confidence)}"
    assert "exact p =" in cells[6] and cells[7].startswith("[finding ")
    assert "Source: 6 RCNY 5-301(b), looked up on 2026-11-27, read on a secondary page." in own
    assert "Category not known, and in no line above: 5." in own and own.count("| Impact ratio |") == 3
    assert "PASS" not in own and "FAIL" not in own
    scores = section(dossier(report, "nyc-ll144"), "5-301(c)")
    assert f"**{NOT_MEASURED}**: no table of scoring rates" in scores


def test_the_summary_calls_columns_and_groups_by_their_labels_and_keeps_what_they_stand_for() -> None:
    words = {"sex": "gender", "sex.female": "women\u202e<b>|*x*"}
    labelled = audited().model_copy(update={"about": About(labels=words)})
    own = section(dossier(labelled, "nyc-ll144"), "5-301(b)")
    assert "By gender:" in own and "By gender x race:" in own and "\n| gender | Number |" in own
    assert "women" in own and "(female) | 41 |" in own and "\n| male | 50 |" in own
    assert none_of(raw in own for raw in ("\u202e", "<b>", "<b>|", "*x*"))


def test_one_feature_alone_is_no_intersection() -> None:
    report = audited()
    alone = report.model_copy(
        update={
            "findings": tuple(f for f in report.findings if set(f.group) <= {"sex"} and set(f.sensitive) <= {"sex"})
        }
    )
    own = section(dossier(alone, "nyc-ll144"), "5-301(b)")
    assert f"**{NOT_MEASURED}**: the intersection" in own
    assert f"**{NOT_MEASURED}**: the intersection" not in section(dossier(report, "nyc-ll144"), "5-301(b)")


def test_a_small_category_that_was_left_out_keeps_its_count_and_rate() -> None:
    report = audited(small=0.25, exclude_small=True)
    table = next(t for t in impact_tables(report.findings, "selection_rate") if len(t.features) == 2)
    left_out = [c for c in table.categories if c.ratio is None]
    assert left_out and all_of(c.n > 0 and "left out of the ratios" in c.note for c in left_out)
    assert "| left out |" in section(dossier(report, "nyc-ll144"), "5-301(b)")


# ---- hostile text and the command ------------------------------------------------------------------------------------


def test_hostile_text_neither_formats_nor_links() -> None:
    markdown_it = pytest.importorskip("markdown_it", reason="markdown-it-py is not installed")
    report = sampled(hostile=True)
    nasty = "<script>alert(1)</script>"
    house = parse_policy(
        f'name = "h"\ntitle = "{nasty}"\nsource = "{nasty}"\nchecked_on = 2026-01-01\ncertainty = "text"\n'
        f'notes = ["{nasty}\\n# head"]\n[[controls]]\nid = "{nasty}"\ntitle = "a|b"\nrecord = ["model", "data"]\n'
        f'evidence = [{{ what = "{nasty}", probe = "*", how = "{nasty}" }}]\n'
        f'attestation = [{{ what = "x|y", role = "{nasty}" }}]\n',
        "house.toml",
    )
    said = render_dossier(report, [house, pack("eu-ai-act")], DAY, report_href="a b/<x>)](http:|report.html")
    tokens = [
        token for block in markdown_it.MarkdownIt("commonmark").enable("table").parse(said) for token in _flat(block)
    ]
    html = {token.content.strip() for token in tokens if token.type in ("html_inline", "html_block")}
    assert html <= {"<!-- -->"}
    links = {str(token.attrs["href"]) for token in tokens if token.type == "link_open"}
    assert links and all_of(link.startswith("a%20b/%3Cx%3E%29%5D%28http%3A%7Creport.html#finding-") for link in links)
    assert not [token for token in tokens if token.type == "image"]
    assert "\u202e" not in said and "\x1b" not in said and "\x00" not in said
    # A bare pipe in a name would push the last cell, the link, out of its row.
    page = markdown_it.MarkdownIt("commonmark").enable("table").render(said)
    tables = [body for body in re.findall(r"<table>.*?</table>", page, re.DOTALL) if "<th>Finding</th>" in body]
    found = [row for body in tables for row in re.findall(r"<tr>\s*<td.*?</tr>", body, re.DOTALL)]
    assert len(found) > 50 and all_of(
        re.search(r'<td><a href="[^"]*">finding \d+</a></td>\s*</tr>', row) for row in found
    )


def _flat(token: Any) -> list[Any]:
    return [token, *(child for inner in token.children or [] for child in _flat(inner))]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_the_command_links_the_page_of_the_same_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = sampled()
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "report.json").write_text(report.to_json())
    done = run("policy", "dossier", "r", "--policy", "nyc-ll144,gdpr")
    assert done.exit_code == 0 and "not legal advice" in done.output
    assert "report.html" not in Path("dossier.md").read_text()
    assert run("policy", "dossier", "r", "--policy", "gdpr").exit_code == 2  # nothing that was filled in is lost
    (tmp_path / "r" / "report.html").write_text(render_html(report))
    assert run("policy", "dossier", "r/report.json", "--policy", "eu-ai-act", "--out", "deep/d.md").exit_code == 0
    assert "](<../r/report.html#finding-" in Path("deep/d.md").read_text()
    (tmp_path / "r" / "report.html").write_text(render_html(sampled(hostile=True)))
    assert run("policy", "dossier", "r", "--policy", "eu-ai-act", "--force").exit_code == 0
    assert "report.html" not in Path("dossier.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--policy", "eu-ai-cat"], "did you mean 'eu-ai-act'"),
        (["--policy", "auditor-default-3"], "must name rule packs"),
        (["--policy", ","], "must name rule packs"),
        (["--policy", "gdpr", "--as-of", "soon"], "is no date"),
    ],
)
def test_wrong_usage_is_said_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("report.json").write_text(sampled().to_json())
    done = run("policy", "dossier", "report.json", *arguments)
    assert done.exit_code == 2 and message in done.output
    assert not Path("dossier.md").exists()
    assert run("policy", "dossier", "nowhere", "--policy", "gdpr").exit_code == 2


def test_what_was_scanned_under_another_pack_is_held_to_this_one() -> None:
    report = sampled()
    under_another = with_policies(report, [pack("gdpr")], date(2020, 1, 1))
    plain, other = (dossier(r).replace(report_view.document_id(r), "") for r in (report, under_another))
    assert plain == other
