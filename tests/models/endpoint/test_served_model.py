"""Whether the served model is the reference: honest servers are not accused, and whatever is not it is not passed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from auditor.core.errors import ModelError
from auditor.models.endpoint.client import Client, Limits, address_of
from auditor.models.endpoint.reference_ranks import NAMELESS, Spelling, compare
from auditor.models.endpoint.served_model import LENGTH, PLAIN, TESTED, ask_served, capability_of
from auditor.models.endpoint.server_findings import Capability, Compared, Handshake, ServedText, ServedTexts, Shown
from tests.models.endpoint.reference import END, ReadableToy, Serves, ToyNetwork, reference_of, shown
from tests.models.endpoint.stub import NAME, Stub, served
from tests.quantifiers import all_of


def texts_of(stub: Stub, handshake: Handshake, calls: int = 1_000) -> ServedTexts:
    with served(stub) as url, Client(address_of(url), NAME, limits=Limits(max_calls=calls)) as client:
        return ask_served(client, handshake, np.random.default_rng(0))


def found(stub: Stub, handshake: Handshake | None = None, seed: int | None = None, **more: Any) -> Capability:
    handshake = handshake or shown()
    reference = reference_of(ReadableToy(stub.seed if seed is None else seed))
    compared = compare(reference, texts_of(stub, handshake, **more), np.random.default_rng(1))
    return capability_of(compared, handshake)


TEXT_ALONE = shown(logprobs="lacking", top_logprobs="lacking")


def test_the_model_itself_is_proven_by_its_log_probabilities() -> None:
    judged = found(Serves(5))
    assert judged.shown is Shown.PROVEN, judged
    assert f"{TESTED + PLAIN} tokens" in judged.why and f"at {TESTED} places" in judged.why


def test_by_texts_alone_the_model_itself_is_never_proven() -> None:
    judged = found(Serves(5, refuses=frozenset({"logprobs"})), TEXT_ALONE)
    assert judged.shown is Shown.UNTOLD and "texts alone do not prove" in judged.why
    assert f"{TESTED} tokens" in judged.why


LIAR = frozenset({"clips_temperature"})
DISHONEST: dict[str, dict[str, Any]] = {
    "another_model": {"toy_served": ReadableToy(6)},
    "as_four_bits": {"toy_served": ReadableToy(5, noise=0.6)},
    "temperature_0.8": {"lies": LIAR, "clip": (0.0, 0.8)},
    "greedy": {"lies": LIAR, "clip": (0.0, 0.0)},
    "top_k_40": {"lies": frozenset({"top_k_40"})},
    "swaps_after_100": {"lies": frozenset({"swaps_model"})},
    "a_chat_template": {"added": "When the last"},
}


@pytest.mark.grid
@pytest.mark.parametrize("what", DISHONEST)
def test_what_is_not_the_reference_is_refuted(what: str) -> None:
    judged = found(Serves(5, **DISHONEST[what]))
    assert judged.shown is Shown.REFUTED and judged.accepted, judged


@pytest.mark.parametrize("what", ["temperature_0.8", "top_k_40", "a_chat_template"])
def test_by_texts_alone_too(what: str) -> None:
    """What only shuffles probabilities among like ones, as rounding of weights may, is not among them."""
    judged = found(Serves(5, **DISHONEST[what], refuses=frozenset({"logprobs"})), TEXT_ALONE)
    assert judged.shown is Shown.REFUTED and judged.accepted, judged


def test_by_texts_alone_a_swap_after_100_calls_is_seen_in_those_that_follow() -> None:
    stub = Serves(5, lies=frozenset({"swaps_model"}), refuses=frozenset({"logprobs"}))
    assert found(stub, shown(logprobs="lacking", top_logprobs="lacking", n="lacking")).accepted


def test_an_ordinary_request_to_llama_cpp_is_no_draw_from_the_model() -> None:
    class Sampler(ReadableToy):
        """top_k 40, top_p 0.95 and min_p 0.05, one after another."""

        def drawn_from(self, table: int, temperature: float, top_k: int | None) -> tuple[np.ndarray, np.ndarray]:
            chances = np.exp(self.logs[table][:40])
            chances = np.where(chances.cumsum() / chances.sum() - chances / chances.sum() < 0.95, chances, 0.0)
            chances = np.where(chances < 0.05 * chances[0], 0.0, chances) / chances.sum()
            whole = np.concatenate([chances / chances.sum(), np.zeros(len(self.logs[table]) - 40)])
            return self.logs[table], whole.cumsum()

    texts = texts_of(Serves(5, toy_served=Sampler(5)), shown())
    compared = compare(reference_of(ReadableToy(5)), texts, np.random.default_rng(1))
    assert compared.p < 1e-30 and compared.unlikely < 0.01
    assert capability_of(compared, shown()).accepted


def test_the_reference_for_whoever_asks_for_log_probabilities_and_another_for_all_others() -> None:
    class Watches(Serves):
        def _made(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
            own, self.toy = self.toy, self.toy if "logprobs" in body else self.other
            try:
                return super()._made(route, body)
            finally:
                self.toy = own

    assert found(Watches(5)).accepted


def test_log_probabilities_of_the_reference_under_texts_of_another_are_no_proof() -> None:
    class Forges(Serves):
        def _made(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = super()._made(route, body)
            for choice in answer["choices"]:
                choice["text"] = " w1 w2" if len(choice["text"].split()) > 1 else choice["text"]
            return answer

    judged = found(Forges(5))
    assert judged.accepted and "not what its own tokens spell" in judged.why


@pytest.mark.parametrize("value", [-30.0, 0.0])
def test_log_probabilities_that_are_made_up_are_no_proof(value: float) -> None:
    class MakesUp(Serves):
        def _made(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = super()._made(route, body)
            for choice in answer["choices"]:
                if choice["logprobs"]:
                    choice["logprobs"]["token_logprobs"] = [value] * len(choice["logprobs"]["tokens"])
            return answer

    assert found(MakesUp(5)).shown is not Shown.PROVEN


def test_another_tokenizer_is_said_and_nothing_is_guessed() -> None:
    class Spells(ReadableToy):
        def __init__(self, seed: int) -> None:
            super().__init__(seed)
            self.words = [f" v{i}" for i in range(len(self.words))]

    for handshake in (shown(), TEXT_ALONE):
        judged = found(Serves(5, toy_served=Spells(5)), handshake)
        assert judged.shown is Shown.UNTOLD and "none that the reference can spell" in judged.why
        assert "v1" in judged.why and "Nothing was tested" in judged.why


def test_tokens_without_their_blanks_are_not_guessed_either() -> None:
    class Bare(Serves):
        def _made(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = super()._made(route, body)
            for choice in answer["choices"]:
                if choice["logprobs"]:
                    choice["logprobs"]["tokens"] = [token.strip() for token in choice["logprobs"]["tokens"]]
            return answer

    # The vocabulary of this reference is written without blanks, so that names are told by its pieces.
    assert found(Bare(5)).shown is Shown.PROVEN


def test_without_proof_of_the_log_probabilities_there_is_none_of_the_model() -> None:
    judged = found(Serves(5), shown(pure_sampling="ignored"))
    assert judged.shown is Shown.UNTOLD and "pure_sampling is not proven" in judged.why


def test_a_distance_that_may_be_larger_than_allowed_is_no_pass() -> None:
    texts = texts_of(Serves(5), shown())
    compared = compare(reference_of(ReadableToy(5)), texts, np.random.default_rng(1))
    assert capability_of(compared, shown(), within=0.001).shown is Shown.UNTOLD


def test_texts_that_always_end_at_once_are_not_the_reference() -> None:
    """The reference never ends; its answers would have no token to test, and are tested all the same."""

    class Silent(Serves):
        def _made(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
            return super()._made(route, body | {"max_tokens": 0})

        def _choice(self, *args: Any) -> dict[str, Any]:
            return super()._choice(*args) | {"finish_reason": "stop"}

    for handshake in (shown(), TEXT_ALONE):
        assert found(Silent(5), handshake).accepted


def test_more_tokens_than_were_asked_for_are_not_tested() -> None:
    class GoesOn(Serves):
        def _made(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
            return super()._made(route, body | {"max_tokens": body["max_tokens"] + 1})

    with pytest.raises(ModelError, match="32 tokens were asked for, and 33 came"):
        texts_of(GoesOn(5), shown())


def test_draws_that_are_not_fresh_or_too_few_are_not_tested() -> None:
    with pytest.raises(ModelError, match="not drawn afresh"):
        texts_of(Serves(5), shown(fresh_draws="ignored", seed="lacking"))
    with pytest.raises(ModelError, match="--max-calls leaves 9: say --max-calls [1-9][0-9]"):
        texts_of(Serves(5), shown(logprobs="lacking", n="lacking"), calls=9)
    # A server that has one seed for all obeys those that it is given.
    assert len(texts_of(Serves(5), shown(fresh_draws="ignored")).texts) == PLAIN + TESTED // LENGTH


def test_ranks_are_those_of_the_definition() -> None:
    toy = ReadableToy(3)
    texts = texts_of(Serves(3), TEXT_ALONE)
    n = 40
    few = dataclasses.replace(texts, texts=texts.texts[:n], n_tested=n)
    compared = compare(reference_of(toy), few, np.random.default_rng(9))
    ranks = []
    for text, v in zip(few.texts, np.random.default_rng(9).random(n), strict=True):
        table = toy.start(text.prompt.split()) % 509
        rank = toy.orders[table].tolist().index(int(text.text.strip()[1:]))
        chances = np.exp(toy.logs[table])
        ranks.append(chances[:rank].sum() + v * chances[rank])
    from auditor.statistics.significance_tests import p_of_uniform

    assert compared.n == n and compared.p == pytest.approx(p_of_uniform(ranks), rel=1e-9)
    assert compared.unlikely == pytest.approx(np.mean(np.array(ranks) > 0.95))


def test_total_variation_lies_within_its_bounds() -> None:
    other, toy = ReadableToy(5, noise=0.6), ReadableToy(5)
    compared = compare(reference_of(toy), texts_of(Serves(5, toy_served=other), shown()), np.random.default_rng(1))
    chances = [np.exp(np.take_along_axis(t.logs, np.argsort(t.orders, axis=1), axis=1)) for t in (toy, other)]
    true = float(np.abs(chances[0] - chances[1]).sum(axis=1).mean() / 2.0)
    assert 0.1 < compared.nearest < true < compared.farthest < 3.0 * true


def test_tokens_of_one_name_are_one_class_and_those_without_another() -> None:
    toy = ReadableToy(5)
    reference = reference_of(toy)
    spelling = Spelling.from_model(reference)
    assert spelling.names[7] == " w7" and spelling.token_of(int(spelling.classes[7])) == 7
    assert (
        spelling.classes[END] == NAMELESS
        and spelling.classes_of_names(["</s>", "", "\ufffd", "bytes:\\xe2"]) == [NAMELESS] * 4
    )
    assert spelling.told_bare("\n") == NAMELESS == spelling.told_bare(" </s>")
    assert spelling.classes_of_names([" nothing"]) == [None] and spelling.told_bare("nothing") is None
    double = dataclasses.replace(spelling, names=(" w1", *spelling.names[1:]))
    both = double.classes_of_names([" w1"])[0]
    assert both is not None and double.token_of(both) is None and double.classes[0] == double.classes[1] == both


def test_after_a_token_that_may_be_another_a_text_is_read_no_further() -> None:
    text = ServedText(
        prompt="When the last", text=" w1\ufffd w2", reported=True, ended=False,
        tokens=(" w1", "\ufffd", " w2"), log_probabilities=(-1.0, -2.0, -3.0),
    )  # fmt: skip
    served_texts = ServedTexts(route="completions", texts=(text,), n_tested=10)
    compared = compare(reference_of(ReadableToy(5)), served_texts, np.random.default_rng(0))
    assert compared.n == compared.n_reported == 2


def test_a_chat_without_a_template_to_ask_by_is_not_tested() -> None:
    stub = Serves(5, routes=frozenset({"chat"}))
    judged = found(stub, shown(completions="lacking"))
    assert judged.shown is Shown.UNTOLD and "no chat template" in judged.why


def test_a_reference_that_draws_no_texts_is_refused() -> None:
    reference = reference_of(ReadableToy(5))
    reference.objective = "masked"
    with pytest.raises(ModelError, match="causal"):
        compare(reference, ServedTexts(route="completions", texts=(), n_tested=0), np.random.default_rng(0))


def test_what_was_not_compared_is_never_a_pass() -> None:
    assert all_of(
        capability_of(compared, shown()).shown is not Shown.PROVEN
        for compared in (Compared(), Compared(untested="so"), Compared(n_unspelled=1), Compared(misspelled=True))
    )


def test_the_toy_network_is_the_toy() -> None:
    import torch

    toy = ReadableToy(5)
    ids = [toy.ids["When"], toy.ids["the"], 3]
    logits = ToyNetwork(toy)(torch.tensor([ids])).logits[0, -1]
    table = toy.step(toy.start(["When", "the"]), 3) % 509
    assert logits[int(toy.orders[table, 0])].item() == pytest.approx(toy.logs[table, 0])
