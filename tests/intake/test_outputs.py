"""What a network returns is never misread: each of a zoo is read right by every loader, or asked about."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from auditor.errors import ModelError
from auditor.intake.formats import load_model
from auditor.intake.specs import ModelSpec
from auditor.model.audited_model import AuditedModel
from auditor.model.saving import save
from auditor.model.torch_model import TorchModel
from tests.toys.outputs import ZOO, Zoo, class_names, rows, truth

ARCHITECTURE: dict[str, Any] = {"architecture": "tests.toys.outputs:Zoo"}
Load = Callable[[str, Path, str | None], AuditedModel]


def spec(name: str, path: Path | None, said: str | None, **more: Any) -> ModelSpec:
    return ModelSpec(path=None if path is None else str(path), classes=class_names(name), outputs=said, **more)  # type: ignore[arg-type]


def in_memory(name: str, folder: Path, said: str | None) -> AuditedModel:
    return TorchModel(Zoo(name).eval(), classes=class_names(name), outputs=said)  # type: ignore[arg-type]


def bundle(name: str, folder: Path, said: str | None) -> AuditedModel:
    made = TorchModel(Zoo(name), classes=class_names(name), architecture={"name": "Zoo", "args": {"name": name}})
    save(made, folder / "m.pt")
    return load_model(spec(name, folder / "m.pt", said, **ARCHITECTURE))


def weights(name: str, folder: Path, said: str | None) -> AuditedModel:
    torch.save(Zoo(name).state_dict(), folder / "m.pt")
    return load_model(spec(name, folder / "m.pt", said, **ARCHITECTURE, architecture_args={"name": name}))


def safetensors(name: str, folder: Path, said: str | None) -> AuditedModel:
    from safetensors.torch import save_file

    save_file(Zoo(name).state_dict(), folder / "m.safetensors")
    return load_model(spec(name, folder / "m.safetensors", said, **ARCHITECTURE, architecture_args={"name": name}))


def torchscript(name: str, folder: Path, said: str | None) -> AuditedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(Zoo(name).eval(), torch.zeros(2, 3)).save(folder / "m.pt")  # type: ignore[no-untyped-call]
    return load_model(spec(name, folder / "m.pt", said, allow_code=True))


def exported(name: str, folder: Path, said: str | None) -> AuditedModel:
    program = torch.export.export(
        Zoo(name).eval(), (torch.zeros(2, 3),), dynamic_shapes=({0: torch.export.Dim("rows", min=1)},), strict=False
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    (folder / "m.pt2").write_bytes(buffer.getvalue())
    return load_model(spec(name, folder / "m.pt2", said, allow_code=True))


def pickled(name: str, folder: Path, said: str | None) -> AuditedModel:
    torch.save(Zoo(name), folder / "m.pt")
    return load_model(spec(name, folder / "m.pt", said, trust_pickle=True))


LOADERS: tuple[Load, ...] = (in_memory, bundle, weights, safetensors, torchscript, exported, pickled)


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("name", ZOO)
def test_what_a_network_returns_is_read_right_or_asked_about(name: str, load: Load, tmp_path: Path) -> None:
    frame = rows()
    expected = truth(name, frame)
    try:
        read = load(name, tmp_path, None).predict_proba(frame)
    except ModelError as error:
        asked = str(error)
        assert "--outputs logits" in asked and "--outputs probabilities" in asked and f"{len(frame)} rows" in asked
    else:
        assert expected is not None, "it means neither logits nor probabilities, and was read as one of them"
        np.testing.assert_allclose(read, expected, atol=1e-6)
