"""torch files as people have them: legacy ones, numpy's numbers beside the weights, a folder's pytorch_model.bin."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from auditor.core.errors import ModelError, UnsafeModelError
from auditor.loading.formats import identify, load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.networks.architectures import MLP
from tests.loading.test_intake_hostile import Touch, bert, bounded
from tests.quantifiers import all_of, none_of

ARGS: Any = {"n_features": 3, "hidden": [4], "n_outputs": 2}
ROWS = np.random.default_rng(0).normal(size=(5, 3))
FLAGS: Any = {"classes": ("a", "b"), "architecture": "mlp", "architecture_args": ARGS}


def network() -> MLP:
    torch.manual_seed(0)
    return MLP(**ARGS).eval()


def answers(path: Path) -> Any:
    return load_model(ModelSpec(path=str(path), **FLAGS)).predict_proba(ROWS)


def expected() -> Any:
    with torch.no_grad():
        return network()(torch.tensor(ROWS, dtype=torch.float32)).softmax(1).numpy()


@pytest.mark.parametrize("wrapped", [False, True])
def test_legacy_weights_load(wrapped: bool, tmp_path: Path) -> None:
    weights = network().state_dict()
    content: Any = {"state_dict": weights, "epoch": 3, "best": np.float64(0.5)} if wrapped else weights
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert identify(tmp_path / "old.pth") == "legacy torch file"
    np.testing.assert_allclose(answers(tmp_path / "old.pth"), expected(), rtol=1e-6)


def test_numpy_numbers_beside_the_weights_load(tmp_path: Path) -> None:
    extra = {"loss": np.float64(0.25), "steps": np.int64(7), "name": np.str_("a"), "curve": np.arange(3.0)}
    torch.save({"state_dict": network().state_dict(), **extra}, tmp_path / "m.pt")
    assert identify(tmp_path / "m.pt") == "torch weights"
    np.testing.assert_allclose(answers(tmp_path / "m.pt"), expected(), rtol=1e-6)


class _Scalar:
    def __init__(self, code: str, content: bytes) -> None:
        self.code, self.content = code, content

    def __reduce__(self) -> Any:
        return np._core.multiarray.scalar, (np.dtype(self.code), self.content)  # type: ignore[attr-defined]


class _Array:
    def __reduce__(self) -> Any:
        state = (1, (1 << 40,), np.dtype("f8"), False, b"12345678")
        return np._core.multiarray._reconstruct, (np.ndarray, (0,), b"b"), state  # type: ignore[attr-defined]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "value", [_Scalar("O", bytes(8)), _Scalar("f8", b"1"), _Array()], ids=["object", "short", "array"]
)
def test_doctored_numbers_are_refused(value: Any, legacy: bool, tmp_path: Path) -> None:
    content = {"state_dict": network().state_dict(), "loss": value}
    torch.save(content, tmp_path / "m.pt", _use_new_zipfile_serialization=not legacy)
    with bounded(), pytest.raises(ModelError, match="number|array|object"):
        answers(tmp_path / "m.pt")


def test_doctored_legacy_files_are_refused(tmp_path: Path) -> None:
    path, marker = tmp_path / "old.pth", tmp_path / "marker"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for data in (whole[:-3], whole + b"abc", whole[:400], whole.replace(b"little_endian", b"little_indian")):
        path.write_bytes(data)
        with bounded(), pytest.raises(ModelError):
            answers(path)
    place = whole.rindex((12).to_bytes(8, "little"))
    path.write_bytes(whole[:place] + (1 << 50).to_bytes(8, "little") + whole[place + 8 :])
    with bounded(), pytest.raises(ModelError, match="not as long as it claims"):
        answers(path)
    torch.save({"a": Touch(str(marker))}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(UnsafeModelError, match=r"posix\.system.*auditor\.save"):
        answers(path)
    assert not marker.exists()


def test_mutated_legacy_files_end_in_one_of_our_errors(tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=False)
    whole, rng, ends = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            data[int(rng.integers(len(data)))] = int(rng.integers(256))
        path.write_bytes(bytes(data))
        try:
            with bounded():
                answers(path)
            ends.append("loaded")
        except ModelError:
            ends.append("refused")
    assert 50 < ends.count("refused") < 300


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("sharded", [False, True])
def test_a_folder_of_torch_weights_answers_as_its_safetensors_do(legacy: bool, sharded: bool, tmp_path: Path) -> None:
    import json

    from safetensors.torch import load_file

    folder = bert(tmp_path)
    texts = np.array(["good bad", "bad"], object)
    before = load_model(ModelSpec(path=str(folder)))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = [dict(list(weights.items())[i::2]) for i in range(2)] if sharded else [weights]
    names = [f"pytorch_model-0000{i + 1}-of-00002.bin" for i in range(2)] if sharded else ["pytorch_model.bin"]
    for part, name in zip(parts, names, strict=True):
        torch.save(part, folder / name, _use_new_zipfile_serialization=not legacy)
    if sharded:
        where = {key: name for part, name in zip(parts, names, strict=True) for key in part}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    after = load_model(ModelSpec(path=str(folder)))
    np.testing.assert_array_equal(after.predict_proba(texts), before.predict_proba(texts))
    assert after.provenance.loaded_by.startswith("torch.load(weights_only=True) into transformers.")
    assert none_of("other weight files" in note for note in after.provenance.notes)


def test_a_folder_whose_torch_weights_run_code_is_refused(tmp_path: Path) -> None:
    folder, marker = bert(tmp_path), tmp_path / "marker"
    (folder / "model.safetensors").unlink()
    for content in (pickle.dumps(Touch(str(marker)), 2), pickle.dumps(Touch(str(marker)), 5)):
        (folder / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(ModelError, match="pytorch_model.bin"):
            load_model(ModelSpec(path=str(folder)))
    torch.save({"a": Touch(str(marker))}, folder / "pytorch_model.bin")
    with pytest.raises(UnsafeModelError, match=r"pytorch_model.bin.*posix\.system"):
        load_model(ModelSpec(path=str(folder)))
    assert not marker.exists()
    assert all_of(name.endswith((".json", ".bin")) for name in (p.name for p in folder.iterdir()))
