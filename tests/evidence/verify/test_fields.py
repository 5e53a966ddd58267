"""Every field of a record follows from another part of its bundle, or stands in the table of what may be stated."""

from __future__ import annotations

import re
import types
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic import BaseModel

from auditor.evidence.manifest import ASKED, RECORD, RESULTS
from auditor.evidence.verify import stated_fields
from auditor.evidence.verify.enclosed_inputs import read_inputs
from auditor.evidence.verify.replay import Replay
from auditor.evidence.verify.stated_fields import STATED, unexplained_paths
from auditor.report.record.audit_report import AuditReport
from tests import ROOT
from tests.evidence.verify.whole import Whole, whole
from tests.quantifiers import all_of


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type is made of, whatever tuples and unions are around them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (tuple, list, dict, Annotated, Union, types.UnionType):
        for part in get_args(annotation):
            yield from models_in(part)


def leaves(model: type[BaseModel], before: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        path = f"{before}{name}"
        below = list(models_in(field.annotation))
        if not below:
            yield path
        for own in below:
            yield from leaves(own, f"{path}.")


def lies_in(path: str, places: Collection[str]) -> bool:
    parts = path.split(".")
    return any(".".join(parts[:i]) in places for i in range(1, len(parts) + 1))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return whole(tmp_path_factory.mktemp("fields"))


@pytest.fixture(scope="module")
def followed(bundle: Whole) -> set[str]:
    """The places of the record that follow from another part of a bundle that encloses everything."""
    report, asked = AuditReport.from_json(bundle.entries[RECORD]), ASKED.validate_json(bundle.entries[RESULTS])
    inputs, wrong = read_inputs(bundle.entries)
    assert not wrong
    return Replay(report, asked, inputs, other_code=False).paths


def test_every_field_of_a_record_follows_or_may_be_stated(followed: set[str]) -> None:
    stated = {path.removesuffix(".*") for path in STATED}
    unknown = [path for path in leaves(AuditReport) if not lies_in(path, followed | stated)]
    assert not unknown, f"replay.py must come to these, or stated_fields.py must say why nothing does: {unknown}"


def test_no_field_is_stated_that_there_is_none_of() -> None:
    known = set(leaves(AuditReport))
    gone = [
        path for path in STATED if not any(leaf == path or leaf.startswith(path.removesuffix("*")) for leaf in known)
    ]
    assert not gone


def test_what_may_be_stated_says_why() -> None:
    assert all_of(stated.why for stated in STATED.values())


def test_a_field_that_nobody_thought_of_is_wrong(bundle: Whole, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """As one would be that a later version writes, if neither the replay nor the table knew it."""
    monkeypatch.setattr(stated_fields, "STATED", {path: why for path, why in STATED.items() if path != "duration_s"})
    record = AuditReport.from_json(bundle.entries[RECORD]).model_copy(update={"duration_s": 12.5})
    path = bundle.forged(tmp_path / "a.zip", lambda said: said.update(record.model_dump(mode="json")))
    assert bundle.wrong(path)["duration_s"] == "duration_s: nothing in the bundle comes to it"


def test_the_walks_see_fields_at_every_depth(followed: set[str]) -> None:
    assert {"created", "data.missing.labels", "controls.cells.outcomes"} <= set(leaves(AuditReport))
    assert not lies_in("model.something_new", followed) and not lies_in("something_new", followed)
    record = {"data": {"missing": {"labels": 3, "more": {"deep": "x"}}, "none": None}, "new": "y"}
    assert [*unexplained_paths(record, ["data.missing.labels"], [])] == ["new"]
    assert [*unexplained_paths({"model": {"new": {"deep": 1}}}, [], [])] == ["model.new.deep"]


@pytest.mark.parametrize(("page", "least"), [("evidence", 19), ("security", 25)])
def test_each_promise_of_the_documentation_names_a_test_that_there_is(page: str, least: int) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)`", text)
    here = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) >= least and all_of(f"def {name}(" in here for name in named)
