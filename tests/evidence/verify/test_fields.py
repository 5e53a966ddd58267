"""Every field of a record is checked, or named among what is not proven, with the reason why."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from auditor.evidence.verify.unproven_fields import FIELDS
from auditor.report.record.audit_report import AuditReport
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


def is_decided(path: str) -> bool:
    """Whether a record's field, or all of what is above it, says how it is proven."""
    parts = path.split(".")
    return path in FIELDS or any(".".join([*parts[:i], "*"]) in FIELDS for i in range(1, len(parts) + 1))


def test_somebody_decided_about_every_field_of_a_record() -> None:
    unknown = [path for path in leaves(AuditReport) if not is_decided(path)]
    assert not unknown, f"say in auditor/evidence/verify/unproven_fields.py how these are proven, or why not: {unknown}"


def test_no_field_is_decided_about_that_there_is_none_of() -> None:
    known = set(leaves(AuditReport))
    gone = [
        path for path in FIELDS if not any(leaf == path or leaf.startswith(path.removesuffix("*")) for leaf in known)
    ]
    assert not gone


def test_what_nothing_proves_says_why() -> None:
    assert all_of(proof.by or proof.why for proof in FIELDS.values())


def test_the_walk_sees_fields_at_every_depth() -> None:
    found = set(leaves(AuditReport))
    assert {"created", "data.missing.labels", "controls.cells.outcomes", "about.data.reference.shares"} <= found
    assert not is_decided("model.something_new") and not is_decided("something_new")
