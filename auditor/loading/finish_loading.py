"""The last step of every loader: classes, provenance and flags of the loaded network."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from torch import nn

from auditor.core.errors import DataError, ModelError, UsageError, did_you_mean
from auditor.data.preprocessing import Preprocessing, label_name
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import Provenance
from auditor.models.files.model_bytes import Source, printable
from auditor.models.files.model_folder import FORMAT, Folder
from auditor.models.regression_model import TorchRegressor
from auditor.models.torch_model import TorchModel


def named_classes(file_classes: list[str] | tuple[str, ...] | None, spec: ModelSpec) -> tuple[str, ...]:
    """The classes in output order: --classes if given, else those of the file.

    Raises UsageError where neither says, the two differ in number, or --classes names one twice; ModelError where the
    file does, or hides control characters in a name.
    """
    classes = spec.classes if spec.classes is not None else None if file_classes is None else tuple(file_classes)
    if classes is None:
        raise UsageError("This model file does not name its classes: add --classes a,b in the order of the outputs.")
    if file_classes is not None and spec.classes is not None:
        no_reordering([label_name(c) for c in classes], [label_name(c) for c in file_classes])
    if file_classes is not None and len(classes) != len(file_classes):
        raise UsageError(f"--classes names {len(classes)} classes, but the model file has {len(file_classes)}.")
    few = len(classes) < 2 or len(set(classes)) != len(classes)
    if few and spec.classes is not None:
        raise UsageError("A classifier needs at least two classes with different names: see --classes.")
    if few:
        raise ModelError(
            "The model file names fewer than two classes, or one of them twice: name them with --classes.",
            code="AUD-LOAD-CLASSES",
        )
    odd = [name for name in classes if any(unicodedata.category(c) in ("Cc", "Cf", "Cs") for c in name)]
    if odd:
        raise ModelError(
            f"The class {printable(odd[0], 60)!r} has control characters in its name: name the classes with --classes.",
            code="AUD-LOAD-CLASSES",
        )
    return tuple(classes)


def check_flags(spec: ModelSpec) -> None:
    """Raise UsageError before loading if a file without metadata needs more or other flags."""
    if spec.task == "regression":
        no_flags_of_classes(spec)
    else:
        named_classes(None, spec)


def no_flags_of_classes(spec: ModelSpec) -> None:
    """Raise UsageError for a flag that applies to classifiers only."""
    given = {"--classes": spec.classes, "--outputs": spec.outputs, "--threshold": spec.threshold}
    for flag, value in given.items():
        if value is not None:
            raise UsageError(f"A regression model predicts a number and has no classes: leave {flag} out.")


def no_reordering(given_names: list[str], file_classes: list[str]) -> None:
    """Check that --classes renames outputs without reordering the file's own class names."""
    if given_names != file_classes and set(given_names) & set(file_classes):
        raise UsageError(
            f"The model file names its classes {', '.join(file_classes[:8])}, in this order: leave --classes out, or "
            f"give "
            "names of your own to all of them."
        )


def provenance_of(source: Source, format: str, loaded_by: str, notes: tuple[str, ...] = ()) -> Provenance:
    """The provenance of a model that was read from one file."""
    return Provenance(
        path=source.path,
        sha256=source.sha256,
        format=format,
        loaded_by=loaded_by,
        size_bytes=len(source.data),
        notes=notes,
    )


def provenance_in(folder: Folder, name: str, notes: tuple[str, ...]) -> Provenance:
    """The provenance of a model of transformers' class ``name`` that was read from a Hugging Face folder."""
    return Provenance(
        path=folder.path,
        sha256=folder.sha256,
        format=FORMAT,
        loaded_by=f"{folder.loaded_by} into transformers.{name}",
        size_bytes=folder.size_bytes,
        notes=notes,
    )


def require_features(features: Sequence[str], table: pd.DataFrame) -> None:
    """Raise DataError for the first feature missing in a table."""
    for name in features:
        if name not in table.columns:
            near = did_you_mean(name, map(str, table.columns))
            raise DataError(
                f"The model needs the feature {name!r}, which the data do not have{near}.", code="AUD-DATA-COLUMN"
            )


def torch_model(
    module: nn.Module,
    spec: ModelSpec,
    provenance: Provenance,
    *,
    preprocessing: Preprocessing | None = None,
    architecture: Mapping[str, Any] | None = None,
    frozen: bool = False,
) -> TorchModel | TorchRegressor:
    """A network from a file without metadata: all settings come from flags.

    Raises UsageError without --classes, but for ``--task regression``.
    """
    check_flags(spec)
    if spec.task == "regression":
        return TorchRegressor(
            module,
            preprocessing=preprocessing,
            features=spec.features,
            device=spec.device,
            architecture=architecture,
            frozen_mode=frozen,
            provenance=provenance,
        )
    return TorchModel(
        module,
        classes=named_classes(None, spec),
        preprocessing=preprocessing,
        features=spec.features,
        outputs=spec.outputs,
        threshold=0.5 if spec.threshold is None else spec.threshold,
        device=spec.device,
        architecture=architecture,
        frozen_mode=frozen,
        provenance=provenance,
    )
