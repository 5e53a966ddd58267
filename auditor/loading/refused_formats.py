"""Refusals of files that would run their own code and of unsupported ones, each with a way to an audit."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import sys
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from auditor.core.errors import ModelError, UnsafeModelError, UnsupportedError
from auditor.loading.job_specs import ModelSpec, flags_unsaid
from auditor.models.files.model_bytes import Source, convert_parser_errors, printable
from auditor.models.files.strict_zip import FREE_BYTES, MAX_RATIO
from auditor.models.files.unpickling import Foreign, PickleReading, canonical, describe_calls, read_pickle
from auditor.models.files.weight_files import WEIGHTS_KEYS, foreign_globals

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel

MAX_LOOK_INSIDE = 32 << 20
_PACKED = "a compressed pickle"
# The header of an array says its shape; so many arrays of a file are told.
_SHAPE, _HEADER_BYTES, _ARRAYS_TOLD = re.compile(rb"'shape': (\(\d[\d, ]*\))"), 1000, 8
OWN_LOADER = "audit it through your own loader with --predict package.module:function"
TRUST = "load it all the same, code and all, with --trust-pickle"
_BUNDLE = "auditor.save(TorchModel({load}, classes=[...]), 'model.pt')"
_OF_TORCH = ("torch.nn.modules.", "torch.nn.parameter.", "__builtin__.set", "builtins.set")
_MADE_BY = frozenset({"copyreg._reconstructor", "copy_reg._reconstructor", "joblib.numpy_pickle.NumpyArrayWrapper"})
# Libraries whose names are told by lists that are long to import; of all others, a pickle may name these.
_LISTED = frozenset({"catboost", "joblib", "lightgbm", "numpy", "scipy", "sklearn", "xgboost"})
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


def unsafe(source: Source, article_kind: str, calls: str, way: str) -> UnsafeModelError:
    """The refusal of a file that would run its own code: its calls, and the alternatives."""
    return UnsafeModelError(
        f"{source.name!r} is {article_kind}, and loading it would call {calls}. Either {way}; or {OWN_LOADER}; or "
        f"{TRUST}."
    )


def calls_in(data: bytes) -> tuple[str, tuple[str, ...]]:
    """(the calls of a pickle as a phrase, their names)."""
    report = read_pickle(data)
    return describe_calls(report.names, complete=report.complete), report.names


# ---- ways to an audit ------------------------------------------------------------------------------------------------


def way_out(names: Sequence[str], *, load: str, torch_file: bool = False) -> str:
    """Advice for a pickle that calls ``names``, in file order; ``load`` is the call that loads it.

    A network goes into a bundle, or where it is all of torch's own layers into plain weights; for anything else a
    function of the user's own has the answers.
    """
    own = [name for name in names if name not in _MADE_BY]
    first = own[0] if own else ""
    library = first.split(".")[0]
    if torch_file and own and all(name.startswith(_OF_TORCH) for name in own):
        # There is no class of the user's own to name, and shapes say most of the rest.
        return f"save its weights alone where you trust it: torch.save({load}.state_dict(), 'weights.pt')"
    if torch_file or library == "torch" or any(name.startswith(("torch.nn.", "torch._utils.")) for name in own):
        return (
            f"save it as a bundle where you trust it: {_BUNDLE.format(load=load)}, and name its class with "
            "--architecture package.module:Class"
        )
    return (
        f"let a file of your own answer for it where you trust it, say own.py with model = {load} and "
        "def predict(rows): return model.predict_proba(rows), and name that with --predict own:predict and --classes"
    )


def way_out_of_checkpoint(pickled: bytes, report: PickleReading, *, load: str) -> str | None:
    """Advice for a checkpoint, a dict of more than weights; None if the file is no such dict."""
    if pickled[:1] != b"\x80" or pickled[2:3] != b"}" or report.streams != 1:
        return None
    if "torch._utils._rebuild_tensor_v2" not in report.names:
        return None
    key = next((key for key in WEIGHTS_KEYS if key in report.strings), None)
    alone = f"{load}[{key!r}]" if key else f"{{k: v for k, v in {load}.items() if torch.is_tensor(v)}}"
    return f"save its weights alone where you trust it: torch.save({alone}, 'weights.pt')"


# ---- pickles of every kind -----------------------------------------------------------------------------------------


def read_or_refuse_pickle(source: Source, spec: ModelSpec) -> AuditedModel:
    """A bare pickle or joblib file: scikit-learn models are read, all other names are refused."""
    return _read_or_refuse(source, source.data, _kind_of_pickle(source.data), spec)


def _kind_of_pickle(data: bytes) -> str:
    return "a joblib file" if b"joblib.numpy_pickle" in data else "a pickle"


def read_or_refuse_compressed(source: Source, spec: ModelSpec) -> AuditedModel:
    """A compressed file, as written by joblib."""
    limit = MAX_RATIO * len(source.data) + FREE_BYTES
    data = decompress_start(source.data, limit)
    start = read_pickle(data[:MAX_LOOK_INSIDE], max_opcodes=100_000)
    if not start.names and not start.streams:
        raise ModelError(
            f"{source.name!r} is a compressed file: unpack it, and name what is inside.", code="AUD-LOAD-UNKNOWN"
        )
    if len(data) >= limit:
        raise ModelError(
            f"{source.name!r} would unpack from {len(source.data):,} to more than {limit:,} bytes.",
            code="AUD-LOAD-LIMIT",
        )
    return _read_or_refuse(source, data, _PACKED, spec)


def _read_or_refuse(source: Source, data: bytes, kind: str, spec: ModelSpec) -> AuditedModel:
    if spec.trust_pickle:
        return _trusted(source, spec, kind, calls_in(data)[0], torch_file=False)
    from auditor.loading.pickled_types import is_allowed, load_pickled_estimator

    try:
        return load_pickled_estimator(source, data, kind, spec)
    except Foreign as found:
        report = read_pickle(data)
        others = [name for name in report.names if not is_allowed(name) and name != found.name]
        calls = describe_calls((str(found), *others), complete=report.complete)
        names = report.names if found.name in report.names else (*report.names, found.name)
    except ModelError:
        # A file that is damaged may be hostile first of all; past an array's raw bytes, names are read by chance.
        report = read_pickle(data)
        foreign = [name for name in report.names if not is_allowed(name)]
        if not foreign or "joblib.numpy_pickle.NumpyArrayWrapper" in report.names:
            raise
        calls, names = describe_calls(foreign, complete=report.complete), report.names
    raise unsafe(source, kind, calls, way_out(names, load="joblib.load(path)"))


def surely_foreign(name: str) -> bool:
    """Whether a pickle's name cannot be in any list of a scikit-learn model's types."""
    name = canonical(name)
    library, dot, _ = name.partition(".")
    return dot != "" and library not in _LISTED and name not in _PLAIN


def refuse_foreign(source: Source, *, packed: bool) -> None:
    """Raise UnsafeModelError for a pickle, compressed or not, that begins with names that are in no list."""
    data, kind = source.data, _kind_of_pickle(source.data)
    if packed:
        data, kind = decompress_start(data, _FIRST_BYTES), _PACKED
    whole = len(data) < _FIRST_BYTES
    report = read_pickle(data[:_FIRST_BYTES], max_opcodes=_FIRST_OPCODES)
    foreign = [name for name in report.names if surely_foreign(name)]
    # Past an array's raw bytes, names are read by chance.
    if not foreign or _RAW_ARRAYS in report.names:
        return
    calls = describe_calls(foreign, complete=whole and report.complete)
    raise unsafe(source, kind, calls, way_out(report.names, load="joblib.load(path)"))


def refuse_or_trust_torch(source: Source, pickled: bytes, spec: ModelSpec) -> AuditedModel:
    """A torch archive with a pickle beyond plain tensors: usually a whole module."""
    report = read_pickle(pickled)
    names = foreign_globals(report)
    calls = describe_calls(names, complete=report.complete)
    way = way_out_of_checkpoint(pickled, report, load="torch.load(path, weights_only=False)")
    if way is not None and not spec.trust_pickle:
        raise unsafe(source, "a checkpoint of more than weights", calls, way)
    return _refuse_or_trust(source, spec, "a pickled torch object", calls, names)


def read_or_refuse_legacy(source: Source, spec: ModelSpec) -> AuditedModel:
    """A torch file from before 2020: pickles one after the other, and raw memory after them."""
    if spec.trust_pickle:
        calls = describe_calls(foreign_globals(read_pickle(source.data)), complete=False)
        return _trusted(source, spec, "a legacy torch file", calls, torch_file=True)
    from auditor.loading.state_dict import load_state_dict
    from auditor.models.files.weights import LOADED_BY_TORCH, load_legacy_torch

    try:
        loaded = load_legacy_torch(source)
    except Foreign as found:
        others = [name for name in foreign_globals(read_pickle(source.data)) if name != found.name]
        calls = describe_calls((str(found), *others), complete=False)
        way = way_out((), load="torch.load(path, weights_only=False)", torch_file=True)
        raise unsafe(source, "a legacy torch file", calls, way) from None
    return load_state_dict(loaded, source, spec, format="legacy torch file", loaded_by=LOADED_BY_TORCH)


def refuse_or_trust_tar(source: Source, spec: ModelSpec) -> AuditedModel:
    """A tar archive: torch's oldest format, with pickles in it."""
    names: list[str] = []
    with (
        convert_parser_errors(f"{source.name!r} is a damaged tar archive"),
        tarfile.open(fileobj=BytesIO(source.data), mode="r:") as tar,
    ):
        for _ in range(64):
            member = tar.next()
            if member is None:
                break
            content = tar.extractfile(member) if member.isreg() else None
            if content is not None:
                names += read_pickle(content.read(MAX_LOOK_INSIDE)).names
    calls = describe_calls(tuple(dict.fromkeys(names)), complete=False)
    return _refuse_or_trust(source, spec, "a tar archive, torch's oldest format", calls, ())


def decompress_start(data: bytes, limit: int) -> bytes:
    """The first ``limit`` bytes of gzip, zlib, bzip2, xz or lzma data, as far as they can be unpacked."""
    openers: Mapping[bytes, Callable[[BytesIO], Any]] = {
        b"\x1f\x8b": lambda f: gzip.GzipFile(fileobj=f),
        b"BZh": lambda f: bz2.BZ2File(f),
        b"\xfd7zXZ": lambda f: lzma.LZMAFile(f),
        b"]\x00\x00": lambda f: lzma.LZMAFile(f, format=lzma.FORMAT_ALONE),
    }
    for magic, opener in openers.items():
        if data.startswith(magic):
            return _read_some(opener(BytesIO(data)), limit)
    try:
        return zlib.decompressobj().decompress(data, limit)
    except zlib.error:  # not every byte 'x' begins a zlib stream
        return b""


def _read_some(file: Any, limit: int) -> bytes:
    parts = io.BytesIO()
    try:
        while parts.tell() < limit and (part := file.read1(1 << 20)):
            parts.write(part)
    # A damaged stream has said all it can; what was unpacked before is still worth reading.
    except (OSError, EOFError, lzma.LZMAError, zlib.error, MemoryError):
        pass
    return parts.getvalue()


def _trusted(source: Source, spec: ModelSpec, kind: str, calls: str, *, torch_file: bool) -> AuditedModel:
    """Loads a pickle because the user said so, and says so in the record."""
    import torch

    from auditor.loading.boosted_libraries import estimator_of_any_library
    from auditor.loading.finish_loading import provenance_of, torch_model
    from auditor.loading.state_dict import load_state_dict

    if spec.code_folder is not None and spec.code_folder not in sys.path:
        sys.path.append(spec.code_folder)
    notes = (f"LOADED WITH --trust-pickle: this file could run any code, and calls {calls}.",)
    loaded_by = "torch.load(weights_only=False)" if torch_file else "joblib.load"
    format = kind.split(" ", 1)[1]
    with convert_parser_errors(f"{source.name!r} cannot be unpickled"):
        if torch_file:
            loaded = torch.load(BytesIO(source.data), map_location="cpu", weights_only=False)
        else:
            import joblib  # type: ignore[import-untyped]

            loaded = joblib.load(BytesIO(source.data))
    if isinstance(loaded, torch.nn.Module):
        return torch_model(loaded, spec, provenance_of(source, format, loaded_by, notes))
    if isinstance(loaded, Mapping):
        return load_state_dict(loaded, source, spec, format=format, loaded_by=loaded_by, provenance_notes=notes)
    return estimator_of_any_library(loaded, source, spec, format=format, loaded_by=loaded_by, notes=notes)


def _refuse_or_trust(source: Source, spec: ModelSpec, kind: str, calls: str, names: tuple[str, ...]) -> AuditedModel:
    if spec.trust_pickle:
        return _trusted(source, spec, kind, calls, torch_file=True)
    raise unsafe(source, kind, calls, way_out(names, load="torch.load(path, weights_only=False)", torch_file=True))


def refuse_program(source: Source, format: str, spec: ModelSpec, why: str) -> UnsafeModelError:
    """The error for a program without ``--allow-code``; ``why`` its loading runs code."""
    return UnsafeModelError(
        f"{source.name!r} is a {format} program, and loading one runs code: {why}. Save the weights as a bundle "
        "(auditor.save), or, if you trust whoever made the file, add --allow-code"
        f"{flags_unsaid(spec, of_a_table=True)}."
    )


# ---- no model, or not yet ------------------------------------------------------------------------------------------


def refuse_numpy(source: Source, arrays: Mapping[str, bytes]) -> ModelError:
    """The refusal of .npy and .npz files, with the calls of their pickled objects."""
    for content in arrays.values():
        if content[:6] != b"\x93NUMPY":
            continue
        header = content[10 : 10 + int.from_bytes(content[8:10], "little")]
        if b"'O'" in header or b"|O" in header:
            calls, _ = calls_in(content[10 + len(header) :])
            return UnsafeModelError(
                f"{source.name!r} is a numpy file of pickled objects, and loading it would call {calls}. "
                f"If it is a model that you trust, {OWN_LOADER}."
            )
    shapes = {name: _SHAPE.search(content[:_HEADER_BYTES]) for name, content in arrays.items()}
    told = [f"{name.removesuffix('.npy')} {found[1].decode()}".strip() for name, found in shapes.items() if found]
    more = ", ..." if len(told) > _ARRAYS_TOLD else ""
    return UnsupportedError(
        f"{source.name!r} is a numpy file of arrays ({printable(', '.join(told[:_ARRAYS_TOLD]), 300)}{more}), which do "
        "not say what is computed with them: let a file of your own answer, say own.py with weights = numpy.load(path) "
        "and def predict(rows): ..., and name that with --predict own:predict and --classes."
    )


def refuse_unsupported(source: Source, kind: str) -> ModelError:
    """The refusal of a known format that is not read yet."""
    return UnsupportedError(f"{source.name!r} is {kind}, which is not supported yet: {OWN_LOADER}.")


def refuse_unknown(source: Source, known_formats: str) -> ModelError:
    """The refusal of an unknown file."""
    start = printable(source.data[:16].decode("latin-1"), 40)
    return ModelError(
        f"{source.name!r} is no model file of a known format (it begins {start!r}). Known are {known_formats}; or "
        f"{OWN_LOADER}.",
        code="AUD-LOAD-UNKNOWN",
    )
