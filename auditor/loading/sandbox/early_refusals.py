"""Refusal of model files by their bytes alone, before torch or scikit-learn is imported."""

from __future__ import annotations

from pathlib import Path

from auditor.loading.formats import FORMATS, Opened, open_file
from auditor.loading.job_specs import ModelSpec
from auditor.loading.refusal_advice import way_out
from auditor.loading.refused_formats import decompress_start, unsafe
from auditor.models.files.model_bytes import read_source
from auditor.models.files.model_folder import Folder, open_model_folder
from auditor.models.files.pickles import describe_calls, read_pickle
from auditor.models.files.unpickling import canonical
from auditor.models.files.weight_files import check_gguf, safetensors_header

# What is refused whatever it holds, and what is unless a flag takes the risk.
_ALWAYS = frozenset({"numpy file", "HDF5", "Keras", "TFLite", "unknown archive", "unknown"})
_CODE = frozenset({"TorchScript", "torch.export"})
_PICKLED = frozenset({"pickled torch object", "tar archive"})
# Libraries whose names are told by lists that are long to import; of all others, a pickle may name these.
_LISTED = frozenset({"joblib", "numpy", "scipy", "sklearn"})
_PLAIN = frozenset(
    {
        "_codecs.encode",
        "collections.OrderedDict",
        "collections.defaultdict",
        "copyreg._reconstructor",
        "functools.partial",
        *(
            f"builtins.{name}"
            for name in (
                "bool",
                "bytearray",
                "bytes",
                "complex",
                "dict",
                "float",
                "frozenset",
                "int",
                "list",
                "object",
                "range",
                "set",
                "slice",
                "str",
                "tuple",
            )  # fmt: skip
        ),
    }
)
# Enough of a pickle to see what it begins with; the rest is for the reader of what is not refused.
_FIRST_BYTES = 1 << 20
_FIRST_OPCODES = 20_000
_RAW_ARRAYS = "joblib.numpy_pickle.NumpyArrayWrapper"


def look(spec: ModelSpec) -> Opened | None:
    """The model's file, opened and recognised; None if the model is no single file (then config.json is read).

    Raises UsageError and ModelError as :func:`auditor.loading.formats.load_model` would, where the bytes are enough.
    """
    if spec.predict is not None or spec.generate is not None or spec.path is None:
        return None
    if Path(spec.path).is_dir():
        # Adapters and post-processed models have none.
        if Folder(spec.path).has("config.json"):
            open_model_folder(spec.path)
        return None
    opened = open_file(read_source(spec.path))
    kind = opened.format
    if kind in _ALWAYS or (kind in _CODE and not spec.allow_code) or (kind in _PICKLED and not spec.trust_pickle):
        FORMATS[kind](opened, spec)
    elif kind == "safetensors":
        safetensors_header(opened.source.data, opened.source.name)
    elif kind == "GGUF":
        check_gguf(opened.source)
    elif kind in ("pickle", "compressed file") and not spec.trust_pickle:
        _refuse_foreign(opened)
    return opened


def surely_foreign(name: str) -> bool:
    """Whether a pickle's name cannot be in any list of a scikit-learn model's types."""
    name = canonical(name)
    library, dot, _ = name.partition(".")
    return dot != "" and library not in _LISTED and name not in _PLAIN


def _refuse_foreign(model_file: Opened) -> None:
    data, kind = (
        model_file.source.data,
        "a joblib file" if b"joblib.numpy_pickle" in model_file.source.data else "a pickle",
    )
    if model_file.format == "compressed file":
        data, kind = decompress_start(data, _FIRST_BYTES), "a compressed pickle"
    whole = len(data) < _FIRST_BYTES
    report = read_pickle(data[:_FIRST_BYTES], max_opcodes=_FIRST_OPCODES)
    foreign = [name for name in report.names if surely_foreign(name)]
    # Past an array's raw bytes, names are read by chance.
    if not foreign or _RAW_ARRAYS in report.names:
        return
    calls = describe_calls(foreign, complete=whole and report.complete)
    raise unsafe(model_file.source, kind, calls, way_out(report.names, load="joblib.load(path)"))
