"""Test of a server's handling of request parameters, from its answers alone, in about thirty calls.

Servers answer with HTTP 200 to parameters that they drop; whoever trusts them measures chance. Each capability is shown
to be there, shown not to be, or left open with the reason; an honest server is accused by chance in at most one of a
thousand handshakes, all tests of chance together (`FALSE_ALARMS`, in equal shares).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from auditor.models.endpoint import handshake_interfaces, handshake_sampling_and_prompts
from auditor.models.endpoint.api_messages import Choice
from auditor.models.endpoint.client import Client
from auditor.models.endpoint.handshake_interfaces import Asking
from auditor.models.endpoint.server_findings import Capability, Handshake, lacking

# In the order in which they are told.
NAMES = (
    "completions", "chat", "model_name", "same_model", "logprobs", "top_logprobs", "echo", "text_likelihoods", "n",
    "stop", "greedy", "seed", "fresh_draws", "temperature", "pure_sampling", "system_prompt", "no_added_prompt",
    "whole_prompt", "batch_invariance", "unfiltered",
)  # fmt: skip


def shake_hands(
    client: Client,
    *,
    more_calls: int = 0,
    on_stage: Callable[[str], None] = lambda name: None,
    state: Asking | None = None,
) -> Handshake:
    """Query a server until each capability is proven, refuted or undeterminable.

    ``more_calls``: small calls to make before it is asked whether still the same model answers; a server may change it.
    ``state``: the state that it is kept in, for whoever asks on. Raises ModelError where nothing answers at all.
    """
    state = state or Asking(client)
    on_stage("interfaces")
    first = handshake_interfaces.interfaces(state)
    state.step((), lambda a: a.taken.extend(handshake_sampling_and_prompts.fingerprint(a)))
    for names, ask in _steps(first):
        on_stage(names[0])
        state.step(names, ask)
    on_stage("same_model")
    state.step(("same_model",), partial(_recheck_model, more_calls))
    return Handshake(client.address.url, client.model, _in_order(state), client.calls)


def _steps(first: Choice) -> list[tuple[tuple[str, ...], Callable[[Asking], None]]]:
    return [
        (("fresh_draws",), handshake_sampling_and_prompts.fresh),
        (("greedy",), partial(handshake_interfaces.greedy, first=first)),
        (("stop",), partial(handshake_interfaces.stop, first=first)),
        (("n",), handshake_interfaces.several),
        (("echo", "text_likelihoods"), partial(_echo, first=first)),
        (("seed",), handshake_sampling_and_prompts.seed),
        (("pure_sampling",), partial(handshake_sampling_and_prompts.as_reported, first=first)),
        (("temperature",), handshake_sampling_and_prompts.temperature),
        (("system_prompt", "no_added_prompt"), _system_prompt),
        (("whole_prompt",), handshake_sampling_and_prompts.whole_prompt),
        (("batch_invariance",), handshake_sampling_and_prompts.batch),
        (("unfiltered",), handshake_sampling_and_prompts.unfiltered),
        (("model_name",), handshake_interfaces.other_name),
    ]


def _echo(state: Asking, first: Choice) -> None:
    if not state.is_proven("completions"):
        state.add(*(lacking(name, "Only completions can do it.") for name in ("echo", "text_likelihoods")))
        return
    handshake_interfaces.echo(state, first)


def _system_prompt(state: Asking) -> None:
    if not state.is_proven("chat"):
        state.add(*(lacking(name, "Only a chat has one.") for name in ("system_prompt", "no_added_prompt")))
        return
    handshake_sampling_and_prompts.system_prompt(state)


def _recheck_model(more_calls: int, state: Asking) -> None:
    state.client.ask_all([state.request(handshake_interfaces.STORY, 1)] * more_calls)
    handshake_sampling_and_prompts.same_model(state, state.taken, state.client.calls)


def _in_order(state: Asking) -> tuple[Capability, ...]:
    return tuple(state.found[name] for name in NAMES)
