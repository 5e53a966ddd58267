"""A folder of a post-processed model: the model below by its own loader, and the rules over it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from auditor.artifact.source import printable, read_source
from auditor.errors import DamagedError, ModelError, UsageError
from auditor.intake.bundle import first_problem
from auditor.intake.specs import ModelSpec
from auditor.model.audited_model import AuditedModel
from auditor.model.mixture import Mixture, MixtureModel
from auditor.model.postprocessed_folder import MAX_RULES_BYTES, RULES_FILE, PostprocessedRecord
from auditor.model.postprocessing import PostprocessedModel
from auditor.model.prepared import PreparedModel


def load_postprocessed(path: str, spec: ModelSpec, load: Callable[[ModelSpec], AuditedModel]) -> AuditedModel:
    """The model of such a folder; ``load`` reads the one below. Raises DamagedError for rules that are not what the
    format says or another model below them, UsageError for a flag that contradicts them."""
    source, name = read_source(Path(path) / RULES_FILE, max_bytes=MAX_RULES_BYTES), Path(path).resolve().name
    try:
        record = PostprocessedRecord.model_validate_json(source.data)
    except ValidationError as error:
        raise DamagedError(f"The {RULES_FILE} in {name!r} is not valid: {first_problem(error)}.") from None
    below = _spec_below(record, path, spec, name)
    base = load(below) if record.mixture is None else _mixed(record, record.mixture, below, path, name, load)
    notes: tuple[str, ...] = ()
    if record.mixture is None and record.function is None and base.provenance.sha256 != record.sha256:
        raise DamagedError(f"The model in {name!r} is not the one that its rules were made for.")
    if record.function is not None and base.said is not None and base.said.code_sha256 != record.sha256:
        notes = ("The code of the function is not what it was when the rules were made.",)
    rules = record.postprocessing
    digest = hashlib.sha256(f"{base.provenance.sha256} model\n{source.sha256} postprocessing\n".encode()).hexdigest()
    known = replace(
        base.provenance,
        path=path,
        sha256=digest,
        size_bytes=len(source.data) + (base.provenance.size_bytes or 0),
        notes=(*base.provenance.notes, *(() if rules is None else (rules.described(),)), *notes),
    )
    try:
        if record.removal is not None:
            base = PreparedModel(base, record.removal, features=record.features, provenance=known)
        if record.removal is None and rules is None:
            base.provenance = known
        return base if rules is None else PostprocessedModel(base, rules, features=record.features, provenance=known)
    except ModelError as error:
        raise DamagedError(f"{name!r} cannot be used: {error}") from None


def _mixed(
    record: PostprocessedRecord,
    mixture: Mixture,
    spec: ModelSpec,
    path: str,
    name: str,
    load: Callable[[ModelSpec], AuditedModel],
) -> MixtureModel:
    """The models of a mixture, each by its own loader."""
    members = [load(replace(spec, path=str(Path(path) / member.model))) for member in record.members]
    if [one.provenance.sha256 for one in members] != [member.sha256 for member in record.members]:
        raise DamagedError(f"The models in {name!r} are not those that were mixed.")
    known = replace(members[0].provenance, notes=(*members[0].provenance.notes, mixture.described()))
    try:
        return MixtureModel(members, mixture, provenance=known)
    except ModelError as error:
        raise DamagedError(f"{name!r} cannot be used: {error}") from None


def _spec_below(record: PostprocessedRecord, path: str, spec: ModelSpec, name: str) -> ModelSpec:
    """The flags of the model below: what the folder says of it, and those that let code run, which it cannot say."""
    if (record.function is None) != (spec.predict is None):
        raise UsageError(
            f"{name!r} brings its own model: leave --predict out."
            if record.function is None
            else f"{name!r} holds rules over a function of yours: add --predict {printable(record.function, 200)}."
        )
    for flag in ("features", "classes", "outputs"):
        given, known = getattr(spec, flag), getattr(record, flag)
        if given is not None and known is not None and given != known:
            raise UsageError(f"{name!r} says its own {flag}: leave --{flag} out.")
    if record.postprocessing is not None and record.postprocessing.decides and spec.threshold is not None:
        raise UsageError(f"{name!r} decides by thresholds of its own for each group: leave --threshold out.")
    below = None if record.function is not None else path if record.model is None else str(Path(path) / record.model)
    return replace(
        spec,
        path=below,
        features=record.features or spec.features,
        classes=record.classes or spec.classes,
        outputs=record.outputs or spec.outputs,
        threshold=record.threshold if spec.threshold is None else spec.threshold,
    )
