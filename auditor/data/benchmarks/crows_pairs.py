"""CrowS-Pairs: two sentences each, one of them the more stereotypical."""

from __future__ import annotations

from pathlib import Path

from auditor.data.benchmarks.benchmark import Benchmark, SentencePair, read_table


def read_crows_pairs(path: str | Path) -> Benchmark[SentencePair]:
    """CrowS-Pairs: a table with ``sent_more``, ``sent_less``, ``stereo_antistereo`` and ``bias_type``.

    Commas are between the columns of the English file, tabs between those of its revision and of the French one.
    ``sent_more`` is the more stereotypical sentence of either direction. The cluster of a pair is its writer
    (``anon_writer``) where the column is there. A pair's id is what its first column holds, which has no name, else its
    number from 0, as the English file counts. Sources: Nangia et al., EMNLP 2020; Neveol et al., ACL 2022 (French).
    """
    columns = ("sent_more", "sent_less", "stereo_antistereo", "bias_type")
    rows, digest = read_table(path, "CrowS-Pairs", columns, "either")
    examples = tuple(
        SentencePair(
            more=row["sent_more"].strip(),
            less=row["sent_less"].strip(),
            category=row["bias_type"],
            clusters=(row["anon_writer"],) if row.get("anon_writer") else (),
            id=(row.get("") or "").strip() or str(number),
        )
        for number, row in enumerate(rows)
    )
    return Benchmark("CrowS-Pairs", str(path), digest, examples, templates="writers")
