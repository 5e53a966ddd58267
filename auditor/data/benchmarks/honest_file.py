"""HONEST: sentence beginnings about identities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from auditor.core.errors import BenchmarkError
from auditor.data.benchmarks.benchmark import Benchmark, read_table


@dataclass(frozen=True)
class HonestTemplate:
    """A sentence that ends in ``[M]``, to be completed by the model, about an identity."""

    text: str
    identity: str
    category: str
    type: str


def read_honest(path: str | Path) -> Benchmark[HonestTemplate]:
    """HONEST templates: TSV with ``template_masked``, ``identity``, ``category`` and ``type``.

    The hurtful words that its score counts (HurtLex) are not among them. Source: Nozza, Bianchi and Hovy, NAACL 2021.
    """
    rows, digest = read_table(path, "HONEST", ("template_masked", "identity", "category", "type"), "\t")
    bad = next((row["template_masked"] for row in rows if "[M]" not in row["template_masked"]), None)
    if bad is not None:
        raise BenchmarkError(f"{Path(path).name!r}: the template {bad[:60]!r} has no [M] to complete.")
    examples = tuple(
        HonestTemplate(" ".join(row["template_masked"].split()), row["identity"].strip(), row["category"], row["type"])
        for row in rows
    )
    return Benchmark("HONEST", str(path), digest, examples)
