"""Every refusal of a model or of rows carries a code, every code is explained, and it reaches whoever reads."""

from __future__ import annotations

import ast
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from auditor.core import errors
from auditor.core.errors import AuditorError, Code, DataError, ModelError, OutputsError, UnsafeModelError
from auditor.report.html import render_html
from auditor.report.record.audit_report import AuditReport, Refusal
from cli.commands import app
from tests import ROOT
from tests.report.samples import refused_report, report_of

CODES = get_args(Code)
_PACKAGES = ("models/files", "loading", "loading/rows")
_REFUSALS = (
    "ModelError", "DataError", "UnsafeModelError", "OutputsError", "BenchmarkError", "DamagedError", "UnsupportedError",
)  # fmt: skip


def made_in(path: Path) -> Iterator[ast.Call]:
    """Every place of a module where a refusal is made."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _REFUSALS:
            yield node


def codes_said(call: ast.Call) -> list[str | None]:
    """The code that the place gives: what it writes, its class's own, or another error's that it hands on."""
    assert isinstance(call.func, ast.Name)
    for keyword in call.keywords:
        if keyword.arg == "code":
            if isinstance(keyword.value, ast.Attribute) and keyword.value.attr == "code":
                return []
            assert isinstance(keyword.value, ast.Constant), ast.unparse(call)
            return [str(keyword.value.value)]
    own: type[AuditorError] = getattr(errors, call.func.id)
    return [own.code]


def modules_of(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / "auditor" / package).glob("*.py"))


def test_every_refusal_of_a_model_or_of_rows_carries_a_code() -> None:
    calls = [(path, call) for path in modules_of(*_PACKAGES) for call in made_in(path)]
    assert len(calls) > 200
    without = [f"{path}:{call.lineno}" for path, call in calls if not {*codes_said(call)} <= {*CODES}]
    assert without == []


def test_every_code_is_used_and_stands_in_the_documentation_with_its_meaning() -> None:
    rows = re.findall(r"^\| `(AUD-[A-Z-]+)` \| (.+) \| (.+) \|$", (ROOT / "docs/refusals.md").read_text(), re.MULTILINE)
    assert [code for code, _, _ in rows] == [*CODES]
    # A meaning and what to do, each a sentence.
    assert [row for row in rows if not (row[1].endswith(".") and row[2].endswith("."))] == []
    everywhere = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "auditor").rglob("*.py"))
    # Once in the type, and once where it is raised or is a class's own.
    assert [code for code in CODES if everywhere.count(f'"{code}"') < 2] == []


def test_a_code_is_stable_in_form() -> None:
    assert [code for code in CODES if not re.fullmatch(r"AUD-(LOAD|DATA)-[A-Z]{4,12}", code)] == []


@pytest.mark.parametrize("kind", [ModelError, DataError])
def test_an_error_carries_the_code_that_it_was_given(kind: type[AuditorError]) -> None:
    error = kind("Mend it.", code="AUD-DATA-EMPTY")
    assert (str(error), error.code, kind("Mend it.").code) == ("Mend it.", "AUD-DATA-EMPTY", None)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.code) == ("Mend it.", "AUD-DATA-EMPTY")
    assert (UnsafeModelError("x").code, OutputsError("x").code) == ("AUD-LOAD-CODE", "AUD-LOAD-OUTPUTS")


def test_old_records_of_a_refusal_are_read_and_spelled_as_they_were() -> None:
    report = refused_report()
    said = report.to_json()
    assert '"reason_code"' not in said
    assert AuditReport.from_json(said).to_json() == said
    coded = report_of([], refusal=Refusal(code="model_refused", reason="No.", reason_code="AUD-LOAD-TYPE"))
    assert json.loads(coded.to_json())["refusal"]["reason_code"] == "AUD-LOAD-TYPE"
    assert AuditReport.from_json(coded.to_json()) == coded
    assert "<code>AUD-LOAD-TYPE</code>" in render_html(coded)


def test_the_code_reaches_the_terminal_the_page_and_the_record(tmp_path: Path) -> None:
    model, rows, out = tmp_path / "note.txt", tmp_path / "rows.csv", tmp_path / "out"
    model.write_text("hello\n")
    rows.write_text("a,y\n1,0\n2,1\n")
    ran = CliRunner().invoke(app, ["scan", str(model), "--data", str(rows), "--target", "y", "--out", str(out)])
    assert ran.exit_code == 4, ran.output
    assert "REFUSED AUD-LOAD-UNKNOWN" in ran.output
    assert json.loads((out / "report.json").read_text())["refusal"]["reason_code"] == "AUD-LOAD-UNKNOWN"
    assert "<code>AUD-LOAD-UNKNOWN</code>" in (out / "report.html").read_text()
