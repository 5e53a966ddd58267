"""CrowS-Pairs: pairs of sentences, one of them more stereotypical than the other."""

from __future__ import annotations

from pathlib import Path

from auditor.data.benchmarks.benchmark import Benchmark, SentencePair, note_of_repeats, read_table, words_apart

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
