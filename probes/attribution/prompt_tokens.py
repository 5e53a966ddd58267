"""Prompts with continuations to explain: their tokens and units, and the likelihood of the continuation."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np

from auditor.core.errors import DataError, NotApplicableError, OtherKindError, did_you_mean
from auditor.core.files import UNREADABLE, regular_file, why_unreadable
from auditor.data.benchmarks.benchmark import Benchmark
from auditor.models.torch_context import without_gradients
from probes.probe_inputs import differentiating

if TYPE_CHECKING:
    from torch import Tensor, nn

    from auditor.models.language_model import AuditedLanguageModel
    from auditor.models.prefix_trees import Encoded
    from auditor.models.torch_model import DifferentiableModel

_MAX_BYTES = 16 << 20
_TEXTS = ("prompt", "target", "foil", "rest", "paraphrase")
_KEYS = (*_TEXTS, "cues")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A text and its expected continuation: ``target`` rather than ``foil`` (or any other text, if empty).

    An empty target is the model's own most probable next token. ``cues``: words of the prompt on which a reader would
    say the answer rests. ``paraphrase``: the prompt in other words, or empty. ``rest``: what follows the target, for
    models that see it.
    """

    prompt: str
    target: str = ""
    foil: str = ""
    cues: tuple[str, ...] = ()
    paraphrase: str = ""
    rest: str = ""

    def reworded(self) -> Prompt:
        """The same task on the paraphrase."""
        return Prompt(prompt=self.paraphrase, target=self.target, foil=self.foil, cues=self.cues, rest=self.rest)


def built_in_prompts() -> Benchmark[Prompt]:
    """60 sentences about 60 occupations, each with a paraphrase: "he" rather than "she", the occupation as its cue."""
    data = (files("probes") / "data" / "token_attribution.jsonl").read_bytes()
    source = "built-in sentences version 1"
    return Benchmark("built-in sentences", source, hashlib.sha256(data).hexdigest(), _prompts(data.decode(), source))


def read_prompts(path: str | Path) -> Benchmark[Prompt]:
    """JSON lines of ``prompt`` and, optionally, ``target``, ``foil``, ``cues`` (a list), ``paraphrase``, ``rest``.

    Raises UsageError where there is no such file, DataError for a line that is something else.
    """
    where = regular_file(path, "token_attribution file")
    if where.stat().st_size > _MAX_BYTES:
        raise DataError(f"{where.name!r} has {where.stat().st_size:,} bytes: at most {_MAX_BYTES:,} are read.")
    data = where.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{where.name!r} is no UTF-8 text: expected JSON lines with a 'prompt' each.") from None
    return Benchmark("prompts", str(path), hashlib.sha256(data).hexdigest(), _prompts(text, where.name))


def _prompts(text: str, name: str) -> tuple[Prompt, ...]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{name!r}, line {number}"
        try:
            row = json.loads(line)
        except UNREADABLE as error:
            raise DataError(f"{where}, cannot be read as JSON: {why_unreadable(error)}.") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}, is no JSON object: expected one with a 'prompt' and a 'target'.")
        found.append(_prompt(row, where))
    if not found:
        raise DataError(f"{name!r} holds no prompt: expected JSON lines with a 'prompt' each.")
    return tuple(found)


def _prompt(row: Mapping[str, Any], where: str) -> Prompt:
    unknown = next((key for key in row if key not in _KEYS), None)
    if unknown is not None:
        raise DataError(f"{where}, has {unknown!r}{did_you_mean(unknown, _KEYS) or '.'} Known: {', '.join(_KEYS)}.")
    texts = {key: row.get(key, "") for key in _TEXTS}
    wrong = next((key for key, value in texts.items() if not isinstance(value, str)), None)
    if wrong is not None:
        raise DataError(f"{where}: {wrong!r} must be a text, not {str(row[wrong])[:40]!r}.")
    if not texts["prompt"].strip():
        raise DataError(f"{where}, has no 'prompt'.")
    if texts["foil"].strip() and not texts["target"].strip():
        raise DataError(f"{where}, has a 'foil' and no 'target': a foil is what the target is preferred to.")
    if texts["foil"].strip() and texts["foil"].strip() == texts["target"].strip():
        raise DataError(f"{where}: 'target' and 'foil' are the same, so there is nothing to explain.")
    cues = row.get("cues", [])
    if not isinstance(cues, list) or not all(isinstance(cue, str) and cue.strip() for cue in cues):
        raise DataError(f"{where}: 'cues' must be a list of words of the prompt.")
    for text in (texts["prompt"], texts["paraphrase"]):
        absent = next((cue for cue in cues if text and cue.casefold() not in text.casefold()), None)
        if absent is not None:
            raise DataError(f"{where}: the cue {absent!r} does not stand in {text[:60]!r}.")
    return Prompt(cues=tuple(cues), **texts)


def spaced(before: str, after: str) -> str:
    """``after`` with a space in front if it would otherwise join the word before it."""

    def cased(character: str) -> bool:
        # Scripts without capitals mostly put no space between words.
        return character.isdigit() or character.lower() != character.upper()

    return f" {after}" if before and after and cased(before[-1]) and cased(after[0]) else after


def shared_target_foil(prompts: Sequence[Prompt]) -> tuple[str, str] | None:
    """Target and foil, if they are equal for all prompts."""
    pairs = {(p.target.strip(), p.foil.strip()) for p in prompts}
    return next(iter(pairs)) if len(pairs) == 1 else None


Row: TypeAlias = "tuple[tuple[int, ...], tuple[Ending, ...]]"
# Logits of so many values are made at once: 64 MiB, and what a backward pass keeps of them.
LOGITS_AT_ONCE = 1 << 24
TOKENS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The input after the prompt, and the scored tokens there, from position ``first`` on.

    ``first``: 0 is the place right behind the prompt, -1 the prompt's last. ``sign``: 1 for the target, -1 for a foil.
    """

    tail: tuple[int, ...]
    asked: tuple[int, ...]
    first: int
    sign: float


def log_probability(
    model: AuditedLanguageModel,
    rows: Sequence[Row],
    points: Tensor | None = None,
    free: Tensor | None = None,
) -> Tensor:
    """(m,) ``sum over endings of sign * log p(asked)`` after prompts (ids, endings).

    ``points`` (m, length, width) stand for the embeddings of the prompts' tokens where ``free`` (m, length). Endings
    that put the same behind a prompt share one pass.
    """
    import torch

    passes: list[tuple[tuple[int, ...], Ending]] = []
    owner: list[int] = []
    answers: list[tuple[int, Ending, int]] = []
    for m, (ids, endings) in enumerate(rows):
        at: dict[tuple[tuple[int, ...], int], int] = {}
        for e in endings:
            place = at.setdefault((e.tail, len(e.asked)), len(passes))
            if place == len(passes):
                passes.append((ids, e))
                owner.append(m)
            answers.append((place, e, m))
    logits = _logits(model, passes, points, free, owner)
    log_p = torch.log_softmax(logits.float(), dim=-1)
    device = log_p.device
    longest = log_p.shape[1]
    wanted = torch.zeros(len(answers), longest, dtype=torch.long)
    weights = torch.zeros(len(answers), longest)
    for i, (_, e, _) in enumerate(answers):
        wanted[i, : len(e.asked)] = torch.tensor(e.asked)
        weights[i, : len(e.asked)] = e.sign
    which = torch.tensor([place for place, _, _ in answers])
    picked = log_p[which[:, None].to(device), torch.arange(longest, device=device)[None], wanted.to(device)]
    each = (picked * weights.to(device)).sum(dim=1)
    belongs = torch.tensor([m for _, _, m in answers], device=device)
    return torch.zeros(len(rows), dtype=each.dtype, device=device).index_add(0, belongs, each)


def next_tokens(model: AuditedLanguageModel, rows: Sequence[tuple[tuple[int, ...], Ending]]) -> list[int]:
    """The likeliest token behind each prompt."""
    with differentiating(as_differentiable(model)), without_gradients():
        return [int(_logits(model, [(ids, e)], None, None, [0])[0, 0].argmax()) for ids, e in rows]


def shared_beginnings(model: AuditedLanguageModel, rows: Sequence[Row]) -> list[float]:
    """:func:`log_probability` of a causal model, with shared computation for texts with common beginnings."""
    from auditor.models.prefix_trees import Encoded

    kinds = [[(e.sign, len(e.asked)) for e in endings] for _, endings in rows]
    if rows and all(kind == [(1.0, 1), (-1.0, 1)] for kind in kinds):
        odds = model.log_odds([ids for ids, _ in rows], [(a.asked[0], b.asked[0]) for _, (a, b) in rows])
        if odds is not None:
            return [float(value) for value in odds]
    each = [(row, ids, e, len(ids) + len(e.asked)) for row, (ids, endings) in enumerate(rows) for e in endings]
    texts = [Encoded(ids=(*ids, *e.asked), scored=(True,) * n, ends=(0,) * n, words=(0,) * n) for _, ids, e, n in each]
    found = model.token_log_probabilities(texts, [range(len(ids), n) for _, ids, _, n in each])
    signed = [e.sign * float(np.nansum(p)) for (_, _, e, _), p in zip(each, found, strict=True)]
    return list(np.bincount([row for row, *_ in each], weights=signed, minlength=len(rows)))


def batches(model: AuditedLanguageModel, rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in ascending order of length, in parts with logits that fit into memory."""
    size = int(model.module.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    most = max(1, LOGITS_AT_ONCE // size)
    out: list[list[Row]] = [[]]
    for row in rows:
        # In ascending order of length, so the last row is the longest.
        if out[-1] and (len(out[-1]) >= most or (len(out[-1]) + 1) * (len(row[0]) + 1) > TOKENS_AT_ONCE):
            out.append([])
        out[-1].append(row)
    return out if rows else []


def _logits(
    model: AuditedLanguageModel,
    passes: Sequence[tuple[tuple[int, ...], Ending]],
    points: Tensor | None,
    free: Tensor | None,
    owner: Sequence[int],
) -> Tensor:
    """(n_passes, n_asked, vocabulary) logits where something is asked; shorter ones repeat their last place."""
    import torch
    from torch.nn import functional

    device = model.device
    length = max(len(ids) + len(e.tail) for ids, e in passes)
    asked = max(len(e.asked) for _, e in passes)
    pad = int(getattr(model.tokenizer, "pad_token_id", None) or 0)
    tokens = torch.full((len(passes), length), pad)
    there = torch.zeros((len(passes), length), dtype=torch.long)
    places = torch.zeros((len(passes), asked), dtype=torch.long)
    for r, (ids, e) in enumerate(passes):
        row = (*ids, *e.tail)
        tokens[r, : len(row)] = torch.tensor(row, dtype=torch.long)
        there[r, : len(row)] = 1
        places[r] = torch.clamp(torch.arange(asked), max=len(e.asked) - 1) + len(ids) + e.first
    tokens, places = tokens.to(device), places.to(device)
    module: Any = model.module
    # Padding to the right is never looked at by a causal model.
    inputs: dict[str, Any] = {"input_ids": tokens}
    inputs |= {"attention_mask": there.to(device)} if model.objective == "masked" else {"use_cache": False}
    head = module.get_output_embeddings()

    def select(layer: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (_gather_places(args[0], places), *args[1:])

    def embed(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if points is None or free is None or args[0].shape != tokens.shape:
            return None
        index = torch.tensor(owner, device=device)
        room = length - points.shape[1]
        put, where = points[index], free[index]
        if room < 0:
            put, where = put[:, :length], where[:, :length]
        else:
            put, where = functional.pad(put, (0, 0, 0, room)), functional.pad(where, (0, room))
        return torch.where(where.unsqueeze(-1), put.to(output.dtype), output)

    with ExitStack() as stack:
        stack.callback(module.get_input_embeddings().register_forward_hook(embed).remove)
        if head is not None:
            stack.callback(head.register_forward_pre_hook(select).remove)
        logits: Tensor = module(**inputs).logits
    return logits if head is not None else _gather_places(logits, places)


def _gather_places(values: Tensor, places: Tensor) -> Tensor:
    """(n, k, width) of values (n, length, width) at places (n, k)."""
    return values.gather(1, places.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def as_differentiable(model: AuditedLanguageModel) -> DifferentiableModel:
    """The model with the interface for differentiable input."""
    # Its logits are not those of classes: a TokenSide asks it by itself.
    return cast("DifferentiableModel", model)


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
