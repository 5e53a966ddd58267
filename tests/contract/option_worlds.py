"""Models, rows and files in which every option of a probe or mitigation makes a difference, by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
import torch
from torch import nn

from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import ImagePreprocessing, NumericColumn, TabularPreprocessing
from auditor.models.audited_model import AuditedModel
from auditor.models.capabilities import Generates, Reply
from auditor.models.chat import How
from auditor.models.generation import Sampling
from auditor.models.language_model import AuditedLanguageModel
from auditor.models.torch_model import TorchModel
from auditor.run.run_audit import no_data
from probes.language.forced_choice import refuses
from tests.toys import detectors as media
from tests.toys.benchmark_files import FILE_TOYS
from tests.toys.models import CLASSES, TOYS, Toys, numbers, rows, text_model
from tests.toys.writers import REFUSAL, helpful, listed

MOST_ROWS = 500


@dataclass(frozen=True, kw_only=True)
class World:
    """What a probe is asked about, and the options that all its rows share."""

    model: AuditedModel
    data: AuditData
    options: dict[str, Any] = field(default_factory=dict)


def toys_of(component: str, folder: Path) -> Toys:
    """A probe's toys, with its file where it reads one."""
    return FILE_TOYS[component](folder) if component in FILE_TOYS else TOYS[component]


def of_toys(name: str, n: int = MOST_ROWS) -> Callable[[str, Path], World]:
    """The world of a probe's ``ideal`` or ``violating`` toy, of as many rows at most."""

    def make(component: str, folder: Path) -> World:
        toys = toys_of(component, folder)
        data = (toys.violating_data if name == "violating" and toys.violating_data else toys.data)()
        options = toys.options | ({} if toys.scorer is None else {"scorer": toys.scorer()})
        return World(
            model=getattr(toys, name)(), data=data.take(slice(0, n)) if len(data) > n else data, options=options
        )

    return make


# ---- tables ----------------------------------------------------------------------------------------------------------


def crossed(component: str, folder: Path) -> World:
    """Rows with two sensitive features, one of which has a group of three in a hundred, and another feature."""
    of = numbers if component == "regression_fairness" else rows
    data, rng = of(600, seed=3), np.random.default_rng(4)
    assert data.sensitive_features is not None and isinstance(data.X, pd.DataFrame)
    site = np.where(np.arange(600) % 33 == 0, "rare", np.where(rng.random(600) < 0.5, "north", "south"))
    made = replace(data, sensitive_features=data.sensitive_features.assign(site=site))
    return replace(of_toys("violating")(component, folder), model=_torn(component), data=made)


def several_small(component: str, folder: Path) -> World:
    """The same with three groups of 15 rows each in place of the small one: 45 of 600 rows together."""
    world = crossed(component, folder)
    site, i = world.data.sensitive_features["site"].replace("rare", "north"), np.arange(600)  # type: ignore[index]
    site = np.where(i % 40 < 3, np.char.add("rare_", (i % 40).astype(str)), site)
    return replace(world, data=replace(world.data, sensitive_features=pd.DataFrame({"site": site})))


def _torn(component: str) -> AuditedModel:
    from tests.toys.models import model, regressor

    def formula(skill: torch.Tensor, group: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        return skill * (0.4 + group) + torch.sin(7.0 * skill) * 3.0

    return regressor(formula) if component == "regression_fairness" else model(formula)


def table(n: int, n_features: int = 4, seed: int = 0) -> AuditData:
    """Numbers without meaning, labelled by the first two of them, and two groups."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame({f"x{i}": rng.standard_normal(n) for i in range(n_features)})
    X["x3"] = X["x0"] + 0.3 * rng.standard_normal(n)
    y = (X["x0"] + 0.7 * X["x1"] + 0.5 * rng.standard_normal(n) > 0).astype(int)
    group = np.where(X["x0"] + rng.standard_normal(n) > 0, "a", "b")
    return AuditData.from_arrays(X, y, classes=CLASSES, sensitive_features={"group": group})


def network(n_features: int = 4, n_outputs: int = 2, seed: int = 0) -> TorchModel:
    """A network of two layers with a logit of each class."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(n_features, 8), nn.ReLU(), nn.Linear(8, n_outputs))
    with torch.no_grad():
        module[0].weight.mul_(3.0)
        module[2].weight.mul_(3.0)
    columns = tuple(NumericColumn(name=f"x{i}") for i in range(n_features))
    return TorchModel(module.eval(), classes=CLASSES, preprocessing=TabularPreprocessing(columns=columns))


def layered(component: str, folder: Path) -> World:
    """A network of layers and rows that it decides more or less well."""
    return World(model=network(), data=table(300))


def by_answers(component: str, folder: Path) -> World:
    """A model of the same rows of which nothing but its answers is known."""
    inner = network()
    return World(
        model=AuditedModel.from_callable(lambda X: inner.predict_proba(X)[:, 1], classes=CLASSES), data=table(120)
    )


def flipped(component: str, folder: Path) -> World:
    """A model that takes a sensitive feature and what goes with it."""
    from tests.toys.models import model

    data = rows(400, seed=1)
    assert isinstance(data.X, pd.DataFrame)
    rng = np.random.default_rng(2)
    data.X["seen"] = data.X["group"] + 0.6 * rng.standard_normal(len(data))
    return World(
        model=model(lambda skill, group, seen: torch.sin(3.0 * skill) + 0.4 * seen * skill + group - 0.5), data=data
    )


def memorised(component: str, folder: Path) -> World:
    """A network that was trained on the members among some rows, and its recipe."""
    from tests.mitigations.planted_rows import biased_rows, trained

    data = biased_rows(160, 5)
    members = np.arange(160) % 2 == 0
    return World(model=trained(data.take(members), epochs=60), data=replace(data, is_member=members))


def repeated_nearly(component: str, folder: Path) -> World:
    """Training rows of which some lie near others with the other label."""
    data = table(120, seed=6)
    assert isinstance(data.X, pd.DataFrame) and data.y_true is not None
    X, y = data.X.copy(), data.y_true.copy()
    X.iloc[60:] = X.iloc[:60].to_numpy() + 0.1 * np.sin(np.arange(240)).reshape(60, 4)
    y[60:] = 1 - y[:60]
    made = AuditData.from_arrays(X, y, classes=CLASSES, is_member=np.ones(120, bool))
    return World(model=network(), data=made)


# ---- texts, pictures, sound ------------------------------------------------------------------------------------------

FILMS = [
    f"the {a} film was {b} and {c} to watch"
    for a in ("old", "new", "long", "short")
    for b in ("good", "bad", "dull", "fine", "great")
    for c in ("hard", "easy", "lovely")
]


def _liking(text: str) -> float:
    """Finer words are liked more, by an amount that every letter changes."""
    raw = sum((crc32(word.encode()) % 1000) / 1000 - 0.5 for word in text.split())
    return float(1 / (1 + np.exp(-raw)))


def columns_of_films(component: str, folder: Path) -> World:
    """The same with few rows."""
    world = films(component, folder)
    return replace(world, data=world.data.take(slice(0, 30)))


def films(component: str, folder: Path) -> World:
    """A model of texts that any change of a word moves."""
    labels = [int(_liking(text) > 0.5) for text in FILMS]
    return World(model=text_model(_liking), data=AuditData.from_arrays(FILMS, labels, classes=CLASSES))


def named_people(component: str, folder: Path) -> World:
    """Texts that name identities, and a model that any change of a word moves."""
    texts = [
        f"a {who} {kind} person number {i}"
        for i in range(15)
        for who in ("gay", "straight")
        for kind in ("rude", "kind")
    ]
    return World(
        model=text_model(_liking),
        data=AuditData.from_arrays(texts, classes=CLASSES),
        options={"categories": "orientation"},
    )


def halves(component: str, folder: Path) -> World:
    """Pictures of 32 x 32 and a small network of their halves."""
    return World(model=media.of_grid(), data=media.pictures(60))


def convolved(component: str, folder: Path) -> World:
    """Pictures of 8 x 8 and a convolutional network."""
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)
    )  # fmt: skip
    model = TorchModel(
        module.eval(), classes=CLASSES, preprocessing=ImagePreprocessing(size=(8, 8), mean=(0.5,), std=(0.5,))
    )
    rng = np.random.default_rng(5)
    label = np.arange(60) % 2
    bright = 90 + 60 * label[:, None, None] * (np.arange(8) < 4)[None, None, :] + 25 * rng.standard_normal((60, 8, 8))
    X = np.clip(np.rint(bright), 0, 255).astype(np.uint8)[..., None]
    return World(model=model, data=AuditData.from_arrays(X, label, classes=CLASSES))


def tiny_gpt(component: str, folder: Path) -> World:
    """A random GPT-2 of two layers and prompts of its words."""
    from tests.toys.language import WORDS, causal_tokenizer, tiny

    lines = [
        json.dumps({"prompt": f"the {a} {b} sees a", "target": " cat", "foil": " dog", "cues": [a]})
        for a in WORDS[7:14]
        for b in WORDS[2:5]
    ]
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    model = AuditedLanguageModel(tiny("gpt2").eval(), causal_tokenizer(WORDS))
    options = {"benchmarks": {"token_attribution": str(path)}, "n_samples": 21}
    return World(model=model, data=no_data(), options=options)


def of_people(component: str, folder: Path) -> World:
    """Pictures by the colour of whom they show, and the columns of people and of makers."""
    from tests.probes.deepfake.test_leakage import people

    X, who = people(40, np.random.default_rng(1))
    X[39] = X[1]
    X[39, 0, 0] ^= 1
    data = AuditData.from_arrays(
        X, ["real", "fake"] * 20, classes=media.CLASSES, is_member=np.arange(40) >= 20,
        sensitive_features={"who": [str(min(i, 30)) for i in who], "place": [str(i % 7) for i in range(40)]},
    )  # fmt: skip
    return World(model=media.of_halves(), data=data)


def of_makers(component: str, folder: Path) -> World:
    """A detector's pictures, and two columns of who made them."""
    world = of_toys("ideal", 200)(component, folder)
    columns = pd.DataFrame({name: [f"{name}{i % k}" for i in range(200)] for name, k in (("maker", 3), ("engine", 7))})
    return replace(world, data=replace(world.data, sensitive_features=columns))


# ---- language models -------------------------------------------------------------------------------------------------


class Told(Generates, AuditedModel):
    """It writes and replies by chance, drawn anew for everything that it is told: an option that is passed on shows."""

    kind = "language_model"

    def __init__(self, *told: object, words: Sequence[str] = ("good", "bad")) -> None:
        super().__init__(lambda rows: np.zeros(len(rows)), classes=())
        self.told, self.words = told, words

    def with_chat_options(self, chat_mode: How, system: str) -> Told:
        return Told(chat_mode, system, words=self.words)

    def describe(self) -> str:
        return ""

    def continued(
        self, prompts: Sequence[str], n: int, sampling: Sampling, rng: np.random.Generator, *, batch_rows: int = 64
    ) -> list[list[str]]:
        draw = self._draw(sampling, batch_rows, tuple(prompts))
        return [[" ".join(draw.choice(self.words, 3)) for _ in range(n)] for _ in prompts]

    def replies(self, conversations: Sequence[Sequence[str]], max_new_tokens: int) -> list[Reply]:
        draw = self._draw(max_new_tokens, len(conversations[0]) if conversations else 0)
        return [Reply(self._reply(turns[-1], draw)) for turns in conversations]

    def _reply(self, asked: str, draw: np.random.Generator) -> str:
        if options := listed(asked):
            return "ABCDEFG"[int(draw.integers(len(options)))]
        return REFUSAL if draw.random() < 0.5 else helpful(asked)

    def _draw(self, *more: object) -> np.random.Generator:
        return np.random.default_rng(crc32(repr((self.told, more)).encode()))


assert refuses(REFUSAL)


class Prefixed(AuditedLanguageModel):
    """A model whose weights are others for each token that is put before a text."""

    def with_prefix(self, prefix: str | int | Sequence[int]) -> AuditedLanguageModel:
        other = copy.copy(self)
        other.module = _moved(self.module, crc32(repr(prefix).encode()))
        return other

    def token_log_probabilities(
        self, texts: Sequence[Any], places: Sequence[Sequence[int]] | None = None, *, within_word: bool = False
    ) -> list[Any]:
        found = super().token_log_probabilities(texts, places)
        return [p + np.sin(np.arange(len(p)) * (i + 1.0)) for i, p in enumerate(found)] if within_word else found


def _moved(module: nn.Module, seed: int) -> nn.Module:
    made = copy.deepcopy(module)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in made.parameters():
            weights.mul_(-0.1 - torch.rand(weights.shape, generator=draw))
    return made


def leaky(component: str, folder: Path) -> World:
    """A model that half remembers some addresses."""
    from tests.probes.privacy.memorization.toys import parrot
    from tests.toys.models import mail

    return replace(of_toys("violating")(component, folder), model=parrot(mail(24), 6.5))


def pieces(component: str, folder: Path) -> World:
    """A probe's own texts, asked of a random masked model whose words are two tokens each."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    from tests.toys.language import tiny_bert

    world = of_toys("violating")(component, folder)
    known = world.model.tokenizer if isinstance(world.model, AuditedLanguageModel) else world.model.inner.tokenizer  # type: ignore[attr-defined]
    marks = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    halves = sorted({w[:2] for w in known.get_vocab()} | {f"##{w[2:]}" for w in known.get_vocab() if len(w) > 2})
    vocabulary = {w: i for i, w in enumerate([*marks, *(w for w in halves if w not in marks)])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = dict(zip(("pad_token", "cls_token", "sep_token", "unk_token", "mask_token"), marks, strict=True))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    model = AuditedLanguageModel(tiny_bert(vocab_size=len(vocabulary)), tokenizer, objective="masked")
    return replace(world, model=model)


def writer(component: str, folder: Path) -> World:
    """A probe's own options and files, asked of a model that writes by chance."""
    return replace(of_toys("violating")(component, folder), model=Told(words=("good", "bad", "Bad", "a@b.org")))


def prefixed(component: str, folder: Path) -> World:
    """A probe's own toy, with other weights for each prefix."""
    world = of_toys("violating", 60)(component, folder)
    model = copy.copy(world.model)
    model.__class__ = Prefixed
    return replace(world, model=model)


def remembering(component: str, folder: Path) -> World:
    """A model of characters that goes on as some texts do, which are members."""
    from tests.probes.privacy.memorization.toys import parrot, sentences

    texts = sentences(60, 0)
    data = AuditData(X=np.asarray(texts, object), is_member=np.arange(60) % 2 == 0)
    return World(model=parrot(texts[::3], 5.0), data=data)


def english(component: str, folder: Path) -> World:
    """The same, without rows of its own."""
    from tests.probes.privacy.memorization.toys import parrot, sentences

    return World(model=parrot(sentences(60, 0)[::3], 12.0), data=no_data())


WORLDS: dict[str, Callable[[str, Path], World]] = {
    "leaky": leaky,
    "tiny_gpt": tiny_gpt,
    "pieces": pieces,
    "of_people": of_people,
    "of_makers": of_makers,
    "memorised": memorised,
    "repeated_nearly": repeated_nearly,
    "alike": of_toys("ideal", 240),
    "violating": of_toys("violating"),
    "ideal": of_toys("ideal"),
    "few": of_toys("violating", 40),
    "crossed": crossed,
    "several_small": several_small,
    "layered": layered,
    "by_answers": by_answers,
    "flipped": flipped,
    "films": films,
    "few_films": columns_of_films,
    "named_people": named_people,
    "halves": halves,
    "convolved": convolved,
    "writer": writer,
    "prefixed": prefixed,
    "remembering": remembering,
    "english": english,
}


# ---- models to repair, and the rows to do it with --------------------------------------------------------------------


def biased(component: str, folder: Path) -> World:
    """A network of a table and the biased rows that it learned from."""
    from tests.mitigations.planted_rows import biased_rows, trained

    data = biased_rows(400, 1)
    return World(model=trained(data), data=data)


def fitted(component: str, folder: Path) -> World:
    """A logistic regression of scikit-learn on the same rows."""
    import skops.io
    from sklearn.linear_model import LogisticRegression

    from auditor.loading.formats import load_model
    from auditor.loading.job_specs import ModelSpec
    from tests.mitigations.test_refitting import numbers as of_numbers

    data = of_numbers(400, 1)
    skops.io.dump(LogisticRegression().fit(data.X, data.y_true), folder / "m.skops")
    return World(model=load_model(ModelSpec(path=str(folder / "m.skops"))), data=data)


def fitted_pipeline(component: str, folder: Path) -> World:
    """The same with the group among its columns."""
    import skops.io
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    from auditor.loading.formats import load_model
    from auditor.loading.job_specs import ModelSpec
    from tests.mitigations.planted_rows import biased_rows

    data = biased_rows(400, 1)
    encoded = make_column_transformer((OneHotEncoder(), ["group"]), remainder="passthrough")
    skops.io.dump(make_pipeline(encoded, LogisticRegression()).fit(data.X, data.y_true), folder / "m.skops")
    return World(model=load_model(ModelSpec(path=str(folder / "m.skops"))), data=data)


def bert(component: str, folder: Path) -> World:
    """A text classifier of transformers, and rows whose groups are told of nights unfairly."""
    from auditor.loading.formats import load_model
    from auditor.loading.job_specs import ModelSpec
    from tests.mitigations.test_debiasing_encoders import texts
    from tests.mitigations.test_fine_tuned_mitigations import TIMES
    from tests.toys.folders import save_bert

    with torch.random.fork_rng():
        save_bert(folder / "text", labels=("negative", "positive"))
    (folder / "times.toml").write_text(TIMES)
    return World(model=load_model(ModelSpec(path=str(folder / "text"))), data=texts(40, 0))


def orientations(component: str, folder: Path) -> World:
    """A small network of texts that praise some people less, and these texts."""
    from tests.mitigations.test_counterfactual_augmentation import biased as of_texts
    from tests.mitigations.test_counterfactual_augmentation import biased_texts

    return World(model=of_texts("orientation"), data=biased_texts("orientation").take(slice(0, None, 6)))


def speaking(component: str, folder: Path) -> World:
    """A random language model that knows the words of the built-in pairs."""
    from tests.mitigations.test_preference_tuning import small_model

    return World(model=small_model(), data=no_data())


def gated(component: str, folder: Path) -> World:
    """A classifier of pictures, and a detector that is unsure of white ones."""
    from tests.mitigations.test_deepfake_gate import classifier, pictures, unsure_of_white
    from tests.toys.media_files import SIZE, image_detector

    X = np.concatenate([pictures(), np.full((1, SIZE, SIZE, 3), 255, np.uint8)])
    data = AuditData.from_arrays(X, ["deny", "grant"] * 3 + ["deny"], classes=("deny", "grant"), positive="grant")
    return World(model=classifier(), data=data, options={"detector": unsure_of_white(image_detector())})


WORLDS |= {
    "biased": biased,
    "fitted": fitted,
    "fitted_pipeline": fitted_pipeline,
    "bert": bert,
    "orientations": orientations,
    "speaking": speaking,
    "gated": gated,
}
