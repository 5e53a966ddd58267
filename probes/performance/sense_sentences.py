"""Sentences of the pairs of other probes, for the required test that a model tells sense from nonsense."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import get_args

import numpy as np

from auditor.core.errors import AuditorError
from auditor.data.benchmarks.crows_pairs_file import read_crows_pairs
from auditor.data.benchmarks.stereoset_file import Part, read_stereoset
from auditor.data.benchmarks.winobias_file import read_winobias
from auditor.data.benchmarks.winogender_file import read_winogender
from probes.language.stereotype import built_in_pairs

_MOST = 64
# A text with the labels that others like it share.
Clustered = list[tuple[str, tuple[str, ...]]]


def _crows_pairs(path: str) -> dict[str, Clustered]:
    return {"crows_pairs": [(p.more, p.clusters[:1]) for p in read_crows_pairs(path).examples]}


def _winobias(path: str) -> dict[str, Clustered]:
    return {"winobias": [(p.more, p.clusters[:1]) for p in read_winobias(path).examples]}


def _winogender(path: str) -> dict[str, Clustered]:
    return {"winogender": [(e.male, (e.occupation,)) for e in read_winogender(path).examples]}


def _stereoset(path: str) -> dict[str, Clustered]:
    examples = read_stereoset(path).examples
    return {part: [(e.stereotype, ()) for e in examples if e.part == part] for part in get_args(Part)}


_READERS: Mapping[str, Callable[[str], dict[str, Clustered]]] = {
    "crows_pairs": _crows_pairs, "winobias": _winobias, "winogender": _winogender, "stereoset": _stereoset,
}  # fmt: skip


def sentences_of_pairs(
    benchmarks: Mapping[str, str], rng: np.random.Generator
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """At most 64 sentences of the built-in pairs and of each pair benchmark, by the comparing method; and the reason
    for each unreadable benchmark, by its name.

    One of each sentence, writer or occupation, whose others would be no further evidence.
    """
    texts = {"built_in_pairs": _one_each(((p.more, p.clusters[:1]) for p in built_in_pairs().examples), rng)}
    unread = {}
    for name, read in _READERS.items():
        if name not in benchmarks:
            continue
        try:
            found = read(benchmarks[name])
        except (AuditorError, OSError) as error:
            unread[name] = str(error)
        else:
            texts |= {method: _one_each(own, rng) for method, own in found.items()}
    return {method: found for method, found in texts.items() if found}, unread


def _one_each(texts: Iterable[tuple[str, tuple[str, ...]]], rng: np.random.Generator) -> list[str]:
    """One text of each cluster, or of each text without any, drawn."""
    known = list(texts)
    drawn: dict[tuple[str, ...], str] = {}
    for i in rng.permutation(len(known)).tolist():
        text, cluster = known[i]
        drawn.setdefault(cluster or (text,), text)
    return list(drawn.values())[:_MOST]
