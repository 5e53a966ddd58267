"""Winogender: sentences about an occupation, with a male and with a female pronoun."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from auditor.core.errors import BenchmarkError
from auditor.data.benchmarks.benchmark import Benchmark, read_table


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
