"""How much a network is given at once follows free memory, and moves no number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from auditor.loading import huggingface_folders
from auditor.models import forward_passes
from auditor.models.forward_passes import exact_products, free_bytes, move_tensor, rows_at_once, tokens_at_once
from auditor.models.language_model import AuditedLanguageModel
from tests.toys.language import causal_tokenizer, masked_tokenizer, sentences, tiny, tiny_bert

GIB = 1 << 30


def test_tokens_follow_free_memory_and_are_those_of_before_on_a_cpu() -> None:
    network = tiny("llama", hidden_size=512, intermediate_size=2048, num_attention_heads=8)
    assert tokens_at_once(network, None) == 512 == AuditedLanguageModel(tiny("llama"), causal_tokenizer()).batch_tokens
    found = [tokens_at_once(network, free) for free in (0, GIB, 8 * GIB, 64 * GIB, 4096 * GIB)]
    assert found == sorted(found) and found[0] == 512 and found[1] < found[2] and found[-1] == 1 << 16
    assert {n & (n - 1) for n in found} == {0}
    assert tokens_at_once(network, GIB) == tokens_at_once(network, GIB - (1 << 20))
    assert tokens_at_once(network.to(torch.bfloat16), GIB) >= found[1]


def test_a_card_is_asked_what_is_free_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_bytes(torch.device("cpu")) is None
    asked: dict[str, Any] = {"mem_get_info": (5 * GIB, 80 * GIB), "memory_reserved": 3 * GIB, "memory_allocated": GIB}
    for name, value in asked.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    # What torch holds there and does not use is free for it too.
    assert free_bytes(torch.device("cuda")) == 7 * GIB


def test_rows_follow_what_the_layers_make_of_the_largest_input() -> None:
    network = nn.Sequential(nn.Linear(100, 1000), nn.ReLU(), nn.Linear(1000, 2)).eval()
    made = 4 * (1000 + 1000 + 2)
    assert rows_at_once(network, torch.zeros(1, 100), 64, None) == 64
    assert rows_at_once(network, torch.zeros(1, 100), 64, 4 * 300 * made) == 256
    assert rows_at_once(network, torch.zeros(1, 100), 64, 4 * 10 * made) == 64
    assert rows_at_once(network, torch.zeros(1, 100), 64, GIB << 10) == forward_passes._MOST_ROWS
    assert not network[0]._forward_hooks


def test_what_a_long_text_takes_is_told_by_its_first_places(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Embedding(10, 64), nn.Linear(64, 8))
    seen: list[int] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    made = 65_536 * 4 * (64 + 8)
    monkeypatch.setattr(huggingface_folders, "free_bytes", lambda _: 4 * 300 * made)
    long = torch.zeros(1, 65_536, dtype=torch.long)
    assert huggingface_folders._rows_at_once(network, long, 64, torch.device("cpu"), 512) == 256
    assert (
        huggingface_folders._rows_at_once(network, long[:, :100], 64, torch.device("cpu"), 512)
        == forward_passes._MOST_ROWS
    )
    assert seen == [512, 100]
    monkeypatch.setattr(huggingface_folders, "free_bytes", lambda _: None)
    assert huggingface_folders._rows_at_once(network, long, 64, torch.device("cpu"), 512) == 64 and len(seen) == 2


@pytest.mark.parametrize("masked", [False, True])
def test_the_size_of_a_batch_moves_no_likelihood(masked: bool) -> None:
    texts = sentences(40)
    network = tiny_bert(initializer_range=0.2) if masked else tiny("llama").eval()
    tokenizer = masked_tokenizer() if masked else causal_tokenizer()
    found = []
    for n in (16, 512, 1 << 16):
        model = AuditedLanguageModel(network, tokenizer, batch_tokens=n)
        found.append(np.concatenate(model.token_log_probabilities(model.encode(texts))))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=1e-5)


def test_what_goes_to_a_card_goes_from_pinned_memory_and_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, **how: calls.append((device.type, how)) or self)
    x = torch.ones(2)
    assert move_tensor(x, torch.device("cpu")) is x and move_tensor(x, torch.device("cuda")) is x
    assert calls == [("cpu", {}), "pinned", ("cuda", {"non_blocking": True})]


def test_float32_on_a_card_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("high")
        exact_products("cpu")
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("high", True)
        exact_products("cuda:0")
        assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == ("highest", False)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
