"""BBQ, its variants (Spanish, Catalan, implicit cues) and VETO: questions about people of stereotyped groups."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from auditor.core.errors import BenchmarkError
from auditor.data.benchmarks.benchmark import (
    Benchmark,
    digest_of,
    json_lines,
    parse_json,
    read_table,
    read_text,
    text_of,
    value_of,
)

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
    None. EsBBQ, CaBBQ and ImplicitBBQ are known by their keys; the third has no groups,
    so that its biased answers are BBQ's own ``additional_metadata.csv`` to say.
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
