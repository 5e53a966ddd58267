"""Files beside a benchmark's own: companion files that its reader opens, and a user's list of excluded items."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from auditor.core.errors import BenchmarkError
from auditor.data.benchmarks.bbq_and_veto_files import bbq_companions
from auditor.data.benchmarks.benchmark import (
    Benchmark,
    SentencePair,
    digest_of,
    note_of_repeats,
    read_table,
    read_text,
    words_apart,
)

_WINOBIAS_FILE = re.compile(r"pro_stereotyped_(type\d)\.txt\.(\w+)")
_WINOBIAS_LINE = re.compile(r"^\s*(?:\d+\s+)?(.+?)\s*$")
_BRACKETS = re.compile(r"\[([^\[\]]+)\]")


def winobias_companions(pro: Path) -> tuple[Path, ...]:
    """Companion files of pro-stereotyped sentences: the partner file, and the lists of occupations."""
    partner = pro.name.replace("pro_stereotyped", "anti_stereotyped")
    return tuple(pro.with_name(name) for name in (partner, "male_occupations.txt", "female_occupations.txt"))


def read_winobias(path: str | Path, occupations: Iterable[str] = ()) -> Benchmark[SentencePair]:
    """WinoBias: a ``pro_stereotyped_...`` file with its ``anti_stereotyped_...`` partner beside it, or their folder.

    Line i of both is one sentence that differs in its pronoun; ``more`` is the pro-stereotyped one, and ``mentions``
    are the pronouns. A pair's clusters are the occupations it is about and, of these, the one in brackets with the
    pronoun. The occupations are those of ``male_occupations.txt`` and ``female_occupations.txt`` where these lie beside
    the sentences, and ``occupations``.
    Source: Zhao et al., NAACL 2018.
    """
    name = "WinoBias"
    where = Path(path)
    if where.is_dir():
        firsts = sorted(p for p in where.iterdir() if _WINOBIAS_FILE.fullmatch(p.name))
        if not firsts:
            raise BenchmarkError(f"The folder {where.name!r} holds no pro_stereotyped_type1.txt.dev or the like.")
    else:
        firsts = [where]
        if not where.name.startswith("pro_stereotyped"):
            raise BenchmarkError(
                f"{where.name!r} must be a pro_stereotyped_... file of WinoBias with its anti_stereotyped_... partner "
                "beside it, or the folder of both."
            )
    listed = set(occupations)
    digests: dict[str, str] = {}
    for extra in winobias_companions(firsts[0])[1:]:
        if extra.is_file():
            text, digests[extra.name] = read_text(extra, name)
            listed |= {line.strip().lower() for line in text.splitlines() if line.strip()}
    examples: list[SentencePair] = []
    for first in firsts:
        second = winobias_companions(first)[0]
        pro_text, digests[first.name] = read_text(first, name)
        anti_text, digests[second.name] = read_text(second, name)
        examples += _winobias_pairs(pro_text, anti_text, first.name, listed)
    digest = digest_of(digests)
    note = "; ".join(filter(None, (f"digest over {len(digests)} files", note_of_repeats(examples, where.name))))
    return Benchmark(name, str(path), digest, tuple(examples), note, templates="occupations")


def _winobias_pairs(pro_text: str, anti_text: str, file: str, listed: set[str]) -> list[SentencePair]:
    pro, anti = ([x for x in text.splitlines() if x.strip()] for text in (pro_text, anti_text))
    if len(pro) != len(anti):
        raise BenchmarkError(f"{file!r} has {len(pro):,} lines and its anti_stereotyped partner {len(anti):,}.")
    named = _WINOBIAS_FILE.fullmatch(file)
    pairs = []
    for number, (a, b) in enumerate(zip(pro, anti, strict=True), 1):
        found = [_WINOBIAS_LINE.match(line) for line in (a, b)]
        marks = [_BRACKETS.findall(line) for line in (a, b)]
        if any(f is None or len(m) < 2 for f, m in zip(found, marks, strict=True)):
            raise BenchmarkError(f"{file!r}, line {number}: a sentence of WinoBias has two [bracketed] mentions.")
        texts = [_BRACKETS.sub(r"\1", f.group(1)) for f in found if f is not None]
        if texts[0] == texts[1]:
            raise BenchmarkError(f"{file!r}, line {number}: it is the same sentence in both files.")
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
                mentions=words_apart(*texts),
            )
        )
    return pairs


@dataclass(frozen=True)
class WinogenderExample:
    """One sentence about an occupation with a male and with a female pronoun; ``percent_female`` of the occupation by
    the US Bureau of Labor Statistics, if the statistics file is beside the sentences."""

    occupation: str
    participant: str
    answer: str
    male: str
    female: str
    percent_female: float | None


def winogender_companions(sentences: Path) -> tuple[Path, ...]:
    """Companion files of the sentences: the statistics of their occupations."""
    return (sentences.with_name("occupations-stats.tsv"),)


def read_winogender(path: str | Path) -> Benchmark[WinogenderExample]:
    """Winogender: ``all_sentences.tsv`` (``sentid``, ``sentence``), or its folder.

    ``sentid`` is ``occupation.participant.answer.gender.txt``. Where ``occupations-stats.tsv`` lies beside it, each
    occupation's ``bls_pct_female`` is read too. Source: Rudinger et al., NAACL 2018.
    """
    name = "Winogender"
    where = Path(path)
    file = where / "all_sentences.tsv" if where.is_dir() else where
    rows, digest = read_table(file, name, ("sentid", "sentence"), "\t")
    female: dict[str, float] = {}
    note = ""
    (beside,) = winogender_companions(file)
    if beside.is_file():
        stats, stats_digest = read_table(beside, name, ("occupation", "bls_pct_female"), "\t")
        try:
            female = {row["occupation"]: float(row["bls_pct_female"]) for row in stats}
        except ValueError as error:
            raise BenchmarkError(f"{beside.name!r}: bls_pct_female must be a number: {error}.") from None
        note = f"occupation statistics sha256 {stats_digest}"
    found: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        parts = row["sentid"].split(".")
        if len(parts) < 4 or parts[3] not in ("male", "female", "neutral"):
            raise BenchmarkError(f"{file.name!r}: {row['sentid']!r} is not occupation.participant.answer.gender.txt.")
        found.setdefault((parts[0], parts[1], parts[2]), {})[parts[3]] = row["sentence"].strip()
    examples = tuple(
        WinogenderExample(occupation, participant, answer, texts["male"], texts["female"], female.get(occupation))
        for (occupation, participant, answer), texts in found.items()
        if "male" in texts and "female" in texts
    )
    if not examples:
        raise BenchmarkError(f"{file.name!r} has no sentence with both a male and a female pronoun.")
    return Benchmark(name, str(file), digest, examples, note)


_COMPANIONS: Mapping[str, Callable[[Path], tuple[Path, ...]]] = {
    "bbq": bbq_companions,
    "winobias": winobias_companions,
    "winogender": winogender_companions,
}


def companion_files(benchmark: str, path: Path) -> tuple[Path, ...]:
    """Files that a benchmark's reader opens beside its file, existing or not; none for a folder."""
    companions = _COMPANIONS.get(benchmark)
    return () if companions is None or path.is_dir() else companions(path)


class Item(Protocol):
    """An item with an id in its file."""

    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=Item)
_MOST_REASONS, _LONGEST = 6, 60


def exclude_items(benchmark: Benchmark[T], path: str | Path | None) -> Benchmark[T]:
    """The benchmark without the items listed in a file (id, tab, reason per line); unchanged for None.

    Lines that begin with # say nothing. Which reasons there are, and how often, is in the note. Raises BenchmarkError
    for a list that is empty, names an id twice or one that the benchmark does not have, or leaves out everything.
    """
    if path is None:
        return benchmark
    text, digest = read_text(path, "list of items to leave out")
    file = Path(path).name
    reasons: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        own, _, reason = line.strip().partition("\t")
        if not own or own.startswith("#"):
            continue
        if own in reasons:
            raise BenchmarkError(f"{file!r}, line {number}: {own[:40]!r} is listed twice.")
        reasons[own] = " ".join(reason.split())
    ids = Counter(example.id for example in benchmark.examples)
    for own in reasons:
        if ids[own] != 1:
            what = "no item" if not ids[own] else f"{ids[own]:,} items"
            raise BenchmarkError(f"{file!r}: {benchmark.name} has {what} with the id {own[:40]!r}.")
    if not reasons:
        raise BenchmarkError(f"{file!r} lists no item: leave --benchmark-filter out, or list an id a line.")
    if len(reasons) == len(benchmark.examples):
        raise BenchmarkError(f"{file!r} leaves out all {len(reasons):,} items of {benchmark.name}.")
    counted = Counter(reason for reason in reasons.values() if reason).most_common()
    told = [f"{reason[:_LONGEST]} {n:,}" for reason, n in counted[:_MOST_REASONS]]
    if len(counted) > _MOST_REASONS:
        told.append(f"{len(counted) - _MOST_REASONS:,} more reasons")
    why = f" ({', '.join(told)})" if told else ", without a reason"
    more = f"{len(reasons):,} left out by {file}, sha256 {digest}{why}"
    return replace(
        benchmark,
        examples=tuple(e for e in benchmark.examples if e.id not in reasons),
        left_out=tuple(e for e in benchmark.examples if e.id in reasons),
        note="; ".join(filter(None, (benchmark.note, more))),
    )
