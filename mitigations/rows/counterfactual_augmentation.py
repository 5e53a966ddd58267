"""Counterfactual data augmentation: training on the same rows with other identities, to remove their effect."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.data.lexicons import built_in, read_lexicon
from auditor.run.mitigation import BaseMitigation, Mitigated, Training
from auditor.run.option_parsers import check_choice, check_not_negative
from mitigations.rows.counterfactual_rows import (
    NO_ROW,
    Arm,
    Both,
    CounterfactualGenerator,
    LexiconSwaps,
    Sides,
    TemplateSentences,
    filler_of,
    flipped,
    table_arms,
    text_arms,
)
from mitigations.rows.generated_counterfactuals import LanguageModelRewrites
from mitigations.selection_guide import MeasuredExperience, instead
from mitigations.training.retraining import VALIDATION_SHARE, refuse_one_class, run, training_set
from mitigations.training.starting_network import (
    Tuning,
    begin,
    drawn_anew,
    recipe_for,
    trainable_from_somewhere,
)

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.core.rows import Rows
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel, Recipe
    from auditor.models.language_model import AuditedLanguageModel
    from auditor.models.torch_model import TorchModel

Generator = Literal["lexicon", "templates", "both", "language_model"]
FINE_TUNING_EPOCHS = 8
_PROPOSALS = 4


class CounterfactualAugmentation(BaseMitigation):
    """Train on rows with changed identity, under the label of the original row.

    Texts: the first identity that a text names gives its place to another of the same lexicon, grammar kept, and the
    network goes on learning from its own weights, for a few epochs. Tables: the value of each sensitive feature that
    the model takes is replaced by another, and the network is trained anew by its recipe, or, where that or its
    architecture is not known, from its own weights.

    sides: ``both`` keeps a row beside its counterfactuals (augmentation, Lu et al.); ``one`` puts a counterfactual in
    the place of a row in half of the cases (substitution, Hall Maudslay et al.), so that the number of rows stays.

    pairing_weight: counterfactual logit pairing (Garg et al.): with the frozen model f, the network g and logits less
    their mean, ``loss = cross entropy(g(x), y) + pairing_weight * 2 ||g(x) - f(neutral(x))||^2``, where neutral(x) has
    a filler in the identity's place; for two classes this is the squared difference of log-odds. Where no filler fits,
    the target is the mean of f over the text and its counterfactuals. The neutral text itself is to stay as it was.

    generator: ``lexicon`` swaps what training texts name; ``templates`` adds sentences with every identity in its
    place, which have no label and so need the pairing; ``both``; ``language_model`` has the causal model in the Hugging
    Face folder ``language_model`` rewrite texts, and keeps rewrites that change the identity alone, are at most
    ``fluency_margin`` nats a token less likely, and whose label the frozen model does not change (DISCO); or, from
    Python, a ``CounterfactualGenerator``.
    categories: names out of ``auditor.data.lexicons.CATEGORIES``, with commas between. lexicon: files of the user's
    own. copies: counterfactuals of a text. sentences: of templates, at most so many for each lexicon, drawn; None means
    all. filler: the neutral word; None means the first of the built-in list.
    freeze_embeddings: leaves the words' vectors as they are: what is learned of the listed identities then carries over
    to others like them. epochs: None means 8 for texts of a bundle, and else the recipe's; so for batch_size and
    learning_rate, the recipe's in both; without a recipe 4, 32 and 5e-5. The rate falls to 0 in a straight line where
    the network goes on from its own weights. Pairing wants a high one: 0.006 in 7 epochs, on a network that was trained
    at 0.001. lora: rank of adapters, which are then learned with the head alone, at 5e-4. impute: tables: other numeric
    columns follow the flip. control_arm: also trains on the same rows without swaps, and the notes say what that came
    to: what it alone does is not the swaps' doing.

    Raises ModelError for a model that cannot be trained or has no vocabulary, DataError where no training text names an
    identity, UsageError for templates without pairing and for a sensitive feature that the model does not take.

    Source: Lu et al., 2018 (arXiv:1807.11714); Hall Maudslay et al., EMNLP 2019; Garg et al., AIES 2019; Chen et al.,
    ACL 2023 (DISCO).
    """

    name = "counterfactual_augmentation"
    pillar = "fairness"
    goal = "Train on the same rows of other identities, so that the identity says nothing"
    citation = (
        "Lu et al., 2018 (arXiv:1807.11714); Hall Maudslay et al., EMNLP 2019; Garg et al., AIES 2019; "
        "Chen et al., ACL 2023"
    )
    methods = (
        "counterfactual_data_augmentation",
        "counterfactual_data_substitution",
        "counterfactual_logit_pairing",
    )
    stage = "pre-processing"
    needs = "a bundle or a torch module; training rows with labels: texts, or tables with sensitive features"
    experience = MeasuredExperience()

    def __init__(
        self,
        *,
        generator: Generator | CounterfactualGenerator = "lexicon",
        categories: str | Sequence[str] = "auto",
        lexicon: str | Sequence[str] = (),
        sides: Sides = "both",
        copies: int = 1,
        sentences: int | None = None,
        filler: str | None = None,
        pairing_weight: float = 0.0,
        freeze_embeddings: bool = True,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        lora: int | None = None,
        impute: bool = False,
        language_model: str | None = None,
        fluency_margin: float = 0.5,
        control_arm: bool = True,
    ) -> None:
        if isinstance(generator, str) and generator not in get_args(Generator):
            raise ValueError(f"generator must be one of {', '.join(get_args(Generator))}, not {generator!r}")
        check_choice("sides", sides, Sides)
        check_not_negative("pairing_weight", pairing_weight)
        if copies < 1 or (sentences is not None and sentences < 1):
            raise ValueError("copies and sentences must be at least 1")
        filler_of(filler)
        if (generator == "language_model") != (language_model is not None):
            raise ValueError("generator=language_model and language_model=FOLDER belong together: give both or neither")
        if language_model is not None and not (Path(language_model) / "config.json").is_file():
            raise ValueError(f"language_model must be a Hugging Face folder, and {language_model!r} has no config.json")
        check_not_negative("fluency_margin", fluency_margin)
        if generator == "templates" and not pairing_weight:
            raise ValueError("templates have no labels to learn from: give pairing_weight, for instance 10")
        own = [lexicon] if isinstance(lexicon, str) else list(lexicon)
        # The user's own words alone, unless categories are named beside them.
        if categories == "auto":
            ours = () if own else built_in()
        else:
            ours = built_in(_listed(categories))
        self.lexicons_ = (*ours, *(read_lexicon(path) for path in own))
        if any(lexicon.reference for lexicon in self.lexicons_):
            raise ValueError("a reference lexicon has no identities to swap: name the neutral word with filler")
        self.generator = generator
        self.categories = categories
        self.lexicon = lexicon
        self.sides: Sides = sides
        self.copies = copies
        self.sentences = sentences
        self.filler = filler
        self.pairing_weight = pairing_weight
        self.freeze_embeddings = freeze_embeddings
        self.tuning = Tuning(epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, lora=lora)
        self.impute = impute
        self.language_model = language_model
        self.fluency_margin = fluency_margin
        self.control_arm = control_arm

    def mitigate(self, model: AuditedModel, data: AuditData, rng: np.random.Generator, training: Training) -> Mitigated:
        """A new model trained on the augmented rows, with notes on the result of the same rows without swaps."""
        old = trainable_from_somewhere(model)
        if data.modality == "image":
            raise ModelError(
                f"Counterfactual augmentation is for texts and tables, and a picture has no swap: {instead(old)}."
            )
        checked = training_set(old, data, str(old.device), groups=False)
        labelled = data.take(checked.rows)
        order = rng.permutation(len(labelled))
        n_held = int(VALIDATION_SHARE * len(order))
        held, kept = labelled.take(np.sort(order[:n_held])), labelled.take(np.sort(order[n_held:]))
        made = (
            self._text(old, kept, held, rng, training.device)
            if data.modality == "text"
            else self._table(old, kept, held, rng)
        )
        text = data.modality == "text"
        recipe = recipe_for(old, self.tuning)
        if text and self.tuning.epochs is None and drawn_anew(old):
            recipe = replace(recipe, epochs=FINE_TUNING_EPOCHS)
        seed = int(rng.integers(2**62))
        arms = (made.augmented, made.control) if self.control_arm else (made.augmented,)
        models = [
            self._train_arm(old, arm, recipe, seed, training, arm_name, own_weights=text)
            for arm, arm_name in zip(arms, ("augmented", "control"), strict=False)
        ]
        refuse_one_class(models[0], old, labelled, instead="give more epochs, or another learning_rate")
        return Mitigated(model=models[0], notes=(made.note, _outcome(made.held, held, [old, *models])))

    # ---- rows ------------------------------------------------------------------------------------------------------

    def _text(
        self, old: TorchModel, training_rows: AuditData, held_out_rows: AuditData, rng: np.random.Generator, device: str
    ) -> _Made:
        texts, heard = ([str(t) for t in d.X] for d in (training_rows, held_out_rows))
        make = self._maker(old, device)
        found = list(make(texts, rng))
        hits = sum(c.row != NO_ROW for c in found)
        names = ", ".join(lexicon.category for lexicon in self.lexicons_)
        if not found and isinstance(make, LanguageModelRewrites) and make.counts["texts"]:
            raise DataError(
                f"No rewrite could be used. {make.summary()} Name a larger language model, raise fluency_margin, or "
                "use generator=lexicon."
            )
        if not found or (not hits and not self.pairing_weight):
            raise DataError(
                f"None of the {len(texts):,} training texts names an identity to swap (looked for: {names}). "
                "Give a lexicon of the words these texts use (lexicon=FILE), or generator=templates with a "
                "pairing_weight."
            )
        assert training_rows.y_true is not None
        arms = text_arms(
            old, texts, training_rows.y_true, found, rng, sides=self.sides, pairing=self.pairing_weight > 0.0
        )
        count: dict[str, int] = {}
        for c in found:
            if c.row != NO_ROW:
                count[c.category] = count.get(c.category, 0) + 1
        by_category = ", ".join(f"{category} {n:,}" for category, n in sorted(count.items()))
        sentences = len(found) - hits
        note = (
            f"{self._words()}: {hits:,} of {len(texts):,} training texts have counterfactuals"
            f"{f' ({by_category})' if count else ''}"
            f"{f', and {sentences:,} sentences were added' if sentences and self.pairing_weight else ''}; "
            f"{len(arms[0].y):,} rows."
        )
        if isinstance(make, LanguageModelRewrites):
            note = f"{note} {make.summary()}"
        pairs = [(c.row, other) for c in make(heard, rng) if c.row != NO_ROW for other in c.texts]
        rows = np.asarray([row for row, _ in pairs], np.int64)
        return _Made(*arms, note, Pairs(held_out_rows.take(rows).X, np.asarray([t for _, t in pairs], object)))

    def _maker(self, old: TorchModel, device: str) -> CounterfactualGenerator:
        if not isinstance(self.generator, str):
            return self.generator
        if self.language_model is not None:
            return LanguageModelRewrites(
                _causal(self.language_model, device),
                old,
                self.lexicons_,
                copies=self.copies,
                proposals=max(_PROPOSALS, 2 * self.copies),
                fluency_margin=self.fluency_margin,
                filler=self.filler,
            )
        swaps = LexiconSwaps(self.lexicons_, copies=self.copies, filler=self.filler)
        sentences = TemplateSentences(self.lexicons_, most=self.sentences, filler=self.filler)
        if self.generator == "templates":
            return sentences
        return swaps if self.generator == "lexicon" else Both(swaps, sentences)

    def _table(
        self, old: TorchModel, training_rows: AuditData, held_out_rows: AuditData, rng: np.random.Generator
    ) -> _Made:
        import pandas as pd

        if training_rows.sensitive_features is None:
            raise UsageError("Which feature is to be flipped? Add --sensitive COLUMN.")
        if not isinstance(training_rows.X, pd.DataFrame) or not isinstance(held_out_rows.X, pd.DataFrame):
            raise UsageError("A table without column names has no feature to flip: give a table with names.")
        features = [str(name) for name in training_rows.sensitive_features.columns]
        new, other = training_rows.X, held_out_rows.X
        for feature in features:
            new = flipped(new, feature, impute=self.impute, rng=rng)
            other = flipped(other, feature, impute=self.impute, rng=rng)
        assert training_rows.y_true is not None
        arms = table_arms(
            old, training_rows.X, new, training_rows.y_true, rng, sides=self.sides, pairing=self.pairing_weight > 0.0
        )
        how = "flipped, other numbers imputed" if self.impute else "flipped"
        note = f"{self._words()}: {', '.join(features)} {how} in {len(training_rows):,} training rows; "
        note += f"{len(arms[0].y):,} rows."
        return _Made(*arms, note, Pairs(held_out_rows.X, other))

    def _words(self) -> str:
        what = "augmentation" if self.sides == "both" else "substitution"
        paired = f" with logit pairing of weight {self.pairing_weight:g}" if self.pairing_weight else ""
        return f"Counterfactual data {what}{paired}"

    # ---- training --------------------------------------------------------------------------------------------------

    def _train_arm(
        self, old: TorchModel, arm: Arm, recipe: Recipe, seed: int, training: Training, name: str, *, own_weights: bool
    ) -> TorchModel:
        from torch import nn

        from auditor.training.training_loop import PlainStep

        rng = np.random.default_rng(seed)
        begun = begin(old, recipe, rng, training.device, lora=self.tuning.lora, own_weights=own_weights)
        new = begun.new
        fixed = (
            [p for m in new.module.modules() if isinstance(m, nn.Embedding) for p in m.parameters()]
            if self.freeze_embeddings and not begun.anew
            else []
        )
        tensors = [t.to(training.device) for t in arm.tensors]
        checkpoint = training.checkpoint
        if checkpoint is not None and name == "control":
            checkpoint = checkpoint.with_name(f"{checkpoint.name}.control")
        plain = PlainStep(new.module, begun.optimizer(but=fixed), _loss(new, self.pairing_weight))
        run(
            begun.step(plain, len(arm.y)),
            tensors,
            recipe,
            rng,
            replace(training, checkpoint=checkpoint, progress=_arm_progress(training.progress, name)),
            fingerprint={
                "mitigation": self.name,
                "options": self._options(),
                "arm": name,
                "rows": _digest(tensors),
                # The rates of a fine-tuning depend on how long it is to be.
                "epochs": None if begun.anew else recipe.epochs,
            },
        )
        return begun.finished()

    def _options(self) -> list[tuple[str, str]]:
        kept = ("pairing_weight", "freeze_embeddings", "tuning")
        return [(key, repr(getattr(self, key))) for key in kept]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Held-out rows, and the counterfactual of each: both (m, ...)."""

    rows: Rows
    counterfactuals: Rows


@dataclass(frozen=True, eq=False)
class _Made:
    augmented: Arm
    control: Arm
    note: str
    held: Pairs


def _causal(folder: str, device: str) -> AuditedLanguageModel:
    """The language model of a folder. Raises ModelError for one that continues no text."""
    from auditor.loading.job_specs import ModelSpec
    from auditor.loading.language_models import load_language_folder

    model = load_language_folder(folder, ModelSpec(path=folder, device=device))
    if model.objective != "causal":
        raise ModelError(f"{folder!r} is no causal language model, which goes on with a text: name a causal one.")
    return model


def _listed(categories: str | Sequence[str]) -> list[str]:
    if isinstance(categories, str):
        return [c.strip() for c in categories.split(",") if c.strip()]
    return list(categories)


def _loss(model: TorchModel, pairing_weight: float) -> Callable[[Sequence[Tensor]], Tensor]:
    from torch.nn.functional import cross_entropy

    def loss(batch: Sequence[Tensor]) -> Tensor:
        x, y, target = batch
        logits = model.logits(x)
        known, paired = y >= 0, ~target[:, 0].isnan()
        # Selected, not weighted by zero: what is absent is NaN, and its gradient would be too.
        total = cross_entropy(logits[known], y[known], reduction="sum")
        if pairing_weight:
            centred = logits - logits.mean(dim=1, keepdim=True)
            total = total + pairing_weight * 2.0 * (centred[paired] - target[paired]).square().sum()
        return total / len(y)

    return loss


def _arm_progress(progress: Callable[[str], None] | None, arm_name: str) -> Callable[[str], None] | None:
    if progress is None or arm_name == "augmented":
        return progress
    return lambda words: progress(f"control arm, {words}")


def _outcome(pairs: Pairs, held_out_rows: AuditData, models: Sequence[TorchModel]) -> str:
    """How far answers move under a swap, and accuracy, on rows that were held out: for display, an audit judges."""
    names = ("before", "after", "control arm (same rows, no swaps)")
    correct = [
        float((m.decisions(held_out_rows) == held_out_rows.y_true).mean()) if len(held_out_rows) else np.nan
        for m in models
    ]
    moved = [
        float(np.abs(m.predict_proba(pairs.rows) - m.predict_proba(pairs.counterfactuals)).sum(axis=1).mean() / 2.0)
        if len(pairs.rows)
        else np.nan
        for m in models
    ]

    def listed(values: list[float]) -> str:
        return ", ".join(f"{value:.3f} {name}" for value, name in zip(values, names, strict=False))

    swaps = (
        f"in {len(pairs.rows):,} pairs of a row and its counterfactual the probabilities differ by {listed(moved)}; "
        if len(pairs.rows)
        else "none has a counterfactual; "
    )
    return f"Of {len(held_out_rows):,} rows held out, for display only: {swaps}accuracy {listed(correct)}."


def _digest(tensors: Sequence[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
