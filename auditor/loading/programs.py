"""TorchScript and torch.export programs: loading them runs code, so both need ``--allow-code``."""

from __future__ import annotations

import warnings
import zipfile
from io import BytesIO
from typing import Any

import torch
from torch import Tensor, nn

from auditor.core.errors import ModelError, UnsupportedError, UsageError
from auditor.data.table_columns import CODED, CodedColumns
from auditor.loading.finish_loading import check_flags, named_classes, provenance_of, torch_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel, Provenance
from auditor.models.files.model_bytes import Source, convert_parser_errors
from auditor.models.torch_model import TorchModel

_NOTE = "--allow-code: loading this file ran code that the file brings along."


class FixedBatch(nn.Module):
    """A program that takes a limited number of rows at a time, called in pieces of ``rows``.

    (n, ...) to (n, n_outputs) for any n. ``exact``: every piece must have exactly ``rows`` rows, so the last one is
    filled up with copies of its last row, whose outputs are dropped.
    """

    def __init__(self, program: nn.Module, rows: int, exact: bool) -> None:
        super().__init__()
        self.program = program
        self.rows = rows
        self.exact = exact

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for piece in torch.split(x, self.rows):
            n = len(piece)
            if self.exact and n < self.rows:
                piece = torch.cat([piece, piece[-1:].expand(self.rows - n, *piece.shape[1:])])
            outputs.append(_tensor(self.program(piece))[:n])
        return torch.cat(outputs)


class OneOutput(nn.Module):
    """A program with one output, possibly inside a tuple, a dict or an object with ``logits``."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, x: Tensor) -> Tensor:
        return _tensor(self.program(x))


def _tensor(output: Any) -> Tensor:
    if isinstance(output, dict):
        output = output.get("logits", next(iter(output.values()), None))
    elif isinstance(output, (tuple, list)):
        output = output[0] if output else None
    output = getattr(output, "logits", output)
    if not isinstance(output, Tensor):
        raise ModelError(
            f"The program returned {type(output).__name__}, not a tensor of logits (n, n_classes).",
            code="AUD-LOAD-ANSWERS",
        )
    return output


def load_torchscript(source: Source, spec: ModelSpec) -> AuditedModel:
    """A TorchScript module, whose loading runs code: the table of formats asks for ``--allow-code`` first."""
    check_flags(spec)
    with convert_parser_errors(f"{source.name!r} cannot be read as TorchScript"), warnings.catch_warnings():
        # torch deprecates TorchScript as a whole; that is no news to somebody who has such a file to audit.
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.", category=DeprecationWarning)
        module = torch.jit.load(BytesIO(source.data), map_location=spec.device)  # type: ignore[no-untyped-call]
    return torch_model(OneOutput(module), spec, provenance_of(source, "TorchScript", "torch.jit.load", (_NOTE,)))


def load_exported(source: Source, spec: ModelSpec) -> AuditedModel:
    """A torch.export program of one input, for any number of rows; it runs code, as TorchScript does."""
    with convert_parser_errors(f"{source.name!r} cannot be read as a torch.export program"):
        coded = _coded(source)
    if coded is None:
        check_flags(spec)
    with convert_parser_errors(f"{source.name!r} cannot be read as a torch.export program"):
        program: torch.export.ExportedProgram = torch.export.load(BytesIO(source.data))
        if spec.device != "cpu":
            from torch.export.passes import move_to_device_pass

            program = move_to_device_pass(program, spec.device)
        rows, exact = batch_limit(program)
        module = program.module()
    wrapped = OneOutput(module) if rows is None else FixedBatch(module, rows, exact)
    notes = () if rows is None else (f"The program takes {'exactly' if exact else 'at most'} {rows} rows at a time.",)
    provenance = provenance_of(source, "torch.export", "torch.export.load", (_NOTE, *notes))
    if coded is None:
        return torch_model(wrapped, spec, provenance, frozen=True)
    return _of_columns(wrapped, coded, spec, provenance)


def _coded(source: Source) -> CodedColumns | None:
    """What the file says of its columns and classes, where it was exported with them."""
    with zipfile.ZipFile(BytesIO(source.data)) as archive:
        name = next((n for n in archive.namelist() if n.endswith(f"extra/{CODED}")), None)
        return None if name is None else CodedColumns.model_validate_json(archive.read(name))


def _of_columns(module: nn.Module, coded: CodedColumns, spec: ModelSpec, provenance: Provenance) -> TorchModel:
    if spec.features is not None and spec.features != coded.features:
        raise UsageError("The model file names its own features: leave --features out.")
    made = TorchModel(
        module,
        classes=named_classes(coded.classes, spec),
        encoder=lambda X: torch.from_numpy(coded.encode(X)),  # type: ignore[arg-type]
        features=coded.features,
        outputs="probabilities",
        threshold=coded.threshold if spec.threshold is None else spec.threshold,
        device=spec.device,
        frozen_mode=True,
        provenance=provenance,
    )
    made.group_columns = coded.text_columns
    return made


def batch_limit(program: torch.export.ExportedProgram) -> tuple[int | None, bool]:
    """(rows at a time or None for any number, whether exactly that many). Raises ModelError unless it has one input."""
    names = program.graph_signature.user_inputs
    inputs = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    values = [node.meta.get("val") for node in inputs]
    if len(values) != 1 or not isinstance(values[0], Tensor) or values[0].ndim < 1:
        raise UnsupportedError(
            f"The exported program takes {len(names)} inputs, and one tensor of rows was expected: "
            "audit it through your own loader with --predict package.module:function."
        )
    rows = values[0].shape[0]
    if isinstance(rows, int):
        return rows, True
    limits = program.range_constraints.get(rows.node.expr)
    upper = None if limits is None or not limits.upper.is_Integer else int(limits.upper)
    return upper, False
