"""Sampling against the slow way: one prompt, one token at a time, everything computed anew."""

from __future__ import annotations

import copy
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import auditor.models.prefix_trees
from auditor.core.errors import ModelError, NotApplicableError
from auditor.models.capabilities import writer_of
from auditor.models.generation import Sampling, _choose, continuations
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.prefix_trees import TREE_ATTENTION
from tests.models.test_language import _SIZES
from tests.quantifiers import all_of
from tests.toys.language import causal_tokenizer, masked_tokenizer, tiny, tiny_bert


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


PROMPTS = ["the dog sees", "a", "the small old man likes the red", "the dog", "but not today the cat"]


# ---- sampling ------------------------------------------------------------------------------------------------------


def one_by_one(network: nn.Module, tokenizer: Any, prompt: str, n: int) -> str:
    """Greedy, one prompt, everything computed anew at every step."""
    ids = [1, *tokenizer(prompt, add_special_tokens=False).input_ids]
    new: list[int] = []
    with torch.no_grad():
        for _ in range(n):
            token = int(network(input_ids=torch.tensor([ids + new])).logits[0, -1].argmax())
            if token == tokenizer.eos_token_id or token == 2:
                break
            new.append(token)
    return str(tokenizer.decode(new, skip_special_tokens=True))


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen2", "gpt_neox", "bloom"])
def test_batched_and_cached_is_one_by_one(kind: str) -> None:
    more = {"n_head": 2, "n_layer": 2} if kind == "bloom" else {}
    network, tokenizer = tiny(kind, **more).eval(), causal_tokenizer()
    model = AuditedLanguageModel(network, tokenizer)
    greedy = Sampling(max_new_tokens=12, temperature=0.0)
    expected = [one_by_one(network, tokenizer, p, 12) for p in PROMPTS]
    for rows in (1, 2, 64):
        found = continuations(model, PROMPTS, 1, greedy, generator(), batch_rows=rows)
        assert [texts[0] for texts in found] == expected


@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("prefix", [None, "", "</s>"])
def test_what_stands_before_a_text_stands_before_one_that_is_continued(adds: bool, prefix: str | None) -> None:
    model = AuditedLanguageModel(tiny("llama").eval(), causal_tokenizer(adds=adds))
    model = model if prefix is None else model.with_prefix(prefix)
    read: list[list[int]] = []
    model.module.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"][0].tolist()), with_kwargs=True
    )
    continuations(model, ["the dog"], 1, Sampling(max_new_tokens=1), generator())
    assert read == [list(model.encode(["the dog"])[0].ids)]
    # Only a token that is named, and that its tokenizer does not add, may or may not have stood before its texts.
    known = adds or prefix is not None
    found = [each.prefix for each in model.by_possible_prefixes()]
    assert found == ([model.prefix] if known else [(), (1,)])
    assert [each.as_sent().prefix for each in model.by_possible_prefixes()] == found
    # One rule for what is scored and what is written.
    writer_of(model).continued(["the dog"], 1, Sampling(max_new_tokens=1), np.random.default_rng(0))
    assert read[1:] == [list(model.encode(["the dog"])[0].ids)]


def test_the_cache_is_used() -> None:
    network = tiny("llama").eval()
    lengths: list[int] = []
    forward = network.forward

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network
            self.config = network.config

        def get_input_embeddings(self) -> Any:
            return network.get_input_embeddings()  # type: ignore[operator]

        def get_output_embeddings(self) -> Any:
            return network.get_output_embeddings()  # type: ignore[operator]

        def forward(
            self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, cache: Any = None,
            use_cache: bool = True,
        ) -> Any:  # fmt: skip
            lengths.append(input_ids.shape[1])
            return forward(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, cache=cache,
                use_cache=use_cache,
            )  # fmt: skip

    model = AuditedLanguageModel(Watched(), causal_tokenizer(), objective="causal")
    continuations(model, PROMPTS, 2, Sampling(max_new_tokens=6), generator())
    assert lengths[0] > 1 and set(lengths[1:]) == {1}


def test_a_token_waits_for_the_device_once_and_texts_are_read_only_where_they_end_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[int] = []
    to_list = Tensor.tolist

    def watched(self: Tensor) -> Any:
        waits.append(self.numel())
        return to_list(self)

    class Reads:
        def __init__(self) -> None:
            self.inner, self.reads = causal_tokenizer(), 0

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def __call__(self, *args: Any, **more: Any) -> Any:
            return self.inner(*args, **more)

        def batch_decode(self, *args: Any, **more: Any) -> Any:
            self.reads += 1
            return self.inner.batch_decode(*args, **more)

    model = AuditedLanguageModel(tiny("llama").eval(), causal_tokenizer())
    monkeypatch.setattr(Tensor, "tolist", watched)
    for until, most in (("length", 1), ("word", 9)):
        model.tokenizer, before = Reads(), len(waits)
        assert model.forwarded is not None
        model.forwarded.clear()
        found = continuations(model, PROMPTS, 2, Sampling(max_new_tokens=8, until=until), generator())  # type: ignore[arg-type]
        steps = len(waits) - before
        assert 1 <= steps <= 8 and 1 <= model.tokenizer.reads <= most and len(found) == len(PROMPTS)
        # What prompts begin with alike is read once, and then a token a row that still goes on.
        read = [(1, *causal_tokenizer()(prompt).input_ids) for prompt in PROMPTS]
        distinct = {ids[:end] for ids in read for end in range(1, len(ids) + 1)}
        assert model.forwarded["tokens",] == len(distinct) + sum(waits[before + 1 :])


def test_same_seed_same_texts_whatever_the_batches_and_no_global_generator_moves() -> None:
    network = tiny("llama").train()
    before = copy.deepcopy(network.state_dict())
    model = AuditedLanguageModel(network, causal_tokenizer())
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]
    sampling = Sampling(max_new_tokens=8, top_p=0.9)
    first = continuations(model, PROMPTS, 3, sampling, generator(), batch_rows=64)
    assert continuations(model, PROMPTS, 3, sampling, generator(), batch_rows=2) == first
    assert continuations(model, PROMPTS, 3, sampling, generator(1)) != first
    assert len(first) == len(PROMPTS) and all_of(len(texts) == 3 for texts in first)
    assert torch.equal(state, torch.get_rng_state())
    assert (legacy == np.random.get_state()[1]).all()  # type: ignore[index]
    assert network.training and all_of(torch.equal(v, before[k]) for k, v in network.state_dict().items())


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7), (2.0, 0.9)])
def test_draws_follow_the_distribution(temperature: float, top_p: float, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.tensor([2.0, 0.5, 1.0, -1.0, 0.0])
    p = torch.softmax(logits / temperature, 0).double().numpy()
    order = np.argsort(-p)
    kept = order[: int(np.searchsorted(np.cumsum(p[order]), top_p) + 1)] if top_p < 1 else order
    expected = np.zeros(5)
    expected[kept] = p[kept] / p[kept].sum()
    n = 40_000
    for likeliest in ((1024,), (2,), (1, 2)):
        monkeypatch.setattr("auditor.models.generation._LIKELIEST", likeliest)
        draws = torch.rand(n, generator=generator(), dtype=torch.float64)
        found = _choose(logits.expand(n, -1), draws, Sampling(temperature=temperature, top_p=top_p))
        shares = np.bincount(found.numpy(), minlength=5) / n
        np.testing.assert_allclose(shares, expected, atol=0.012)
        assert (shares[expected == 0] == 0).all()


def test_what_cannot_be_sampled() -> None:
    network = tiny("gpt2", n_positions=10)
    model = AuditedLanguageModel(network, causal_tokenizer())
    with pytest.raises(NotApplicableError, match="context of 10"):
        continuations(model, ["the dog"], 1, Sampling(max_new_tokens=9), generator())
    masked = AuditedLanguageModel(tiny_bert(), masked_tokenizer())
    with pytest.raises(NotApplicableError, match="causal"):
        continuations(masked, ["the dog"], 1, Sampling(), generator())
    for broken in ("nan", "inf"):
        with pytest.raises(ModelError, match="NaN"):
            _choose(torch.tensor([[0.0, 1.0], [0.0, float(broken)]]), torch.zeros(2), Sampling(temperature=0.0))
    never = torch.tensor([[0.0, float("-inf")]])
    assert _choose(never, torch.ones(1), Sampling(top_p=1.0)).tolist() == [0], "a token may be excluded"
    for wrong in ({"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Sampling(**wrong)  # type: ignore[arg-type]


class Script(nn.Module):
    """Says the tokens of a script one after another, whatever was said before: the k-th new token is script[k]."""

    def __init__(self, size: int, start: int, script: list[int]) -> None:
        super().__init__()
        self.table = nn.Embedding(size, 2)
        self.start, self.script = start, script
        self.config = SimpleNamespace(model_type="script")
        self.rows: list[int] = []

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> SimpleNamespace:
        self.rows.append(len(input_ids))
        logits = torch.full((*input_ids.shape, self.table.num_embeddings), -1e9)
        logits[:, -1, self.script[input_ids.shape[1] - self.start]] = 0.0
        return SimpleNamespace(logits=logits)


@pytest.mark.parametrize(
    ("until", "said"),
    [("length", "dog sees . cat here"), ("sentence", "dog sees ."), ("word", "dog sees")],
)
def test_a_continuation_ends_with_its_sentence_or_word(until: Any, said: str) -> None:
    tokenizer = causal_tokenizer(["the", "dog", "sees", ".", "cat", "here"])
    script = tokenizer.convert_tokens_to_ids(["dog", "sees", ".", "cat", "here"])
    network = Script(len(tokenizer), 3, script)
    model = AuditedLanguageModel(network, tokenizer, objective="causal")
    drawn = continuations(model, ["the dog", "the cat"], 2, Sampling(max_new_tokens=5, until=until), generator())
    # What has ended is not drawn any further, so the first word is known only by the next one's beginning.
    assert drawn == [[said] * 2] * 2
    assert len(network.rows) == len(said.split()), "once all have ended nothing more is asked"


@pytest.mark.parametrize(
    ("until", "text", "ended"),
    [
        ("sentence", " a nurse", False), ("sentence", " a nurse.", True), ("sentence", ' said "yes!"', True),
        ("sentence", "\n", False), ("sentence", " a nurse\n", True), ("sentence", " a nurse\n\nThe", True),
        ("sentence", " 3.5", False), ("word", " nurse", False), ("word", " nurse ", True), ("word", " nurse and", True),
        ("length", " a nurse. ", False),
    ],
)  # fmt: skip
def test_what_ends_a_text(until: Any, text: str, ended: bool) -> None:
    assert Sampling(until=until).ended(text) is ended
    with pytest.raises(ValueError, match="until must be"):
        Sampling(until="noon")  # type: ignore[arg-type]


def test_a_prompt_is_read_once_however_many_continuations_it_has() -> None:
    network, tokenizer = tiny("llama").eval(), causal_tokenizer()
    seen: list[tuple[int, int]] = []
    network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    model = AuditedLanguageModel(network, tokenizer)
    drawn = continuations(model, ["the dog", "the cat"], 5, Sampling(max_new_tokens=3, top_p=1.0), generator())
    assert seen[0] == (1, 4) and all_of(shape[1] == 1 and shape[0] <= 10 for shape in seen[1:])
    assert len({text for texts in drawn for text in texts}) > 2, "and each is drawn for itself"


@pytest.mark.grid
@pytest.mark.parametrize("kind", [*sorted(TREE_ATTENTION), "bloom"])
def test_what_prompts_begin_with_is_read_once_and_changes_no_text(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"n_head": 2, "n_layer": 2} if kind == "bloom" else _SIZES.get(kind, {})
    network, tokenizer = tiny(kind, **more).eval(), causal_tokenizer(bos=False)
    seen: list[tuple[int, int]] = []
    network.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    model = AuditedLanguageModel(network, tokenizer)
    begin = "the small old man likes the red dog but not today"
    prompts = [f"{begin} {prompt}" for prompt in PROMPTS] + [begin]
    sampling = Sampling(max_new_tokens=6, top_p=1.0, temperature=1.5)
    together = continuations(model, prompts, 3, sampling, generator())
    # What all begin with, and what some of them do. Where the network itself makes positions, nothing can be begun.
    assert seen[:2] == [(1, 10), (1, 16)] if kind != "bloom" else seen[0] == (6, 18)
    assert together == continuations(model, prompts, 3, sampling, generator(), batch_rows=1)
    monkeypatch.setattr(auditor.models.prefix_trees, "TREE_ATTENTION", frozenset())
    seen.clear()
    assert together == continuations(model, prompts, 3, sampling, generator())
    if kind != "bloom":
        assert seen[:2] == [(1, 10), (6, 8)]


def test_rows_that_end_leave_the_others_as_they_would_be_alone() -> None:
    network, tokenizer = tiny("llama").eval(), causal_tokenizer()
    model = AuditedLanguageModel(network, tokenizer)
    sampling = Sampling(max_new_tokens=8, top_p=1.0, temperature=1.5)
    together = continuations(model, PROMPTS, 6, sampling, generator())
    alone = continuations(model, PROMPTS, 6, sampling, generator(), batch_rows=1)
    lengths = {len(text.split()) for texts in together for text in texts}
    assert together == alone and min(lengths) < 8, "some end before the others"


def test_a_token_more_copies_no_keys_and_values() -> None:
    network = tiny("llama").eval()
    held: list[tuple[int, set[int]]] = []

    def look(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        layers = out.cache.layers
        places = {states.data_ptr() for each in layers for states in (each.keys, each.values)}
        held.append((len(layers[0].keys), places))

    network.register_forward_hook(look, with_kwargs=True)
    model = AuditedLanguageModel(network, causal_tokenizer(bos=False))
    continuations(model, PROMPTS, 4, Sampling(max_new_tokens=9, top_p=1.0, temperature=2.0), generator())
    steps = [(first[1], second[1]) for first, second in pairwise(held[1:]) if first[0] == second[0]]
    assert len(steps) > 1 and all_of(first == second for first, second in steps)
