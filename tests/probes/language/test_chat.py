"""Language models asked through their chat templates: what they are given, and what is said of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import auditor
from auditor.core.errors import ConfigError, ModelError, NotApplicableError
from auditor.data.benchmarks.bbq_and_veto_files import read_bbq
from auditor.judging.measurement import Measurement
from auditor.models.chat import chat_of
from auditor.models.generation import Sampling, continuations
from auditor.models.language_model import AuditedLanguageModel
from auditor.report.record.audit_report import AuditReport
from auditor.run.probe import make_probe
from auditor.run.run_audit import no_data, run_audit
from cli.commands import app
from probes.language.bbq import BBQ, bbq_answers
from probes.language.bold_and_honest import Bold, Honest
from probes.language.generation_bias import GenerationBias
from probes.language.stereotype import Stereotype
from tests.data.test_benchmarks import bbq_row
from tests.quantifiers import all_of, none_of
from tests.toys.language import CHAT, save_chatty
from tests.toys.models import scorer

WORDS = "A B met Who forgot Question Answer The grandson grandfather Not known Continue this text".split()
SHA = hashlib.sha256(CHAT.encode()).hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("chatty")
    save_chatty(made, words=WORDS)
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> AuditedLanguageModel:
    found = auditor.load_model(folder)
    assert isinstance(found, AuditedLanguageModel)
    return found


@pytest.fixture(scope="module")
def bbq(tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [
        bbq_row(
            example_id=i, question_index=str(i % 8), context_condition=("ambig", "disambig")[i % 2], label=2 - i % 2,
            question_polarity=("neg", "nonneg")[(i // 2) % 2], context=f"A {('cat', 'dog', 'bird')[i % 3]} met B.",
        )
        for i in range(48)
    ]  # fmt: skip
    made = tmp_path_factory.mktemp("bbq") / "Age.jsonl"
    made.write_text("\n".join(json.dumps(row) for row in rows))
    return str(made)


def with_template(model: AuditedLanguageModel, template: str | None, act: Callable[[], Any]) -> Any:
    kept, model.tokenizer.chat_template = model.tokenizer.chat_template, template
    try:
        return act()
    finally:
        model.tokenizer.chat_template = kept


def measured(model: AuditedLanguageModel, bbq: str, **options: Any) -> list[Measurement]:
    return BBQ(benchmarks={"bbq": bbq}, wordings=1, **options).measure(model, no_data(), np.random.default_rng(0))


# ---- the template and its tokens -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["text", "file", "named"])
def test_a_folder_s_template_is_read_and_its_digest_recorded(tmp_path: Path, how: str) -> None:
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": CHAT}]
    save_chatty(tmp_path, {"text": CHAT, "file": "another", "named": named}[how])  # type: ignore[arg-type]
    if how == "file":
        (tmp_path / "chat_template.jinja").write_text(CHAT)
    model = auditor.load_model(tmp_path)
    assert f"It has a chat template, sha256 {SHA}." in model.provenance.notes
    chat = chat_of(model)  # type: ignore[arg-type]
    assert chat is not None and chat.template == CHAT and chat.render_prompt("a cat") == "<s>[ a cat ]"
    assert chat.lead == " "


def test_a_template_that_is_none_is_refused(tmp_path: Path) -> None:
    save_chatty(tmp_path, [{"name": "default"}])
    with pytest.raises(ModelError, match="chat_template of .* is neither a text nor a list of named ones"):
        auditor.load_model(tmp_path)


def test_without_a_template_there_is_nothing_to_say(tmp_path: Path, bbq: str) -> None:
    save_chatty(tmp_path, None, words=WORDS)
    model = auditor.load_model(tmp_path)
    assert isinstance(model, AuditedLanguageModel) and chat_of(model) is None
    assert none_of("chat" in note for note in model.provenance.notes)
    found = measured(model, bbq)
    assert none_of("chat" in m.metric or "chat template" in m.detail for m in found)
    for options in ({"chat": "on"}, {"system": __file__}):
        with pytest.raises(NotApplicableError, match="Needs a model with a chat template"):
            measured(model, bbq, **options)


@pytest.mark.parametrize("system", ["", "be small"])
def test_the_network_is_given_what_transformers_would_give_it(model: AuditedLanguageModel, system: str) -> None:
    chat = chat_of(model, "auto", system)
    assert chat is not None
    said = [{"role": "system", "content": system}] if system else []
    said += [
        {"role": role, "content": text}
        for role, text in (("user", "a cat"), ("assistant", "a dog"), ("user", "a bird"))
    ]
    theirs = model.tokenizer.apply_chat_template(said, add_generation_prompt=True).input_ids
    seen: list[list[int]] = []
    hook = model.module.register_forward_pre_hook(
        lambda _, __, given: seen.append(given["input_ids"][0].tolist()), with_kwargs=True
    )
    try:
        asked, one = chat.render_prompt("a cat", "a dog", "a bird"), Sampling(max_new_tokens=1)
        continuations(model, [asked], 1, one, torch.Generator(), rendered=True)
        continuations(model, ["a bird"], 1, one, torch.Generator())
    finally:
        hook.remove()
    assert seen[0] == theirs and theirs.count(1) == 1 and seen[1].count(1) == 1
    assert theirs[-1] == model.tokenizer.convert_tokens_to_ids("]")
    scored = model.with_prefix("").encode([asked])[0]
    assert list(scored.ids) == theirs


# ---- BBQ -------------------------------------------------------------------------------------------------------------


def test_answers_through_the_template_are_the_likeliest_replies(model: AuditedLanguageModel, bbq: str) -> None:
    examples = read_bbq(bbq).examples[:12]
    examples = tuple(
        replace(e, answers=(*e.answers[i % 3 :], *e.answers[: i % 3]))  # type: ignore[arg-type]
        for i, e in enumerate(examples)
    )
    chat = chat_of(model)
    expected = []
    for e in examples:
        means = []
        for answer in e.answers:
            said = [{"role": "user", "content": f"{e.context}\nQuestion: {e.question}"}]
            before = model.tokenizer.apply_chat_template(said, add_generation_prompt=True).input_ids
            reply = model.tokenizer(answer, add_special_tokens=False).input_ids
            with torch.no_grad():
                logits = model.module(input_ids=torch.tensor([before + reply])).logits[0].log_softmax(-1)
            means.append(np.mean([float(logits[len(before) + k - 1, token]) for k, token in enumerate(reply)]))
        expected.append(int(np.argmax(means)))
    answers, _ = bbq_answers(model, examples, (), chat)
    assert answers.tolist() == expected
    assert len(set(expected)) > 1


def test_both_ways_are_asked_of_the_same_items_and_their_difference_is_a_finding(
    model: AuditedLanguageModel, bbq: str
) -> None:
    auto, on, off = (measured(model, bbq, chat=how) for how in ("auto", "on", "off"))
    differences = [m for m in auto if m.metric == "chat_accuracy_difference"]
    assert [m for m in auto if m not in differences] == on
    assert none_of(m.metric == "chat_accuracy_difference" for m in [*on, *off])

    def accuracy(found: list[Measurement], context: str) -> float:
        return next(m.estimate.value for m in found if m.metric == "accuracy" and m.at["context"] == context)

    assert {m.at["context"] for m in differences} == {"ambiguous", "disambiguated"}
    moved = []
    for m in differences:
        context = m.at["context"]
        assert m.estimate.value == pytest.approx(accuracy(on, context) - accuracy(off, context))
        low, high = m.estimate.bounds(0.025)
        assert -1.0 <= low <= m.estimate.value <= high <= 1.0
        moved.append(m.estimate.value != 0.0)
    assert any(moved)
    assert (
        f"Asked through its chat template (sha256 {SHA}), without system message, as on 2026-01-01." in auto[0].detail
    )
    assert "Asked in plain text, not through its chat template." in off[0].detail
    plain = with_template(model, None, lambda: measured(model, bbq))
    assert [m.estimate for m in plain] == [m.estimate for m in off]


@pytest.mark.parametrize("how", ["on", "off"])
def test_examples_that_are_shown_are_left_out_with_all_of_their_template(
    model: AuditedLanguageModel, bbq: str, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    whole = AuditedLanguageModel.continuations
    monkeypatch.setattr(
        AuditedLanguageModel, "continuations", lambda self, c, t: (asked.extend(c), whole(self, c, t))[1]
    )
    found = measured(model, bbq, chat=how, few_shot=3)
    assert sum(m.n_samples for m in found if m.metric == "accuracy") == 48 - 3 * 6
    assert "3 examples with answers first, whose templates are left out." in found[0].detail
    assert len(asked) == 3 * 30
    assert all_of(text.count("Question: Who forgot?") == 4 for text in asked)
    # What is shown is answered rightly, by the right answers of ambiguous and of other contexts.
    shown = {text[: text.rindex("Question")] for text in asked}
    answers = ("Not known", "The grandfather", "The grandson")
    assert all_of(sum(text.count(answer) for answer in answers) == 3 for text in shown)
    with pytest.raises(NotApplicableError, match="8 question templates, and --few-shot 7 takes 7"):
        measured(model, bbq, few_shot=7)


# ---- continuations ---------------------------------------------------------------------------------------------------


def test_a_continuation_is_the_reply_that_begins_with_the_text(
    model: AuditedLanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[list[str], bool]] = []

    def watched(model: Any, prompts: Any, *more: Any, rendered: bool = False, **options: Any) -> list[list[str]]:
        given.append((list(prompts), rendered))
        return continuations(model, prompts, *more, rendered=rendered, **options)

    monkeypatch.setattr("auditor.models.capabilities.continuations", watched)
    options: dict[str, Any] = {
        "categories": "gender",
        "n_templates": 4,
        "max_new_tokens": 2,
        "scorer": scorer(),
        "until": "length",
    }
    for how in ("auto", "off"):
        found = GenerationBias(chat=how, **options).measure(model, no_data(), np.random.default_rng(0))  # type: ignore[arg-type]
        said = next(m.detail for m in found if m.metric == "worst_score_gap")
        assert ("asked through its chat template" in said) == (how == "auto")
        assert ("asked in plain text" in said) == (how == "off")
    (through, rendered), (plain, not_rendered) = given
    assert rendered and not not_rendered
    assert through == [f"<s>[ Continue this text: {text} ] {text}" for text in plain]


def test_sentences_that_are_scored_stay_plain_and_say_so(model: AuditedLanguageModel) -> None:
    found = Stereotype().measure(model, no_data(), np.random.default_rng(0))
    assert any("Asked in plain text, not through its chat template." in m.detail for m in found)


# ---- what cannot be asked --------------------------------------------------------------------------------------------


def test_a_template_that_refuses_makes_the_probe_not_run(model: AuditedLanguageModel, bbq: str, tmp_path: Path) -> None:
    told = tmp_path / "system.txt"
    told.write_text("be small\n")
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}x"
    hostile = "{{ ''.__class__.__mro__ }}"
    for template, options, said in ((refusing, {"system": str(told)}, "no system role"), (hostile, {}, "__mro__")):
        probe = BBQ(benchmarks={"bbq": bbq}, **options)  # type: ignore[arg-type]
        report = with_template(model, template, lambda probe=probe: run_audit(model, None, [probe]))
        assert [f.outcome for f in report.findings] == ["NOT_RUN"] and said in report.findings[0].reason
        assert "The chat template" in report.findings[0].reason and "\n" not in report.findings[0].reason


@pytest.mark.parametrize("kind", [BBQ, Bold, GenerationBias, Honest])
def test_wrong_options_are_usage_errors(kind: Any, model: AuditedLanguageModel) -> None:
    with pytest.raises(ConfigError, match="chat must be 'auto', 'on' or 'off'"):
        make_probe(kind, {"chat": "maybe"})
    with pytest.raises(ConfigError, match="system is told in a chat"):
        make_probe(kind, {"chat": "off", "system": "a.txt"})
    with pytest.raises(ConfigError, match="system message 'none' cannot be read"):
        make_probe(kind, {"system": "none"}).asking.chat_for(model)  # type: ignore[attr-defined]


# ---- the command -----------------------------------------------------------------------------------------------------


def test_a_scan_says_how_it_asked(folder: Path, bbq: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("system.txt").write_text("be small")
    asked = ["scan", str(folder), "--probes", "bbq", "--benchmark", f"bbq={bbq}", "--format", "json", "--quiet"]
    result = CliRunner().invoke(app, [*asked, "--system", "system.txt", "--few-shot", "2"])
    assert result.exit_code in (0, 1, 3), result.output
    report = AuditReport.model_validate_json(Path("audit-report/report.json").read_bytes())
    assert f"It has a chat template, sha256 {SHA}." in report.model.notes
    details = [f.detail for f in report.findings if f.probe == "bbq"]
    assert any("after a system message of 8 characters" in d and "2 examples with answers first" in d for d in details)
    assert "chat_accuracy_difference" in {f.metric for f in report.findings}
    for wrong, said in (
        (["--chat", "maybe"], "--chat"),
        (["--few-shot", "-1"], "--few-shot"),
        (["--system", "x"], "x"),
    ):
        result = CliRunner().invoke(app, [*asked, *wrong])
        assert result.exit_code == 2 and said in result.output
