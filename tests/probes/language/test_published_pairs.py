"""CrowS-Pairs, WinoBias and Winogender find what is planted, and pass what is fair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from auditor.core.rows import FloatArray
from auditor.judging.measurement import Outcome
from auditor.models.language_model import AuditedLanguageModel
from auditor.run.run_audit import no_data, run_audit
from auditor.statistics.clusters import ClusteredMean
from probes.language.crows_pairs_and_stereoset import CrowsPairs
from probes.language.stereotype import built_in_pairs
from probes.language.winobias_winogender import WinoBias, Winogender
from tests.probes.language.pair_toys import RNG, Associations, crows_file, outcome, split, texts_of, toy, undecided_toy


@pytest.mark.grid
@pytest.mark.parametrize("writer", [True, False])
def test_crows_pairs_fails_and_passes_too(tmp_path: Path, writer: bool) -> None:
    pairs = built_in_pairs().examples
    probe = CrowsPairs(benchmarks={"crows_pairs": crows_file(tmp_path, pairs, writer=writer)})
    for strength, expected in ((0.0, "PASS" if writer else "INCONCLUSIVE"), (1.0, "FAIL")):
        found = probe.measure(toy(texts_of(pairs), strength), no_data(), RNG)
        shares = [m for m in found if not m.group]
        assert [m.metric for m in shares] == ["conditional_stereotype_score", "stereotype_score"]
        assert "Blodgett et al., ACL 2021" in shares[0].detail
        for share in shares:
            assert outcome(replace(share, metric="stereotype_score")) == expected
            assert isinstance(share.estimate, ClusteredMean) and ("add one" in share.weak) is not writer


@pytest.mark.parametrize("writer", [True, False])
def test_a_mirrored_file_shows_nothing_and_is_named(tmp_path: Path, writer: bool) -> None:
    """Each pair beside its copy with the two sentences exchanged: whatever a model prefers, it is one half."""
    pairs = built_in_pairs().examples[::5]
    both = [*pairs, *(replace(pair, more=pair.less, less=pair.more) for pair in pairs)]
    file = crows_file(tmp_path, both, writer=writer)
    report = run_audit(toy(texts_of(pairs), 1.0), None, [CrowsPairs(benchmarks={"crows_pairs": file})])
    assert [f.outcome for f in report.findings] == [Outcome.NOT_RUN] and report.exit_code == 3
    assert f"{len(pairs):,} of {len(both):,} pairs stand there before with" in report.findings[0].reason


def test_taking_the_writers_away_narrows_no_interval(tmp_path: Path) -> None:
    """What names no writers is clustered by its words, and not taken pair by pair."""
    pairs = [replace(pair, id=str(i)) for i, pair in enumerate(built_in_pairs().examples)]
    model, widths = toy(texts_of(pairs), 0.0), {}
    for writer in (True, False):
        probe = CrowsPairs(benchmarks={"crows_pairs": crows_file(tmp_path, pairs, writer=writer)})
        share = next(m for m in probe.measure(model, no_data(), RNG) if not m.group)
        low, high = share.estimate.interval(0.95)
        widths[writer] = high - low
        assert ("exchanged words" in share.detail, "writers" in share.detail) == (not writer, writer)
    assert widths[False] > widths[True]


def test_items_that_a_list_leaves_out_of_crows_pairs_are_told_and_scored_beside(tmp_path: Path) -> None:
    """A list of the pairs in which the stereotype wins makes a biased model look fair, and the score of all says so."""
    pairs = built_in_pairs().examples
    biased = toy(texts_of(pairs), 1.0)
    files = {"crows_pairs": crows_file(tmp_path, pairs, writer=False)}
    plain = {m.metric: m for m in CrowsPairs(benchmarks=files).measure(biased, no_data(), RNG) if not m.group}
    _, rest = biased.pair_scores_and_rest([(p.more, p.less) for p in pairs], [""] * len(pairs))
    wins = np.flatnonzero(rest[:, 0] > rest[:, 1])
    (tmp_path / "list.tsv").write_text("".join(f"{i}\tno stereotype\n" for i in wins.tolist()))
    probe = CrowsPairs(benchmarks=files, benchmark_filter=str(tmp_path / "list.tsv"))
    found = {m.metric: m for m in probe.measure(biased, no_data(), RNG) if not m.group}
    kept = found["conditional_stereotype_score"]
    assert kept.n_samples == len(pairs) - len(wins) and kept.estimate.value < 0.1
    whole = found["unfiltered_stereotype_score"]
    assert whole.n_samples == len(pairs) and outcome(replace(whole, metric="stereotype_score")) is Outcome.FAIL
    assert whole.estimate.value == pytest.approx(plain["conditional_stereotype_score"].estimate.value)
    assert f"{len(wins):,} left out by list.tsv, sha256 " in kept.detail and "is that list's word" in kept.detail
    assert "unfiltered_stereotype_score is over all 1,280." in kept.detail
    assert "Many items do not state" in plain["conditional_stereotype_score"].detail
    assert "unfiltered_stereotype_score" not in plain
    again = CrowsPairs(benchmarks=files, benchmark_filter=str(tmp_path / "list.tsv"), reference=biased)
    moved = {m.metric for m in again.measure(biased, no_data(), RNG)}
    assert {"stereotype_score_shift", "conditional_stereotype_score_shift"} <= moved


# So many that one more job, which was not seen and whose pronoun is always the same, could not move a share by 0.05.
JOBS = 120


def test_winogender_and_winobias_fail_and_pass(tmp_path: Path) -> None:
    lines, stats, pro, anti = ["sentid\tsentence"], ["occupation\tbls_pct_female"], [], []
    pairs = []
    for i in range(JOBS):
        job, other, female = f"job{i}", f"job{(i * 7 + 1) % JOBS}", i % 2 == 0
        stats.append(f"{job}\t{90 if female else 10}")
        for k in range(12):
            he, she = (f"The {job} said {w} saw number{k} ." for w in ("he", "she"))
            lines += [f"{job}.p{k}.1.male.txt\t{he}", f"{job}.p{k}.1.female.txt\t{she}"]
            first, second = ("she", "he") if female else ("he", "she")
            line = f"[The {job}] met the {other} because [{{}}] saw number{k} ."
            pro.append(line.format(first)), anti.append(line.format(second))
            pairs.append((she, he) if female else (he, she))
            pairs.append(tuple(x[-1].replace("[", "").replace("]", "") for x in (pro, anti)))
    (tmp_path / "all_sentences.tsv").write_text("\n".join(lines))
    (tmp_path / "occupations-stats.tsv").write_text("\n".join(stats))
    (tmp_path / "pro_stereotyped_type1.txt.dev").write_text("\n".join(pro))
    (tmp_path / "anti_stereotyped_type1.txt.dev").write_text("\n".join(anti))
    (tmp_path / "male_occupations.txt").write_text("\n".join(f"job{i}" for i in range(JOBS)))
    files = {"winogender": str(tmp_path), "winobias": str(tmp_path)}
    undecided = undecided_toy([text for pair in pairs for text in pair])
    of = undecided.tokenizer.convert_tokens_to_ids
    table = torch.zeros(len(undecided.tokenizer), len(undecided.tokenizer))
    for k in range(12):
        # Each number goes with one of the pronouns, whatever the job.
        table[of("he"), of(f"number{k}")] = (-1.0) ** k
    fair = AuditedLanguageModel(Associations(table), undecided.tokenizer, objective="causal")
    for probe, expected in ((Winogender(benchmarks=files), 3 + JOBS), (WinoBias(benchmarks=files), 3)):
        found = probe.measure(fair, no_data(), RNG)
        assert len(found) == expected
        assert [outcome(m) for m in found if m.metric == "stereotype_score" and not m.group] == [Outcome.PASS]
        # Which number goes with which pronoun is the same for every job.
        assert [m.estimate.value for m in found if m.metric == "stereotype_log_odds"] == [pytest.approx(0.0, abs=1e-6)]
    by_pronoun = PronounFollowsJob(fair)
    found = Winogender(benchmarks=files).measure(by_pronoun, no_data(), RNG)
    assert [m.estimate.value for m in found[:2]] == [0.5, 1.0]
    assert outcome(found[1]) is Outcome.FAIL
    assert {m.estimate.value for m in found[3:]} == {0.0, 1.0}
    assert (found[2].metric, found[2].estimate.value) == ("stereotype_log_odds", 1.0)
    found = WinoBias(benchmarks=files).measure(by_pronoun, no_data(), RNG)
    assert (found[0].metric, found[0].estimate.value) == ("stereotype_log_odds", 1.0)
    assert (found[2].estimate.value, outcome(found[2])) == (1.0, Outcome.FAIL)


class PronounFollowsJob(AuditedLanguageModel):
    """Expects "she" of jobs with an even number and "he" of the others."""

    def __init__(self, other: AuditedLanguageModel) -> None:
        super().__init__(other.module, other.tokenizer, objective="causal")

    def pair_scores(self, pairs: Sequence[tuple[str, str]], **options: object) -> FloatArray:
        def score(text: str) -> float:
            words = split(text)
            return float(("she" in words) == (int(words[1].removeprefix("job")) % 2 == 0))

        return np.asarray([[score(a), score(b)] for a, b in pairs])

    def pair_scores_and_rest(
        self, pairs: Sequence[tuple[str, str]], rests: Sequence[str], **options: object
    ) -> tuple[FloatArray, FloatArray]:
        return self.pair_scores(pairs), self.pair_scores(pairs)
