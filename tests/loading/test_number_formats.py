"""In which numbers a language model is computed: by what was asked, never by what a config.json claims."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import auditor
from auditor.core.errors import UsageError
from auditor.loading.formats import load_model
from auditor.loading.job_specs import ModelSpec
from auditor.loading.language_models import computed_in, dtype_sentence, stored_in
from probes.probe_inputs import load_reference
from tests.quantifiers import all_of
from tests.toys.folders import change_json, save_bert
from tests.toys.language import causal_tokenizer, sentences, tiny

HALVES = ("bfloat16", "float16")


def saved(folder: Path, dtype: str = "float32", kind: str = "llama", **more: object) -> Path:
    """A random causal model whose files hold numbers of that format."""
    tiny(kind, **more).to(getattr(torch, dtype)).save_pretrained(folder)  # type: ignore[operator]
    causal_tokenizer().save_pretrained(folder)
    return folder


def loaded(folder: Path, dtype: Any = "auto") -> Any:
    return load_model(ModelSpec(path=str(folder), dtype=dtype))


@pytest.mark.parametrize("stored", ["float32", *HALVES])
def test_on_a_cpu_auto_is_float32_and_loses_nothing(stored: str, tmp_path: Path) -> None:
    model = loaded(saved(tmp_path / "m", stored))
    expected = tiny("llama").to(getattr(torch, stored)).float().state_dict()
    assert model.dtype == "float32"
    assert all_of(torch.equal(tensor, expected[name]) for name, tensor in model.module.state_dict().items())
    said = "as its files are" if stored == "float32" else f"its files hold {stored}, which it holds exactly"
    assert said in model.provenance.notes[0]


@pytest.mark.parametrize("asked", HALVES)
def test_halves_are_computed_in_and_said(asked: str, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    whole, half = loaded(folder), loaded(folder, asked)
    assert (whole.dtype, half.dtype) == ("float32", asked)
    assert f"Computed in {asked}, as --dtype says, and its files hold float32." in half.provenance.notes[0]
    texts = sentences(30)
    exact, rounded = whole.log_likelihoods(texts), half.log_likelihoods(texts)
    # It is another model in its last digits, and no other one in its first.
    np.testing.assert_allclose(rounded, exact, rtol=0.03)
    assert 1e-4 < np.abs(rounded - exact).max()
    assert half.token_log_probabilities(half.encode(texts[:1]))[0].dtype == np.float64


def test_logits_of_a_half_are_summed_in_float32(tmp_path: Path) -> None:
    """Against the network's own states and a softmax in double precision: rounded logits would be off by hundredths."""
    model = loaded(saved(tmp_path / "m"), "bfloat16")
    text = sentences(1)[0]
    encoded = model.encode([text])[0]
    found = model.token_log_probabilities([encoded])[0]
    ids = torch.tensor([encoded.ids])
    with torch.inference_mode():
        states = model.module.model(input_ids=ids).last_hidden_state[0]
        logits = states.double() @ model.module.lm_head.weight.double().T
    expected = torch.log_softmax(logits, -1)[torch.arange(len(encoded.ids) - 1), ids[0, 1:]]
    np.testing.assert_allclose(found[1:], expected.numpy(), atol=2e-4)


def test_what_a_configuration_claims_is_not_believed(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    change_json(folder / "config.json", dtype="float16", torch_dtype="float16")
    model = loaded(folder)
    assert model.dtype == "float32" and "as its files are" in model.provenance.notes[0]


def test_auto_on_a_gpu_is_what_most_of_the_weights_are() -> None:
    mixed = {"a": torch.zeros(9, dtype=torch.bfloat16), "b": torch.zeros(8), "c": torch.zeros(99, dtype=torch.int64)}
    assert stored_in(mixed) == torch.bfloat16
    assert stored_in({}) == torch.float32
    for stored, expected in (
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float16),
        (torch.float64, torch.float32),
        (torch.float8_e4m3fn, torch.float32),
    ):
        assert computed_in("auto", "cuda:0", stored) == expected
        assert computed_in("auto", "cpu", stored) == torch.float32
    assert computed_in("float32", "cuda", torch.bfloat16) == torch.float32
    assert "which it holds exactly" not in dtype_sentence(torch.float32, torch.float64, "auto")


def test_a_scan_says_in_which_numbers(tmp_path: Path) -> None:
    report = auditor.scan(str(saved(tmp_path / "m")), dtype="bfloat16", probes=["bbq"], seed=0, max_memory=4 << 30)
    assert report.model.dtype == "bfloat16"
    assert any(note.startswith("Computed in bfloat16, as --dtype says") for note in report.model.notes)


def test_a_reference_is_computed_in_the_same_numbers(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    for asked in ("bfloat16", "float32"):
        assert load_reference(str(folder), loaded(folder, asked))[0].dtype == asked  # type: ignore[attr-defined]


def test_it_is_for_language_models(tmp_path: Path) -> None:
    save_bert(tmp_path / "m")
    with pytest.raises(UsageError, match="--dtype names the numbers that a language model.*leave --dtype out"):
        loaded(tmp_path / "m", "bfloat16")
    assert loaded(tmp_path / "m", "float32").kind == "classifier"
