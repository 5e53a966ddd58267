"""Recognised files that are not loaded: those that would run their own code, and unsupported formats."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import zlib
from collections.abc import Callable, Mapping
from io import BytesIO
from typing import TYPE_CHECKING, Any

from auditor.core.errors import ModelError, UnsafeModelError, UnsupportedError
from auditor.loading.job_specs import ModelSpec
from auditor.loading.refusal_advice import OWN_LOADER, TRUST, flags_unsaid, way_out, way_out_of_checkpoint
from auditor.models.files.model_bytes import Source, convert_parser_errors, printable
from auditor.models.files.pickles import describe_calls, read_pickle
from auditor.models.files.strict_zip import FREE_BYTES, MAX_RATIO
from auditor.models.files.unpickling import Foreign
from auditor.models.files.weight_files import foreign_globals

if TYPE_CHECKING:
    from auditor.models.audited_model import AuditedModel

MAX_LOOK_INSIDE = 32 << 20


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


# ---- pickles of every kind -----------------------------------------------------------------------------------------


def read_or_refuse_pickle(source: Source, spec: ModelSpec) -> AuditedModel:
    """A bare pickle or joblib file: scikit-learn models are read, all other names are refused."""
    kind = "a joblib file" if b"joblib.numpy_pickle" in source.data else "a pickle"
    return _read_or_refuse(source, source.data, kind, spec)


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
    return _read_or_refuse(source, data, "a compressed pickle", spec)


def _read_or_refuse(source: Source, data: bytes, kind: str, spec: ModelSpec) -> AuditedModel:
    if spec.trust_pickle:
        return _trusted(source, spec, kind, calls_in(data)[0], torch_file=False)
    from auditor.loading.pickled_estimators import load_pickled_estimator
    from auditor.loading.pickled_types import is_allowed

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

    from auditor.loading.estimators import estimator_model
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
    return estimator_model(loaded, source, spec, format=format, loaded_by=loaded_by, notes=notes)


def _refuse_or_trust(source: Source, spec: ModelSpec, kind: str, calls: str, names: tuple[str, ...]) -> AuditedModel:
    if spec.trust_pickle:
        return _trusted(source, spec, kind, calls, torch_file=True)
    raise unsafe(source, kind, calls, way_out(names, load="torch.load(path, weights_only=False)", torch_file=True))


def refuse_program(source: Source, format: str, spec: ModelSpec) -> UnsafeModelError:
    """The error for a program without ``--allow-code``."""
    why = (
        "it can create files while it loads and while it predicts"
        if format == "TorchScript"
        else "its loader evaluates expressions and may unpickle objects that the file brings along"
    )
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
    return UnsupportedError(
        f"{source.name!r} is a numpy file: arrays alone are no model. For another kind of model, {OWN_LOADER}."
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
