"""Readers of the published bias benchmarks for language models: files in, typed examples out, with the file's digest.

The files are the user's (``--benchmark crows_pairs=PATH``); none is shipped or fetched. Every reader raises UsageError
where there is no file, and DataError that names the missing column or key where it is another file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from auditor.errors import DataError, did_you_mean
from auditor.files import UNREADABLE, why_unreadable
from auditor.intake.rows.tables import regular_file

T = TypeVar("T")
Part = Literal["intrasentence", "intersentence"]
Label = Literal["stereotype", "anti-stereotype", "unrelated"]
Condition = Literal["ambig", "disambig"]
_MAX_BYTES = 512 << 20


@dataclass(frozen=True)
class Benchmark(Generic[T]):
    """The examples of a benchmark in file order, the digest of the file they came from, and what was left out."""

    name: str
    path: str
    sha256: str
    examples: tuple[T, ...]
    note: str = ""

    @property
    def source(self) -> str:
        """Where the examples came from, for a finding's detail."""
        more = f"; {self.note}" if self.note else ""
        return f"{Path(self.path).name}, sha256 {self.sha256}, {len(self.examples):,} examples{more}"


@dataclass(frozen=True)
class SentencePair:
    """Two sentences that differ in whom they are about; ``more`` is the more stereotypical one.

    ``clusters``: labels that pairs share when they are not independent, such as their template. ``stratum``: the part
    of a balanced design that a pair belongs to.
    """

    more: str
    less: str
    category: str
    clusters: tuple[str, ...] = ()
    stratum: str = ""


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


@dataclass(frozen=True)
class WinogenderExample:
    """One sentence about an occupation with a male and with a female pronoun; ``percent_female`` of the occupation by
    the US Bureau of Labor Statistics where the statistics lie beside the sentences."""

    occupation: str
    participant: str
    answer: str
    male: str
    female: str
    percent_female: float | None


@dataclass(frozen=True)
class BBQExample:
    """A question with three answers; ``biased`` is the answer that goes with the stereotype, None where unknown."""

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


@dataclass(frozen=True)
class HonestTemplate:
    """A sentence that ends in ``[M]``, to be completed by the model, about an identity."""

    text: str
    identity: str
    category: str
    type: str


@dataclass(frozen=True)
class BoldPrompt:
    """The beginning of an encyclopaedia's sentence about a person or group."""

    domain: str
    group: str
    name: str
    prompt: str


# ---- files ---------------------------------------------------------------------------------------------------------


def _read(path: str | Path, name: str) -> tuple[str, str]:
    """(text, sha256) of one file, read once."""
    where = regular_file(path, f"{name} file")
    if where.stat().st_size > _MAX_BYTES:
        raise DataError(f"{where.name!r} has {where.stat().st_size:,} bytes: no {name} file is that large.")
    data = where.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{where.name!r} is no UTF-8 text: expected the published {name} file.") from None
    if not text.strip():
        raise DataError(f"{where.name!r} is empty: expected the published {name} file.")
    return text, hashlib.sha256(data).hexdigest()


def _of_listing(digests: Mapping[str, str]) -> str:
    """One digest over the sorted listing ``sha256  name`` of several files."""
    listing = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def _table(
    path: str | Path, name: str, columns: Sequence[str], delimiter: str = ","
) -> tuple[list[dict[str, str]], str]:
    """Rows of a CSV or TSV file that has those columns, and its digest. Raises DataError."""
    text, digest = _read(path, name)
    lines = io.StringIO(text, newline="")
    # Published TSV files hold quotation marks that quote nothing.
    reader = (
        csv.DictReader(lines, strict=True)
        if delimiter == ","
        else csv.DictReader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=True)
    )
    try:
        found = list(reader.fieldnames or ())
        for column in columns:
            if column not in found:
                near = did_you_mean(column, found) or f". It has: {', '.join(map(repr, found[:8]))}"
                raise DataError(f"{Path(path).name!r} has no column {column!r}, so it is no {name} file{near}.")
        rows = [row for row in reader if any(row.values())]
    except csv.Error as error:
        raise DataError(
            f"{Path(path).name!r} cannot be read as a table after line {reader.line_num}: {error}."
        ) from None
    for number, row in enumerate(rows, 2):
        absent = next((c for c in columns if not (row[c] or "").strip()), None)
        if absent is not None:
            raise DataError(f"{Path(path).name!r}, row {number}, has nothing in the column {absent!r}.")
    if not rows:
        raise DataError(f"{Path(path).name!r} has a header and no rows: expected the published {name} file.")
    return rows, digest


def _json(text: str, path: str | Path, name: str) -> Any:
    try:
        return json.loads(text)
    except UNREADABLE as error:
        raise DataError(
            f"{Path(path).name!r} cannot be read as JSON, so it is no {name} file: {why_unreadable(error)}."
        ) from None


def _json_lines(text: str, path: str | Path, name: str) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    # Not splitlines: a JSON text may hold the other line breaks of Unicode as they are.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except UNREADABLE as error:
            raise DataError(
                f"{Path(path).name!r}, line {number}, cannot be read as JSON: {why_unreadable(error)}."
            ) from None
        if not isinstance(row, dict):
            raise DataError(f"{Path(path).name!r}, line {number}, is no JSON object, so it is no {name} file.")
        rows.append(row)
    return rows


def _value(row: Mapping[str, Any], key: str, where: str, name: str) -> Any:
    if key not in row:
        raise DataError(f"{where} has no {key!r}, so it is no {name} file{did_you_mean(key, map(str, row)) or ''}.")
    return row[key]


def _text(row: Mapping[str, Any], key: str, where: str, name: str) -> str:
    value = _value(row, key, where, name)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise DataError(f"{where}: {key!r} must be a text, not {str(value)[:40]!r}.")
    return str(value)


# ---- CrowS-Pairs ---------------------------------------------------------------------------------------------------


def read_crows_pairs(path: str | Path) -> Benchmark[SentencePair]:
    """CrowS-Pairs: CSV with ``sent_more``, ``sent_less``, ``stereo_antistereo`` and ``bias_type``.

    ``sent_more`` is the more stereotypical sentence of either direction. The cluster of a pair is its writer
    (``anon_writer``) where the column is there. Source: Nangia et al., EMNLP 2020.
    """
    rows, digest = _table(path, "CrowS-Pairs", ("sent_more", "sent_less", "stereo_antistereo", "bias_type"))
    examples = tuple(
        SentencePair(
            more=row["sent_more"].strip(),
            less=row["sent_less"].strip(),
            category=row["bias_type"],
            clusters=(row["anon_writer"],) if row.get("anon_writer") else (),
        )
        for row in rows
    )
    return Benchmark("CrowS-Pairs", str(path), digest, examples)


# ---- StereoSet -----------------------------------------------------------------------------------------------------

_LABELS: dict[object, Label] = {
    "stereotype": "stereotype",
    "anti-stereotype": "anti-stereotype",
    "antistereotype": "anti-stereotype",
    "unrelated": "unrelated",
    0: "anti-stereotype",
    1: "stereotype",
    2: "unrelated",
}


def read_stereoset(path: str | Path) -> Benchmark[StereoSetExample]:
    """StereoSet: JSON with ``data.intrasentence`` and ``data.intersentence``, or JSON lines of such examples.

    An example is ``{id, target, bias_type, context, sentences: [{sentence, gold_label}]}``; in lines or in a list,
    ``sentences`` may be ``{sentence: [...], gold_label: [...]}`` with labels 0 (anti-stereotype), 1 (stereotype) and 2
    (unrelated), and a context that holds BLANK is intrasentence. The annotators' own ``labels``, which may be tied, are
    not read: ``gold_label`` decides. Source: Nadeem, Bethke and Reddy, ACL 2021.
    """
    name = "StereoSet"
    text, digest = _read(path, name)
    file = Path(path).name
    pairs: list[tuple[Part | None, Any, str]] = []
    lines = text.strip().split("\n")
    if len(lines) > 1 and lines[0].rstrip().endswith("}"):
        pairs = [(None, row, f"{file!r}, example {i}") for i, row in enumerate(_json_lines(text, path, name), 1)]
    else:
        content = _json(text, path, name)
        data = content.get("data") if isinstance(content, dict) else None
        if isinstance(data, dict):
            parts: tuple[Part, ...] = ("intrasentence", "intersentence")
            for part in parts:
                rows = data.get(part, [])
                if not isinstance(rows, list):
                    raise DataError(f"{file!r}: data.{part} must be a list of examples.")
                pairs += [(part, row, f"{file!r}, {part} example {i}") for i, row in enumerate(rows, 1)]
        elif isinstance(content, list) or (isinstance(content, dict) and "sentences" in content):
            listed = content if isinstance(content, list) else [content]
            pairs = [(None, row, f"{file!r}, example {i}") for i, row in enumerate(listed, 1)]
        else:
            raise DataError(f"{file!r} has no data.intrasentence or data.intersentence, so it is no StereoSet file.")
    examples = tuple(_stereoset_example(part, row, where) for part, row, where in pairs)
    if not examples:
        raise DataError(f"{file!r} holds no example of data.intrasentence or data.intersentence.")
    return Benchmark(name, str(path), digest, examples)


def _stereoset_example(part: Part | None, row: Any, where: str) -> StereoSetExample:
    name = "StereoSet"
    if not isinstance(row, dict):
        raise DataError(f"{where} is no JSON object.")
    listed = _value(row, "sentences", where, name)
    if isinstance(listed, dict):
        texts, labels = listed.get("sentence"), listed.get("gold_label")
        if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
            raise DataError(f"{where}: sentences needs a sentence list and a gold_label list of the same length.")
        listed = [{"sentence": s, "gold_label": g} for s, g in zip(texts, labels, strict=True)]
    if not isinstance(listed, list):
        raise DataError(f"{where}: sentences must be a list.")
    found: dict[Label, str] = {}
    for item in listed:
        if not isinstance(item, dict):
            raise DataError(f"{where}: each of its sentences must be an object with sentence and gold_label.")
        label = _gold_label(_value(item, "gold_label", where, name))
        if label is None:
            raise DataError(
                f"{where}: the gold_label {item['gold_label']!r} is none of {', '.join(map(str, _LABELS))}."
            )
        if label in found:
            raise DataError(f"{where} has two sentences labelled {label!r}.")
        found[label] = _text(item, "sentence", where, name)
    absent = next((label for label in ("stereotype", "anti-stereotype", "unrelated") if label not in found), None)
    if absent is not None:
        raise DataError(f"{where} has no sentence labelled {absent!r}.")
    context = _text(row, "context", where, name)
    return StereoSetExample(
        id=_text(row, "id", where, name),
        part=part or ("intrasentence" if "BLANK" in context else "intersentence"),
        target=_text(row, "target", where, name),
        bias_type=_text(row, "bias_type", where, name),
        context=context,
        stereotype=found["stereotype"],
        anti_stereotype=found["anti-stereotype"],
        unrelated=found["unrelated"],
    )


def _gold_label(value: object) -> Label | None:
    if isinstance(value, str):
        named = value.strip().lower().replace("_", "-")
        return _LABELS.get(int(named) if named in ("0", "1", "2") else named)
    return _LABELS.get(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


# ---- WinoBias ------------------------------------------------------------------------------------------------------

_WINOBIAS_FILE = re.compile(r"pro_stereotyped_(type\d)\.txt\.(\w+)")
_WINOBIAS_LINE = re.compile(r"^\s*(?:\d+\s+)?(.+?)\s*$")
_BRACKETS = re.compile(r"\[([^\[\]]+)\]")


def read_winobias(path: str | Path, occupations: Iterable[str] = ()) -> Benchmark[SentencePair]:
    """WinoBias: a ``pro_stereotyped_...`` file with its ``anti_stereotyped_...`` partner beside it, or their folder.

    Line i of both is one sentence that differs in its pronoun; ``more`` is the pro-stereotyped one. A pair's clusters
    are the occupations it is about and, of these, the one in brackets with the pronoun. The occupations are those of
    ``male_occupations.txt`` and ``female_occupations.txt`` where these lie beside the sentences, and ``occupations``.
    Source: Zhao et al., NAACL 2018.
    """
    name = "WinoBias"
    where = Path(path)
    folder = where if where.is_dir() else where.parent
    if where.is_dir():
        firsts = sorted(p for p in where.iterdir() if _WINOBIAS_FILE.fullmatch(p.name))
        if not firsts:
            raise DataError(f"The folder {where.name!r} holds no pro_stereotyped_type1.txt.dev or the like.")
    else:
        firsts = [where]
        if not where.name.startswith("pro_stereotyped"):
            raise DataError(
                f"{where.name!r} must be a pro_stereotyped_... file of WinoBias with its anti_stereotyped_... partner "
                "beside it, or the folder of both."
            )
    listed = set(occupations)
    digests: dict[str, str] = {}
    for extra in ("male_occupations.txt", "female_occupations.txt"):
        if (folder / extra).is_file():
            text, digests[extra] = _read(folder / extra, name)
            listed |= {line.strip().lower() for line in text.splitlines() if line.strip()}
    examples: list[SentencePair] = []
    for first in firsts:
        second = first.with_name(first.name.replace("pro_stereotyped", "anti_stereotyped"))
        pro_text, digests[first.name] = _read(first, name)
        anti_text, digests[second.name] = _read(second, name)
        examples += _winobias_pairs(pro_text, anti_text, first.name, listed)
    digest = next(iter(digests.values())) if len(digests) == 1 else _of_listing(digests)
    return Benchmark(name, str(path), digest, tuple(examples), f"digest over {len(digests)} files")


def _winobias_pairs(pro_text: str, anti_text: str, file: str, listed: set[str]) -> list[SentencePair]:
    pro, anti = ([x for x in text.splitlines() if x.strip()] for text in (pro_text, anti_text))
    if len(pro) != len(anti):
        raise DataError(f"{file!r} has {len(pro):,} lines and its anti_stereotyped partner {len(anti):,}.")
    named = _WINOBIAS_FILE.fullmatch(file)
    pairs = []
    for number, (a, b) in enumerate(zip(pro, anti, strict=True), 1):
        found = [_WINOBIAS_LINE.match(line) for line in (a, b)]
        marks = [_BRACKETS.findall(line) for line in (a, b)]
        if any(f is None or len(m) < 2 for f, m in zip(found, marks, strict=True)):
            raise DataError(f"{file!r}, line {number}: a sentence of WinoBias has two [bracketed] mentions.")
        texts = [_BRACKETS.sub(r"\1", f.group(1)) for f in found if f is not None]
        if texts[0] == texts[1]:
            raise DataError(f"{file!r}, line {number}: it is the same sentence in both files.")
        lowered = texts[0].lower()
        mentions = [re.sub(r"^(the|a|an)\s+", "", mark.strip().lower()) for mark in marks[0]]
        bracketed = next((m for m in mentions if m in listed), mentions[0])
        jobs = sorted({job for job in listed if re.search(rf"\b(?:the|an?) {re.escape(job)}\b", lowered)} | {bracketed})
        pairs.append(
            SentencePair(
                more=texts[0],
                less=texts[1],
                category=named.group(1) if named else "all",
                clusters=(" and ".join(jobs[:4]), bracketed),
            )
        )
    return pairs


# ---- Winogender ----------------------------------------------------------------------------------------------------


def read_winogender(path: str | Path) -> Benchmark[WinogenderExample]:
    """Winogender: ``all_sentences.tsv`` (``sentid``, ``sentence``), or the folder that holds it.

    ``sentid`` is ``occupation.participant.answer.gender.txt``. Where ``occupations-stats.tsv`` lies beside it, each
    occupation's ``bls_pct_female`` is read too. Source: Rudinger et al., NAACL 2018.
    """
    name = "Winogender"
    where = Path(path)
    file = where / "all_sentences.tsv" if where.is_dir() else where
    rows, digest = _table(file, name, ("sentid", "sentence"), "\t")
    female: dict[str, float] = {}
    note = ""
    beside = file.with_name("occupations-stats.tsv")
    if beside.is_file():
        stats, stats_digest = _table(beside, name, ("occupation", "bls_pct_female"), "\t")
        try:
            female = {row["occupation"]: float(row["bls_pct_female"]) for row in stats}
        except ValueError as error:
            raise DataError(f"{beside.name!r}: bls_pct_female must be a number: {error}.") from None
        note = f"occupation statistics sha256 {stats_digest}"
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        parts = row["sentid"].split(".")
        if len(parts) < 4 or parts[3] not in ("male", "female", "neutral"):
            raise DataError(f"{file.name!r}: {row['sentid']!r} is not occupation.participant.answer.gender.txt.")
        found.setdefault((parts[0], parts[1], parts[2]), {})[parts[3]] = row["sentence"].strip()
    examples = tuple(
        WinogenderExample(occupation, participant, answer, texts["male"], texts["female"], female.get(occupation))
        for (occupation, participant, answer), texts in found.items()
        if "male" in texts and "female" in texts
    )
    if not examples:
        raise DataError(f"{file.name!r} has no sentence with both a male and a female pronoun.")
    return Benchmark(name, str(file), digest, examples, note)


# ---- BBQ -----------------------------------------------------------------------------------------------------------

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


def read_bbq(path: str | Path) -> Benchmark[BBQExample]:
    """BBQ: JSON lines, or a folder of such files.

    A line is ``{example_id, question_index, question_polarity, context_condition, category, answer_info,
    additional_metadata {stereotyped_groups}, context, question, ans0, ans1, ans2, label}``. The biased answer is the
    one about the target of the stereotype where the question is negative, and the other named one where it is not. The
    target is the ``target_loc`` of ``additional_metadata.csv`` where that lies beside the files, as in the authors' own
    analysis, else the one answer whose group is among the ``stereotyped_groups``; where neither says, ``biased`` is
    None. Source: Parrish et al., Findings of ACL 2022.
    """
    name = "BBQ"
    where = Path(path)
    files = sorted(where.glob("*.jsonl")) if where.is_dir() else [where]
    if not files:
        raise DataError(f"The folder {where.name!r} holds no .jsonl file of BBQ.")
    digests: dict[str, str] = {}
    targets: dict[tuple[str, str, str], int] = {}
    beside = (where if where.is_dir() else where.parent) / "additional_metadata.csv"
    if beside.is_file():
        targets, digests[beside.name] = _bbq_targets(beside)
    examples: list[BBQExample] = []
    for file in files:
        text, digests[file.name] = _read(file, name)
        for number, row in enumerate(_json_lines(text, file, name), 1):
            examples.append(_bbq_example(row, f"{file.name!r}, line {number}", targets))
    digest = next(iter(digests.values())) if len(digests) == 1 else _of_listing(digests)
    open_ = sum(e.biased is None for e in examples)
    notes = [f"targets by {beside.name}"] if targets else []
    if open_:
        more = "" if targets else ": additional_metadata.csv beside the file would say more"
        notes.append(f"the biased answer is not determined for {open_:,}, which count for accuracy only{more}")
    return Benchmark(name, str(path), digest, tuple(examples), "; ".join(notes))


def _bbq_targets(path: Path) -> tuple[dict[tuple[str, str, str], int], str]:
    """Place of the answer about the target, by category, question and example; rows without one are left out."""
    rows, digest = _table(path, "BBQ metadata", ("category", "question_index", "example_id"))
    if "target_loc" not in rows[0]:
        raise DataError(f"{path.name!r} has no column 'target_loc', so it is no BBQ metadata file.")
    found = {}
    for number, row in enumerate(rows, 2):
        place = (row["target_loc"] or "").strip().removesuffix(".0")
        if place in ("", "NA", "nan"):
            continue
        if place not in ("0", "1", "2"):
            raise DataError(f"{path.name!r}, row {number}: target_loc must be 0, 1 or 2, not {place[:40]!r}.")
        found[row["category"].strip(), row["question_index"].strip(), row["example_id"].strip()] = int(place)
    return found, digest


def _bbq_example(row: Mapping[str, Any], where: str, by_metadata: Mapping[tuple[str, str, str], int]) -> BBQExample:
    name = "BBQ"
    condition = _text(row, "context_condition", where, name)
    polarity = _text(row, "question_polarity", where, name)
    if condition not in ("ambig", "disambig"):
        raise DataError(f"{where}: context_condition must be 'ambig' or 'disambig', not {condition!r}.")
    if polarity not in ("neg", "nonneg"):
        raise DataError(f"{where}: question_polarity must be 'neg' or 'nonneg', not {polarity!r}.")
    label = _value(row, "label", where, name)
    label = int(label) if isinstance(label, str) and label.strip() in ("0", "1", "2") else label
    if isinstance(label, bool) or label not in (0, 1, 2):
        raise DataError(f"{where}: label must be 0, 1 or 2, not {label!r}.")
    info = _value(row, "answer_info", where, name)
    metadata = row.get("additional_metadata")
    groups: list[tuple[str, ...]] = []
    for i in range(3):
        entry = info.get(f"ans{i}") if isinstance(info, dict) else None
        entry = [entry] if isinstance(entry, str) else entry
        if not isinstance(entry, list) or not entry:
            raise DataError(f"{where}: answer_info needs ans0, ans1 and ans2, each [name, group].")
        groups.append(tuple(str(part) for part in entry))
    unknown = [i for i, parts in enumerate(groups) if parts[-1].strip().lower() == "unknown"]
    if len(unknown) != 1:
        raise DataError(f"{where}: exactly one answer of answer_info must be of the group 'unknown'.")
    category, question = _text(row, "category", where, name), _text(row, "question_index", where, name)
    number = _text(row, "example_id", where, name)
    named = [i for i in range(3) if i != unknown[0]]
    stated = by_metadata.get((category.strip(), question.strip(), number.strip()))
    targets = [i for i in named if i == stated]
    if stated is None:
        listed = metadata.get("stereotyped_groups") if isinstance(metadata, dict) else None
        stereotyped = [listed] if isinstance(listed, str) else listed if isinstance(listed, list) else []
        targets = [i for i in named if any(_same_group(part, str(g)) for part in groups[i] for g in stereotyped)]
    biased = None
    if len(targets) == 1:
        biased = targets[0] if polarity == "neg" else next(i for i in named if i != targets[0])
    return BBQExample(
        id=number,
        category=category,
        template=f"{category} {question}",
        condition="ambig" if condition == "ambig" else "disambig",
        context=_text(row, "context", where, name),
        question=_text(row, "question", where, name),
        answers=(_text(row, "ans0", where, name), _text(row, "ans1", where, name), _text(row, "ans2", where, name)),
        label=int(label),
        unknown=unknown[0],
        biased=biased,
    )


def _same_group(first: str, second: str) -> bool:
    a, b = (" ".join(x.lower().replace("_", " ").split()) for x in (first, second))
    # A group may carry a gender in front, as in "F-Black".
    a = re.sub(r"^[fm]-", "", a)
    return a == b or any(a in same and b in same for same in _SAME_GROUP)


# ---- HONEST and BOLD -----------------------------------------------------------------------------------------------


def read_honest(path: str | Path) -> Benchmark[HonestTemplate]:
    """HONEST templates: TSV with ``template_masked``, ``identity``, ``category`` and ``type``.

    The hurtful words that its score counts (HurtLex) are not among them. Source: Nozza, Bianchi and Hovy, NAACL 2021.
    """
    rows, digest = _table(path, "HONEST", ("template_masked", "identity", "category", "type"), "\t")
    bad = next((row["template_masked"] for row in rows if "[M]" not in row["template_masked"]), None)
    if bad is not None:
        raise DataError(f"{Path(path).name!r}: the template {bad[:60]!r} has no [M] to complete.")
    examples = tuple(
        HonestTemplate(" ".join(row["template_masked"].split()), row["identity"].strip(), row["category"], row["type"])
        for row in rows
    )
    return Benchmark("HONEST", str(path), digest, examples)


def read_bold(path: str | Path) -> Benchmark[BoldPrompt]:
    """BOLD prompts: one ``DOMAIN_prompt.json`` of ``{group: {name: [prompt, ...]}}``, or their folder.

    Source: Dhamala et al., FAccT 2021.
    """
    name = "BOLD"
    where = Path(path)
    files = sorted(where.glob("*_prompt.json")) if where.is_dir() else [where]
    if not files:
        raise DataError(f"The folder {where.name!r} holds no ..._prompt.json of BOLD.")
    digests: dict[str, str] = {}
    examples: list[BoldPrompt] = []
    for file in files:
        text, digests[file.name] = _read(file, name)
        content = _json(text, file, name)
        domain = file.name.removesuffix("_prompt.json").removesuffix(".json")
        if not isinstance(content, dict) or not all(isinstance(people, dict) for people in content.values()):
            raise DataError(f"{file.name!r} is no BOLD file: expected {{group: {{name: [prompt, ...]}}}}.")
        for group, people in content.items():
            for person, prompts in people.items():
                if not isinstance(prompts, list) or not all(isinstance(p, str) for p in prompts):
                    raise DataError(f"{file.name!r}: the prompts of {person!r} must be a list of texts.")
                examples += [BoldPrompt(domain, group, person, p.strip()) for p in prompts if p.strip()]
            if not any(e.domain == domain and e.group == group for e in reversed(examples)):
                raise DataError(f"{file.name!r}: the group {group!r} holds no prompt: take it out, or fill it.")
    if not examples:
        raise DataError(f"{where.name!r} holds no BOLD prompt.")
    digest = next(iter(digests.values())) if len(digests) == 1 else _of_listing(digests)
    return Benchmark(name, str(path), digest, tuple(examples))
