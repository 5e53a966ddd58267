"""What a refusal does not do: import, compile and build what the report of a file that was not opened does not show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import auditor.report
from auditor.report.html import OF_EVERY_PAGE

# Of a run that ends in a refusal, told by the process itself.
RUN = """
import gc, json, sys
before, collected = set(sys.modules), gc.get_stats()[0]["collections"]
sys.argv = ["auditor", "scan", "model.pt", "--quiet"]
from auditor.__main__ import main
try:
    main()
except SystemExit as end:
    code = end.code
from auditor.report.html import environment
from auditor.run.job_messages import MESSAGES
new = set(sys.modules) - before
print(json.dumps({
    "code": code,
    "collected": gc.get_stats()[0]["collections"] - collected,
    "frozen": gc.get_freeze_count(),
    "evidence": sorted(name for name in new if name.startswith("auditor.evidence.")),
    "renderers": sorted(name for name in new if name.startswith("auditor.report.") and name.count(".") == 2),
    "others": sorted({name.partition(".")[0] for name in new} - sys.stdlib_module_names),
    "templates": sorted(name for _, name in environment().cache.keys()),
    "messages": MESSAGES.pydantic_complete,
}))
"""
RENDERERS = (
    "drawing", "first_page", "first_page_parts", "html", "record", "remediation", "report_figures",
    "report_view", "rows_page", "scope_page",
)  # fmt: skip
# Every scan keeps a log of its stages, and may publish what it found.
EVIDENCE = ("container", "manifest", "publishing", "signing", "timestamp")
OUR_OWN = {"auditor", "cli", "probes"}
OTHERS = {
    "annotated_doc", "annotated_types", "jinja2", "markupsafe", "numpy", "pydantic", "pydantic_core", "scipy",
    "shellingham", "stdnum", "typer", "typing_extensions", "typing_inspection",
}  # fmt: skip
# Each belongs to another page, which is not a report's.
OF_OTHER_PAGES = ("comparison", "document", "explanation", "tradeoff")


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("refused")
    (folder / "model.pt").write_text("not a model at all")
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True, cwd=folder)
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["code"] == 4
    return told


def test_only_the_templates_of_every_page_are_compiled(refused: dict[str, Any]) -> None:
    assert refused["templates"] == sorted(OF_EVERY_PAGE)
    folder = Path(next(iter(auditor.report.__path__))) / "templates"
    there = {file.name for file in folder.glob("*.j2") if not file.name.startswith(("site", *OF_OTHER_PAGES))}
    assert len(there - set(OF_EVERY_PAGE)) >= 9


def test_only_the_renderer_of_the_page_is_imported(refused: dict[str, Any]) -> None:
    assert refused["renderers"] == [f"auditor.report.{name}" for name in RENDERERS]


def test_neither_ledger_nor_registration_is_imported(refused: dict[str, Any]) -> None:
    assert refused["evidence"] == [f"auditor.evidence.{name}" for name in EVIDENCE]


def test_no_package_is_imported_beyond_this_list(refused: dict[str, Any]) -> None:
    # Of compiled modules there are names besides, which no file has.
    named = {name for name in refused["others"] if not name.startswith("_") and name != "cython_runtime"}
    assert named <= OUR_OWN | OTHERS
    assert named >= OUR_OWN


def test_the_messages_of_an_audit_are_not_built(refused: dict[str, Any]) -> None:
    assert refused["messages"] is False


def test_it_is_not_searched_for_garbage(refused: dict[str, Any]) -> None:
    assert refused["collected"] < 30
    assert refused["frozen"] > 100_000
