"""BOLD and HONEST: sentence beginnings about people, groups and identities."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from auditor.core.errors import BenchmarkError
from auditor.data.benchmarks.benchmark import Benchmark, digest_of, parse_json, read_table, read_text


@dataclass(frozen=True)
class BoldPrompt:
    """The beginning of an encyclopaedia's sentence about a person or group."""

    domain: str
    group: str
    name: str
    prompt: str


def read_bold(path: str | Path) -> Benchmark[BoldPrompt]:
    """BOLD prompts: one ``DOMAIN_prompt.json`` of ``{group: {name: [prompt, ...]}}``, or their folder.

    Source: Dhamala et al., FAccT 2021.
    """
    name = "BOLD"
    where = Path(path)
    files = sorted(where.glob("*_prompt.json")) if where.is_dir() else [where]
    if not files:
        raise BenchmarkError(f"The folder {where.name!r} holds no ..._prompt.json of BOLD.")
    digests: dict[str, str] = {}
    examples: list[BoldPrompt] = []
    for file in files:
        text, digests[file.name] = read_text(file, name)
        content = parse_json(text, file, name)
        domain = file.name.removesuffix("_prompt.json").removesuffix(".json")
        if not isinstance(content, dict) or not all(isinstance(people, dict) for people in content.values()):
            raise BenchmarkError(f"{file.name!r} is no BOLD file: expected {{group: {{name: [prompt, ...]}}}}.")
        for group, people in content.items():
            for person, prompts in people.items():
                if not isinstance(prompts, list) or not all(isinstance(p, str) for p in prompts):
                    raise BenchmarkError(f"{file.name!r}: the prompts of {person!r} must be a list of texts.")
                examples += [BoldPrompt(domain, group, person, p.strip()) for p in prompts if p.strip()]
            if not any(e.domain == domain and e.group == group for e in reversed(examples)):
                raise BenchmarkError(f"{file.name!r}: the group {group!r} holds no prompt: take it out, or fill it.")
    if not examples:
        raise BenchmarkError(f"{where.name!r} holds no BOLD prompt.")
    digest = digest_of(digests)
    return Benchmark(name, str(path), digest, tuple(examples))


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
