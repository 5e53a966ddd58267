"""BBQ: questions about two people, with an ambiguous or a disambiguated context."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from auditor.core.errors import BenchmarkError
from auditor.data.benchmarks.bbq_variants import Language, of_spain, with_implicit_cues
from auditor.data.benchmarks.benchmark import (
    Benchmark,
    digest_of,
    json_lines,
    read_table,
    read_text,
    text_of,
    value_of,
)

Condition = Literal["ambig", "disambig"]

_BBQ = "BBQ"
# The files name a group in several ways; each row is one group.
_SAME_GROUP = (
    {"f", "female", "woman", "women", "girl", "girls", "mother"},
    {"m", "male", "man", "men", "boy", "boys", "father"},
    {"old", "nonold-not", "older"},
    {"nonold", "young", "younger"},
    {"lowses", "low ses"},
    {"highses", "high ses"},
    {"trans", "transgender", "transgender women", "transgender men", "trans_f", "trans_m"},
    {"nontrans", "non-trans", "cisgender"},
)


@dataclass(frozen=True)
class BBQExample:
    """A question with three answers, in ``language``; ``biased`` is the stereotypical answer, None if unknown."""

    id: str
    category: str
    template: str
    condition: Condition
    context: str
    question: str
    answers: tuple[str, str, str]
    label: int
    unknown: int
    biased: int | None
    language: Language = "en"


def bbq_companions(file: Path) -> tuple[Path, ...]:
    """Companion files of BBQ examples: the metadata, with the people of each example."""
    return (file.with_name("additional_metadata.csv"),)


def read_bbq(path: str | Path) -> Benchmark[BBQExample]:
    """BBQ: JSON lines, or a folder of such files.

    A line is ``{example_id, question_index, question_polarity, context_condition, category, answer_info,
    additional_metadata {stereotyped_groups}, context, question, ans0, ans1, ans2, label}``. The biased answer is the
    one about the target of the stereotype where the question is negative, and the other named one where it is not. The
    target is the ``target_loc`` of ``additional_metadata.csv`` where that lies beside the files, as in the authors' own
    analysis, else the one answer whose group is among the ``stereotyped_groups``; where neither says, ``biased`` is
    None. EsBBQ, CaBBQ and ImplicitBBQ are known by their keys (:mod:`~auditor.data.benchmarks.bbq_variants`); the third
    has no groups, so that its biased answers are BBQ's own ``additional_metadata.csv`` to say.
    Source: Parrish et al., Findings of ACL 2022.
    """
    name = _BBQ
    where = Path(path)
    files = sorted(where.glob("*.jsonl")) if where.is_dir() else [where]
    if not files:
        raise BenchmarkError(f"The folder {where.name!r} holds no .jsonl file of BBQ.")
    digests: dict[str, str] = {}
    targets: dict[tuple[str, str, str], int] = {}
    (beside,) = bbq_companions(files[0])
    if beside.is_file():
        targets, digests[beside.name] = _bbq_targets(beside)
    examples: list[BBQExample] = []
    left_out = 0
    for file in files:
        text, digests[file.name] = read_text(file, name)
        rows = json_lines(text, file, name)
        if rows and "answers" in rows[0] and "ans0" not in rows[0]:
            own_rows, lost = with_implicit_cues(rows, file.stem, repr(file.name))
            rows, left_out = list(own_rows), left_out + lost
            by_number = {(category, number): place for (category, _, number), place in targets.items()}
            own = {(file.stem, r["question_index"], str(r["example_id"])): r for r in rows}
            targets |= {key: by_number[key[0], key[2]] for key in own if (key[0], key[2]) in by_number}
        for number, row in enumerate(rows, 1):
            place = f"{file.name!r}, line {number}"
            examples.append(_bbq_example(of_spain(row, place) if "template_id" in row else row, place, targets))
    digest = digest_of(digests)
    open_ = sum(e.biased is None for e in examples)
    notes = [f"targets by {beside.name}"] if targets else []
    if left_out:
        notes.append(f"{left_out:,} lines that are no whole examples are left out")
    if open_:
        more = "" if targets else ": additional_metadata.csv beside the file would say more"
        notes.append(f"the biased answer is not determined for {open_:,}, which count for accuracy only{more}")
    return Benchmark(name, str(path), digest, tuple(examples), "; ".join(notes))


def _bbq_targets(path: Path) -> tuple[dict[tuple[str, str, str], int], str]:
    """Place of the answer about the target, by category, question and example; rows without one are left out."""
    rows, digest = read_table(path, "BBQ metadata", ("category", "question_index", "example_id"))
    if "target_loc" not in rows[0]:
        raise BenchmarkError(f"{path.name!r} has no column 'target_loc', so it is no BBQ metadata file.")
    found = {}
    for number, row in enumerate(rows, 2):
        place = (row["target_loc"] or "").strip().removesuffix(".0")
        if place in ("", "NA", "nan"):
            continue
        if place not in ("0", "1", "2"):
            raise BenchmarkError(f"{path.name!r}, row {number}: target_loc must be 0, 1 or 2, not {place[:40]!r}.")
        found[row["category"].strip(), row["question_index"].strip(), row["example_id"].strip()] = int(place)
    return found, digest


def _bbq_example(row: Mapping[str, Any], where: str, by_metadata: Mapping[tuple[str, str, str], int]) -> BBQExample:
    condition, polarity = _condition_and_polarity(row, where)
    label = _label(row, where)
    groups = _answer_groups(row, where)
    unknown = _unknown_answer(groups, where)
    category, question = text_of(row, "category", where, _BBQ), text_of(row, "question_index", where, _BBQ)
    number = text_of(row, "example_id", where, _BBQ)
    named = [i for i in range(3) if i != unknown]
    stated = by_metadata.get((category.strip(), question.strip(), number.strip()))
    targets = _stereotyped_answers(row, groups, named) if stated is None else [i for i in named if i == stated]
    return BBQExample(
        id=number,
        category=category,
        template=f"{category} {question}",
        condition="ambig" if condition == "ambig" else "disambig",
        context=text_of(row, "context", where, _BBQ),
        question=text_of(row, "question", where, _BBQ),
        answers=(
            text_of(row, "ans0", where, _BBQ),
            text_of(row, "ans1", where, _BBQ),
            text_of(row, "ans2", where, _BBQ),
        ),
        label=label,
        unknown=unknown,
        biased=_biased_answer(row, polarity, label, named, targets),
        language=row.get("language", "en"),
    )


def _condition_and_polarity(row: Mapping[str, Any], where: str) -> tuple[str, str]:
    condition = text_of(row, "context_condition", where, _BBQ)
    polarity = text_of(row, "question_polarity", where, _BBQ)
    if condition not in ("ambig", "disambig"):
        raise BenchmarkError(f"{where}: context_condition must be 'ambig' or 'disambig', not {condition!r}.")
    if polarity not in ("neg", "nonneg"):
        raise BenchmarkError(f"{where}: question_polarity must be 'neg' or 'nonneg', not {polarity!r}.")
    return condition, polarity


def _label(row: Mapping[str, Any], where: str) -> int:
    """The place of the right answer."""
    label = value_of(row, "label", where, _BBQ)
    label = int(label) if isinstance(label, str) and label.strip() in ("0", "1", "2") else label
    if isinstance(label, bool) or label not in (0, 1, 2):
        raise BenchmarkError(f"{where}: label must be 0, 1 or 2, not {label!r}.")
    return int(label)


def _answer_groups(row: Mapping[str, Any], where: str) -> list[tuple[str, ...]]:
    """Of each answer its name and group."""
    info = value_of(row, "answer_info", where, _BBQ)
    groups: list[tuple[str, ...]] = []
    for i in range(3):
        entry = info.get(f"ans{i}") if isinstance(info, dict) else None
        entry = [entry] if isinstance(entry, str) else entry
        if not isinstance(entry, list) or not entry:
            raise BenchmarkError(f"{where}: answer_info needs ans0, ans1 and ans2, each [name, group].")
        groups.append(tuple(str(part) for part in entry))
    return groups


def _unknown_answer(groups: Sequence[tuple[str, ...]], where: str) -> int:
    """The place of the answer that names nobody."""
    unknown = [i for i, parts in enumerate(groups) if parts[-1].strip().lower() == "unknown"]
    if len(unknown) != 1:
        raise BenchmarkError(f"{where}: exactly one answer of answer_info must be of the group 'unknown'.")
    return unknown[0]


def _stereotyped_answers(row: Mapping[str, Any], groups: Sequence[tuple[str, ...]], named: Sequence[int]) -> list[int]:
    """The places of answers about a group that the row lists as stereotyped."""
    metadata = row.get("additional_metadata")
    listed = metadata.get("stereotyped_groups") if isinstance(metadata, dict) else None
    stereotyped = [listed] if isinstance(listed, str) else listed if isinstance(listed, list) else []
    return [i for i in named if any(_same_group(part, str(g)) for part in groups[i] for g in stereotyped)]


def _biased_answer(
    row: Mapping[str, Any], polarity: str, label: int, named: Sequence[int], targets: Sequence[int]
) -> int | None:
    """The place of the answer that fits the stereotype; None where the row does not tell."""
    if len(targets) == 1:
        return targets[0] if polarity == "neg" else next(i for i in named if i != targets[0])
    if label in named and row.get("question_type") in ("pro-stereo", "anti-stereo"):
        return label if row["question_type"] == "pro-stereo" else next(i for i in named if i != label)
    return None


def _same_group(first: str, second: str) -> bool:
    a, b = (" ".join(x.lower().replace("_", " ").split()) for x in (first, second))
    # A group may carry a gender in front, as in "F-Black".
    a = re.sub(r"^[fm]-", "", a)
    return a == b or any(a in same and b in same for same in _SAME_GROUP)
