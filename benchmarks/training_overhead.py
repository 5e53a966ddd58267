"""What audits cost a training of about 60 s: fine-tuning a small transformer without and with a ``TrainingAudit``.

Seconds are of processor time, by which audits are charged. The ratio is the time without over the time with, so that
the default ``max_overhead`` of 3 % is a bar of 0.97; ``overhead`` is the share that the audit itself counted, its first
look, its imports, the closing look and the report drawn and written among it. Interleaved pairs, median of the pairs'
ratios; two minutes a pair. ``python -m benchmarks.training_overhead [--json]``, extra ``demo``, ``PAIRS=7``.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
import warnings

import numpy as np
import torch

from benchmarks.common import emit

EPOCHS, ROWS, AUDITED = 16, 4000, 500
PAIRS = int(os.environ.get("PAIRS", "7"))


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
    from auditor.run.while_training.trainer_callback import AuditCallback, text_classifier
    from auditor.run.while_training.training_audit import TrainingAudit
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
    looks: list[tuple[int, int, float]] = []

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
            begun = time.process_time()
            trainer.train()
            taken = time.process_time() - begun
            if audited:
                looks.append((len(audit.peeks), len(audit.skipped), audit.budget.overhead))
        return taken

    # With the audit first: its imports are its own, and are charged to it.
    pairs = [(train(True), train(False)) for _ in range(PAIRS)]
    taken, left_out, overhead = looks[0]
    emit(
        "training_overhead",
        ours=statistics.median(audited for audited, _ in pairs),
        peer=statistics.median(plain for _, plain in pairs),
        ratio=statistics.median(plain / audited for audited, plain in pairs),
        bar=0.97,
        threads=torch.get_num_threads(),
        overhead=overhead,
        largest_overhead=max(share for _, _, share in looks),
        looks=f"{taken} taken, {left_out} left out, of {EPOCHS} planned; {len(held_out)} audited texts",
        load_average=os.getloadavg()[0],
    )


if __name__ == "__main__":
    sys.exit(main())
