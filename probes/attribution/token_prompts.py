"""Prompts with continuations to explain: built-in sentences, or a user's file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from auditor.core.errors import DataError, did_you_mean
from auditor.core.files import UNREADABLE, regular_file, why_unreadable
from auditor.data.benchmarks.benchmark import Benchmark

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
