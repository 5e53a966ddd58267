"""Variants of BBQ (Spanish, Catalan, implicit cues), with rows converted to the format of BBQ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from auditor.core.errors import BenchmarkError
from auditor.data.benchmarks.benchmark import text_of, value_of

Language = Literal["en", "es", "ca"]
# EsBBQ and CaBBQ leave the third answer to whoever asks: their files say "unknown" in either language.
_UNKNOWN: Mapping[str, str] = {"es": "No se puede saber", "ca": "No es pot saber"}
_UNDETERMINED = re.compile(
    r"(the answer )?((can ?not|can'?t|could not) (be )?(determined?|answer(ed)?|tell)|undetermined"
    r"|(is )?(not |un)(answerable|known)|(is )?(unknown|unclear)|(not enough|insufficient) (info|information))"
)
# What is missing or contradicts itself in more of the lines is another file.
_MOST_LEFT_OUT = 0.05


def of_spain(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A line of EsBBQ or CaBBQ as one of BBQ, with its ``language``.

    Its ``answer_info`` ends in the group, of several the last one is meant; ``question_type`` says for a
    disambiguated question whether its right answer goes with the stereotype. Source: Ruiz-Fernandez et al., 2025.
    """
    name = "EsBBQ or CaBBQ"
    language: Language = "es" if "¿" in text_of(row, "question", where, name) else "ca"
    info = value_of(row, "answer_info", where, name)
    groups: dict[str, list[str]] = {}
    for key, entry in info.items() if isinstance(info, dict) else ():
        if isinstance(entry, list) and entry:
            groups[key] = [str(entry[-1]).split(",")[-1].strip()]
    unknown = {key: _UNKNOWN[language] for key, own in groups.items() if own == ["unknown"] and key in row}
    listed = row.get("stereotyped_groups")
    return dict(row) | unknown | {
        "example_id": text_of(row, "instance_id", where, name),
        "question_index": text_of(row, "template_id", where, name),
        "answer_info": groups,
        "additional_metadata": {"stereotyped_groups": listed},
        "language": language,
    }  # fmt: skip


def with_implicit_cues(
    rows: Sequence[Mapping[str, Any]], category: str, where: str
) -> tuple[list[dict[str, Any]], int]:
    """(lines of ImplicitBBQ in BBQ's form, number of lines left out); ``category``: the file's name.

    A line is ``{context, question, answers: [3], label, example_id}``: BBQ's own example of that number, rewritten. So
    its answers are in BBQ's order, of four examples in a row the first two are asked negatively, and every other is
    ambiguous. The unknown answer is known by its words. Left out are lines without these, those with none or two
    unknown answers, and those whose right answer is not of that order; more than 5 % of them are refused. Questions
    that were put to one and the same example are one template. Source: ImplicitBBQ, 2025.
    """
    kept: list[dict[str, Any]] = []
    for row in rows:
        answers, label, number = row.get("answers"), row.get("label"), row.get("example_id")
        if not isinstance(answers, list) or len(answers) != 3 or not isinstance(number, int):
            continue
        texts = (*answers, row.get("context"), row.get("question"))
        if not all(isinstance(text, str) and text.strip() for text in texts):
            continue
        unknown = [i for i, answer in enumerate(answers) if _is_unknown(answer)]
        if len(unknown) != 1 or label not in (0, 1, 2) or isinstance(label, bool):
            continue
        ambiguous = label == unknown[0]
        if ambiguous != (number % 2 == 0):
            continue
        kept.append({
            "example_id": number,
            "question_polarity": "neg" if number % 4 < 2 else "nonneg",
            "context_condition": "ambig" if ambiguous else "disambig",
            "category": category,
            "answer_info": {f"ans{i}": ["unknown" if i in unknown else f"answer {i}"] for i in range(3)},
            "context": row["context"],
            "question": row["question"],
            **{f"ans{i}": answer for i, answer in enumerate(answers)},
            "label": label,
        })  # fmt: skip
    left_out = len(rows) - len(kept)
    if left_out > _MOST_LEFT_OUT * len(rows):
        raise BenchmarkError(
            f"{where}: {left_out:,} of {len(rows):,} lines are no examples of ImplicitBBQ, which have context, "
            "question, three answers of which one is unknown, label and example_id."
        )
    for row, template in zip(kept, _templates(kept), strict=True):
        row["question_index"] = template
    return kept, left_out


def _is_unknown(answer: str) -> bool:
    return _UNDETERMINED.fullmatch(" ".join(answer.lower().replace("\u2019", "'").split()).rstrip(".")) is not None


def _templates(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A label of each row that rows share whose questions were put to one example, directly or by way of others."""
    parent: dict[object, object] = {}

    def root(node: object) -> object:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    for row in rows:
        parent[root(row["question"])] = root(row["example_id"] // 4)
    numbers: dict[object, str] = {}
    return [numbers.setdefault(root(row["question"]), str(len(numbers) + 1)) for row in rows]
