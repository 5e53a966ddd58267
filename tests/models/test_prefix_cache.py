"""What a network has read is read once: the same states as anew, from fewer tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import pytest
import torch

import auditor.models.prefix_cache
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.prefix_cache import PrefixCache
from auditor.models.prefix_trees import TREE_ATTENTION
from tests.models.test_language import _SIZES
from tests.toys.language import causal_tokenizer, sentences, tiny

Text = tuple[int, ...]
PAIR = (4, 6)


def llama() -> AuditedLanguageModel:
    return AuditedLanguageModel(tiny("llama").eval(), causal_tokenizer(), batch_tokens=64).with_prefix_cache()


def texts(model: AuditedLanguageModel, n: int) -> list[Text]:
    return [e.ids for e in model.encode(sentences(n))]


def anew(model: AuditedLanguageModel, some: Sequence[Text]) -> list[float]:
    with torch.no_grad():
        last = [model.module(input_ids=torch.tensor([ids])).logits[0, -1] for ids in some]
    return [float(logits[PAIR[0]] - logits[PAIR[1]]) for logits in last]


def asked(model: AuditedLanguageModel, some: Sequence[Text]) -> tuple[list[float], int]:
    """The log-odds behind some texts, and how many tokens were passed forward for them."""
    before = model.forwarded["tokens",]
    found = model.log_odds(some, [PAIR] * len(some))
    assert found is not None
    return list(found), model.forwarded["tokens",] - before


def prefixes(some: Sequence[Text]) -> set[Text]:
    return {ids[:i] for ids in some for i in range(1, len(ids) + 1)}


@pytest.mark.grid
@pytest.mark.parametrize("kind", sorted(TREE_ATTENTION))
def test_texts_that_go_on_from_others_have_the_states_of_texts_alone(kind: str) -> None:
    # With a soft cap behind the last layer there is no log-odds by two of its rows.
    plain = {"final_logit_softcapping": None} if kind == "gemma2" else {}
    network = tiny(kind, **_SIZES.get(kind, {}), **plain).eval()
    model = AuditedLanguageModel(network, causal_tokenizer(), batch_tokens=64).with_prefix_cache()
    some = texts(model, 24)
    for part in ([ids[:5] for ids in some[:9]], some[3:12], some):
        np.testing.assert_allclose(asked(model, part)[0], anew(model, part), atol=1e-4)


def test_only_what_is_new_is_passed_forward() -> None:
    model = llama()
    model.log_likelihoods(["the dog"])
    some = texts(model, 4)
    short = [ids[:-2] for ids in some]
    assert asked(model, short)[1] == len(prefixes(short))
    assert asked(model, some)[1] == len(prefixes(some) - prefixes(short))
    assert asked(model, [*some, *short]) == (pytest.approx(anew(model, [*some, *short]), abs=1e-4), 0)


def test_rows_that_read_the_same_at_once_agree_on_whose_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditor.models.prefix_cache, "_ROW_TOKENS", 4)
    model = llama()
    begin = (3, 5, 4)
    some = [(*begin, i, 7, 8) for i in range(9, 15)]
    further = [(*ids, 6, i) for ids in some for i in (3, 4)]
    for part in (some, further):
        np.testing.assert_allclose(asked(model, part)[0], anew(model, part), atol=1e-4)
    assert asked(model, further)[1] == 0


@pytest.mark.parametrize("n_tokens", [0, 30])
def test_what_does_not_fit_is_forgotten_and_read_anew(n_tokens: int) -> None:
    model = llama()
    some = texts(model, 30)
    expected, n = asked(model, some)
    a_token = sum(each[0].numel() * each.element_size() for each in model._prefix_cache()._kept)
    model._cache = PrefixCache(model.module, n_tokens * a_token)
    for _ in range(2):
        found, read = asked(model, some)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert read > n / 2 and len(model._cache._places) <= n_tokens
    model.forget()
    assert model._cache is None


def test_room_for_what_comes_is_made_within_the_limit() -> None:
    model = llama()
    some = texts(model, 30)
    asked(model, some[:1])
    a_token = sum(each[0].numel() * each.element_size() for each in model._prefix_cache()._kept)
    most = int(1.5 * len(prefixes(some[:2]))) * a_token
    model._cache = PrefixCache(model.module, most)
    for n in (1, 2):
        asked(model, some[:n])
        assert 0 < sum(each.numel() * each.element_size() for each in model._cache._kept) <= most


def test_a_network_that_reads_no_trees_is_asked_the_plain_way() -> None:
    model = AuditedLanguageModel(tiny("bloom", n_head=2, n_layer=2).eval(), causal_tokenizer()).with_prefix_cache()
    some = texts(model, 6)
    assert asked(model, some)[0] == pytest.approx(anew(model, some), abs=1e-4) and model._cache is None


def test_another_network_has_nothing_of_what_the_first_has_read() -> None:
    model = llama()
    some = texts(model, 6)
    first, n = asked(model, some)
    other = copy.copy(model)
    other.module = tiny("llama", initializer_range=0.5).eval()
    assert asked(other, some) == (pytest.approx(anew(other, some), abs=1e-4), n) and other._cache is not model._cache
    assert asked(model, some) == (pytest.approx(first), 0) and model.with_prefix_cache()._cache is None
