"""A real, really biased toxicity classifier repaired by counterfactual augmentation with logit pairing.

The model is the Jigsaw BiLSTM of ``pip install --no-deps toxic-comment-classifier==0.3.0 h5py``; it learns from
sentences of the Jigsaw madlibs, split by template, and is judged by sentences and identities it never saw.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from auditor.core.rows import FloatArray
from auditor.data.audit_data import AuditData
from auditor.data.lexicons import built_in
from auditor.data.preprocessing import TextPreprocessing
from auditor.models.audited_model import AuditedModel, Recipe
from auditor.run.mitigation import Training
from mitigations.rows.counterfactual_augmentation import CounterfactualAugmentation
from tests.real.test_text import jigsaw

CATEGORIES = ("orientation", "religion", "ethnicity", "nationality", "disability", "age")
LISTED = [i.words["adjective"][0] for lexicon in built_in(CATEGORIES) for i in lexicon.identities]
# Identities of the madlibs that no lexicon lists and the model's vocabulary holds; no training text names them here.
UNLISTED = tuple("african aged eastern european japanese latino lgbt older protestant teenage trans younger".split())
# More of them, for the mean: neither in a lexicon nor in the madlibs.
ELSEWHERE = tuple(
    """transsexual scientologist agnostic secular gypsy obese immigrant refugee feminist vegan mormon lutheran baptist
    evangelical pagan jain shia sunni irish scottish welsh persian turkish kurdish korean vietnamese filipino
    palestinian""".split()
)
CARRIERS = (
    "I am a {} man",
    "He is {}, and I like him.",
    "You should meet my {} cousin.",
    "Many {} people read this page.",
    "Her {} boss called again.",
)


def madlibs(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(training, test) rows: a template is a sentence without its name and identity, known by its word of praise or
    blame, and each word is in one of the two only."""
    table = pd.read_csv(folder / "jigsaw_madlibs" / "bias_madlibs_77k.csv")
    place = {"verb_adj": slice(0, 1), "am_hate_adj": slice(0, 2), "being_adj": slice(-1, None)}
    words = [
        " ".join(text.lower().rstrip(".").split()[place.get(kind, slice(3, 4))])
        for text, kind in zip(table.Text, table.Template, strict=True)
    ]
    table = table.assign(word=words, label=np.where(table.Label == "BAD", "toxic", "not toxic"))
    learned = {word for _, own in table.groupby("label") for word in sorted(set(own.word))[::2]}
    named = [bool(set(text.lower().rstrip(".").split()) & set(UNLISTED)) for text in table.Text]
    train, test = table.word.isin(learned), ~table.word.isin(learned)
    return table[train & ~np.asarray(named)].sample(250, random_state=0), table[test].sample(2500, random_state=0)


def toxic(model: AuditedModel, texts: list[str]) -> FloatArray:
    return model.predict_proba(np.asarray(texts, object))[:, 1]


def with_word(carrier: str, word: str) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", carrier.format(word))


def gaps(model: AuditedModel, words: tuple[str, ...] | list[str]) -> FloatArray:
    """(words,) P(toxic) of "I am a gay man" less that of "I am a tall man"."""
    neutral = toxic(model, [CARRIERS[0].format("tall")])
    return toxic(model, [with_word(CARRIERS[0], word) for word in words]) - neutral


def logit_gap(model: AuditedModel, words: tuple[str, ...]) -> float:
    """Mean over words and carriers of |log-odds of toxic less those with the neutral word|."""
    found = []
    for carrier in CARRIERS:
        p = toxic(model, [with_word(carrier, word) for word in ("tall", *words)])
        z = np.log(p / (1.0 - p))
        found.append(np.abs(z[1:] - z[0]))
    return float(np.mean(found))


@pytest.mark.slow
def test_the_toxicity_model_no_longer_minds_who_somebody_is(test_data: Path) -> None:
    old = jigsaw()
    old.recipe = Recipe(epochs=5, batch_size=32, learning_rate=1e-3)
    assert isinstance(old.preprocessing, TextPreprocessing)
    unseen = (*UNLISTED, *ELSEWHERE)
    known = {w.casefold() for lexicon in built_in() for i in lexicon.identities for ws in i.words.values() for w in ws}
    assert set(unseen) <= set(old.preprocessing.vocabulary) and not set(unseen) & known
    train, test = madlibs(test_data)
    assert not set(train.word) & set(test.word)
    assert not {w for text in train.Text for w in text.lower().rstrip(".").split()} & set(unseen)
    data = AuditData.from_arrays(
        train.Text.to_numpy(object), train.label.to_numpy(object), classes=old.classes, positive="not toxic"
    )
    mitigation = CounterfactualAugmentation(
        generator="both",
        categories=CATEGORIES,
        pairing_weight=10.0,
        epochs=7,
        learning_rate=6e-3,
    )
    made = mitigation.mitigate(old, data, np.random.default_rng(0), Training())
    new = made.model
    neutral = [CARRIERS[0].format("tall")]
    auc = [roc_auc_score(test.label == "toxic", toxic(m, test.Text.tolist())) for m in (old, new)]
    figures = {
        "listed": [float(np.abs(gaps(m, LISTED)).max()) for m in (old, new)],
        "unlisted": [float(np.abs(gaps(m, UNLISTED)).max()) for m in (old, new)],
        "logit gap": [logit_gap(m, unseen) for m in (old, new)],
        "neutral": [float(toxic(m, neutral)[0]) for m in (old, new)],
        "auc": auc,
    }
    assert figures["listed"][0] > 0.4 and figures["listed"][1] <= 0.05, figures
    assert figures["unlisted"][0] > 0.3 and figures["unlisted"][1] <= 0.15, figures
    assert figures["logit gap"][0] > 0.7 and figures["logit gap"][1] <= 0.3, figures
    assert abs(figures["neutral"][1] - figures["neutral"][0]) <= 0.15, figures
    assert auc[1] >= auc[0], figures
    # A model that gives everybody the neutral sentence's answer would be as even: insults stay insults.
    assert toxic(new, ["you are a stupid idiot"])[0] > 0.9, figures
    before, after, control = re.findall(r"(\d\.\d{3}) (?:before|after|control)", made.notes[-1])[:3]
    assert float(after) < 0.5 * float(before) < float(control), made.notes
