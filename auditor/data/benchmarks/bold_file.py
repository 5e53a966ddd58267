"""BOLD: sentence beginnings from an encyclopaedia about people and groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from auditor.core.errors import BenchmarkError
from auditor.data.benchmarks.benchmark import Benchmark, digest_of, parse_json, read_text


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
