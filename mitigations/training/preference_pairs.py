"""Counterfactual pairs for preference tuning: a prompt and two continuations about different groups."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from auditor.core.errors import DataError, UsageError
from auditor.core.files import UNREADABLE, why_unreadable
from auditor.data.lexicons import PLACEHOLDER, Identity, Lexicon, built_in
from auditor.data.swaps import Swapper

_KEYS = ("prompt", "chosen", "rejected", "cluster")
_MAX_BYTES = 64 << 20
_MOST_LETTERS = 20_000


@dataclass(frozen=True, kw_only=True)
class PreferencePair:
    """A prompt and two possible direct continuations, including spaces.

    ``chosen`` and ``rejected`` are in the order of whoever wrote the pair; for built-in pairs the order says nothing.
    ``cluster``: what the pair is about, such as an occupation; pairs of one cluster are not independent.
    """

    prompt: str
    chosen: str
    rejected: str
    cluster: str

    @property
    def texts(self) -> tuple[str, str]:
        """The two whole texts."""
        return self.prompt + self.chosen, self.prompt + self.rejected


@dataclass(frozen=True, kw_only=True)
class PreferenceSet:
    """Pairs and their origin: ``said`` in words, ``sha256`` of the file; ``ranked``: ranked by a writer."""

    pairs: tuple[PreferencePair, ...]
    said: str
    sha256: str
    ranked: bool


@dataclass(frozen=True, kw_only=True)
class NeutralText:
    """Sentences about no person: ``anchors`` for tuning, ``held_out`` for the perplexity."""

    anchors: tuple[str, ...]
    held_out: tuple[str, ...]
    sha256: str


def built_in_pairs(n: int, rng: np.random.Generator) -> PreferenceSet:
    """``n`` distinct pairs of "she" and "he" (and their other cases) in sentences about occupations.

    Occupations come equally often, each with templates drawn without replacement. Raises UsageError for more than
    there are.
    """
    content, digest = _content()
    occupations, templates = content["train"]["occupations"], content["train"]["templates"]
    most = len(occupations) * len(templates)
    if n > most:
        raise UsageError(
            f"n_pairs={n:,} is more than the {most:,} built-in pairs: ask for fewer, or name your own with pairs=FILE."
        )
    order = rng.permutation(len(occupations))
    drawn = [rng.permutation(len(templates)) for _ in occupations]
    cells = [(int(order[k % len(order)]), k // len(order)) for k in range(n)]
    return PreferenceSet(
        pairs=_filled([(templates[int(drawn[i][j])], occupations[i]) for i, j in cells]),
        said=f"{n} built-in pairs of she and he after {len(order)} occupations in {len(templates)} templates",
        sha256=digest,
        ranked=False,
    )


def unseen_pairs() -> PreferenceSet:
    """The built-in pairs that are never tuned on: every test occupation in every test template, "she" first."""
    content, digest = _content()
    occupations, templates = content["test"]["occupations"], content["test"]["templates"]
    return PreferenceSet(
        pairs=_filled([(template, occupation) for occupation in occupations for template in templates]),
        said=f"she and he after {len(occupations)} unseen occupations in {len(templates)} unseen templates",
        sha256=digest,
        ranked=False,
    )


def neutral_text() -> NeutralText:
    """The built-in neutral sentences, ``mitigations/data/preference_tuning.toml``."""
    content, digest = _content()
    return NeutralText(
        anchors=tuple(content["train"]["anchors"]), held_out=tuple(content["test"]["neutral"]), sha256=digest
    )


def read_pairs(path: str | Path) -> PreferenceSet:
    """The user's own pairs: JSON lines with ``prompt``, ``chosen``, ``rejected`` and optionally ``cluster``.

    ``{"prompt": "The nurse said that", "chosen": " she", "rejected": " he", "cluster": "nurse"}``: the texts are joined
    as they stand, so the space belongs to one of them. Without ``cluster``, pairs with one prompt are one.

    Raises DataError naming the line that is wrong, UsageError where the file cannot be read.
    """
    where = Path(path)
    try:
        raw = where.read_bytes()
    except OSError as error:
        raise UsageError(f"The pairs {where.name!r} cannot be read: {error.strerror or error}.") from None
    if len(raw) > _MAX_BYTES:
        raise DataError(f"The pairs {where.name!r} have {len(raw):,} bytes; at most {_MAX_BYTES:,} are read.")
    try:
        lines = raw.decode().splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"The pairs {where.name!r} are no UTF-8 text: {error}.") from None
    pairs = tuple(_pair(line, f"{where.name}, line {i}") for i, line in enumerate(lines, 1) if line.strip())
    if len(pairs) < 2:
        raise DataError(f"The pairs {where.name!r} must be at least two: one JSON object a line.")
    return PreferenceSet(
        pairs=pairs, said=f"{len(pairs):,} pairs of {where.name}", sha256=hashlib.sha256(raw).hexdigest(), ranked=True
    )


def _pair(line: str, where: str) -> PreferencePair:
    try:
        entry = json.loads(line)
    except UNREADABLE as error:
        raise DataError(f"{where} is no JSON: {why_unreadable(error)}.") from None
    if not isinstance(entry, dict):
        raise DataError(f"{where} must be a JSON object with the keys {', '.join(_KEYS[:3])}.")
    unknown = [key for key in entry if key not in _KEYS]
    if unknown:
        raise DataError(f"{where} has the unknown key {str(unknown[0])[:40]!r}: known are {', '.join(_KEYS)}.")
    for key in _KEYS[:3]:
        value = entry.get(key)
        if not isinstance(value, str) or not value or len(value) > _MOST_LETTERS:
            raise DataError(f'{where} needs "{key}": a text of 1 to {_MOST_LETTERS:,} characters.')
    prompt, chosen, rejected = (entry[key] for key in _KEYS[:3])
    if chosen == rejected:
        raise DataError(f"{where}: chosen and rejected are the same text, so there is nothing to tell apart.")
    for text in (chosen, rejected):
        # Scripts without spaces join words like this; the Latin alphabet does not.
        if prompt[-1].isascii() and prompt[-1].isalpha() and text[0].isascii() and text[0].isalpha():
            raise DataError(
                f"{where}: the texts are joined as they stand, and {(prompt + text)[-40:]!r} runs two words together: "
                f"begin {text[:20]!r} with a space."
            )
    cluster = entry.get("cluster", prompt)
    if not isinstance(cluster, str):
        raise DataError(f"{where}: cluster must be a text.")
    return PreferencePair(prompt=prompt, chosen=chosen, rejected=rejected, cluster=cluster)


def _content() -> tuple[dict[str, dict[str, list[str]]], str]:
    raw = (files("mitigations") / "data" / "preference_tuning.toml").read_bytes()
    content = tomllib.loads(raw.decode())
    return {name: table for name, table in content.items() if isinstance(table, dict)}, hashlib.sha256(raw).hexdigest()


def _filled(templates: Sequence[tuple[str, str]]) -> tuple[PreferencePair, ...]:
    """Each template about its occupation, continued about a woman and about a man."""
    lexicon = built_in(["gender"])[0]
    woman, man = sorted(lexicon.identities, key=lambda identity: identity.name)
    found = []
    for template, occupation in templates:
        prompt = _prompt(template, occupation, lexicon)
        chosen, rejected = (_about(template, occupation, lexicon, who)[len(prompt) :] for who in (woman, man))
        found.append(PreferencePair(prompt=prompt, chosen=chosen, rejected=rejected, cluster=occupation))
    return tuple(found)


def _about(template: str, occupation: str, lexicon: Lexicon, identity: Identity) -> str:
    words = Identity(identity.name, {**identity.words, "occupation": (occupation,)})
    text = Swapper(lexicon).fill(template, words)
    if text is None:
        raise ValueError(f"the template {template!r} has a role that the lexicon {lexicon.category!r} lacks")
    return text


def _prompt(template: str, occupation: str, lexicon: Lexicon) -> str:
    """What stands before the first word that the lexicon fills in, without the space."""
    place = next(p for p in PLACEHOLDER.finditer(template) if p.group(1) in lexicon.roles)
    return _about(template[: place.start()].rstrip(), occupation, lexicon, lexicon.identities[0])
