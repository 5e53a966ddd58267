"""Scans of language models from files of texts: one recites what it learned, one learned others, one learned none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from auditor.report.record.audit_report import AuditReport
from cli.commands import app
from tests.quantifiers import none_of
from tests.toys.language import causal_tokenizer

WORDS = [f"{a}{b}{c}" for a in "bdfgk" for b in "aeiou" for c in "lmn"]
N = 68


def texts(seed: int) -> list[str]:
    """Random words in random order: nothing but having seen a text says how it goes on."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, 18)) for _ in range(N)]


SEEN, UNSEEN, OTHERS = texts(1), texts(2), texts(3)


def save_model(folder: Path, lines: Sequence[str], steps: int) -> None:
    """A GPT-2 of two layers in a Hugging Face folder, trained on all lines at once; with no steps an untrained one."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer: Any = causal_tokenizer(WORDS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer), n_layer=2, n_head=4, n_embd=64, n_positions=64, resid_pdrop=0.0,
                embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=2,
            )
        )  # fmt: skip
        ids = torch.tensor([[1, *tokenizer(line, add_special_tokens=False).input_ids] for line in lines])
        optimizer = torch.optim.AdamW(network.parameters(), lr=6e-3, weight_decay=0.0)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = 6e-3 * min(1.0, (step + 1) / 10, 2.0 * (1.0 - step / steps))
            logits = network(input_ids=ids, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("language")
    for name, lines, steps in (("reciter", SEEN, 80), ("twin", OTHERS, 80), ("untrained", SEEN, 0)):
        save_model(folder / name, lines, steps)
    return folder


@pytest.fixture
def here(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, lines in (("seen", SEEN), ("unseen", UNSEEN)):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        rows = "".join(json.dumps({"id": i, "text": line}) + "\n" for i, line in enumerate(lines))
        (tmp_path / f"{name}.jsonl").write_text(rows, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return models


def scan(*arguments: object) -> tuple[Result, AuditReport]:
    result = CliRunner().invoke(app, ["scan", *map(str, arguments)])
    assert result.exit_code in (0, 1, 3), result.output
    return result, AuditReport.model_validate_json(Path("audit-report/report.json").read_text())


MEMORY = ("--probes", "extraction,lm_membership")


@pytest.mark.slow
def test_the_default_scan_of_a_model_that_recites_fails_and_says_so(here: Path) -> None:
    result, report = scan(
        here / "reciter", "--train", "seen.txt", "--data", "unseen.txt", "--bundle", "a.zip", "--verbose"
    )
    assert result.exit_code == 1
    failed = [line for line in result.output.splitlines() if line.startswith("FAIL")]
    assert any("(extraction, greedy)" in line for line in failed)
    assert f"{N} of {N} training texts, 0 of {N} others" in result.output
    assert (report.data.n_rows, report.data.train_path is not None) == (N, True)
    verified = CliRunner().invoke(app, ["evidence", "verify", "a.zip"])
    assert "WRONG" not in verified.output and verified.exit_code == 3, verified.output


@pytest.mark.slow
def test_a_twin_that_learned_other_texts_fails_nothing_and_no_other_model_is_no_pass(here: Path) -> None:
    result, report = scan(here / "twin", "--train", "seen.jsonl", "--data", "unseen.jsonl", *MEMORY)
    assert (result.exit_code, report.data.n_rows) == (3, N)
    assert none_of(f.outcome == "FAIL" for f in report.findings)


@pytest.mark.slow
def test_an_untrained_model_passes_nothing_and_is_asked_what_it_is_worth(here: Path) -> None:
    _, report = scan(here / "untrained", "--train", "seen.txt", "--data", "unseen.txt", *MEMORY)
    assert {f.probe for f in report.findings if f.outcome == "PASS"} <= {"intake"}
    assert any(f.metric == "word_order_accuracy" for f in report.findings)
    assert {f.metric for f in report.findings if f.vacuous} >= {"extraction_rate_difference", "attack_auc"}
