"""The table of model formats: one class each, which recognises its files by content and reads or refuses them.

What reads a model imports torch, scikit-learn or more, and is imported where a file is known to be one of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from auditor.core.errors import ModelError, UsageError
from auditor.loading import refused_formats
from auditor.loading.job_specs import ModelSpec
from auditor.models.files.model_bytes import MAX_FILE_BYTES, Source, is_onnx, is_safetensors, is_tar, read_source
from auditor.models.files.model_folder import Folder, open_model_folder
from auditor.models.files.strict_zip import Archive, open_archive
from auditor.models.files.unpickling import PickleReading, read_pickle
from auditor.models.files.weight_files import (
    LEGACY_MAGIC,
    UNUSUAL_GLOBALS,
    check_gguf,
    foreign_globals,
    pickle_record,
    safetensors_header,
    unread_records,
)
from auditor.models.format_names import FORMAT, ONNX_FORMAT, RULES_FILE

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel


class ArchiveContents:
    """An archive's records by name, and what its pickle record says."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.names = archive.records.keys()
        roots = {name.split("/")[0] for name in self.names if "/" in name}
        self.root = f"{next(iter(roots))}/" if len(roots) == 1 else ""

    @cached_property
    def record(self) -> str | None:
        """The name of its pickle record."""
        return pickle_record(self.archive)

    @cached_property
    def pickled(self) -> PickleReading | None:
        """The reading of its pickle record."""
        return None if self.record is None else read_pickle(self.archive.read(self.record))


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


class ModelFormat:
    """A format of model files. What its models can do beyond their answers is said by their class.

    A fitted model's own file, its ONNX graph and its fitting on other rows are methods of
    :class:`~auditor.models.audited_model.AuditedModel`: ``native_file``, ``onnx_graph``, ``fitted_anew``.
    """

    name: str
    # The module of this package, and its function of the source and the flags, that reads its files.
    reader: ClassVar[tuple[str, str]]
    # How its files begin, where that is enough to know them.
    magic: tuple[bytes, ...] = ()
    # Modules to import before all others where a file is of this format.
    first_imports: ClassVar[tuple[str, ...]] = ()

    def recognises(self, data: bytes) -> bool:
        """Whether the bytes of a file that is no archive are of this format."""
        return data.startswith(self.magic)

    def holds(self, contents: ArchiveContents) -> bool:
        """Whether an archive is of this format."""
        return False

    def refuse(self, file: Opened, spec: ModelSpec) -> None:
        """Raise what loading would raise, where the bytes alone are enough for it; imports nothing heavy."""

    def load(self, file: Opened, spec: ModelSpec) -> AuditedModel:
        """The model of a file. Raises ModelError for one that cannot be used, UsageError for flags that are wrong."""
        module, name = self.reader
        model: AuditedModel = getattr(import_module(f"auditor.loading.{module}"), name)(file.source, spec)
        return model


class Bundle(ModelFormat):
    """What ``auditor.save`` writes."""

    name = "model bundle"

    def holds(self, contents: ArchiveContents) -> bool:
        pickled = contents.pickled
        return pickled is not None and any(text.startswith("auditor-model/") for text in pickled.strings)

    def load(self, file: Opened, spec: ModelSpec) -> AuditedModel:
        from auditor.loading.model_bundle import load_bundle

        return load_bundle(file.source, file.records, file.record, spec)


class TorchWeights(ModelFormat):
    """What ``torch.save`` writes of weights."""

    name = "torch weights"

    def holds(self, contents: ArchiveContents) -> bool:
        return contents.record is not None

    def load(self, file: Opened, spec: ModelSpec) -> AuditedModel:
        from auditor.loading.state_dict import load_state_dict
        from auditor.models.files.weights import LOADED_BY_TORCH, load_torch

        return load_state_dict(
            load_torch(file.source, file.records, file.record),
            file.source,
            spec,
            format=self.name,
            loaded_by=LOADED_BY_TORCH,
            provenance_notes=unread_records(file.records, file.record),
        )


class Safetensors(ModelFormat):
    """Weights with a header of JSON."""

    name = "safetensors"

    def recognises(self, data: bytes) -> bool:
        return is_safetensors(data)

    def refuse(self, file: Opened, spec: ModelSpec) -> None:
        safetensors_header(file.source.data, file.source.name)

    def load(self, file: Opened, spec: ModelSpec) -> AuditedModel:
        from auditor.loading.state_dict import load_state_dict
        from auditor.models.files.weight_files import LOADED_BY_SAFETENSORS
        from auditor.models.files.weights import load_safetensors

        weights = load_safetensors(file.source)
        return load_state_dict(weights, file.source, spec, format=self.name, loaded_by=LOADED_BY_SAFETENSORS)


class Skops(ModelFormat):
    """What ``skops.io.dump`` writes."""

    name = "skops"
    # skops looks for each of its functions in all modules in the order of their import: a second behind torch's.
    first_imports = ("scipy.special",)

    def holds(self, contents: ArchiveContents) -> bool:
        return "schema.json" in contents.names

    def load(self, file: Opened, spec: ModelSpec) -> AuditedModel:
        from auditor.loading.estimators import load_skops

        return load_skops(file.source, file.records, spec)


class TorchScript(ModelFormat):
    """A program of TorchScript."""

    name = "TorchScript"
    reader = ("programs", "load_torchscript")
    why = "it can create files while it loads and while it predicts"

    def holds(self, contents: ArchiveContents) -> bool:
        code = f"{contents.root}code/"
        return f"{contents.root}constants.pkl" in contents.names or any(n.startswith(code) for n in contents.names)

    def refuse(self, file: Opened, spec: ModelSpec) -> None:
        if not spec.allow_code:
            raise refused_formats.refuse_program(file.source, self.name, spec, self.why)

    def load(self, file: Opened, spec: ModelSpec) -> AuditedModel:
        self.refuse(file, spec)
        return super().load(file, spec)


class TorchExport(TorchScript):
    """A program of torch.export."""

    name = "torch.export"
    reader = ("programs", "load_exported")
    why = "its loader evaluates expressions and may unpickle objects that the file brings along"

    def holds(self, contents: ArchiveContents) -> bool:
        names = contents.names
        return f"{contents.root}archive_format" in names or "serialized_exported_program.json" in names


class PickledTorch(ModelFormat):
    """A torch archive with a pickle beyond plain tensors: usually a whole module."""

    name = "pickled torch object"

    def holds(self, contents: ArchiveContents) -> bool:
        pickled = contents.pickled
        return pickled is not None and not UNUSUAL_GLOBALS.issuperset(foreign_globals(pickled))

    def refuse(self, file: Opened, spec: ModelSpec) -> None:
        if not spec.trust_pickle:
            self.load(file, spec)

    def load(self, file: Opened, spec: ModelSpec) -> AuditedModel:
        return refused_formats.refuse_or_trust_torch(file.source, file.records.read(file.record), spec)


class LegacyTorch(ModelFormat):
    """A torch file from before 2020."""

    name = "legacy torch file"
    reader = ("refused_formats", "read_or_refuse_legacy")

    def recognises(self, data: bytes) -> bool:
        # The first of its pickles is a number that is always the same.
        return _is_pickle(data) and read_pickle(data[:64]).first_long == LEGACY_MAGIC


class Tar(ModelFormat):
    """A tar archive: torch's oldest format, with pickles in it."""

    name = "tar archive"
    reader = ("refused_formats", "refuse_or_trust_tar")

    def recognises(self, data: bytes) -> bool:
        return is_tar(data)

    def refuse(self, file: Opened, spec: ModelSpec) -> None:
        if not spec.trust_pickle:
            self.load(file, spec)


class Pickle(ModelFormat):
    """A bare pickle or joblib file: scikit-learn models are read, all other names are refused."""

    name = "pickle"
    reader = ("refused_formats", "read_or_refuse_pickle")
    first_imports = Skops.first_imports

    def recognises(self, data: bytes) -> bool:
        return _is_pickle(data)

    def refuse(self, file: Opened, spec: ModelSpec) -> None:
        if not spec.trust_pickle:
            refused_formats.refuse_foreign(file.source, packed=False)


class OldPickle(Pickle):
    """A pickle of protocols 0 and 1, which have no mark of their own: whatever names something to call is one."""

    def recognises(self, data: bytes) -> bool:
        report = read_pickle(data[: refused_formats.MAX_LOOK_INSIDE], max_opcodes=100_000)
        return bool(report.names) or (report.streams > 0 and report.complete)


class Compressed(ModelFormat):
    """A compressed file, as joblib writes it."""

    name = "compressed file"
    reader = ("refused_formats", "read_or_refuse_compressed")
    magic = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"]\x00\x00", b"\x04\x22\x4d\x18")

    def refuse(self, file: Opened, spec: ModelSpec) -> None:
        if not spec.trust_pickle:
            refused_formats.refuse_foreign(file.source, packed=True)


class Deflated(Compressed):
    """A zlib stream, whose two first bytes are all that marks it."""

    def recognises(self, data: bytes) -> bool:
        return data[:1] == b"x" and len(data) > 1 and (data[0] * 256 + data[1]) % 31 == 0


class BoostedTrees(ModelFormat):
    """Boosted trees, as one library writes them."""

    def load(self, file: Opened, spec: ModelSpec) -> AuditedModel:
        from auditor.loading.boosted_libraries import LIBRARIES
        from auditor.loading.boosted_trees import load_boosted

        return load_boosted(file.source, LIBRARIES[self.name], spec)


class XGBoost(BoostedTrees):
    """Universal binary JSON of one object, or JSON: it has a learner first, or its version."""

    name = "XGBoost"

    def recognises(self, data: bytes) -> bool:
        start = data[:64].lstrip()
        binary = start[:2] == b"{L" and (b"learner" in start or b"version" in start)
        text = re.match(rb'\{\s*"(learner|version)"', start) is not None and b'"gradient_booster"' in data
        return binary or text


class LightGBM(BoostedTrees):
    """Text, tree by tree."""

    name = "LightGBM"

    def recognises(self, data: bytes) -> bool:
        return data[:5] == b"tree\n" and b"\nversion=" in data[:200]


class CatBoost(BoostedTrees):
    """CatBoost's own binary format, or its JSON."""

    name = "CatBoost"
    magic = (b"CBM1",)

    def recognises(self, data: bytes) -> bool:
        as_json = data[:1] == b"{" and b'"features_info"' in data and b'"model_info"' in data
        return as_json or super().recognises(data)


class Gguf(ModelFormat):
    """A language model of llama.cpp."""

    name = "GGUF"
    reader = ("language_models", "load_gguf")
    magic = (b"GGUF",)

    def refuse(self, file: Opened, spec: ModelSpec) -> None:
        check_gguf(file.source)


class Onnx(ModelFormat):
    """A graph of ONNX."""

    name = ONNX_FORMAT
    reader = ("onnx_models", "load_onnx")

    def recognises(self, data: bytes) -> bool:
        return is_onnx(data)


class Refused(ModelFormat):
    """A format that is recognised and never read."""

    def __init__(self, name: str, what: str, magic: bytes | None = None) -> None:
        self.name, self.what = name, what
        self.magic = () if magic is None else (magic,)

    def refuse(self, file: Opened, spec: ModelSpec) -> None:
        self.load(file, spec)

    def load(self, file: Opened, spec: ModelSpec) -> AuditedModel:
        raise self.refusal(file)

    def refusal(self, file: Opened) -> ModelError:
        """Why, and what to do."""
        return refused_formats.refuse_unsupported(file.source, self.what)


class Numpy(Refused):
    """Arrays."""

    def holds(self, contents: ArchiveContents) -> bool:
        return any(name.endswith(".npy") for name in contents.names)

    def refusal(self, file: Opened) -> ModelError:
        arrays = {"": file.source.data}
        if file.archive is not None:
            arrays = {name: file.archive.read(name) for name in file.archive.records}
        return refused_formats.refuse_numpy(file.source, arrays)


class Keras(Refused):
    """An archive of Keras."""

    def holds(self, contents: ArchiveContents) -> bool:
        return "config.json" in contents.names and any(name.endswith(".weights.h5") for name in contents.names)


class TFLite(Refused):
    """A model of TensorFlow Lite."""

    def recognises(self, data: bytes) -> bool:
        return data[4:8] == b"TFL3"


class Unknown(Refused):
    """Whatever no other format recognises; ``what`` are the names of those that are read."""

    def recognises(self, data: bytes) -> bool:
        return True

    def refusal(self, file: Opened) -> ModelError:
        return refused_formats.refuse_unknown(file.source, self.what)


class UnknownArchive(Unknown):
    """An archive that no other format recognises."""

    def recognises(self, data: bytes) -> bool:
        return False

    def holds(self, contents: ArchiveContents) -> bool:
        return True


_KNOWN = (
    "model bundles, torch weights, safetensors, skops, scikit-learn pickles, Hugging Face folders, GGUF language "
    "models, and with --allow-code TorchScript and torch.export"
)
# In the order in which they are asked whether a file is theirs.
TABLE: tuple[ModelFormat, ...] = (
    *(Skops(), TorchExport(), TorchScript(), PickledTorch(), Bundle(), TorchWeights()),
    *(Gguf(), Refused("HDF5", "an HDF5 file, as Keras writes it", b"\x89HDF\r\n\x1a\n")),
    *(Numpy("numpy file", "", b"\x93NUMPY"), Keras("Keras", "a Keras archive"), Compressed()),
    *(Safetensors(), CatBoost(), LightGBM(), XGBoost(), LegacyTorch(), Pickle(), Tar()),
    *(TFLite("TFLite", "a TensorFlow Lite model"), Deflated(), Onnx(), OldPickle()),
    *(UnknownArchive("unknown archive", _KNOWN), Unknown("unknown", _KNOWN)),
)
FORMATS = {each.name: each for each in reversed(TABLE)}


def _is_pickle(data: bytes) -> bool:
    return data[:1] == b"\x80" and data[1:2] in b"\x00\x01\x02\x03\x04\x05" and len(data) > 1


def open_file(source: Source) -> Opened:
    """Recognise a file by its content, independent of its name."""
    if source.data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        contents = ArchiveContents(open_archive(source.data, source.name))
        found = next(each for each in TABLE if each.holds(contents))
        return Opened(source, found.name, contents.archive, contents.record or "")
    return Opened(source, next(each for each in TABLE if each.recognises(source.data)).name)


def refuse_early(spec: ModelSpec) -> Opened | None:
    """The model's file, opened and recognised; None if the model is no single file (then config.json is read).

    Raises UsageError and ModelError as :func:`load_model` would, where the bytes are enough.
    """
    if spec.predict is not None or spec.generate is not None or spec.path is None:
        return None
    if Path(spec.path).is_dir():
        # Adapters and post-processed models have none.
        if Folder(spec.path).has("config.json"):
            open_model_folder(spec.path)
        return None
    opened = open_file(read_source(spec.path))
    FORMATS[opened.format].refuse(opened, spec)
    return opened


def identify(path: str | Path) -> str:
    """The format of a model file or folder by its content: a key of FORMATS, or a kind of folder.

    Raises UsageError where there is no regular file, ModelError where an archive is damaged.
    """
    if (Path(path) / RULES_FILE).is_file():
        return "post-processed folder"
    if Path(path).is_dir():
        return FORMAT if (Path(path) / "config.json").is_file() else "unknown"
    return open_file(read_source(path)).format


def load_model(spec: ModelSpec, *, max_bytes: int = MAX_FILE_BYTES, model_file: Opened | None = None) -> AuditedModel:
    """The model selected by the command line's flags; its content alone determines the loader.

    ``model_file``: its file, where it was opened already.

    Raises UsageError for a flag or path that is wrong, ModelError for a file that cannot be used, UnsafeModelError for
    one that would run its own code.
    """
    if spec.task == "regression":
        from auditor.loading.finish_loading import no_flags_of_classes

        no_flags_of_classes(spec)
    load = partial(_load, max_bytes=max_bytes)
    if model_file is None and spec.path is not None and (Path(spec.path) / RULES_FILE).is_file():
        from auditor.loading.model_bundle import load_postprocessed

        model = load_postprocessed(spec.path, spec, load)
    else:
        model = load(spec, model_file)
    _check_kind(model, spec)
    return model


def _check_kind(model: AuditedModel, spec: ModelSpec) -> None:
    """Raise UsageError for a flag that is of another kind of model."""
    if spec.dtype not in ("auto", "float32") and model.kind != "language_model":
        raise UsageError(
            "--dtype names the numbers that a language model is computed in, and the model named here is none: leave "
            "--dtype out."
        )
    if spec.device_map is not None and (model.kind != "language_model" or model.provenance.format == Gguf.name):
        raise UsageError(
            "--device-map spreads a language model of a Hugging Face folder, and the model named here is none: leave "
            "--device-map out."
        )
    if spec.task is not None and (spec.task == "regression") != (model.kind == "regressor"):
        found = {"regressor": "a regression model", "classifier": "a classifier"}.get(
            model.kind, getattr(model, "what", "a language model")
        )
        raise UsageError(f"--task {spec.task} contradicts the model, which is {found}: leave --task out.")


def _load(spec: ModelSpec, model_file: Opened | None = None, *, max_bytes: int) -> AuditedModel:
    """A model without rules over it, which remembers what flags said of it."""
    from auditor.models.audited_model import Said

    model = _loader(spec, model_file, max_bytes)()
    model.said = replace(
        model.said or Said(),
        features=spec.features,
        classes=spec.classes,
        outputs=spec.outputs,
        threshold=spec.threshold,
    )
    return model


def _loader(spec: ModelSpec, model_file: Opened | None, max_bytes: int) -> Callable[[], AuditedModel]:
    """What loads the model: of a function, a folder or a file."""
    if spec.predict is not None:
        from auditor.loading.user_functions import load_function

        card = _card_of_function(spec)
        return partial(load_function, spec) if card is None else partial(FORMATS[card.format].load, card, spec)
    if spec.generate is not None:
        from auditor.loading.user_functions import load_generator

        return partial(load_generator, spec)
    if spec.path is None:
        raise UsageError("Name a model file, or a function with --predict package.module:function.")
    if model_file is None and Path(spec.path).is_dir():
        return _folder_loader(spec, spec.path, max_bytes)
    _refuse_base(spec)
    file = model_file or open_file(read_source(spec.path, max_bytes=max_bytes))
    return partial(FORMATS[file.format].load, file, spec)


def _card_of_function(spec: ModelSpec) -> Opened | None:
    """The bundle beside a function, where it holds the function's card; None where the file named is none such."""
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
    bundled = opened.format == Bundle.name and asks_a_function(opened.source, opened.records, opened.record)
    return opened if bundled else None


def _folder_loader(spec: ModelSpec, path: str, max_bytes: int) -> Callable[[], AuditedModel]:
    from auditor.loading.adapters import adapted, base_spec, is_adapter
    from auditor.loading.huggingface_folders import load_folder
    from auditor.loading.language_models import is_language_model, load_language_folder

    if is_adapter(path):
        return lambda: adapted(path, spec, load_model(base_spec(path, spec), max_bytes=max_bytes))
    _refuse_base(spec)
    return partial(load_language_folder if is_language_model(path) else load_folder, path, spec)


def _refuse_base(spec: ModelSpec) -> None:
    if spec.base is not None:
        raise UsageError("--base is the model of an adapter, and the model named here is none: leave --base out.")
