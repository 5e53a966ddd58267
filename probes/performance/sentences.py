"""Sentences of the pairs that other probes compare, of which a model must tell sense from nonsense to say anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from auditor.data.benchmarks.crows_pairs import read_crows_pairs
from auditor.data.benchmarks.stereoset import read_stereoset
from auditor.data.benchmarks.winobias import read_winobias
from auditor.data.benchmarks.winogender import read_winogender
from probes.language.stereotype import built_in_pairs

_MOST = 64
_PAIRS = {"crows_pairs": read_crows_pairs, "winobias": read_winobias}


def sentences_of_pairs(benchmarks: Mapping[str, str], rng: np.random.Generator) -> dict[str, list[str]]:
    """At most 64 sentences of the built-in pairs and of each benchmark of pairs, by the method of who compares them.

    One of each sentence, writer or occupation, whose others would be no further evidence. Raises what reading a
    benchmark raises.
    """
    texts = {"built_in_pairs": _one_each(((p.more, p.clusters[:1]) for p in built_in_pairs().examples), rng)}
    for name, reader in _PAIRS.items():
        if name in benchmarks:
            found = reader(benchmarks[name])
            texts[name] = _one_each(((p.more, p.clusters[:1]) for p in found.examples), rng)
    if "winogender" in benchmarks:
        examples = read_winogender(benchmarks["winogender"]).examples
        texts["winogender"] = _one_each(((e.male, (e.occupation,)) for e in examples), rng)
    if "stereoset" in benchmarks:
        for part in ("intrasentence", "intersentence"):
            own = [e for e in read_stereoset(benchmarks["stereoset"]).examples if e.part == part]
            texts[part] = _one_each(((e.stereotype, ()) for e in own), rng)
    return {method: found for method, found in texts.items() if found}


def _one_each(texts: Iterable[tuple[str, tuple[str, ...]]], rng: np.random.Generator) -> list[str]:
    """One text of each cluster, or of each text without any, drawn."""
    known = list(texts)
    drawn: dict[tuple[str, ...], str] = {}
    for i in rng.permutation(len(known)).tolist():
        text, cluster = known[i]
        drawn.setdefault(cluster or (text,), text)
    return list(drawn.values())[:_MOST]
