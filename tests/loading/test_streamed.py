"""Safetensors read tensor by tensor: the same tensors and refusals as ever, and one copy in memory."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import auditor.models.files.streamed_safetensors
from auditor.core.errors import ModelError
from auditor.loading.job_specs import Job, Limits, ModelSpec
from auditor.models.files.model_bytes import read_source
from auditor.models.files.streamed_safetensors import changed_since, stream_safetensors
from auditor.models.files.weights import load_safetensors
from auditor.run.child_jobs import run
from tests.loading.test_intake_hostile import SAFETENSORS, bounded
from tests.loading.test_number_formats import saved
from tests.quantifiers import all_of

KINDS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8)


@pytest.mark.parametrize("mapped", [False, True])
def test_every_kind_of_tensor_is_what_safetensors_reads(mapped: bool, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {str(kind): (9 * torch.randn(3, 4, generator=generator)).to(kind) for kind in KINDS}
    tensors |= {"bool": torch.ones(5, dtype=torch.bool), "none": torch.zeros(0, 3), "one": torch.tensor(3.0)}
    tensors |= {"bytes": torch.arange(7, dtype=torch.uint8), "eight": torch.ones(2).to(torch.float8_e4m3fn)}
    save_file(tensors, tmp_path / "m.safetensors")
    found, digest, size = stream_safetensors(tmp_path / "m.safetensors", memory_map=mapped)
    before = load_safetensors(read_source(tmp_path / "m.safetensors"))
    assert set(found) == set(before) == set(tensors)
    for name, tensor in before.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape
        assert torch.equal(found[name].double(), tensor.double()), name
    data = (tmp_path / "m.safetensors").read_bytes()
    assert (digest, size) == (hashlib.sha256(data).hexdigest(), len(data))


def test_tensors_are_mapped_in_runs_wherever_they_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many runs, one that begins within a number, one of no bytes at all, and one written into: the file stays."""
    monkeypatch.setattr(auditor.models.files.streamed_safetensors, "_LEAST_MAPPED", 100)

    def refused(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    generator = torch.Generator().manual_seed(0)
    header, data, tensors = {}, b"", {}
    for i, n in enumerate((3, 1, 0, 40, 7, 2000, 0, 5)):
        kind, name = (torch.int8, "I8") if i % 2 else (torch.float32, "F32")
        tensors[f"t{i}"] = (9 * torch.randn(n, generator=generator)).to(kind)
        raw = tensors[f"t{i}"].numpy().tobytes()
        header[f"t{i}"] = {"dtype": name, "shape": [n], "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header).encode()
    file = tmp_path / "m.safetensors"
    file.write_bytes(len(head).to_bytes(8, "little") + head + data)
    found, digest, _ = stream_safetensors(file, memory_map=True)
    assert all_of(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    monkeypatch.setattr(mmap, "mmap", refused)
    read, again, _ = stream_safetensors(file, memory_map=True)
    assert again == digest
    assert all_of(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    found["t5"].add_(1)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == digest


def test_a_mapped_file_that_is_written_into_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replaced file is the old one to whoever mapped it; one that is written into is another in the same place."""
    monkeypatch.setattr(auditor.models.files.streamed_safetensors, "_mapped", [])
    file = tmp_path / "m.safetensors"
    save_file({"a": torch.ones(2000)}, file)
    whole = file.read_bytes()
    found, _, _ = stream_safetensors(file, memory_map=True)
    assert changed_since() == []
    (tmp_path / "other").write_bytes(whole[:-4] + bytes(4))
    (tmp_path / "other").replace(file)
    assert changed_since() == [] and float(found["a"].sum()) == 2000
    stream_safetensors(file, memory_map=True)
    os.utime(file, ns=(0, 0))
    assert changed_since() == ["m.safetensors"]


def test_a_scan_of_a_model_that_changes_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.toys.folders import save_bert

    monkeypatch.setattr(auditor.models.files.streamed_safetensors, "_mapped", [])
    save_bert(tmp_path / "m")
    sent: list[object] = []

    class Channel:
        def send(self, message: object) -> None:
            sent.append(message)
            os.utime(tmp_path / "m" / "model.safetensors", ns=(0, 0))

    limits = Limits(memory_bytes=8 << 30, seconds=60)
    job = Job(model=ModelSpec(path=str(tmp_path / "m")), data=None, probes=(), seed=0, limits=limits)
    with pytest.raises(ModelError, match="'model.safetensors' was written into while it was audited"):
        run(job, Channel())  # type: ignore[arg-type]
    assert len(sent) > 1


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("name", sorted(SAFETENSORS))
def test_doctored_files_are_refused(name: str, mapped: bool, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(SAFETENSORS[name])
    with bounded(), pytest.raises(ModelError) as caught:
        stream_safetensors(tmp_path / "m.safetensors", memory_map=mapped)
    assert str(caught.value).isprintable()


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    save_file({"a": torch.arange(6.0), "b": torch.ones(2, 2)}, tmp_path / "m.safetensors")
    whole = (tmp_path / "m.safetensors").read_bytes()
    says = []
    for length in (*range(1, 12), len(whole) // 2, len(whole) - 1):
        (tmp_path / "m.safetensors").write_bytes(whole[:length])
        with pytest.raises(ModelError) as caught:
            stream_safetensors(tmp_path / "m.safetensors", memory_map=length % 2 == 1)
        says.append(str(caught.value))
    assert all_of("safetensors" in text for text in says)


_PEAK = """
import resource, sys, torch, transformers
from transformers import BertForSequenceClassification
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key + ":")) * 1024
mapped = sys.argv[1] == "mapped"
load_model(ModelSpec(path=sys.argv[2], mapped=mapped))
for path in sys.argv[3:]:
    model = None
    open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
    before = status("VmHWM"), status("RssAnon")
    model = load_model(ModelSpec(path=path, mapped=mapped))
    print(status("VmHWM") - before[0], status("RssAnon") - before[1])
"""


def grown(how: str, *folders: Path) -> list[tuple[int, int]]:
    """By how many bytes loading each folder but the first raises a process's peak, and its pages that are no file's."""
    line = [sys.executable, "-c", _PEAK, how, *map(str, folders)]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout.splitlines()
    return [(int(line.split()[0]), int(line.split()[1])) for line in said[1 - len(folders) :]]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_mapped_model_is_never_in_memory_twice(tmp_path: Path) -> None:
    """60 MB of float32 take no memory but the file's pages; 30 MB of bfloat16 take 60 MB as float32, and not 90."""
    wide: dict[str, object] = {"hidden_size": 512, "intermediate_size": 8192, "num_hidden_layers": 1}
    folders = [
        saved(tmp_path / "small"),
        saved(tmp_path / "whole", **wide),
        saved(tmp_path / "half", "bfloat16", **wide),
    ]
    whole, half = ((folder / "model.safetensors").stat().st_size for folder in folders[1:])
    assert 50e6 < whole < 70e6 and half < 0.51 * whole
    (peak, own), (peak_of_half, own_of_half) = grown("mapped", *folders)
    assert peak < 1.3 * whole and own < 0.2 * whole, (peak / whole, own / whole)
    assert peak_of_half < 1.3 * whole and own_of_half < 1.2 * whole, (peak_of_half / whole, own_of_half / whole)


@pytest.mark.grid
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
    peak, _ = grown("read", tmp_path / "small", folder)[0]
    assert held > 250e6
    assert peak < 1.25 * held, f"{peak / held:.2f} times the size"
