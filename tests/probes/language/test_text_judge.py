"""A judge of generated texts: asked yes or no, never believed without a person's labels, and known from the model."""

from __future__ import annotations

import csv
import json
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer
from typer.testing import CliRunner

from auditor.core.errors import ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.data.audit_data_parts import Recorded
from auditor.evidence.container import unpack
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.models.endpoint.api_messages import Answer, Choice, Request
from auditor.models.endpoint.client import Outcome as Asked
from auditor.models.endpoint.endpoint_model import EndpointModel, endpoint_model, judge_at_hand
from auditor.models.recorded_model import RecordedWriter
from auditor.run.run_audit import no_data
from cli.commands import app
from cli.scan_request import configure
from probes.language.generated_text import GeneratedText
from probes.language.refusal_parity import RefusalParity
from probes.language.text_scorers import read_answer
from tests.evidence.test_evidence import repacked
from tests.models.endpoint.reference import shown
from tests.models.endpoint.stub import NAME, Stub, served
from tests.probes.language.talkers import criterion, goodness, probe_of, talker
from tests.quantifiers import all_of, none_of
from tests.toys.byte_llama import save_byte_llama
from tests.toys.folders import save_bert

# What a judge says of a text, by a number of the text in [0, 1).
Says = Callable[[str, float], str]


def text_of(request: Request | str) -> str:
    asked = request if isinstance(request, str) else request.prompt[-1].content  # type: ignore[union-attr]
    return asked.partition("Text:\n")[2].partition("\n\nAnswer with yes or no")[0]


def chance(text: str) -> float:
    return zlib.crc32(text.encode()) / 2**32


def honest(text: str, u: float) -> str:
    return "Yes." if ("bad" in text) == (u < 0.99) else "No"


def misses_women(text: str, u: float) -> str:
    """Ten points less sensitive where a woman is written about."""
    return "yes" if "bad" in text and u < (0.8 if "woman" in text else 0.9) else "no"


def judge_of(says: Says) -> EndpointModel:
    def ask(requests: Sequence[Request]) -> list[Asked]:
        texts = [text_of(each) for each in requests]
        return [Asked(answer=Answer(NAME, (Choice(says(text, chance(text)), "stop"),))) for text in texts]

    return endpoint_model(shown(), ask)


def written(share: dict[str, float], n: int) -> tuple[RecordedWriter, AuditData]:
    texts = [
        f"A {who} was {'bad' if i < share[who] * n else 'good'}, it says in text {i}."
        for who in share
        for i in range(n)
    ]
    groups = pd.DataFrame({"about": [who for who in share for _ in range(n)]}, dtype="category")
    recorded = Recorded(texts=np.asarray(texts, object))
    rows = AuditData(X=np.zeros((len(texts), 0)), y_true=None, sensitive_features=groups, recorded=recorded)
    return RecordedWriter(), rows


def labelled(path: Path, n: int, *, groups: bool = True) -> str:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "group"][: 3 if groups else 2])
        for who in ("man", "woman"):
            for i in range(n):
                for word, label in (("bad", 1), ("good", 0)):
                    rows.writerow([f"Of a {who} I heard {word} number {i}.", label, who][: 3 if groups else 2])
    return str(path)


def findings(found: list[Measurement], metric: str, bound: float = 0.2) -> list[Judgement]:
    result = ProbeResult(probe="generated_text", pillar="language", citation="", measurements=tuple(found))
    judged = judge([result], [criterion(metric, bound)])[0]
    return [f for f in judged if f.measurement is not None and f.measurement.metric == metric and f.criterion]


def measured(says: Says, share: dict[str, float], n: int, calibration: str | None) -> list[Measurement]:
    probe = GeneratedText(text_judge=judge_of(says), calibration=calibration)
    return probe.measure(*written(share, n), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Yes.", "yes"), ("**no**", "no"), ("The answer is: NO", "no"), ("yes, yes", "yes"), ("yes or no", None),
        ("", None), ("maybe", None), ("nothing", None), ("Yes, there is no doubt", None),
    ],
)  # fmt: skip
def test_a_reply_that_says_both_or_neither_is_none(reply: str, answer: str | None) -> None:
    assert read_answer(reply) == answer


def test_a_judge_without_a_calibration_is_shown_and_not_judged() -> None:
    found = measured(honest, {"man": 0.3, "woman": 0.3}, 60, None)
    (gap,) = findings(found, "worst_text_score_gap")
    assert gap.outcome is Outcome.INCONCLUSIVE and "A judge whose errors nobody measured" in gap.reason
    (rate,) = [m for m in found if m.metric == "flagged_rate" and not m.group]
    assert "A judge whose errors nobody measured" in rate.too_few and "--calibration FILE" in rate.too_few
    assert "flagged by the judge's yes (toy at http://127.0.0.1/v1, asked 'Is this text negative" in rate.detail
    assert none_of(m.metric.startswith("corrected") for m in found)


def test_an_honest_judge_is_judged_by_the_corrected_gap_alone(tmp_path: Path) -> None:
    calibration = labelled(tmp_path / "c.csv", 500)
    for share, outcome in ((0.3, Outcome.PASS), (0.75, Outcome.FAIL)):
        found = measured(honest, {"man": 0.3, "woman": share}, 1_000, calibration)
        (gap,) = findings(found, "corrected_rate_gap")
        assert gap.outcome is outcome, gap
        low, high = gap.measurement.estimate.interval(0.95)  # type: ignore[union-attr]
        assert low <= share - 0.3 <= high
        (raw,) = findings(found, "worst_text_score_gap")
        assert raw.outcome is Outcome.INCONCLUSIVE and "corrected_rate_gap" in raw.reason


def test_a_judge_that_says_yes_to_all_passes_nothing(tmp_path: Path) -> None:
    for says in (lambda text, u: "yes", lambda text, u: "I would rather not say"):
        found = measured(says, {"man": 0.3, "woman": 0.3}, 300, labelled(tmp_path / "c.csv", 100))
        (gap,) = findings(found, "corrected_rate_gap")
        assert gap.outcome is Outcome.INCONCLUSIVE
        assert gap.measurement is not None and gap.measurement.estimate.interval(0.95) == (0.0, 1.0)
    (rate,) = [m for m in found if m.metric == "corrected_rate" and not m.group]
    # Each of the 600 texts, and of the 400 that a person labelled.
    assert "1,000 of 1,000 replies say neither, and count as no" in rate.detail


def test_a_judge_that_misses_more_of_one_group_is_named_by_the_calibration(tmp_path: Path) -> None:
    share = {"man": 0.5, "woman": 0.5}
    found = measured(misses_women, share, 1_000, labelled(tmp_path / "c.csv", 1_000))
    (gap,) = findings(found, "corrected_rate_gap", 0.1)
    assert gap.outcome is not Outcome.FAIL
    detail = gap.measurement.detail  # type: ignore[union-attr]
    assert re.search(r"sensitivity highest man 0\.9\d*, lowest woman 0\.(79|8)", detail), detail
    # One rate of errors for all would make a gap of nothing, so that it is not judged.
    found = measured(misses_women, share, 100, labelled(tmp_path / "d.csv", 100, groups=False))
    (gap,) = findings(found, "corrected_rate_gap")
    assert gap.outcome is Outcome.INCONCLUSIVE and "no column group" in gap.reason


def test_the_audited_model_as_its_own_judge_passes_nothing(tmp_path: Path) -> None:
    """Self-preference: what the model says of its own texts cannot clear it; another judge's word is as ever."""
    outcomes = {}
    for name, own in (("own", "toy"), ("another", "another")):
        probe = probe_of(tmp_path, None, n_templates=30, text_judge=_reader_of_goodness())  # type: ignore[arg-type]
        audited = endpoint_model(shown(), _writes_good)
        audited.handshake = audited.handshake.__class__("http://127.0.0.1/v1", own, audited.handshake.capabilities, 0)
        found = probe.measure(audited, no_data(), np.random.default_rng(0))
        outcomes[name] = {m.weak for m in found if m.metric.startswith("corrected")}
    assert all_of("self-preference" in weak or "Nothing but the model's texts" in weak for weak in outcomes["own"])
    assert any("self-preference" in weak for weak in outcomes["own"])
    assert none_of("self-preference" in weak for weak in outcomes["another"])


def _reader_of_goodness() -> EndpointModel:
    return judge_of(lambda text, u: "yes" if "good" in text else "no")


def _writes_good(requests: Sequence[Request]) -> list[Asked]:
    return [Asked(answer=Answer(NAME, (Choice(" good.", "stop"),))) for _ in requests]


def test_a_classifier_may_judge_and_is_not_believed_either(tmp_path: Path) -> None:
    found = probe_of(tmp_path, None, text_judge=goodness()).measure(  # type: ignore[arg-type]
        talker("dog"), no_data(), np.random.default_rng(0)
    )
    raw = next(m for m in found if m.metric == "worst_score_gap")
    assert "corrected_rate_gap" in raw.too_few
    gap = next(m for m in found if m.metric == "corrected_rate_gap")
    assert not gap.too_few and gap.estimate.value == 1.0 and "a judge" in gap.detail


def test_refusals_are_judged_by_a_question_of_their_own() -> None:
    asked: list[str] = []

    def ask(requests: Sequence[Request]) -> list[Asked]:
        asked.extend(each.prompt[-1].content for each in requests)  # type: ignore[union-attr]
        return [Asked(answer=Answer(NAME, (Choice("no", "stop"),))) for _ in requests]

    def replies(requests: Sequence[Request]) -> list[Asked]:
        said = [f"I cannot say {i}" for i in range(len(requests))]
        return [Asked(answer=Answer("m", (Choice(text, "stop"),))) for text in said]

    probe = RefusalParity(categories="gender", n_requests=4, text_judge=endpoint_model(shown(), ask))
    other = GeneratedText(text_judge=probe.text_judge, judge_question="Is it rude?")
    other.measure(*written({"man": 0.5, "woman": 0.5}, 4), np.random.default_rng(0))
    assert asked and all_of(text.startswith("Is it rude?") for text in asked)
    asked.clear()
    found = probe.measure(endpoint_model(shown(), replies), no_data(), np.random.default_rng(0))
    assert asked and all_of(text.startswith("Does this reply refuse") and "I cannot say" in text for text in asked)
    (rate,) = [m for m in found if m.metric == "flagged_rate" and "identity" not in m.at]
    assert rate.estimate.value == 0.0 and "judge whose errors nobody measured" in rate.too_few


def test_a_verdict_that_did_not_come_is_no_verdict_and_a_judge_and_a_scorer_are_one_too_many() -> None:
    def fails(requests: Sequence[Request]) -> list[Asked]:
        return [Asked(failed="The server is on fire.", status=500) for _ in requests]

    rows = written({"man": 0.5, "woman": 0.5}, 4)
    with pytest.raises(ModelError, match=r"gave 8 of 8 texts no verdict, .* on fire\. Run the scan again"):
        GeneratedText(text_judge=endpoint_model(shown(), fails)).measure(*rows, np.random.default_rng(0))
    with pytest.raises(ModelError, match="The judge cannot be asked: .*whole_prompt"):
        GeneratedText(text_judge=endpoint_model(shown(whole_prompt="ignored"), fails)).measure(
            *rows, np.random.default_rng(0)
        )
    with pytest.raises(UsageError, match="leave --scorer or --judge out"):
        GeneratedText(scorer=goodness(), text_judge=goodness()).measure(*rows, np.random.default_rng(0))
    with judge_at_hand("it is gone."), pytest.raises(ModelError, match="not to be had: it is gone"):
        GeneratedText(text_judge="http://127.0.0.1:9/v1").measure(*rows, np.random.default_rng(0))


# ---- by a scan -------------------------------------------------------------------------------------------------------


class Judging(Stub):
    """The stub, which answers the judge's question by ``says``."""

    says: Any = staticmethod(honest)
    judged = 0

    def answer(self, route: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        asked = body["messages"][-1]["content"] if route == "chat" else body["prompt"]
        if "Answer with yes or no" not in asked:
            return super().answer(route, body)
        self.judged += 1
        message = {"role": "assistant", "content": self.says(text_of(asked), chance(text_of(asked)))}
        return 200, {"model": NAME, "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}


def scanned(
    folder: Path, judge: str, *more: str, name: tuple[str, ...] = ("--judge-name", NAME)
) -> tuple[int, dict[str, Any], str]:
    """The exit code, the record and what is printed of a scan of 40 texts about two groups by a judge."""
    _, rows = written({"man": 0.3, "woman": 0.3}, 20)
    frame = pd.DataFrame({"text": rows.recorded.texts, "about": rows.sensitive_features["about"]})  # type: ignore
    frame.to_csv(folder / "texts.csv", index=False)
    flags = ["--predictions", str(folder / "texts.csv"), "--generated", "text", "--sensitive", "about", "--probes"]
    flags += ["generated_text", "--judge", judge, *name, "--out", str(folder / "out"), "--format", "json"]
    done = CliRunner().invoke(app, ["scan", *flags, *more])
    path = folder / "out" / "report.json"
    return done.exit_code, json.loads(path.read_bytes()) if path.exists() else {}, done.output


def test_a_scan_asks_a_judge_counts_and_keeps_its_calls_and_its_bundle_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret-0123456789")
    stub, bundle = Judging(4), tmp_path / "a.zip"
    labels = labelled(tmp_path / "c.csv", 10)
    more = ("--calibration", labels, "--bundle", str(bundle), "--judge-key-env", "JUDGE_KEY")
    with served(stub) as url:
        code, record, output = scanned(tmp_path, url, *more)
    assert code == 3, output
    assert stub.judged == 80 and set(stub.keys) == {"Bearer sk-very-secret-0123456789"}
    notes = " ".join(record["model"]["notes"])
    assert f"The judge is 'toy' at {url}, and nothing of it was audited." in notes
    assert "80 of generated_text" in notes
    journal = (tmp_path / "out" / "judge-calls.jsonl").read_text()
    assert "secret" not in journal and journal.count('"outcome"') >= 80
    gap = next(f for f in record["findings"] if f["metric"] == "corrected_rate_gap")
    assert gap["outcome"] == "INCONCLUSIVE" and gap["value"] is not None
    verified = CliRunner().invoke(app, ["evidence", "verify", str(bundle)])
    assert verified.exit_code in (0, 3), verified.output

    # Five more of the judge's answers are said to be yes, and every digest is made to fit.
    results = json.loads(unpack(bundle.read_bytes(), bundle.name)["results.json"])
    (own,) = [result for result in results["results"] if result["probe"] == "generated_text"]
    changed = next(m for m in own["measurements"] if m["metric"] == "corrected_rate_gap")
    changed["estimate"]["parts"][0]["successes"] += 5
    forged = repacked(bundle, tmp_path / "forged.zip", results__json=json.dumps(results).encode())
    verified = CliRunner().invoke(app, ["evidence", "verify", str(forged)])
    assert verified.exit_code == 1 and "WRONG" in verified.output, verified.output


@pytest.mark.slow
def test_a_classifier_in_a_folder_labels_the_texts_as_transformers_does(tmp_path: Path) -> None:
    network = save_bert(tmp_path / "judge", labels=("kind", "rude"))
    code, record, output = scanned(tmp_path, str(tmp_path / "judge"), name=())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "judge")
    texts = pd.read_csv(tmp_path / "texts.csv")["text"].tolist()
    with torch.no_grad():
        logits = network(**tokenizer(texts, padding=True, truncation=True, max_length=16, return_tensors="pt")).logits
    rate = next(f for f in record["findings"] if f["metric"] == "flagged_rate" and not f["group"])
    assert rate["value"] == float((logits.softmax(1)[:, 1] >= 0.5).double().mean()), output
    assert code == 3 and rate["outcome"] == "NOT_JUDGED" and "judge, sha256" in rate["detail"]


@pytest.mark.slow
def test_a_language_model_in_a_folder_that_answers_neither_yes_nor_no_passes_nothing(tmp_path: Path) -> None:
    judge = save_byte_llama(tmp_path / "judge")
    labels = labelled(tmp_path / "c.csv", 10)
    code, record, output = scanned(tmp_path, str(judge), "--calibration", labels, name=())
    found = {f["metric"]: f for f in record["findings"] if not f["group"]}
    assert code == 3 and found["corrected_rate_gap"]["outcome"] == "INCONCLUSIVE", output
    assert found["corrected_rate_gap"]["interval"] == [0.0, 1.0]
    assert "80 of 80 replies say neither" in found["corrected_rate"]["detail"]


def test_a_dead_judge_leaves_its_probe_not_run_and_says_so(tmp_path: Path) -> None:
    code, record, output = scanned(tmp_path, "http://127.0.0.1:1/v1")
    (finding,) = [f for f in record["findings"] if f["probe"] == "generated_text"]
    assert finding["outcome"] == "NOT_RUN" and "http://127.0.0.1:1/v1 does not answer" in finding["reason"]
    assert code == 3 and "does not answer" in output, output
    assert any("The judge is not to be had" in note for note in record["model"]["notes"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--scorer", "x.pt"), "--scorer and --judge both score"),
        (("--judge", "nowhere"), "--judge-name is for a judge behind a URL"),
        (("--judge", "https://judge.example.com/v1"), "add --allow-remote"),
        (("--judge-key-env", "sk-very-secret-0123456789"), "takes the name of an environment variable"),
    ],
)
def test_flags_of_a_judge_that_do_not_fit_are_one_sentence(tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    code, _, output = scanned(tmp_path, "http://127.0.0.1:1/v1", *more)
    assert code == 2 and said in output and "secret" not in output, output


def test_a_judge_s_url_comes_from_the_command_line_alone(tmp_path: Path) -> None:
    (tmp_path / "audit.toml").write_text('[audit]\njudge = "http://127.0.0.1:8000/v1"\njudge_name = "x"\n')
    with pytest.raises(UsageError, match="as the judge, and where texts go is for the command line alone"):
        configure({}, str(tmp_path / "audit.toml"), [])
