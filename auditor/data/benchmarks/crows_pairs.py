"""CrowS-Pairs: two sentences each, one of them the more stereotypical."""

from __future__ import annotations

from pathlib import Path

from auditor.data.benchmarks.benchmark import Benchmark, SentencePair, read_table


def read_crows_pairs(path: str | Path) -> Benchmark[SentencePair]:
    """CrowS-Pairs: CSV with ``sent_more``, ``sent_less``, ``stereo_antistereo`` and ``bias_type``.

    ``sent_more`` is the more stereotypical sentence of either direction. The cluster of a pair is its writer
    (``anon_writer``) where the column is there. Source: Nangia et al., EMNLP 2020.
    """
    rows, digest = read_table(path, "CrowS-Pairs", ("sent_more", "sent_less", "stereo_antistereo", "bias_type"))
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
