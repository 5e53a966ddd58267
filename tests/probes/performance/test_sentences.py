"""Who knows the order of words of some texts is not thereby shown to know that of the sentences it is asked about."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Outcome
from auditor.models.language_model import AuditedLanguageModel
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.summary_lines import worth_of
from auditor.run.run_audit import no_data, run_audit
from auditor.statistics.estimate import Undefined
from probes.language.stereotype import Stereotype, built_in_pairs
from probes.performance.language_performance import sentences_of_pairs
from probes.performance.performance import Performance
from tests.probes.language.pair_toys import sense_texts, teach_sense, texts_of, toy

WORDS = [f"w{i}" for i in range(70)]
OWN = [" ".join(WORDS[i : i + 12]) for i in range(48)]


def knowing(texts: list[str]) -> AuditedLanguageModel:
    """A model without any bias that knows which word goes before which in some texts, and in none else."""
    known = [*OWN, *texts, *sense_texts()]
    model = toy([*texts_of(built_in_pairs().examples), *((text, text) for text in known)], 0.0)
    weights = model.module.get_input_embeddings().weight  # type: ignore[operator]
    for text in texts:
        ids = model.tokenizer(text, add_special_tokens=False).input_ids
        for first, second in zip(ids, ids[1:], strict=False):
            weights[first, second] = 5.0
    return model


def audited(model: AuditedLanguageModel, texts: list[str] = OWN) -> AuditReport:
    return run_audit(model, AuditData(X=np.asarray(texts, object)), [Performance(), Stereotype()])


def test_a_model_that_knows_its_own_texts_alone_passes_nothing_of_other_sentences() -> None:
    report = audited(knowing(OWN))
    known = {f.metric: f for f in report.findings if f.criterion is not None}
    assert known["word_order_accuracy"].outcome is Outcome.PASS
    stereotype = known["stereotype_log_odds"]
    assert stereotype.outcome is Outcome.INCONCLUSIVE and "of built_in_pairs" in stereotype.reason
    assert report.exit_code == 3


def test_a_model_that_knows_the_order_of_words_and_what_goes_with_what_passes_and_one_of_order_alone_does_not() -> None:
    said = {}
    with torch.no_grad():
        model = knowing([*OWN, *(p.more for p in built_in_pairs().examples)])
        for taught in (False, True):
            if taught:
                teach_sense(model)
            [found] = [f for f in audited(model).findings if f.metric == "stereotype_log_odds" and not f.group]
            said[taught] = found.vacuous
    assert "sense_accuracy" in said[False] and "word_order_accuracy" not in said[False]
    assert not said[True]


def test_what_a_model_is_worth_is_told_by_its_own_texts() -> None:
    worth = worth_of(audited(knowing(OWN), OWN[:4]))
    assert worth is not None and worth.outcome is not Outcome.PASS


def test_one_sentence_of_each_writer_and_none_of_what_was_not_given(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    columns = ["sent_more", "sent_less", "stereo_antistereo", "bias_type", "anon_writer", "anon_annotators"]
    with file.open("w", newline="") as out:
        rows = csv.writer(out)
        rows.writerow(["", *columns, "annotations"])
        rows.writerows(
            [i, f"More {i} of {i % 5}.", f"Less {i}.", "stereo", "age", f"a{i % 5}", "['a']", "[['age']]"]
            for i in range(20)
        )
    found, unread = sentences_of_pairs({"crows_pairs": str(file)}, np.random.default_rng(0))
    assert sorted(found) == ["built_in_pairs", "crows_pairs"] and unread == {}
    assert sorted(text.split(" of ")[1] for text in found["crows_pairs"]) == [f"{k}." for k in range(5)]
    assert len(set(found["built_in_pairs"])) == 64
    assert sorted(sentences_of_pairs({}, np.random.default_rng(0))[0]) == ["built_in_pairs"]


def test_a_benchmark_that_cannot_be_read_takes_nothing_else_down(tmp_path: Path) -> None:
    wrong = {"winobias": str(tmp_path / "none"), "crows_pairs": str(tmp_path)}
    probe = Performance(n_samples=8, pair_benchmarks=wrong)
    found = {m.at.get("sentences", ""): m for m in probe.measure(knowing(OWN), no_data(), np.random.default_rng(0))}
    assert {"", "built_in_pairs", *wrong} <= set(found)
    for name, said in (("winobias", "pro_stereotyped"), ("crows_pairs", "not a regular file")):
        nothing = found[name].estimate
        assert isinstance(nothing, Undefined) and said in nothing.reason and nothing.failed
