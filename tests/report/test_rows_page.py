"""The first page of rows without a model: what it counts is what pandas counts, and no word is about a model."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from auditor.report.first_page import first_page
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.report_formats import render
from auditor.report.record.translations import ENGLISH, SHIPPED, Catalogue, shipped
from cli.commands import app
from probes import PROBES
from tests.quantifiers import all_of, none_of

# What is for models is counted in one word, and that there is none yet is said.
_OF_A_MODEL = re.compile(
    r"\b(?:the|this) model(?:'s)?\b(?! (?:yet|or))|model (?:team|itself|audit)|Modells?\b(?! oder)", re.I
)


def applicants() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"income": rng.permutation(400) + 100.0, "debt": rng.normal(size=400)})
    frame = frame.assign(sex=rng.choice(["f", "m"], 400, p=[0.3, 0.7]), approved=rng.choice(["yes", "no"], 400))
    frame["mail"] = np.where(np.arange(400) == 7, "write to anna.meier@gmail.com", "none")
    frame["debt"] = frame.debt.where((frame.sex == "m") | (rng.random(400) < 0.7))
    return pd.concat([frame, frame.iloc[[7]].assign(income=9.0, mail="write to karl@web.de")], ignore_index=True)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[AuditReport, str]:
    """The report, and what the terminal said."""
    folder = tmp_path_factory.mktemp("rows")
    applicants().to_csv(folder / "people.csv", index=False)
    words = ["scan-data", str(folder / "people.csv"), "--target", "approved", "--sensitive", "sex"]
    words += ["--probes", "representation,data_leakage,label_conflicts", "--out", str(folder / "out"), "--verbose"]
    printed = CliRunner().invoke(app, words).output
    return AuditReport.from_json((folder / "out" / "report.json").read_text(encoding="utf-8")), printed


def test_nothing_is_said_of_a_model(told: tuple[AuditReport, str]) -> None:
    report, printed = told
    page = re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", render(report, "html").decode(), flags=re.DOTALL)
    german = re.sub(r"<(style|script)>.*?</\1>|<[^>]*>", " ", _german(report), flags=re.DOTALL)
    for text in (page, german, printed, render(report, "markdown").decode(), render(report, "csv").decode()):
        assert re.search(r"people\.csv|group_share", text)
        assert [match.group() for match in _OF_A_MODEL.finditer(text)] == []


def _german(report: AuditReport) -> str:
    return render(report, "html", Catalogue.for_language("de")).decode()


def test_an_exit_line_is_about_the_rows(told: tuple[AuditReport, str], capsys: pytest.CaptureFixture[str]) -> None:
    from cli.terminal import print_report

    nothing = tuple(f for f in told[0].findings if f.criterion is None)
    counts = dict.fromkeys(("fail", "inconclusive", "passed", "not_run"), 0)
    summary = told[0].summary.model_copy(update=counts)
    print_report(told[0].model_copy(update={"findings": nothing, "summary": summary, "exit_code": 3}), [])
    assert "exit 3: nothing of the rows themselves was judged: this is not a pass" in capsys.readouterr().out


def test_bars_are_what_is_counted(told: tuple[AuditReport, str]) -> None:
    report, frame = told[0], applicants()
    who, absent, repeats, gives_away, labels = first_page(report).panels
    shares = frame.sex.value_counts(normalize=True)
    assert {bar.label: bar.found for bar in who.bars} == {
        f"sex = {sex}": f"{round(100 * shares[sex])}\N{NO-BREAK SPACE}%" for sex in ("f", "m")
    }
    assert all_of(bar.low < bar.value < bar.high for bar in who.bars)
    rates = frame.isna().any(axis=1).groupby(frame.sex).mean()
    assert [bar.found for bar in absent.bars] == [
        f"{round(100 * rates['f'])}\N{NO-BREAK SPACE}%",
        "0\N{NO-BREAK SPACE}%",
    ]
    assert [bar.interval for bar in repeats.bars] == ["exact"] * 3
    assert not gives_away.bars and not labels.bars
    assert [panel.unit for panel in (gives_away, labels)] == ["Not measured."] * 2


def test_near_copies_stand_side_by_side_without_addresses(told: tuple[AuditReport, str]) -> None:
    frame = applicants().head(400).fillna({"debt": 0.5}).assign(debt=lambda own: own.debt + own.income)
    near = pd.concat([frame, frame.iloc[[7]].assign(mail="write to karl@web.de")], ignore_index=True)
    drawn = _figure(near)
    first, second = drawn.texts[0], drawn.texts[1]
    assert (first.title, second.title) == (
        "row 8, one column apart: alike in 2 of 3 columns",
        "row 401, one column apart: alike in 2 of 3 columns",
    )
    assert first.words == ("mail = write to a***.*****@*****.***",) and second.words == ("mail = write to k***@***.**",)
    assert "gmail" not in drawn.model_dump_json()


def _figure(frame: pd.DataFrame):  # type: ignore[no-untyped-def]
    from auditor.data.audit_data import AuditData
    from probes.performance.data_leakage import DataLeakage

    columns = ["income", "debt", "mail"]
    rows = AuditData.from_arrays(
        frame[columns], frame.approved, classes=("no", "yes"), sensitive_features=frame[["sex"]]
    )
    found = DataLeakage().measure(None, rows, np.random.default_rng(0))  # type: ignore[arg-type]
    return next(m.figure for m in found if m.figure is not None)


@pytest.mark.parametrize("language", SHIPPED)
def test_what_is_said_instead_is_said_of_no_model(language: str) -> None:
    own = {key: phrase for key, phrase in shipped(language).items() if key.startswith("rows_alone.")}
    assert none_of(_OF_A_MODEL.search(phrase) for phrase in own.values())
    rows = replace(Catalogue.for_language(language), instead="rows_alone")
    assert rows.say("page.kind") != Catalogue.for_language(language).say("page.kind")
    assert not rows.missing


@pytest.mark.parametrize("section", ["rows_alone", "of_log", "without_rows"])
def test_whatever_is_said_instead_stands_for_a_phrase_that_there_is(section: str) -> None:
    every = shipped(ENGLISH)
    meant = {key.replace(".", "_") for key in every if not key.startswith(f"{section}.")}
    own = {key.partition(".")[2] for key in every if key.startswith(f"{section}.")}
    asked = {
        f"next_{question.id}{by}" for probe in PROBES.values() for question in probe.questions for by in ("", "_by")
    }
    only_there = {key for key in own if key.startswith("page_")} if section == "rows_alone" else set()
    assert own and own - meant - asked <= only_there
