"""A post-processed model as a folder: the base model unchanged byte for byte, and its rules as data.

``postprocessing.json`` says which file is the model below (or that the folder itself is one, as a Hugging Face folder
is, or that a function of the user's own answers), its digest, what flags said of it, and the rules. The model below is
read by the loader that reads it alone: the folder adds nothing that could run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from auditor.core.errors import ModelError, UsageError
from auditor.core.files import Closed, sha256_of, write_beside
from auditor.core.number_types import Share
from auditor.models.audited_model import AuditedModel, Said
from auditor.models.format_names import RULES_FILE
from auditor.models.model_wrappers import Mixture, MixtureModel, PreparedModel, Removal
from auditor.models.postprocessing import PostprocessedModel, Postprocessing

FORMAT: Literal["auditor-postprocessed/1"] = "auditor-postprocessed/1"
MAX_RULES_BYTES = 64 << 20
# What a Hugging Face folder holds as data; code and pickles beside it are no part of the model that was read.
_DATA = (".json", ".safetensors", ".txt", ".model", ".jinja", ".md", ".bpe", ".codes", ".vocab")
_NAME = r"model(\.[A-Za-z0-9]{1,12})?"
Names = tuple[str, ...]


class Member(Closed):
    """One of the models of a mixture: its file and its digest."""

    model: Annotated[str, Field(pattern=r"^model\d{1,5}(\.[A-Za-z0-9]{1,12})?$")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class PostprocessedRecord(Closed):
    """The contents of ``postprocessing.json``.

    ``model``: the file below, in the same folder; None where the folder itself is the model or a function is.
    ``function``: the function that answers, which whoever loads the folder must name again. ``sha256``: of the model
    below as it was when the rules were made, of a function's file. ``features``: the columns that it takes, in order;
    None of texts. ``classes``, ``outputs``: what flags said of it, and its file does not. ``threshold``: its own.
    ``members``, ``mixture``: several models in place of one, and how they are mixed. ``removal``: what is subtracted
    from its rows. ``postprocessing``: the rules over its answers.
    """

    format: Literal["auditor-postprocessed/1"] = FORMAT
    model: Annotated[str, Field(pattern=f"^{_NAME}$")] | None = None
    function: Annotated[str, Field(max_length=400)] | None = None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    features: Annotated[Names, Field(max_length=1_000_000)] | None = None
    classes: Annotated[Names, Field(max_length=2)] | None = None
    outputs: Literal["logits", "probabilities"] | None = None
    threshold: Share | None = 0.5
    members: Annotated[tuple[Member, ...], Field(max_length=10_000)] = ()
    mixture: Mixture | None = None
    postprocessing: Postprocessing | None = None
    removal: Removal | None = None

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.model is not None and self.function is not None:
            raise ValueError("either a file or a function is the model below")
        if (self.mixture is None) != (not self.members) or (self.members and (self.model or self.function)):
            raise ValueError("a mixture has members, and nothing else has any")
        if self.postprocessing is None and self.removal is None and self.mixture is None:
            raise ValueError("it holds neither rules nor what is subtracted, and no mixture")
        return self


@dataclass(frozen=True, eq=False)
class Layers:
    """A model and its wrappers."""

    base: AuditedModel
    features: Names | None
    removal: Removal | None
    postprocessing: Postprocessing | None

    @classmethod
    def from_model(cls, model: PostprocessedModel | PreparedModel | MixtureModel) -> Layers:
        """The base model inside all wrappers."""
        rules = model.postprocessing if isinstance(model, PostprocessedModel) else None
        inner = model.base if isinstance(model, PostprocessedModel) else model
        if isinstance(inner, PreparedModel):
            return cls(inner.base, inner.base_features, inner.removal, rules)
        return cls(inner, getattr(model, "base_features", inner.features), None, rules)


def write_postprocessed(
    model: PostprocessedModel | PreparedModel | MixtureModel, folder: str | Path, *, base_bytes: bytes | None = None
) -> None:
    """Write a model with its wrappers as a folder.

    ``base_bytes``: the file of the model below, where it lies in no file; else it is copied, byte for byte, from where
    it was loaded. Raises UsageError where the folder is not empty, ModelError where there is no model below to write or
    it has changed since it was loaded.
    """
    where = Path(folder)
    if where.suffix in (".pt", ".skops", ".json", ".ubj", ".txt", ".cbm", ".onnx", ".pkl", ".joblib"):
        raise UsageError(
            f"{where.name!r} must be a folder: a post-processed model of this kind is written as one, with the model "
            "below it as it was."
        )
    if where.exists() and not (where.is_dir() and not any(where.iterdir())):
        raise UsageError(f"{str(where)!r} is there and not an empty folder: name a new one.")
    layers = Layers.from_model(model)
    said, known = layers.base.said or Said(), layers.base.provenance
    members = _members(layers.base)
    own = layers.base.members[0] if isinstance(layers.base, MixtureModel) else layers.base
    record = PostprocessedRecord(
        function=said.predict,
        sha256=known.sha256 if said.predict is None else said.code_sha256,
        features=layers.features,
        classes=said.classes,
        outputs=said.outputs,
        threshold=None if own.decides_itself else own.threshold,
        postprocessing=layers.postprocessing,
        removal=layers.removal,
        mixture=layers.base.mixture if isinstance(layers.base, MixtureModel) else None,
        members=tuple(
            Member(model=name, sha256=hashlib.sha256(content).hexdigest()) for name, content in members.items()
        ),
    )
    try:
        where.mkdir(parents=True, exist_ok=True)
        for name, content in members.items():
            write_beside(where / name, content)
        if not members and said.predict is None:
            record = _with_model(record, layers.base, where, base_bytes)
    except OSError as error:
        raise UsageError(f"Cannot write into {str(where)!r}: {error.strerror}.") from None
    write_beside(where / RULES_FILE, json.dumps(record.model_dump(mode="json"), indent=1).encode())


def _members(base: AuditedModel) -> dict[str, bytes]:
    """The files of a mixture's models by name; ModelError where a model has no file of its own."""
    found = {}
    for i, one in enumerate(base.members if isinstance(base, MixtureModel) else ()):
        content = one.native_file(one.endings[0])
        if content is None:
            raise ModelError("A mixture is written where its models are estimators, or boosted trees.")
        found[f"model{i + 1}{one.endings[0]}"] = content
    return found


def _with_model(
    record: PostprocessedRecord, base: AuditedModel, where: Path, base_bytes: bytes | None
) -> PostprocessedRecord:
    """Puts the model below into the folder."""
    if base_bytes is None and base.provenance.path is None:
        raise ModelError(
            "The model below the rules lies in memory, and a folder holds it as a file: save it, load that file with "
            "auditor.load_model, and post-process what was loaded; or keep using it in Python."
        )
    source = Path(base.provenance.path or f"model{base.endings[0]}")
    if base_bytes is None and source.is_dir():
        _copy_folder(source, where)
        return record
    suffix = source.suffix if source.suffix[1:].isalnum() and len(source.suffix) <= 13 else ""
    name = f"model{suffix}"
    if base_bytes is not None:
        write_beside(where / name, base_bytes)
        return record.model_copy(update={"model": name, "sha256": sha256_of(where / name)})
    write_beside(where / name, source.read_bytes())
    if sha256_of(where / name) != record.sha256:
        raise ModelError(
            f"{source.name!r} has changed since it was loaded, or has tensors beside it: load it again, or save it as "
            "one file."
        )
    return record.model_copy(update={"model": name})


def _copy_folder(source: Path, where: Path) -> None:
    for file in files_of_folder(source):
        write_beside(where / file.name, file.read_bytes())


def files_of_folder(source: Path) -> list[Path]:
    """The data files of a Hugging Face folder, and its weights if they exist in torch's own format only."""
    files = [p for p in sorted(source.iterdir()) if p.is_file() and p.name != RULES_FILE]
    plain = any(p.suffix == ".safetensors" for p in files)
    return [
        file
        for file in files
        if not file.name.startswith(".") and (file.suffix in _DATA or (not plain and file.suffix == ".bin"))
    ]


def put_around(
    models: Sequence[AuditedModel], record: PostprocessedRecord, path: str, sha256: str, size_bytes: int
) -> AuditedModel:
    """The model of a folder at a path, built around its models; ``sha256``, ``size_bytes``: of its record.

    Raises ModelError where they do not go together.
    """
    first = models[0].provenance
    parts = (record.mixture, record.postprocessing)
    notes = [part.describe() for part in parts if part is not None]
    if record.function is not None and models[0].said is not None and models[0].said.code_sha256 != record.sha256:
        notes.append("The code of the function is not what it was when the rules were made.")
    known = replace(
        first,
        path=path,
        sha256=hashlib.sha256(f"{first.sha256} model\n{sha256} postprocessing\n".encode()).hexdigest(),
        size_bytes=size_bytes + sum(model.provenance.size_bytes or 0 for model in models),
        notes=(*first.notes, *notes),
    )
    made = models[0] if record.mixture is None else MixtureModel(models, record.mixture, provenance=known)
    if record.removal is not None:
        made = PreparedModel(made, record.removal, features=record.features, provenance=known)
    if record.postprocessing is not None:
        made = PostprocessedModel(made, record.postprocessing, features=record.features, provenance=known)
    return made
