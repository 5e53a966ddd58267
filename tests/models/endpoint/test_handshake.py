"""Lies of a server, each caught; servers that do what they are told or say that they do not, never accused."""

from __future__ import annotations

from typing import Any

import pytest

from auditor.core.errors import ModelError
from auditor.models.endpoint.client import Client, Limits, address_of
from auditor.models.endpoint.server_findings import Handshake, Shown
from auditor.models.endpoint.session import NAMES, shake_hands
from tests.models.endpoint.stub import LIES, NAME, Stub, served
from tests.quantifiers import all_of

CAUGHT_AS = {
    "drops_n": "n",
    "drops_logprobs": "logprobs",
    "drops_echo": "echo",
    "clips_temperature": "temperature",
    "top_k_40": "pure_sampling",
    "ignores_seed": "seed",
    "caches": "fresh_draws",
    "truncates": "whole_prompt",
    "swaps_model": "same_model",
    "other_name": "model_name",
    "adds_system_prompt": "no_added_prompt",
    "filters": "unfiltered",
    "echoes_positive": "text_likelihoods",
    "echoes_constant": "text_likelihoods",
    "echoes_noise": "text_likelihoods",
    "echoes_another": "text_likelihoods",
}
# Ways of being honest: each does all it is told, or refuses it.
HONEST: tuple[dict[str, Any], ...] = (
    {},
    {"scaled": True},
    {"refuses": frozenset({"n", "seed"})},
    {"refuses": frozenset({"logprobs"})},
    {"refuses": frozenset({"echo", "stop"})},
    {"routes": frozenset({"chat"})},
    {"routes": frozenset({"completions"}), "scaled": True},
    {"alternatives": 5},
    {"cuts_by_default": True},
    {"refuses": frozenset({"top_k"})},
    {"refuses": frozenset({"max_tokens"})},
    {"refuses": frozenset({"temperature", "top_k"}), "routes": frozenset({"chat"})},
)


def shaken(stub: Stub, more_calls: int = 0, **limits: Any) -> Handshake:
    with served(stub) as url, Client(address_of(url), NAME, limits=Limits(**limits)) as client:
        return shake_hands(client, more_calls=more_calls)


def accused(found: Handshake) -> set[str]:
    return {each.name for each in found.ignored}


def test_the_table_has_every_lie() -> None:
    assert set(CAUGHT_AS) == set(LIES)
    assert set(CAUGHT_AS.values()) <= set(NAMES)


@pytest.mark.grid
@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_caught_and_nothing_else_is_accused(lie: str) -> None:
    found = shaken(Stub(11, frozenset({lie})), more_calls=100 if lie == "swaps_model" else 0)
    # Without log-probabilities there are none of the alternatives either.
    assert accused(found) == {CAUGHT_AS[lie]} | ({"top_logprobs"} if lie == "drops_logprobs" else set())
    assert found.exit_code == 1 and found[CAUGHT_AS[lie]].shown is Shown.REFUTED


@pytest.mark.grid
@pytest.mark.parametrize("part", range(5))
def test_no_honest_server_is_accused(part: int) -> None:
    """With `benchmarks/endpoint_handshakes.py` as the larger one: 8 of these are 40 servers, of eight kinds."""
    runs = [shaken(Stub(1_000 * part + i, **HONEST[i])) for i in range(len(HONEST))]
    assert [accused(found) for found in runs] == [set()] * len(runs)
    plain = runs[0]
    deterministic = set(NAMES) - {"temperature", "pure_sampling"}
    assert all_of(plain[name].shown is Shown.PROVEN for name in deterministic), plain
    assert plain.calls < 40


def test_a_cut_of_a_sampler_that_is_not_in_the_protocol_is_accused_only_of_who_took_its_neutral_value() -> None:
    assert shaken(Stub(12, cuts_by_default=True))["pure_sampling"].shown is Shown.PROVEN
    for stub, accepted in (
        (Stub(12, frozenset({"top_k_40"})), True),
        (Stub(12, cuts_by_default=True, refuses=frozenset({"top_k"})), False),
    ):
        found = shaken(stub)["pure_sampling"]
        assert (found.shown, found.accepted) == (Shown.REFUTED, accepted) and "--top-k 0 --min-p 0" in found.why


def test_a_model_of_the_newer_interface_is_asked_by_its_names() -> None:
    """It takes max_completion_tokens alone, no temperature, and nothing beyond the protocol."""
    found = shaken(Stub(3, refuses=frozenset({"max_tokens", "temperature", "top_k"}), routes=frozenset({"chat"})))
    assert found.has("chat") and found.has("fresh_draws") and found.has("n")
    # Texts that are drawn differ, whatever was said before.
    assert all_of(found[name].shown is Shown.UNTOLD for name in ("system_prompt", "whole_prompt", "same_model"))
    assert {name for name in ("greedy", "temperature") if found[name].shown is Shown.REFUTED} == {
        "greedy",
        "temperature",
    }
    assert accused(found) == set()


def test_values_that_no_token_changes_are_no_likelihoods() -> None:
    found = shaken(Stub(11, frozenset({"all_constant"})))
    assert "text_likelihoods" in accused(found) and "-1" in found["text_likelihoods"].why


def test_what_is_refused_is_no_accusation_and_no_pass() -> None:
    found = shaken(Stub(3, refuses=frozenset({"n", "logprobs"})))
    assert found["n"].shown is Shown.REFUTED and "n is not supported" in found["n"].why
    assert found["pure_sampling"].shown is Shown.UNTOLD and "log-probabilities" in found["pure_sampling"].why
    assert found.exit_code == 3


def test_all_proven_exits_0() -> None:
    found = shaken(Stub(5))
    assert found.exit_code == 0, [each for each in found.capabilities if each.shown is not Shown.PROVEN]


@pytest.mark.parametrize("clip", [(0.7, 2.0), (0.0, 1.0), (1.0, 1.0)])
def test_a_temperature_is_clipped_from_above_or_below(clip: tuple[float, float]) -> None:
    found = shaken(Stub(12, frozenset({"clips_temperature"}), clip=clip, scaled=clip[1] == 1.0))
    assert accused(found) == {"temperature"}


def test_a_tail_that_is_cut_before_it_is_reported_is_found_by_what_temperature_0_reports() -> None:
    found = shaken(Stub(12, frozenset({"top_k_40"}), scaled=True))
    assert accused(found) == {"pure_sampling"} and "before it is reported" in found["pure_sampling"].why


def test_what_is_drawn_colder_than_it_is_reported_is_accused_once() -> None:
    found = shaken(Stub(12, frozenset({"clips_temperature"}), clip=(0.0, 0.5)))
    assert accused(found) == {"pure_sampling"}
    assert found["temperature"].shown is Shown.UNTOLD and "look alike" in found["temperature"].why


def test_a_budget_that_ends_leaves_the_rest_open() -> None:
    stub = Stub(4)
    found = shaken(stub, max_calls=10)
    assert found.calls == stub.calls == 10
    assert found["logprobs"].shown is Shown.PROVEN
    assert found["unfiltered"].shown is Shown.UNTOLD and "--max-calls" in found["unfiltered"].why
    assert found.exit_code == 3


def test_where_nothing_answers_there_is_no_handshake() -> None:
    with pytest.raises(ModelError, match="Neither interface"):
        shaken(Stub(4, routes=frozenset()))
