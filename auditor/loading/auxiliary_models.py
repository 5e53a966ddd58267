"""Auxiliary models, used in an audit and not audited: encoders of media, and scorers of generated texts.

Labels that do not exclude each other make no classifier that could be audited as one; each alone says yes or no.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from auditor.core.errors import ModelError, UnsupportedError, UsageError, did_you_mean
from auditor.core.rows import FloatArray, Rows
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing
from auditor.loading.finish_loading import provenance_in
from auditor.loading.huggingface_folders import (
    image_preprocessing,
    labels_in,
    load_folder,
    scales_sound,
    sound_preprocessing,
    text_encoding,
)
from auditor.loading.job_specs import ModelSpec
from auditor.models.audited_model import AuditedModel
from auditor.models.files.hf_folder import read_weights
from auditor.models.files.model_bytes import convert_parser_errors, read_source
from auditor.models.files.model_folder import Folder, open_model_folder
from auditor.models.networks.encoders import (
    FORMS,
    Encoder,
    EncoderProbe,
    encoder_of,
    hold,
    mebibytes,
    pack_encoder,
)

# Of the encoders that serve best for this, CLIP's.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_SIDE = 224
_MOST_BYTES = 2 << 30


@dataclass(frozen=True, eq=False, kw_only=True)
class EncoderFile:
    """An encoder in a detector: its ``form``, an index into ``FORMS``, and its ``content``, one file.

    ``n_features``: of the vectors it gives. ``preprocessing``: how a file becomes its input. ``notes``: what was
    assumed. ``scaled``: whether sound is brought to mean 0 and variance 1.
    """

    form: int
    content: bytes
    encoder: Encoder
    n_features: int
    preprocessing: ImagePreprocessing | AudioPreprocessing
    notes: tuple[str, ...] = ()
    scaled: bool = False


def read_encoder(where: str, *, seconds: float | None = None) -> EncoderFile:
    """The encoder at a path: a transformers folder, or an ONNX file.

    Colours of an ONNX file are scaled as the preprocessor_config.json beside it says, else as CLIP's. ``seconds``: of
    sound, of an encoder that takes sound; its sampling rate is the file's that lies beside it, or in it. Raises
    UsageError where there is none, ModelError where it cannot be used, MissingExtraError without the library that it
    takes.
    """
    return _folder(where, seconds) if Path(where).is_dir() else _onnx(where, seconds)


def _encoder_file(
    form: str, content: bytes, preprocessing: ImagePreprocessing | AudioPreprocessing, notes: tuple[str, ...]
) -> EncoderFile:
    encoder = encoder_of(form, content)
    if isinstance(preprocessing, AudioPreprocessing) != encoder.of_sound:
        takes, wanted = ("sound", "images") if encoder.of_sound else ("images", "sound")
        raise ModelError(
            f"The encoder takes {takes}, and the detector is for {wanted}: name one of {wanted}.",
            code="AUD-LOAD-UNUSABLE",
        )
    if encoder.size is not None and form == "onnx":
        fixed = {"samples": encoder.size[0]} if encoder.of_sound else {"size": encoder.size}
        preprocessing = preprocessing.model_copy(update=fixed)
    if isinstance(preprocessing, AudioPreprocessing):
        shape: tuple[int, ...] = (preprocessing.samples,)
    else:
        shape = (len(preprocessing.mean), *preprocessing.size)
    with torch.inference_mode():
        found = encoder(torch.zeros(1, *shape))
    if found.ndim != 2 or not found.is_floating_point():
        raise ModelError(
            f"The encoder gives {tuple(found.shape)} for one file: expected one vector, or tokens of one.",
            code="AUD-LOAD-OUTPUTS",
        )
    return EncoderFile(
        form=FORMS.index(form),
        content=content,
        encoder=encoder,
        n_features=found.shape[1],
        preprocessing=preprocessing,
        notes=notes,
    )


def probe_of(file: EncoderFile, fake: int) -> tuple[EncoderProbe, dict[str, Any]]:
    """A head, not fitted yet, on an encoder that it holds, and the arguments to make it of."""
    args: dict[str, Any] = {
        "form": file.form,
        "n_mebibytes": mebibytes(file.content),
        "n_features": file.n_features,
        "fake": fake,
    }
    args |= {"scaled": True} if file.scaled else {}
    probe = EncoderProbe(**args)
    hold(probe, file.content)
    probe.use(file.encoder)
    return probe, args


def _folder(where: str, seconds: float | None) -> EncoderFile:
    folder = Folder(where)
    if not folder.has("config.json"):
        raise ModelError(
            f"{folder.name!r} is no transformers folder: it holds no config.json.", code="AUD-LOAD-INCOMPLETE"
        )
    settings = folder.json("config.json")
    listed = settings.get("architectures")
    name = listed[0] if isinstance(listed, list) and listed else ""
    if seconds is not None:
        wanted = sound_preprocessing(folder, seconds=seconds)
        content = pack_encoder(str(name), read_weights(folder), settings)
        return replace(_encoder_file("transformers", content, wanted, ()), scaled=scales_sound(folder))
    preprocessing, _ = image_preprocessing(folder, settings)
    options = folder.json("preprocessor_config.json")
    fit = "cover" if options.get("do_center_crop") else "stretch"
    content = pack_encoder(str(name), read_weights(folder), settings)
    return _encoder_file("transformers", content, preprocessing.model_copy(update={"fit": fit}), ())


def _onnx(where: str, seconds: float | None) -> EncoderFile:
    source = read_source(where, noun="encoder", max_bytes=_MOST_BYTES)
    if seconds is not None:
        folder = Folder(str(Path(where).resolve().parent))
        wanted = sound_preprocessing(folder, seconds=seconds)
        return replace(_encoder_file("onnx", source.data, wanted, ()), scaled=scales_sound(folder))
    beside = Path(where).parent / "preprocessor_config.json"
    notes: tuple[str, ...] = ()
    if beside.is_file():
        mean, std = _colours(read_source(beside, max_bytes=1 << 20).data)
    else:
        mean, std = CLIP_MEAN, CLIP_STD
        notes = ("The encoder's file does not say how colours are scaled: CLIP's mean and deviation were used.",)
    preprocessing = ImagePreprocessing(size=(_SIDE, _SIDE), mean=mean, std=std, fit="cover")
    return _encoder_file("onnx", source.data, preprocessing, notes)


def _colours(content: bytes) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        options = json.loads(content)
        mean, std = (tuple(float(v) for v in options[key]) for key in ("image_mean", "image_std"))
        if len(mean) != 3 or len(std) != 3:
            raise ValueError
        return mean, std
    except (ValueError, TypeError, KeyError):
        raise ModelError(
            "The preprocessor_config.json beside the encoder cannot be used: its image_mean and image_std must be "
            "three numbers each.",
            code="AUD-LOAD-UNUSABLE",
        ) from None


_GRAPH = "model.onnx"
_SEVERAL = "multi_label_classification"
_ROWS = 64
_FED = {"input_ids", "attention_mask", "token_type_ids"}


def gives_labels(path: str) -> bool:
    """Whether a path is a multi-label text folder, or a graph, of which one label is used."""
    where = Path(path)
    if not (where / "config.json").is_file():
        return False
    folder, settings = open_model_folder(path)
    return settings.get("problem_type") == _SEVERAL or (
        folder.has(_GRAPH) and not any(name.endswith(".safetensors") for name in folder.names())
    )


def load_label(path: str, label: str | None) -> AuditedModel:
    """A folder's classifier of texts as one of a single label, which is its last class: ("not toxic", "toxic").

    A graph is ``model.onnx`` beside config.json and tokenizer.json, as exporters of transformers write it. Its outputs
    are logits: of several labels each by the logistic function, else all by softmax. Raises UsageError where the label
    is not said or is none of the folder's, and as the loaders of such files.
    """
    folder, settings = open_model_folder(path)
    several = settings.get("problem_type") == _SEVERAL
    labels = labels_in(settings, folder)
    if label is None and several:
        raise UsageError(
            f"{folder.name!r} gives a text several labels at once ({', '.join(labels)}): say which is the score with "
            "the option scorer_class."
        )
    if label is not None and label not in labels:
        near = did_you_mean(label, labels) or "."
        raise UsageError(f"{folder.name!r} has no label {label!r}{near} It has: {', '.join(labels)}.")
    column = len(labels) - 1 if label is None else labels.index(label)
    classes = (f"not {labels[column]}", labels[column])
    if folder.has(_GRAPH) and not folder.has("model.safetensors"):
        return _of_a_graph(folder, settings, column, classes, several)
    return load_folder(path, ModelSpec(path=path, classes=classes))


def _of_a_graph(
    folder: Folder, settings: Mapping[str, Any], column: int, classes: tuple[str, str], several: bool
) -> AuditedModel:
    from auditor.models.files.onnx_graphs import check, libraries, session_of

    onnx, onnxruntime = libraries()
    source = folder.read(_GRAPH)
    with convert_parser_errors(f"{_GRAPH!r} in {folder.name!r} cannot be read as an ONNX model"):
        check(onnx.load_model_from_string(source.data), source.name)
        session = session_of(onnxruntime, source.data)
    asked = {each.name for each in session.get_inputs()}
    outputs = [each.name for each in session.get_outputs()]
    if not {"input_ids"} <= asked <= _FED or "logits" not in outputs:
        raise UnsupportedError(
            f"{_GRAPH!r} in {folder.name!r} does not take input_ids and give logits: export a classifier of texts."
        )
    known = settings.get("vocab_size")
    if not isinstance(known, int):
        raise ModelError(
            f"The config.json in {folder.name!r} must name the vocab_size of its network.", code="AUD-LOAD-INCOMPLETE"
        )
    text = text_encoding(folder, settings, known)
    n_labels = len(labels_in(settings, folder))

    def score(texts: Rows) -> FloatArray:
        found = [_logits(texts[i : i + _ROWS]) for i in range(0, len(texts), _ROWS)]
        logits = np.concatenate(found) if found else np.empty((0, n_labels))
        # Clipped where the exponential would overflow, far beyond where it makes a difference.
        if several:
            return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits[:, column], -700.0, 700.0))), np.float64)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shifted[:, column] / shifted.sum(axis=1), np.float64)

    def _logits(texts: Rows) -> FloatArray:
        ids = text.encode(texts)
        mask = text.mask(ids)
        fed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
        (values,) = session.run(["logits"], {name: fed[name].numpy() for name in asked})
        if values.ndim != 2 or values.shape[1] != n_labels:
            raise ModelError(
                f"{_GRAPH!r} in {folder.name!r} gives {values.shape[-1]} logits, and config.json names {n_labels} "
                "labels: they do not belong together.",
                code="AUD-LOAD-CLASSES",
            )
        return np.asarray(values, np.float64)

    where = provenance_in(folder, "ONNX graph", text.notes)
    where = replace(where, loaded_by=f"onnxruntime {onnxruntime.__version__}")
    return AuditedModel(score, classes=classes, provenance=where)
