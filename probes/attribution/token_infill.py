"""Replacement text for removed units of a prompt, and the prompt's score with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import numpy as np

from auditor.core.errors import NotApplicableError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.models.gradients import without_gradients
from probes.attribution.prompt_tokens import Tokens
from probes.attribution.token_scores import Row, as_differentiable, batches, log_probability, shared_beginnings
from probes.probe_inputs import differentiating

if TYPE_CHECKING:
    from auditor.models.language_model import AuditedLanguageModel

Infill = Literal["auto", "prompts", "delete", "token", "mask"]
# Other prompts whose words stand in for missing ones; the score is averaged over them, at least so many, or none do.
N_INFILL = 4


@dataclass(frozen=True, kw_only=True)
class Fill:
    """Infill of removed units: the ``others`` at the same positions, else ``token`` for each token, else none.

    words: in words; natural: whether it is what the model is used to see there.
    """

    others: tuple[Tokens, ...] = ()
    token: int | None = None
    words: str
    natural: bool

    def filled(self, tokens: Tokens, keep: BoolArray) -> list[tuple[int, ...]]:
        """The token ids of a prompt with only some units (d,) kept, once per infill of the gaps."""
        if not self.others:
            fill = () if self.token is None else (self.token,)
            parts = ((i,) if u < 0 or keep[u] else fill for i, u in zip(tokens.ids, tokens.unit_of, strict=True))
            return [tuple(i for part in parts for i in part)]
        pieces, n = tokens.pieces, len(tokens.names)
        found = []
        for other in [o for o in self.others if o.ids != tokens.ids][:N_INFILL]:
            theirs, last = other.pieces, len(other.names) - 1
            at = [round(u * last / max(n - 1, 1)) for u in range(n)]
            middle = (pieces[u] if keep[u] else theirs[at[u]] for u in range(n))
            found.append((*tokens.leading_ids, *(i for piece in middle for i in piece), *tokens.behind))
        return found


def infill_of(model: AuditedLanguageModel, tokens: Sequence[Tokens], others: Sequence[Tokens], infill: Infill) -> Fill:
    """The infill method, as requested or by best performance."""
    mask = getattr(model.tokenizer, "mask_token_id", None)
    if model.objective == "masked" and infill in ("auto", "mask"):
        words = "the mask token, which such models are trained to see in place of a word"
        return Fill(token=int(cast(int, mask)), words=words, natural=True)
    if infill == "mask":
        raise NotApplicableError("The infill 'mask' is for masked models: use prompts, delete or token.")
    distinct = tuple({t.ids: t for t in others}.values())
    enough = len(distinct) > N_INFILL
    if infill == "prompts" and not enough:
        raise NotApplicableError(
            f"The infill 'prompts' takes words of at least {N_INFILL} other prompts, and there are "
            f"{max(len(distinct) - 1, 0)}: use delete or token."
        )
    if infill == "prompts" or (infill == "auto" and enough):
        words = f"what stands at the same place in {N_INFILL} other prompts, averaged"
        return Fill(others=distinct, words=words, natural=True)
    in_front = all(any(u < 0 for u in t.unit_of) for t in tokens)
    if infill == "delete" or (infill == "auto" and in_front):
        if not in_front:
            raise NotApplicableError(
                "With every word deleted nothing would be left to predict from, since the tokenizer has no "
                "beginning-of-sequence token: name one by prefix_token, or use the infill 'token'."
            )
        return Fill(words="nothing: the text is closed over the gap", natural=False)
    blanks = blank_tokens(model)
    if not blanks:
        raise NotApplicableError(
            "The tokenizer has no beginning-of-sequence, unknown, padding or end token that could stand where a word "
            "was: name one by prefix_token, after which words can be deleted."
        )
    blank, name = blanks[0]
    return Fill(token=blank, words=f"the {name} token {model.tokenizer.convert_ids_to_tokens(blank)}", natural=False)


def masked_scores(
    ask: Callable[[Sequence[Row]], list[float]], tokens: Sequence[Tokens], rows: IntArray, keep: BoolArray, fill: Fill
) -> FloatArray:
    """(m,) scores, by ``ask``, of prompts with removed units replaced by the infill."""
    owner: list[int] = []
    asked: list[Row] = []
    for i, (row, kept) in enumerate(zip(rows.tolist(), keep, strict=True)):
        # With nothing gone all fillings are the prompt itself.
        made = fill.filled(tokens[row], kept)
        for ids in made[:1] if len(set(made)) == 1 else made:
            asked.append((ids, tokens[row].endings))
            owner.append(i)
    counts = np.bincount(owner, minlength=len(rows))
    return np.bincount(owner, weights=ask(asked), minlength=len(rows)) / np.maximum(counts, 1)


def text_scores(model: AuditedLanguageModel, rows: Iterable[Row]) -> dict[Row, float]:
    """The score of each text with its endings."""
    order = sorted(rows, key=lambda row: (len(row[0]), row[0]))
    if model.objective == "causal":
        return dict(zip(order, shared_beginnings(model, order), strict=True))
    found: dict[Row, float] = {}
    with differentiating(as_differentiable(model)), without_gradients():
        for part in batches(model, order):
            found.update(zip(part, log_probability(model, part).double().cpu().tolist(), strict=True))
    return found


def blank_tokens(model: AuditedLanguageModel) -> list[tuple[int, str]]:
    """Uninformative tokens, with their names."""
    names = (("pad", "padding"), ("unk", "unknown"), ("eos", "end"))
    found = [(getattr(model.tokenizer, f"{key}_token_id", None), name) for key, name in names]
    return [(int(i), name) for i, name in found if i is not None]
