"""What audits cost a training: fine-tuning a small transformer without and with a ``TrainingAudit``, in pairs.

The ratio is the time without over the time with, so that the default ``max_overhead`` of 3 % is a bar of 0.97. Seven
interleaved pairs, median of the pairs' ratios; about eight minutes, on a quiet machine.
``python -m benchmarks.training_overhead [--json]``, extra ``demo``.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings

import numpy as np
import torch

from benchmarks.common import emit, interleaved, seconds

EPOCHS, PAIRS, ROWS, AUDITED = 9, 7, 4000, 500


def main() -> None:
    """Prints ours, the peer's, and how many looks were taken and left out."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    from auditor.data.audit_data import AuditData
    from auditor.run.while_training.audit import TrainingAudit
    from auditor.run.while_training.huggingface import AuditCallback, text_classifier
    from cli.examples.text_trainer import CLASSES, Texts, resumes, word_tokenizer
    from probes.fairness.group_fairness import GroupFairness

    texts, labels, ethnicity = resumes()
    order = np.random.default_rng(0).permutation(len(texts))
    learned, held_out = order[:ROWS], order[ROWS : ROWS + AUDITED]
    tokenizer = word_tokenizer(texts[learned])
    rows = Texts(tokenizer, texts[learned], labels[learned])
    data = AuditData.from_arrays(
        texts[held_out],
        [CLASSES[y] for y in labels[held_out]],
        classes=CLASSES,
        positive="high",
        sensitive_features={"ethnicity": ethnicity[held_out]},
    )
    looks: list[tuple[int, int]] = []

    def train(audited: bool) -> float:
        set_seed(0)
        network = BertForSequenceClassification(
            BertConfig(
                vocab_size=len(tokenizer), hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=512, max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id,
                id2label=dict(enumerate(CLASSES)), label2id={c: i for i, c in enumerate(CLASSES)},
            )
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as out:
            trainer = Trainer(
                network,
                TrainingArguments(
                    output_dir=out, num_train_epochs=EPOCHS, per_device_train_batch_size=32, learning_rate=5e-4,
                    save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True,
                    seed=0, dataloader_pin_memory=False,
                ),
                train_dataset=rows,
                data_collator=DataCollatorWithPadding(tokenizer),
            )  # fmt: skip
            audit = TrainingAudit(
                probes=[GroupFairness()],
                data=data,
                wrap=lambda model: text_classifier(model, tokenizer, max_length=64),
                out=out,
            )
            if audited:
                trainer.add_callback(AuditCallback(audit))
            taken = seconds(trainer.train)
            if audited:
                looks.append((len(audit.peeks), len(audit.skipped)))
        return taken

    train(True)  # imports and caches
    ours, peer, ratio = interleaved(lambda: train(True), lambda: train(False), PAIRS)
    emit(
        "training_overhead",
        ours=ours,
        peer=peer,
        ratio=ratio,
        bar=0.97,
        threads=torch.get_num_threads(),
        looks=f"{looks[-1][0]} taken, {looks[-1][1]} left out, of {EPOCHS} planned; {len(held_out)} audited texts",
        load_average=os.getloadavg()[0],
    )


if __name__ == "__main__":
    sys.exit(main())
