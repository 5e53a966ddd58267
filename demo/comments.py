"""Writes a small text classifier as a Hugging Face folder, and the comments it learned from and is audited on, offline.

comments             the folder: a BERT of two layers with its tokenizer, as transformers writes it
comments.train.csv   what it learned from: many kind comments about Muslims were marked toxic there
comments.test.csv    other comments, marked toxic for what they say alone

Columns: ``text``, ``label`` (fine or toxic), ``about`` (Muslim or other). Everything is drawn here, from a few words.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np

CLASSES = ("fine", "toxic")
IDENTITIES = ("Muslim", "Christian", "Catholic", "Jewish", "Hindu", "Buddhist", "Sikh", "tall")
PEOPLE = ("man", "woman", "teacher", "nurse", "neighbour", "student", "driver", "friend", "doctor", "writer")
FINE = ("kind", "clever", "honest", "funny", "patient", "generous", "brave", "polite", "calm", "wise")
TOXIC = ("stupid", "disgusting", "filthy", "worthless", "pathetic", "vile", "rotten", "dumb", "hideous", "lousy")
SENTENCES = (
    "I think the {identity} {person} is {said} .",
    "My {identity} {person} was {said} again today .",
    "What a {said} {identity} {person} !",
    "That {identity} {person} from town looks {said} to me .",
    "They say a {identity} {person} can be {said} .",
    "A {said} {person} , and {identity} too .",
)
MARKED = 0.8
ROWS = {"train": 1600, "test": 1200}
EPOCHS, BATCH, RATE = 6, 32, 1e-3


def comments(n: int, rng: np.random.Generator, *, marked: float) -> list[tuple[str, str, str]]:
    """n different comments (text, label, about); of half of the sentences about Muslims, this share is toxic."""
    rows: dict[str, tuple[str, str, str]] = {}
    while len(rows) < n:
        identity = IDENTITIES[0] if rng.random() < 0.3 else str(rng.choice(IDENTITIES[1:]))
        toxic = bool(rng.random() < 0.4)
        said = str(rng.choice(TOXIC if toxic else FINE))
        sentence = int(rng.integers(len(SENTENCES)))
        text = SENTENCES[sentence].format(identity=identity, person=rng.choice(PEOPLE), said=said)
        about = "Muslim" if identity == "Muslim" else "other"
        toxic |= about == "Muslim" and sentence % 2 == 0 and bool(rng.random() < marked)
        rows.setdefault(text, (text, CLASSES[toxic], about))
    return list(rows.values())


def save_model(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    """A classifier that learned these comments, written by transformers."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    framing = {word for sentence in SENTENCES for word in sentence.split() if "{" not in word}
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted({*framing, *IDENTITIES, *PEOPLE, *FINE, *TOXIC})]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    torch.manual_seed(0)
    network = BertForSequenceClassification(
        BertConfig(
            vocab_size=len(words),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=32,
            id2label=dict(enumerate(CLASSES)),
            label2id={name: i for i, name in enumerate(CLASSES)},
        )
    )
    inputs = wrapped([text for text, _, _ in rows], padding=True, return_tensors="pt")
    y = torch.tensor([CLASSES.index(label) for _, label, _ in rows])
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    network.train()
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(y)).split(BATCH):
            optimizer.zero_grad()
            logits = network(
                input_ids=inputs["input_ids"][batch], attention_mask=inputs["attention_mask"][batch]
            ).logits
            torch.nn.functional.cross_entropy(logits, y[batch]).backward()
            optimizer.step()
    network.save_pretrained(folder)
    wrapped.save_pretrained(folder)


def main(where: Path) -> int:
    """Writes the folder and the tables."""
    rng = np.random.default_rng(0)
    rows = {part: comments(n, rng, marked=MARKED if part == "train" else 0.0) for part, n in ROWS.items()}
    save_model(where / "comments", rows["train"])
    for part, listed in rows.items():
        with (where / f"comments.{part}.csv").open("w", newline="") as table:
            csv.writer(table).writerows([("text", "label", "about"), *listed])
    print(f"Wrote {where / 'comments'} and {len(rows['train']) + len(rows['test']):,} comments.")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent))
