"""Safetensors read tensor by tensor: the same tensors and refusals as ever, and one copy in memory."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from auditor.artifact.source import read_source
from auditor.artifact.streamed import stream_safetensors
from auditor.artifact.weights import load_safetensors
from auditor.errors import ModelError
from tests.intake.test_intake_hostile import SAFETENSORS, bounded
from tests.quantifiers import all_of

KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8)


def test_every_kind_of_tensor_is_what_safetensors_reads(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {str(kind): (9 * torch.randn(3, 4, generator=generator)).to(kind) for kind in KINDS}
    tensors |= {"bool": torch.ones(5, dtype=torch.bool), "none": torch.zeros(0, 3), "one": torch.tensor(3.0)}
    tensors |= {"bytes": torch.arange(7, dtype=torch.uint8), "eight": torch.ones(2).to(torch.float8_e4m3fn)}
    save_file(tensors, tmp_path / "m.safetensors")
    found, digest, size = stream_safetensors(tmp_path / "m.safetensors")
    before = load_safetensors(read_source(tmp_path / "m.safetensors"))
    assert set(found) == set(before) == set(tensors)
    for name, tensor in before.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name].double(), tensor.double()), name
    data = (tmp_path / "m.safetensors").read_bytes()
    assert (digest, size) == (hashlib.sha256(data).hexdigest(), len(data))


@pytest.mark.parametrize("name", sorted(SAFETENSORS))
def test_doctored_files_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(SAFETENSORS[name])
    with bounded(), pytest.raises(ModelError) as caught:
        stream_safetensors(tmp_path / "m.safetensors")
    assert str(caught.value).isprintable()


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.arange(6.0), "b": torch.ones(2, 2)}, tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    says = []
    for length in (*range(1, 12), len(whole) // 2, len(whole) - 1):
        (tmp_path / "m.safetensors").write_bytes(whole[:length])
        with pytest.raises(ModelError) as caught:
            stream_safetensors(tmp_path / "m.safetensors")
        says.append(str(caught.value))
    assert all_of("safetensors" in text for text in says)


_PEAK = """
import resource, sys, torch, transformers
from transformers import BertForSequenceClassification
from auditor.intake.formats import load_model
from auditor.intake.specs import ModelSpec
load_model(ModelSpec(path=sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
load_model(ModelSpec(path=sys.argv[2]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("shards", [1, 6])
def test_a_folder_is_held_in_memory_once(shards: int, tmp_path: Path) -> None:
    """About 300 MB of weights: the peak of the process grows by their size and little more."""
    from transformers import BertConfig, BertForSequenceClassification

    from tests.toys.folders import WORDS, save_bert

    save_bert(tmp_path / "small")
    folder = tmp_path / "large"
    save_bert(folder)
    (folder / "model.safetensors").unlink()
    size = {"hidden_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 4096}
    config = BertConfig(vocab_size=len(WORDS), max_position_embeddings=16, num_labels=3, **size)
    BertForSequenceClassification(config).save_pretrained(folder, max_shard_size="310MB" if shards == 1 else "60MB")
    files = list(folder.glob("*.safetensors"))
    assert (len(files) > 1) == (shards > 1)
    held = sum(file.stat().st_size for file in files)
    line = [sys.executable, "-c", _PEAK, str(tmp_path / "small"), str(folder)]
    grown = int(subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    assert held > 250e6
    assert grown < 1.25 * held, f"{grown / held:.2f} times the size"
