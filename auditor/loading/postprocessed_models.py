"""The folder of a post-processed model: the base model by its own loader, and the rules applied to its scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from auditor.core.errors import DamagedError, ModelError, UsageError
from auditor.loading.job_specs import ModelSpec
from auditor.loading.model_bundle import first_problem
from auditor.models.audited_model import AuditedModel
from auditor.models.files.model_bytes import printable, read_source
from auditor.models.format_names import RULES_FILE
from auditor.models.postprocessed_folder import MAX_RULES_BYTES, PostprocessedRecord, put_around


def load_postprocessed(path: str, spec: ModelSpec, load: Callable[[ModelSpec], AuditedModel]) -> AuditedModel:
    """The model of such a folder; ``load`` reads the base model.

    Raises DamagedError for rules that are not what the format says or another model below them, UsageError for a
    flag that contradicts them.
    """
    source, name = read_source(Path(path) / RULES_FILE, max_bytes=MAX_RULES_BYTES), Path(path).resolve().name
    try:
        record = PostprocessedRecord.model_validate_json(source.data)
    except ValidationError as error:
        raise DamagedError(f"The {RULES_FILE} in {name!r} is not valid: {first_problem(error)}.") from None
    below = _spec_below(record, path, spec, name)
    files = [(member.model, member.sha256) for member in record.members]
    models = [load(replace(below, path=str(Path(path) / file))) for file, _ in files] or [load(below)]
    expected: list[str | None] = [digest for _, digest in files] or [record.sha256]
    if record.function is None and [model.provenance.sha256 for model in models] != expected:
        raise DamagedError(f"The model in {name!r} is not the one that its rules were made for.")
    try:
        return put_around(models, record, path, source.sha256, len(source.data))
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
