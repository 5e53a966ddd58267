"""The whole reason of a library reaches the refusal, without its advice on flags of its own; places are named."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import safetensors.torch
import torch

from auditor.core.errors import AuditorError, ModelError
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.models.files.model_bytes import convert_parser_errors
from tests.loading.test_torch_files import bert
from tests.quantifiers import all_of


def refusal(path: Path) -> AuditorError:
    with pytest.raises(ModelError) as caught:
        load_model(ModelSpec(path=str(path), classes=None if path.is_dir() else ("a", "b")))
    return caught.value


def with_pickle(change: Callable[[bytes], bytes], folder: Path) -> Path:
    """A torch archive whose pickle was changed."""
    whole, path = BytesIO(), folder / "model.pt"
    torch.save({"w": torch.zeros(2, 2)}, whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith("data.pkl") else content)
    return path


def test_a_folder_whose_weights_have_other_shapes_names_them(tmp_path: Path) -> None:
    folder = bert(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    key = "bert.embeddings.word_embeddings.weight"
    rows, columns = weights[key].shape
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": rows + 7}))
    error = refusal(folder)
    assert error.code == "AUD-LOAD-WEIGHTS"
    assert f"{key} is ({rows}, {columns}) in the files and ({rows + 7}, {columns}) by the configuration." in str(error)
    assert "ignore_mismatched_sizes" not in str(error)
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 5}))
    assert str(refusal(folder)).count(" by the configuration") >= 3
    assert len(str(refusal(folder))) < 1_200 and str(refusal(folder)).isprintable()


def test_a_folder_that_lacks_a_weight_still_says_so(tmp_path: Path) -> None:
    folder = bert(tmp_path)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    weights.pop("classifier.bias")
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert "lack 'classifier.bias'" in str(refusal(folder))


def test_what_weights_only_refuses_is_said_and_its_advice_is_not(tmp_path: Path) -> None:
    said = str(refusal(with_pickle(lambda data: data.replace(b"storage", b"storagX"), tmp_path)))
    assert said.endswith("Only persistent_load of storage is allowed, but got <class 'str'>.")
    said = str(refusal(with_pickle(lambda data: data[:2] + b"\x8c\x01a0" + data[2:], tmp_path)))
    assert said.endswith("Unsupported operand 140.")
    assert all_of(word not in said for word in ("weights_only", "https", "trusted source", "file an issue"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("It is short. It lacks its end.\nByte 12 is the last", "It is short. It lacks its end. Byte 12 is the last."),
        ("Two lines:\n  first is 3\n  second is 4\n", "Two lines: first is 3. second is 4."),
        (
            "It is old. Set ignore_mismatched_sizes to True. Shape (2,) is not (3,).",
            "It is old. Shape (2,) is not (3,).",
        ),
        ("", "RuntimeError."),
        ("\x1b[31mred\x1b[0m \u202e back", "\\x1b[31mred\\x1b[0m \\x202e back."),
    ],
)
def test_all_that_a_library_says_is_kept_in_one_paragraph(words: str, said: str) -> None:
    with pytest.raises(ModelError) as caught, convert_parser_errors("It cannot be read"):
        raise RuntimeError(words)
    assert str(caught.value) == f"It cannot be read: {said}"


def test_of_an_endless_reason_fifteen_lines_are_kept() -> None:
    with pytest.raises(ModelError) as caught, convert_parser_errors("It cannot be read"):
        raise RuntimeError("\n".join(f"line {i} {'x' * 500}" for i in range(1000)))
    assert len(str(caught.value)) < 1_600
    with pytest.raises(ModelError) as caught, convert_parser_errors("It cannot be read"):
        raise RuntimeError("\n".join(f"line {i}" for i in range(1000)))
    assert "line 14." in str(caught.value) and "line 15" not in str(caught.value)


def test_a_damaged_pickle_says_at_which_byte(tmp_path: Path) -> None:
    whole = pickle.dumps({"coef": list(range(40)), "name": "linear"}, protocol=4)
    path = tmp_path / "model.pkl"
    at = whole.index(b"linear") + len(b"linear")
    # Calls what is not on the stack.
    path.write_bytes(whole[:at] + b"R" + whole[at:])
    assert f"at byte {at:,} of the pickle" in str(refusal(path))
