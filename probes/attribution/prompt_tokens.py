"""Prompts as the tokens of a language model, and their assignment to units (words or tokens)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from auditor.core.errors import NotApplicableError, OtherKindError
from probes.attribution.token_prompts import Prompt, spaced
from probes.attribution.token_scores import Ending, next_tokens

if TYPE_CHECKING:
    from auditor.models.language_model import AuditedLanguageModel
    from auditor.models.prefix_trees import Encoded

Unit = Literal["word", "token"]
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A prompt as model input: ``ids`` with the model's text prefix, and the unit (-1 for none) of each."""

    ids: tuple[int, ...]
    unit_of: tuple[int, ...]
    names: tuple[str, ...]
    endings: tuple[Ending, ...]

    @cached_property
    def pieces(self) -> tuple[tuple[int, ...], ...]:
        """The token ids of each unit."""
        found: list[list[int]] = [[] for _ in self.names]
        for i, unit in zip(self.ids, self.unit_of, strict=True):
            if unit >= 0:
                found[unit].append(i)
        return tuple(map(tuple, found))

    @cached_property
    def leading_ids(self) -> tuple[int, ...]:
        """The token ids in front of the first unit."""
        return self.ids[: next((i for i, u in enumerate(self.unit_of) if u >= 0), len(self.ids))]

    @cached_property
    def behind(self) -> tuple[int, ...]:
        """The token ids behind the last unit."""
        return self.ids[max((i + 1 for i, u in enumerate(self.unit_of) if u >= 0), default=len(self.ids)) :]


def placed(model: AuditedLanguageModel, prompts: Sequence[Prompt], unit: Unit) -> list[Tokens]:
    """The prompts as tokens; see :func:`token_problem` for its errors."""
    if model.objective == "seq2seq":
        raise OtherKindError("Needs a causal or masked language model: an encoder-decoder goes on with no prompt.")
    masked = model.objective == "masked"
    texts: list[str] = []
    for p in prompts:
        ends = [e for e in (p.target, p.foil) if e.strip()] or [""]
        texts += [p.prompt + spaced(p.prompt, e) + (p.rest if masked and e else "") for e in ends]
    encoded = iter(model.encode(texts))
    found = []
    for p in prompts:
        ends = [e for e in (p.target, p.foil) if e.strip()]
        if not ends:
            found.append(_open_ended(model, p, next(encoded), unit))
            continue
        parts = [_split_prompt(next(encoded), p, spaced(p.prompt, e)) for e in ends]
        heads = {head for head, _, _ in parts}
        if len(heads) > 1 or not parts[0][1]:
            raise NotApplicableError(
                f"The tokenizer makes one token of the end of {p.prompt[-40:]!r} and the beginning of what follows it, "
                "so what follows cannot be asked about alone: end the prompt at a word, and begin target and foil with "
                "a space."
            )
        for (_, asked, _), end in zip(parts, ends, strict=True):
            _check_vocabulary(model, asked, end)
        endings = tuple(
            _ending(model, asked, after, sign) for (_, asked, after), sign in zip(parts, (1.0, -1.0), strict=False)
        )
        head = parts[0][0]
        found.append(_tokens(model, p, tuple(i for i, _ in head), tuple(end for _, end in head), unit, endings))
    return found


def _split_prompt(
    encoded: Encoded, prompt: Prompt, end: str
) -> tuple[tuple[tuple[int, int], ...], tuple[int, ...], tuple[int, ...]]:
    """The (id, end) of the prompt's tokens, the ids of the continuation, and those behind it."""
    own = [i for i, word in enumerate(encoded.words) if word >= 0]
    limit = len(prompt.prompt)
    begin = next((i for i in own if encoded.ends[i] > limit), len(encoded.ids))
    stop = next((i for i in own if encoded.ends[i] > limit + len(end)), own[-1] + 1 if own else begin)
    head = tuple(zip(encoded.ids[:begin], encoded.ends[:begin], strict=True))
    return head, encoded.ids[begin:stop], encoded.ids[stop:]


def _open_ended(model: AuditedLanguageModel, prompt: Prompt, encoded: Encoded, unit: Unit) -> Tokens:
    head, _, after = _split_prompt(encoded, prompt, "")
    ids, ends = tuple(i for i, _ in head), tuple(end for _, end in head)
    if after:
        raise NotApplicableError(f"The prompt {prompt.prompt[:40]!r} cannot be told apart from what follows it.")
    special = tuple(i for i, word in enumerate(encoded.words) if word < 0 and i > 0 and encoded.words[i - 1] >= 0)
    cut = special[0] if special and model.objective == "masked" else len(ids)
    blank = _ending(model, (0,), ids[cut:], 1.0)
    likeliest = next_tokens(model, [(ids[:cut], blank)])[0]
    return _tokens(model, prompt, ids[:cut], ends[:cut], unit, (replace(blank, asked=(likeliest,)),))


def _ending(model: AuditedLanguageModel, target_ids: tuple[int, ...], after: tuple[int, ...], sign: float) -> Ending:
    if model.objective == "masked":
        mask = int(model.tokenizer.mask_token_id)
        return Ending(tail=(*[mask] * len(target_ids), *after), asked=target_ids, first=0, sign=sign)
    return Ending(tail=target_ids[:-1], asked=target_ids, first=-1, sign=sign)


def _check_vocabulary(model: AuditedLanguageModel, target_ids: Sequence[int], end: str) -> None:
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    if unknown is not None and unknown in target_ids and getattr(model.tokenizer, "unk_token", None) != end.strip():
        raise NotApplicableError(
            f"The tokenizer does not know {end.strip()!r} and reads it as {model.tokenizer.unk_token!r}, so its "
            "probability is that of any unknown word: choose a target and a foil out of its vocabulary."
        )


def _tokens(
    model: AuditedLanguageModel,
    prompt: Prompt,
    ids: tuple[int, ...],
    ends: tuple[int, ...],
    unit: Unit,
    endings: tuple[Ending, ...],
) -> Tokens:
    if model.objective == "causal" and not ids:
        raise NotApplicableError(
            f"Nothing stands before the target of {prompt.prompt[:40]!r}: a causal model needs a token to predict from."
        )
    own = [i for i, end in enumerate(ends) if end > 0]
    unit_of = [-1] * len(ids)
    if unit == "token":
        starts = [0, *[ends[i] for i in own]]
        names = tuple(prompt.prompt[a:b] for a, b in zip(starts, starts[1:], strict=False))
        for place, i in enumerate(own):
            unit_of[i] = place
    else:
        words = list(_WORD.finditer(prompt.prompt))
        if not words:
            raise NotApplicableError(f"The prompt {prompt.prompt[:40]!r} holds no word to attribute anything to.")
        names = tuple(word.group() for word in words)
        limits = np.asarray([word.end() for word in words])
        for i in own:
            # A token belongs to the word in which it ends; white space behind the last word belongs to none.
            at = int(np.searchsorted(limits, ends[i]))
            unit_of[i] = at if at < len(words) and ends[i] > words[at].start() else -1
    return Tokens(ids=ids, unit_of=tuple(unit_of), names=names, endings=endings)
