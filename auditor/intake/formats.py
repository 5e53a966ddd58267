"""The table of formats: how each is recognised by its content, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from auditor.artifact.archive import Archive, open_archive
from auditor.artifact.hf_folder import FORMAT as HUGGING_FACE
from auditor.artifact.pickles import read_pickle
from auditor.artifact.source import MAX_FILE_BYTES, Source, read_source
from auditor.artifact.torch_pickles import LEGACY_MAGIC
from auditor.artifact.weights import (
    LOADED_BY_SAFETENSORS,
    LOADED_BY_TORCH,
    UNUSUAL_GLOBALS,
    foreign_globals,
    load_safetensors,
    load_torch,
    pickle_record,
    unread_records,
)
from auditor.errors import ModelError, UsageError
from auditor.intake import refused
from auditor.intake.adapters import adapted, base_spec, is_adapter
from auditor.intake.boosted_trees import FORMATS as BOOSTED_TREES
from auditor.intake.boosted_trees import format_of, load_boosted
from auditor.intake.bundle import load_bundle
from auditor.intake.estimators import load_skops
from auditor.intake.functions import load_function
from auditor.intake.huggingface import load_folder
from auditor.intake.language_models import is_language_model, load_gguf, load_language_folder
from auditor.intake.onnx_models import load_onnx
from auditor.intake.programs import load_exported, load_torchscript
from auditor.intake.specs import ModelSpec
from auditor.intake.state_dict import load_state_dict
from auditor.intake.wrap import no_flags_of_classes
from auditor.model.audited_model import AuditedModel

_ONNX_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})


@dataclass(frozen=True)
class Opened:
    """A file whose format is known: its bytes, and for an archive its verified records and the one with the pickle."""

    source: Source
    format: str
    archive: Archive | None = None
    record: str = ""

    @property
    def records(self) -> Archive:
        """The verified archive."""
        if self.archive is None:
            raise ModelError(f"{self.source.name!r} is no archive.")
        return self.archive


Loader = Callable[[Opened, ModelSpec], AuditedModel]


def _refuse(error: Callable[[Opened], ModelError]) -> Loader:
    def load(opened: Opened, spec: ModelSpec) -> AuditedModel:
        raise error(opened)

    return load


def _not_yet(kind: str) -> Loader:
    return _refuse(lambda opened: refused.refuse_unsupported(opened.source, kind))


def _boosted(kind: str) -> Loader:
    return lambda opened, spec: load_boosted(opened.source, kind, spec)


def _arrays(opened: Opened) -> dict[str, bytes]:
    if opened.archive is None:
        return {"": opened.source.data}
    return {name: opened.archive.read(name) for name in opened.archive.records}


FORMATS: dict[str, Loader] = {
    "model bundle": lambda o, spec: load_bundle(o.source, o.records, o.record, spec),
    "torch weights": lambda o, spec: load_state_dict(
        load_torch(o.source, o.records, o.record),
        o.source,
        spec,
        format="torch weights",
        loaded_by=LOADED_BY_TORCH,
        provenance_notes=unread_records(o.records, o.record),
    ),
    "safetensors": lambda o, spec: load_state_dict(
        load_safetensors(o.source), o.source, spec, format="safetensors", loaded_by=LOADED_BY_SAFETENSORS
    ),
    "skops": lambda o, spec: load_skops(o.source, o.records, spec),
    "TorchScript": lambda o, spec: load_torchscript(o.source, spec),
    "torch.export": lambda o, spec: load_exported(o.source, spec),
    "pickled torch object": lambda o, spec: refused.refuse_or_trust_torch(o.source, o.records.read(o.record), spec),
    "legacy torch file": lambda o, spec: refused.read_or_refuse_legacy(o.source, spec),
    "tar archive": lambda o, spec: refused.refuse_or_trust_tar(o.source, spec),
    "pickle": lambda o, spec: refused.read_or_refuse_pickle(o.source, spec),
    "compressed file": lambda o, spec: refused.read_or_refuse_compressed(o.source, spec),
    "numpy file": _refuse(lambda o: refused.refuse_numpy(o.source, _arrays(o))),
    **{kind: _boosted(kind) for kind in BOOSTED_TREES},
    "GGUF": lambda opened, spec: load_gguf(opened.source, spec),
    "ONNX": lambda opened, spec: load_onnx(opened.source, spec),
    "HDF5": _not_yet("an HDF5 file, as Keras writes it"),
    "Keras": _not_yet("a Keras archive"),
    "TFLite": _not_yet("a TensorFlow Lite model"),
    "unknown archive": _refuse(lambda o: refused.refuse_unknown(o.source, _known())),
    "unknown": _refuse(lambda o: refused.refuse_unknown(o.source, _known())),
}


def _known() -> str:
    return (
        "model bundles, torch weights, safetensors, skops, scikit-learn pickles, Hugging Face folders, GGUF language "
        "models, and with --allow-code TorchScript and torch.export"
    )


def load_model(spec: ModelSpec, *, max_bytes: int = MAX_FILE_BYTES) -> AuditedModel:
    """The model that the command line's flags mean; which loader reads it is decided by its content, once.

    Raises UsageError for a flag or path that is wrong, ModelError for a file that cannot be used, UnsafeModelError for
    one that would run its own code.
    """
    if spec.task == "regression":
        no_flags_of_classes(spec)
    model = _load(spec, max_bytes)
    if spec.task is not None and (spec.task == "regression") != (model.kind == "regressor"):
        found = {"regressor": "a regression model", "classifier": "a classifier"}.get(
            model.kind, getattr(model, "what", "a language model")
        )
        raise UsageError(f"--task {spec.task} contradicts the model, which is {found}: leave --task out.")
    return model


def _load(spec: ModelSpec, max_bytes: int) -> AuditedModel:
    if spec.predict is not None:
        return load_function(spec)
    if spec.path is None:
        raise UsageError("Name a model file, or a function with --predict package.module:function.")
    if Path(spec.path).is_dir() and is_adapter(spec.path):
        return adapted(spec.path, spec, _load(base_spec(spec.path, spec), max_bytes))
    if spec.base is not None:
        raise UsageError("--base is the model of an adapter, and the model named here is none: leave --base out.")
    if Path(spec.path).is_dir():
        return load_language_folder(spec.path, spec) if is_language_model(spec.path) else load_folder(spec.path, spec)
    opened = open_file(read_source(spec.path, max_bytes=max_bytes))
    return FORMATS[opened.format](opened, spec)


def identify(path: str | Path) -> str:
    """The format of a model file or folder by its content: a key of FORMATS, or "Hugging Face folder".

    Raises UsageError where there is no regular file, ModelError where an archive is damaged.
    """
    if Path(path).is_dir():
        return HUGGING_FACE if (Path(path) / "config.json").is_file() else "unknown"
    return open_file(read_source(path)).format


def open_file(source: Source) -> Opened:
    """Recognises a file by its content; its name plays no part."""
    data = source.data
    if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _open_archive(source)
    for magic, format in _MAGIC.items():
        if data.startswith(magic):
            return Opened(source, format)
    if _is_safetensors(data):
        return Opened(source, "safetensors")
    if boosted := format_of(data):
        return Opened(source, boosted)
    if data[:1] == b"\x80" and data[1:2] in b"\x00\x01\x02\x03\x04\x05" and len(data) > 1:
        return Opened(source, _kind_of_pickle(data))
    if _is_tar(data):
        return Opened(source, "tar archive")
    if data[4:8] == b"TFL3":
        return Opened(source, "TFLite")
    if data[:1] == b"x" and len(data) > 1 and (data[0] * 256 + data[1]) % 31 == 0:
        return Opened(source, "compressed file")
    if _is_onnx(data):
        return Opened(source, "ONNX")
    # Pickles of protocols 0 and 1 have no mark of their own; whatever names something to call is one.
    report = read_pickle(data[: refused.MAX_LOOK_INSIDE], max_opcodes=100_000)
    return Opened(source, "pickle" if report.names or (report.streams and report.complete) else "unknown")


_MAGIC = {
    b"GGUF": "GGUF",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"\x93NUMPY": "numpy file",
    b"\x1f\x8b": "compressed file",
    b"BZh": "compressed file",
    b"\xfd7zXZ\x00": "compressed file",
    b"]\x00\x00": "compressed file",
    b"\x04\x22\x4d\x18": "compressed file",
}


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


def _is_safetensors(data: bytes) -> bool:
    # A length of 8 bytes that is plausible even where the file was cut short, then a JSON object.
    return data[8:9] == b"{" and int.from_bytes(data[:8], "little") < (1 << 32)


def _is_tar(data: bytes) -> bool:
    header = data[:512]
    if len(header) < 512:
        return False
    stated = header[148:156].strip(b" \0")
    if not stated or not all(c in b"01234567" for c in stated):
        return False
    return int(stated, 8) == sum(header[:148]) + 8 * 32 + sum(header[156:])


def _is_onnx(data: bytes) -> bool:
    """Whether the fields at the top level are those of an ONNX model, its version and its graph among them."""
    place, seen = 0, set()
    for _ in range(1000):
        if place >= len(data):
            break
        key, place = _varint(data, place)
        field, kind = key >> 3, key & 7
        if field not in _ONNX_FIELDS or kind not in (0, 2):
            return False
        value, place = _varint(data, place)
        seen.add((field, kind))
        place += value if kind == 2 else 0
    return (1, 0) in seen and (7, 2) in seen


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift < 64:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            break
    return value, place
