"""VETO: questions answered by their context, about a group with a stereotype and about a group without."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditor.core.errors import BenchmarkError
from auditor.data.benchmarks.benchmark import Benchmark, json_lines, parse_json, read_text, text_of, value_of

_NAME = "VETO"
_SIDES = ("stereotyped", "contrast")
# What a prompt asks stands at its end, after what it tells.
_QUESTION = re.compile(r"\A(.*[.!?][\"')]*)\s+([^.!?]+\?)\s*\Z", re.DOTALL)
_PAIR = re.compile(r"_p\d+\Z")


@dataclass(frozen=True)
class Told:
    """A prompt and whether yes is the right answer."""

    text: str
    yes: bool


@dataclass(frozen=True)
class VetoPair:
    """The same question about a stereotyped group and about another one. ``scenario``: shared by pairs that are not
    independent; ``crossed``: the context of one with the question of the other, for which no answer is correct, () if
    that is not so."""

    id: str
    category: str
    scenario: str
    stereotyped: Told
    contrast: Told
    crossed: tuple[Told, ...]


def read_veto(path: str | Path) -> Benchmark[VetoPair]:
    """VETO: a JSON list of pairs, or a pair a line, as ``build_pairs_from_bbq.py`` of its authors writes them.

    A pair is ``{id, category, prompts {stereotyped {text, expected}, contrast {text, expected}}}``, with expected yes
    or no. Pairs whose ids are the same up to their last ``_pN`` are of one scenario. Source: Deng et al. 2026
    (arXiv:2606.18656).
    """
    text, digest = read_text(path, _NAME)
    where = Path(path).name
    content = parse_json(text, path, _NAME) if text.lstrip().startswith("[") else json_lines(text, path, _NAME)
    if not isinstance(content, list) or not content:
        raise BenchmarkError(f"{where!r} holds no list of pairs, so it is no {_NAME} file.")
    pairs = tuple(_pair(row, f"{where!r}, pair {number}") for number, row in enumerate(content, 1))
    if len({pair.id for pair in pairs}) < len(pairs):
        raise BenchmarkError(f"{where!r} has an id twice: pairs that stand twice would count twice.")
    return Benchmark(_NAME, str(path), digest, pairs)


def _pair(row: Any, where: str) -> VetoPair:
    if not isinstance(row, dict):
        raise BenchmarkError(f"{where}, is no JSON object, so it is no {_NAME} file.")
    prompts = value_of(row, "prompts", where, _NAME)
    if not isinstance(prompts, dict):
        raise BenchmarkError(f"{where}: prompts must hold {' and '.join(_SIDES)}.")
    stereotyped, contrast = (
        _parse_prompt(value_of(prompts, side, where, _NAME), f"{where}, {side}") for side in _SIDES
    )
    own = text_of(row, "id", where, _NAME)
    return VetoPair(
        id=own,
        category=text_of(row, "category", where, _NAME),
        scenario=_PAIR.sub("", own),
        stereotyped=stereotyped,
        contrast=contrast,
        crossed=_crossed(stereotyped, contrast),
    )


def _parse_prompt(prompt: Any, where: str) -> Told:
    if not isinstance(prompt, Mapping):
        raise BenchmarkError(f"{where}, must hold a text and what answer is expected.")
    expected = text_of(prompt, "expected", where, _NAME).strip().lower()
    if expected not in ("yes", "no"):
        raise BenchmarkError(f"{where}: expected must be 'yes' or 'no', not {expected[:40]!r}.")
    return Told(text_of(prompt, "text", where, _NAME), expected == "yes")


def _crossed(*both: Told) -> tuple[Told, ...]:
    found = [_QUESTION.match(told.text) for told in both]
    first, second = found
    if first is None or second is None or first[2] == second[2] or not all(told.yes for told in both):
        return ()
    return Told(f"{first[1]} {second[2]}", False), Told(f"{second[1]} {first[2]}", False)
