"""Hugging Face folders: transformers' own classifiers of text, image and sound, from safetensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from auditor.core.errors import DamagedError, ModelError, UnsupportedError
from auditor.core.rows import Rows
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing, Preprocessing
from auditor.loading.finish_loading import named_classes, no_flags_of_classes, provenance_in
from auditor.loading.job_specs import ModelSpec
from auditor.models.detector import PREPROCESSOR
from auditor.models.files.hf_folder import (
    OF_SAMPLES,
    build_network,
    ignored_files,
    quiet_and_offline,
    read_weights,
    refuse_settings,
    settings_notes,
    tokenizer_backend,
)
from auditor.models.files.model_bytes import convert_parser_errors, printable
from auditor.models.files.model_folder import Folder, open_model_folder
from auditor.models.forward_passes import free_bytes, rows_at_once
from auditor.models.networks.encoders import standardise
from auditor.models.regression_model import TorchRegressor
from auditor.models.torch_model import OtherModel, TorchModel, evaluating

_MAX_TOKENS = 1 << 16
_TEXT_BATCH, _IMAGE_BATCH, _SOUND_BATCH = 64, 64, 8
# Places of a text by which it is told what a longer one takes.
_TOLD_BY = 512
_DEFAULT_TOKENS = 512
_MOST_LABELS = 100_000
# Their positions begin after the padding index, so that many fewer tokens fit than there are position embeddings.
_OFFSET_POSITIONS = frozenset(
    {
        "roberta",
        "xlm-roberta",
        "xlm-roberta-xl",
        "roberta-prelayernorm",
        "camembert",
        "data2vec-text",
        "longformer",
        "mpnet",
        "ibert",
    }
)


# Tasks whose answers no probe asks for yet: the model is loaded and counted, and each probe says why it does not apply.
_OTHER_TASKS = {
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES": "an encoder-decoder, which writes a text of its own from another",
    "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES": "a token classifier, which has an answer for every word of a text",
    "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES": "a question answerer, which marks a part of a text",
}


def load_folder(path: str, spec: ModelSpec) -> TorchModel | TorchRegressor | OtherModel:
    """The model of a Hugging Face folder. Raises UnsafeModelError for code and pickles, else ModelError."""
    folder, settings = open_model_folder(path, memory_map=spec.mapped)
    family, name = _architecture(settings, folder)
    if family not in ("text", "image", "sound"):
        return _load_unsupported(folder, settings, name, family)
    head = _head(settings, folder, spec)
    weights = read_weights(folder)
    with quiet_and_offline():
        network, config = build_network(family, name, settings, weights, folder)
    notes = (*head.notes, *ignored_files(folder), *settings_notes(settings))
    if family == "text":
        text = text_encoding(folder, settings, network.get_input_embeddings().num_embeddings)  # type: ignore[operator]
        if getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = text.pad
        module: nn.Module = TextClassifier(network, text.pad, text.left)
        preprocessing: Preprocessing | None = None
        more, encoder, token_name = text.notes, text.encode, text.token_name
        largest = torch.full((1, text.length), text.pad)
    elif family == "sound":
        preprocessing, more, encoder, token_name = sound_preprocessing(folder), (), None, None
        module = SoundClassifier(network, scaled=scales_sound(folder))
        largest = torch.zeros(1, preprocessing.samples)
    else:
        preprocessing, more = image_preprocessing(folder, settings)
        module, encoder, token_name = network, None, None
        largest = torch.zeros(1, len(preprocessing.mean), *preprocessing.size)
    most = _TOLD_BY if family == "text" else largest.shape[1]
    least = {"text": _TEXT_BATCH, "image": _IMAGE_BATCH}.get(family, _SOUND_BATCH)
    shared: dict[str, Any] = {
        "preprocessing": preprocessing,
        "encoder": encoder,
        "token_name": token_name,
        "device": spec.device,
        "batch_rows": _rows_at_once(module, largest, least, torch.device(spec.device), most),
        "provenance": provenance_in(folder, name, (*notes, *more)),
    }
    if head.classes is None:
        return TorchRegressor(module, **shared)
    return TorchModel(
        module if head.label is None else OneLabel(module, head.label),
        classes=head.classes,
        outputs=spec.outputs or "logits",
        threshold=0.5 if spec.threshold is None else spec.threshold,
        **shared,
    )


def _rows_at_once(module: nn.Module, largest: Tensor, least: int, device: torch.device, most: int) -> int:
    """Asked on the CPU, before the network is moved, of ``most`` places of a text: layers make as much of each."""
    free, part = free_bytes(device), largest[:, :most]
    with evaluating(module):
        return rows_at_once(module, part, least, free and free * part.shape[1] // largest.shape[1])


def _load_unsupported(folder: Folder, settings: Mapping[str, Any], name: str, description: str) -> OtherModel:
    """A model of a task that no probe asks about, with all of its weights."""
    weights = read_weights(folder)
    with quiet_and_offline():
        network, _ = build_network("text", name, settings, weights, folder)
    notes = (f"The model is {description}: no probe asks about that yet.", *ignored_files(folder))
    return OtherModel(network, description=description, provenance=provenance_in(folder, name, notes))


def _architecture(settings: Mapping[str, Any], folder: Folder) -> tuple[str, str]:
    """("text", "image", "sound" or another task in words, the class in transformers), by exact name from its tables."""
    from transformers.models.auto import modeling_auto

    refuse_settings(settings, folder)
    kind, listed = settings.get("model_type"), settings.get("architectures")
    name = listed[0] if isinstance(listed, list) and listed else None
    if not isinstance(kind, str) or not isinstance(name, str):
        raise ModelError(
            f"The config.json in {folder.name!r} must name a model_type and one of architectures.",
            code="AUD-LOAD-INCOMPLETE",
        )
    tables = {
        "text": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        "image": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    }
    for family, table in tables.items():
        known = table.get(kind, ())
        if name in ((known,) if isinstance(known, str) else tuple(known)):
            return family, name
    if kind in OF_SAMPLES and name == modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES.get(kind):
        return "sound", name
    for table_name, what in _OTHER_TASKS.items():
        known = getattr(modeling_auto, table_name).get(kind, ())
        if name in ((known,) if isinstance(known, str) else tuple(known)):
            return what, name
    raise UnsupportedError(
        f"{folder.name!r} is a {printable(name, 60)} ({printable(kind, 40)}); supported yet are transformers' own "
        "...ForSequenceClassification and ...ForImageClassification, of sound too where it takes samples. Audit it "
        "with --predict package.module:function."
    )


@dataclass(frozen=True)
class _Head:
    """What a folder's outputs are: of ``classes``, a number where there are none; ``label``: the one output of several
    that is audited, each of them a yes or no of its own."""

    classes: tuple[str, ...] | None
    label: int | None = None
    notes: tuple[str, ...] = ()


def _head(settings: Mapping[str, Any], folder: Folder, spec: ModelSpec) -> _Head:
    problem, labels = settings.get("problem_type"), labels_in(settings, folder)
    if problem == "multi_label_classification":
        return _label_of(labels, folder, spec)
    if len(labels) == 1 and problem != "regression" and spec.task != "regression" and spec.classes is not None:
        read = "One output a row, read as the logit of the last of --classes: config.json names one label and no more."
        return _Head(named_classes(None, spec), notes=(read,))
    if problem == "regression" or len(labels) == 1:
        if len(labels) > 1:
            raise UnsupportedError(
                f"{folder.name!r} predicts {len(labels)} numbers, not a class, and a regression of one target is what "
                "is audited: audit one of them with --predict package.module:function."
            )
        no_flags_of_classes(spec)
        said = "its config.json says regression" if problem == "regression" else "as transformers trains one label"
        other = "" if problem == "regression" else "; --classes no,yes reads it as the logit of yes"
        return _Head(None, notes=(f"One output a row, read as a number ({said}{other}).",))
    return _Head(named_classes(labels, spec))


def labels_in(settings: Mapping[str, Any], folder: Folder) -> tuple[str, ...]:
    """The labels of a config.json in the order of its outputs. Raises ModelError where it numbers others."""
    labels, n = settings.get("id2label"), settings.get("num_labels")
    if labels is None:
        # transformers leaves labels unnamed where there are two, or only their number is said.
        return tuple(f"LABEL_{i}" for i in range(n if isinstance(n, int) and 0 < n <= _MOST_LABELS else 2))
    if not isinstance(labels, dict) or sorted(labels) != sorted(str(i) for i in range(len(labels))):
        raise ModelError(
            f"The id2label of {folder.name!r} does not number its classes from 0.", code="AUD-LOAD-CLASSES"
        )
    return tuple(str(labels[str(i)]) for i in range(len(labels)))


def _label_of(labels: Sequence[str], folder: Folder, spec: ModelSpec) -> _Head:
    """The one label of several that --classes names last: whether a row has it is what is audited."""
    if len(set(labels)) != len(labels):
        raise ModelError(f"The id2label of {folder.name!r} names a label twice.", code="AUD-LOAD-CLASSES")
    if spec.classes is None and len(labels) == 1:
        return _Head((f"not {labels[0]}", labels[0]), label=0)
    shown = ", ".join(printable(label, 40) for label in labels[:8]) + (", ..." if len(labels) > 8 else "")
    example = printable(labels[0], 40)
    if spec.classes is None or len(spec.classes) != 2 or spec.classes[1] not in labels:
        raise ModelError(
            f"{folder.name!r} gives several labels to a row ({shown}), and one is audited at a time: name it as "
            f'the last of two, such as --classes "not {example},{example}".',
            code="AUD-LOAD-CLASSES",
        )
    name = spec.classes[1]
    note = f"One of {len(labels)} labels is audited, {printable(name, 60)!r}; a row may have others besides."
    return _Head(named_classes(None, spec), label=labels.index(name), notes=(note,))


class OneLabel(nn.Module):
    """One output of a multi-label network: its logit, (n, 1)."""

    def __init__(self, network: nn.Module, label: int) -> None:
        super().__init__()
        self.network = network
        self.label = label

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.network(inputs)
        logits: Tensor = getattr(found, "logits", found)
        return logits[:, self.label : self.label + 1]


# ---- text ----------------------------------------------------------------------------------------------------------


class TextClassifier(nn.Module):
    """A transformers classifier of padded token ids, (n, length) int64 to (n, n_outputs) logits.

    A token counts unless it belongs to the run of padding at the end (at the beginning, where ``left``); a text of
    nothing but padding keeps one token, so that attention stays defined.
    """

    def __init__(self, network: nn.Module, pad: int, left: bool) -> None:
        super().__init__()
        self.network = network
        self.pad = pad
        self.left = left

    def attention_mask(self, ids: Tensor) -> Tensor:
        """(n, length) 1 for tokens that count, 0 for padding."""
        return attention_mask(ids, self.pad, self.left)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.network(input_ids=ids, attention_mask=self.attention_mask(ids)).logits
        return logits


def attention_mask(ids: Tensor, pad: int, left: bool) -> Tensor:
    """(n, length) 1 for tokens that count, 0 for padding; see :class:`TextClassifier`."""
    real = (ids != pad).long()
    if left:
        mask = real.cummax(dim=1).values
        mask[:, -1:] = 1
    else:
        mask = real.flip(1).cummax(dim=1).values.flip(1)
        mask[:, :1] = 1
    return mask


@dataclass(frozen=True)
class TextEncoding:
    """An encoding of texts as padded ids: ``pad``: the padding id, ``left``: whether padding is on the left,
    ``token_name``: the token of an id, ``length``: the most tokens of a text."""

    encode: Callable[[Rows], Tensor]
    pad: int
    left: bool
    token_name: Callable[[int], str | None]
    notes: tuple[str, ...]
    length: int

    def mask(self, ids: Tensor) -> Tensor:
        """(n, length) 1 for tokens that count, 0 for padding."""
        return attention_mask(ids, self.pad, self.left)


def text_encoding(folder: Folder, settings: Mapping[str, Any], n_known: int) -> TextEncoding:
    """The text encoding of a folder, for a network with ``n_known`` ids; ModelError if they do not match."""
    options = folder.json("tokenizer_config.json") if folder.has("tokenizer_config.json") else {}
    tokenizer, notes = tokenizer_backend(folder, options)
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
    if not 0 <= largest < n_known:
        raise ModelError(
            f"The tokenizer in {folder.name!r} has {largest + 1:,} tokens, the network knows "
            f"{n_known:,}: they do not belong together.",
            code="AUD-LOAD-WEIGHTS",
        )
    pad, left = _padding(tokenizer, options, folder)
    length, why = _token_limit(settings, options, pad)
    tokenizer.enable_truncation(max_length=length)
    tokenizer.enable_padding(pad_id=pad, pad_token=tokenizer.id_to_token(pad), direction="left" if left else "right")

    def encode(X: Rows) -> Tensor:
        if not isinstance(X, np.ndarray) or X.dtype != object:
            raise ModelError("This model reads text: name the column that holds it with --text.", code="AUD-LOAD-ROWS")
        encoded = tokenizer.encode_batch([str(text) for text in X])
        ids = np.asarray([e.ids for e in encoded], np.int64).reshape(len(X), -1)
        # A text without a single token would leave the network nothing to look at.
        return torch.from_numpy(ids if ids.shape[1] else np.full((len(X), 1), pad, np.int64))

    note = f"Texts longer than {length} tokens are cut at the end ({why})."
    return TextEncoding(encode, pad, left, tokenizer.id_to_token, (*notes, note), length)


def _padding(tokenizer: Any, options: Mapping[str, Any], folder: Folder) -> tuple[int, bool]:
    named = options.get("pad_token")
    if named is None and folder.has("special_tokens_map.json"):
        named = folder.json("special_tokens_map.json").get("pad_token")
    token = named.get("content") if isinstance(named, dict) else named
    left = options.get("padding_side") == "left"
    if token is None and tokenizer.padding is not None:
        return int(tokenizer.padding["pad_id"]), tokenizer.padding["direction"] == "left"
    pad = tokenizer.token_to_id(token) if isinstance(token, str) else None
    if pad is None:
        raise ModelError(
            f"The tokenizer in {folder.name!r} names no padding token: add pad_token to tokenizer_config.json.",
            code="AUD-LOAD-INCOMPLETE",
        )
    return int(pad), left


def _token_limit(settings: Mapping[str, Any], options: Mapping[str, Any], pad: int) -> tuple[int, str]:
    found: dict[str, int] = {}
    stated = options.get("model_max_length")
    if isinstance(stated, (int, float)) and 2 < stated <= _MAX_TOKENS:
        found["the tokenizer's limit"] = int(stated)
    positions = settings.get("max_position_embeddings")
    if isinstance(positions, int):
        offset = pad + 1 if settings.get("model_type") in _OFFSET_POSITIONS else 0
        if 2 < positions - offset <= _MAX_TOKENS:
            found["the network's limit"] = positions - offset
    if not found:
        return _DEFAULT_TOKENS, "neither the network nor the tokenizer names a limit"
    why = min(found, key=lambda k: found[k])
    return found[why], why


# ---- images --------------------------------------------------------------------------------------------------------


def image_preprocessing(folder: Folder, settings: Mapping[str, Any]) -> tuple[ImagePreprocessing, tuple[str, ...]]:
    """The image preprocessing of a folder, by its preprocessor_config.json, and notes; ModelError without one."""
    if not folder.has(PREPROCESSOR):
        raise ModelError(
            f"{folder.name!r} holds no preprocessor_config.json, without which its images' size and scale are a guess: "
            "save it with AutoImageProcessor.from_pretrained(...).save_pretrained(folder).",
            code="AUD-LOAD-INCOMPLETE",
        )
    options = folder.json(PREPROCESSOR)
    notes = []
    size = options.get("size")
    if options.get("do_center_crop") and options.get("crop_size") is not None:
        size = options["crop_size"]
        notes.append("Images are resized to the size of the crop directly, where the original resizes and then crops.")
    with convert_parser_errors(f"The preprocessor_config.json in {folder.name!r} cannot be used"):
        height, width = _size(size, settings)
        channels = int(settings.get("num_channels", 3))
        mean, std = [0.0] * channels, [1.0] * channels
        if options.get("do_normalize", True):
            mean, std = _per_channel(options, "image_mean", channels), _per_channel(options, "image_std", channels)
        factor = float(options.get("rescale_factor", 1 / 255)) if options.get("do_rescale", True) else 1.0
        # (x f - m) / s of raw pixels x is ((x / 255) - m / (255 f)) / (s / (255 f)).
        scale = 255.0 * factor
        preprocessing = ImagePreprocessing(
            size=(height, width),
            mean=tuple(m / scale for m in mean) if abs(scale - 1) > 1e-9 else tuple(mean),
            std=tuple(s / scale for s in std) if abs(scale - 1) > 1e-9 else tuple(std),
        )
    return preprocessing, tuple(notes)


def _size(size: object, settings: Mapping[str, Any]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, dict) and {"height", "width"} <= set(size):
        return int(size["height"]), int(size["width"])
    if isinstance(size, dict) and "shortest_edge" in size:
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    stated = settings.get("image_size")
    if isinstance(stated, int):
        return stated, stated
    raise ModelError("It names no size.", code="AUD-LOAD-INCOMPLETE")


def _per_channel(options: Mapping[str, Any], key: str, channels: int) -> list[float]:
    value = options.get(key)
    values = [float(v) for v in value] if isinstance(value, list) else [float(str(value))] * channels
    if len(values) != channels:
        raise DamagedError(f"Its {key} has {len(values)} numbers for {channels} channels.")
    return values


# ---- sound ---------------------------------------------------------------------------------------------------------


class SoundClassifier(nn.Module):
    """A transformers classifier of (n, samples) in [-1, 1); where ``scaled``, each at mean 0 and variance 1."""

    def __init__(self, network: nn.Module, *, scaled: bool) -> None:
        super().__init__()
        self.network = network
        self.scaled = scaled

    def forward(self, x: Tensor) -> Tensor:
        if self.scaled:
            x = standardise(x)
        logits: Tensor = self.network(input_values=x).logits
        return logits


def sound_preprocessing(
    folder: Folder, samples: int | None = None, *, seconds: float | None = None
) -> AudioPreprocessing:
    """The sound preprocessing of a folder, by its preprocessor_config.json; ModelError if it is incomplete.

    ``samples``: how many the network takes, where it says so itself; else ``seconds`` of them, or the file's
    ``max_length``.
    """
    said = folder.json(PREPROCESSOR) if folder.has(PREPROCESSOR) else {}
    length = said.get("max_length") if samples is None else samples
    if seconds is not None and isinstance(rate := said.get("sampling_rate"), int):
        length = round(seconds * rate)
    try:
        return AudioPreprocessing.model_validate({"sampling_rate": said.get("sampling_rate"), "samples": length})
    except ValidationError:
        raise ModelError(
            f"The {PREPROCESSOR} in {folder.name!r} must say sampling_rate (4000 to 192000) and, where the network "
            "does not fix it, max_length, the samples of a recording that are looked at.",
            code="AUD-LOAD-INCOMPLETE",
        ) from None


def scales_sound(folder: Folder) -> bool:
    """Whether each recording is normalised to mean 0 and variance 1, transformers' default."""
    return bool(folder.json(PREPROCESSOR).get("do_normalize", True))
