"""The table of model formats: recognition by content, and the loader or refusal of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from auditor.core.errors import ModelError, UsageError
from auditor.loading import refused_formats
from auditor.loading.job_specs import ModelSpec
from auditor.models.files.model_bytes import (
    BOOSTED_TREES,
    MAGIC,
    MAX_FILE_BYTES,
    Source,
    boosted_kind,
    is_onnx,
    is_safetensors,
    is_tar,
    read_source,
)
from auditor.models.files.pickles import read_pickle
from auditor.models.files.strict_zip import Archive, open_archive
from auditor.models.files.weight_files import (
    LEGACY_MAGIC,
    UNUSUAL_GLOBALS,
    foreign_globals,
    pickle_record,
    unread_records,
)

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel


@dataclass(frozen=True)
class Opened:
    """A file of known format: its bytes, and for an archive its verified records and its pickle record."""

    source: Source
    format: str
    archive: Archive | None = None
    record: str = ""

    @property
    def records(self) -> Archive:
        """The verified archive."""
        if self.archive is None:
            raise ModelError(f"{self.source.name!r} is no archive.", code="AUD-LOAD-UNKNOWN")
        return self.archive


# What makes a folder that of a post-processed model.
RULES_FILE = "postprocessing.json"
Loader: TypeAlias = "Callable[[Opened, ModelSpec], AuditedModel]"


def _refuse(error: Callable[[Opened], ModelError]) -> Loader:
    def load(model_file: Opened, spec: ModelSpec) -> AuditedModel:
        raise error(model_file)

    return load


def _not_yet(kind: str) -> Loader:
    return _refuse(lambda opened: refused_formats.refuse_unsupported(opened.source, kind))


# What reads a model imports torch, scikit-learn or more, and is imported where a file is known to be one of its own.


def _bundle(model_file: Opened, spec: ModelSpec) -> AuditedModel:
    from auditor.loading.model_bundle import load_bundle

    return load_bundle(model_file.source, model_file.records, model_file.record, spec)


def _torch_weights(model_file: Opened, spec: ModelSpec) -> AuditedModel:
    from auditor.loading.state_dict import load_state_dict
    from auditor.models.files.weights import LOADED_BY_TORCH, load_torch

    return load_state_dict(
        load_torch(model_file.source, model_file.records, model_file.record),
        model_file.source,
        spec,
        format="torch weights",
        loaded_by=LOADED_BY_TORCH,
        provenance_notes=unread_records(model_file.records, model_file.record),
    )


def _safetensors(model_file: Opened, spec: ModelSpec) -> AuditedModel:
    from auditor.loading.state_dict import load_state_dict
    from auditor.models.files.weight_files import LOADED_BY_SAFETENSORS
    from auditor.models.files.weights import load_safetensors

    weights = load_safetensors(model_file.source)
    return load_state_dict(weights, model_file.source, spec, format="safetensors", loaded_by=LOADED_BY_SAFETENSORS)


def _skops(model_file: Opened, spec: ModelSpec) -> AuditedModel:
    from auditor.loading.estimators import load_skops

    return load_skops(model_file.source, model_file.records, spec)


def _torchscript(model_file: Opened, spec: ModelSpec) -> AuditedModel:
    if not spec.allow_code:
        raise refused_formats.refuse_program(model_file.source, "TorchScript", spec)
    from auditor.loading.programs import load_torchscript

    return load_torchscript(model_file.source, spec)


def _exported(model_file: Opened, spec: ModelSpec) -> AuditedModel:
    if not spec.allow_code:
        raise refused_formats.refuse_program(model_file.source, "torch.export", spec)
    from auditor.loading.programs import load_exported

    return load_exported(model_file.source, spec)


def _boosted(model_file: Opened, spec: ModelSpec) -> AuditedModel:
    from auditor.loading.boosted_trees import load_boosted

    return load_boosted(model_file.source, model_file.format, spec)


def _gguf(model_file: Opened, spec: ModelSpec) -> AuditedModel:
    from auditor.loading.language_models import load_gguf

    return load_gguf(model_file.source, spec)


def _onnx(model_file: Opened, spec: ModelSpec) -> AuditedModel:
    from auditor.loading.onnx_models import load_onnx

    return load_onnx(model_file.source, spec)


def _arrays(model_file: Opened) -> dict[str, bytes]:
    if model_file.archive is None:
        return {"": model_file.source.data}
    return {name: model_file.archive.read(name) for name in model_file.archive.records}


FORMATS: dict[str, Loader] = {
    "model bundle": _bundle,
    "torch weights": _torch_weights,
    "safetensors": _safetensors,
    "skops": _skops,
    "TorchScript": _torchscript,
    "torch.export": _exported,
    "pickled torch object": lambda o, spec: refused_formats.refuse_or_trust_torch(
        o.source, o.records.read(o.record), spec
    ),
    "legacy torch file": lambda o, spec: refused_formats.read_or_refuse_legacy(o.source, spec),
    "tar archive": lambda o, spec: refused_formats.refuse_or_trust_tar(o.source, spec),
    "pickle": lambda o, spec: refused_formats.read_or_refuse_pickle(o.source, spec),
    "compressed file": lambda o, spec: refused_formats.read_or_refuse_compressed(o.source, spec),
    "numpy file": _refuse(lambda o: refused_formats.refuse_numpy(o.source, _arrays(o))),
    **dict.fromkeys(BOOSTED_TREES, _boosted),
    "GGUF": _gguf,
    "ONNX": _onnx,
    "HDF5": _not_yet("an HDF5 file, as Keras writes it"),
    "Keras": _not_yet("a Keras archive"),
    "TFLite": _not_yet("a TensorFlow Lite model"),
    "unknown archive": _refuse(lambda o: refused_formats.refuse_unknown(o.source, _known_formats_text())),
    "unknown": _refuse(lambda o: refused_formats.refuse_unknown(o.source, _known_formats_text())),
}


def _known_formats_text() -> str:
    return (
        "model bundles, torch weights, safetensors, skops, scikit-learn pickles, Hugging Face folders, GGUF language "
        "models, and with --allow-code TorchScript and torch.export"
    )


def load_model(spec: ModelSpec, *, max_bytes: int = MAX_FILE_BYTES, model_file: Opened | None = None) -> AuditedModel:
    """The model selected by the command line's flags; its content alone determines the loader.

    ``model_file``: its file, where it was opened already.

    Raises UsageError for a flag or path that is wrong, ModelError for a file that cannot be used, UnsafeModelError for
    one that would run its own code.
    """
    if spec.task == "regression":
        from auditor.loading.finish_loading import no_flags_of_classes

        no_flags_of_classes(spec)
    model = _load(spec, max_bytes, model_file)
    if spec.dtype not in ("auto", "float32") and model.kind != "language_model":
        raise UsageError(
            "--dtype names the numbers that a language model is computed in, and the model named here is none: leave "
            "--dtype out."
        )
    if spec.device_map is not None and (model.kind != "language_model" or model.provenance.format == "GGUF"):
        raise UsageError(
            "--device-map spreads a language model of a Hugging Face folder, and the model named here is none: leave "
            "--device-map out."
        )
    if spec.task is not None and (spec.task == "regression") != (model.kind == "regressor"):
        found = {"regressor": "a regression model", "classifier": "a classifier"}.get(
            model.kind, getattr(model, "what", "a language model")
        )
        raise UsageError(f"--task {spec.task} contradicts the model, which is {found}: leave --task out.")
    return model


def _load(spec: ModelSpec, max_bytes: int, model_file: Opened | None) -> AuditedModel:
    if model_file is None and spec.path is not None and (Path(spec.path) / RULES_FILE).is_file():
        from auditor.loading.postprocessed_models import load_postprocessed

        return load_postprocessed(spec.path, spec, partial(_load_below, max_bytes=max_bytes))
    return _load_below(spec, max_bytes, model_file)


def _load_below(spec: ModelSpec, max_bytes: int, model_file: Opened | None = None) -> AuditedModel:
    """A model without rules over it, which remembers what flags said of it."""
    from auditor.models.audited_model import Said

    model = _loaded(spec, max_bytes, model_file)
    model.said = replace(
        model.said or Said(),
        features=spec.features,
        classes=spec.classes,
        outputs=spec.outputs,
        threshold=spec.threshold,
    )
    return model


def _loaded(spec: ModelSpec, max_bytes: int, model_file: Opened | None) -> AuditedModel:
    if spec.predict is not None:
        from auditor.loading.user_functions import load_function

        return _with_card(spec) or load_function(spec)
    if spec.generate is not None:
        from auditor.loading.user_functions import load_generator

        return load_generator(spec)
    if spec.path is None:
        raise UsageError("Name a model file, or a function with --predict package.module:function.")
    if model_file is None and Path(spec.path).is_dir():
        return _load_folder(spec, spec.path, max_bytes)
    _no_base(spec)
    model_file = model_file or open_file(read_source(spec.path, max_bytes=max_bytes))
    return FORMATS[model_file.format](model_file, spec)


def _with_card(spec: ModelSpec) -> AuditedModel | None:
    """What a bundle makes of the function that it holds a card of; None where the file named beside is none such."""
    if spec.path is None or not Path(spec.path).is_file():
        return None
    with Path(spec.path).open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return None
    from auditor.loading.model_bundle import asks_a_function

    try:
        opened = open_file(read_source(spec.path))
    except ModelError:  # it is hashed and not opened, as any file that the function may read
        return None
    if opened.format != "model bundle" or not asks_a_function(opened.source, opened.records, opened.record):
        return None
    return _bundle(opened, spec)


def _load_folder(spec: ModelSpec, path: str, max_bytes: int) -> AuditedModel:
    from auditor.loading.adapters import adapted, base_spec, is_adapter
    from auditor.loading.huggingface_folders import load_folder
    from auditor.loading.language_models import is_language_model, load_language_folder

    if is_adapter(path):
        return adapted(path, spec, _load(base_spec(path, spec), max_bytes, None))
    _no_base(spec)
    return load_language_folder(path, spec) if is_language_model(path) else load_folder(path, spec)


def _no_base(spec: ModelSpec) -> None:
    if spec.base is not None:
        raise UsageError("--base is the model of an adapter, and the model named here is none: leave --base out.")


def identify(path: str | Path) -> str:
    """The format of a model file or folder by its content: a key of FORMATS, or a kind of folder.

    Raises UsageError where there is no regular file, ModelError where an archive is damaged.
    """
    if (Path(path) / RULES_FILE).is_file():
        return "post-processed folder"
    if Path(path).is_dir():
        return "Hugging Face folder" if (Path(path) / "config.json").is_file() else "unknown"
    return open_file(read_source(path)).format


def open_file(source: Source) -> Opened:
    """Recognise a file by its content, independent of its name."""
    data = source.data
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _open_archive(source)
    for magic, format in MAGIC.items():
        if data.startswith(magic):
            return Opened(source, format)
    if is_safetensors(data):
        return Opened(source, "safetensors")
    if boosted := boosted_kind(data):
        return Opened(source, boosted)
    if data[:1] == b"\x80" and data[1:2] in b"\x00\x01\x02\x03\x04\x05" and len(data) > 1:
        return Opened(source, _kind_of_pickle(data))
    if is_tar(data):
        return Opened(source, "tar archive")
    if data[4:8] == b"TFL3":
        return Opened(source, "TFLite")
    if data[:1] == b"x" and len(data) > 1 and (data[0] * 256 + data[1]) % 31 == 0:
        return Opened(source, "compressed file")
    if is_onnx(data):
        return Opened(source, "ONNX")
    # Pickles of protocols 0 and 1 have no mark of their own; whatever names something to call is one.
    report = read_pickle(data[: refused_formats.MAX_LOOK_INSIDE], max_opcodes=100_000)
    return Opened(source, "pickle" if report.names or (report.streams and report.complete) else "unknown")


def _open_archive(source: Source) -> Opened:
    archive = open_archive(source.data, source.name)
    names = archive.records.keys()
    roots = {name.split("/")[0] for name in names if "/" in name}
    root = f"{next(iter(roots))}/" if len(roots) == 1 else ""
    if "schema.json" in names:
        return Opened(source, "skops", archive)
    if f"{root}archive_format" in names or "serialized_exported_program.json" in names:
        return Opened(source, "torch.export", archive)
    if f"{root}constants.pkl" in names or any(name.startswith(f"{root}code/") for name in names):
        return Opened(source, "TorchScript", archive)
    record = pickle_record(archive)
    if record is not None:
        report = read_pickle(archive.read(record))
        if not UNUSUAL_GLOBALS.issuperset(foreign_globals(report)):
            return Opened(source, "pickled torch object", archive, record)
        bundle = any(text.startswith("auditor-model/") for text in report.strings)
        return Opened(source, "model bundle" if bundle else "torch weights", archive, record)
    if any(name.endswith(".npy") for name in names):
        return Opened(source, "numpy file", archive)
    if "config.json" in names and any(name.endswith(".weights.h5") for name in names):
        return Opened(source, "Keras", archive)
    return Opened(source, "unknown archive", archive)


def _kind_of_pickle(data: bytes) -> str:
    # The first of a legacy torch file's pickles is a number that is always the same.
    return "legacy torch file" if read_pickle(data[:64]).first_long == LEGACY_MAGIC else "pickle"
