"""User-supplied encoders for image detectors: a transformers folder, an ONNX file or a torchvision network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from auditor.core.errors import ModelError
from auditor.data.preprocessing import ImagePreprocessing
from auditor.loading.huggingface_folders import image_preprocessing
from auditor.models.files.hf_folder import read_weights
from auditor.models.files.model_bytes import read_source
from auditor.models.files.model_folder import Folder
from auditor.models.networks.encoders import FORMS, Encoder, encoder_of, pack_encoder

# Of the encoders that serve best for this, CLIP's.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
# Of the classifiers that torchvision has.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_SIDE = 224
_MOST_BYTES = 2 << 30


@dataclass(frozen=True, eq=False, kw_only=True)
class EncoderFile:
    """An encoder in a detector: its ``form``, an index into ``FORMS``, and its ``content``, one file.

    ``n_features``: of the vectors it gives. ``preprocessing``: how images become its input. ``notes``: what was
    assumed.
    """

    form: int
    content: bytes
    encoder: Encoder
    n_features: int
    preprocessing: ImagePreprocessing
    notes: tuple[str, ...] = ()


def read_encoder(
    where: str, *, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None
) -> EncoderFile:
    """The encoder at a path: ``folder``, ``file.onnx``, or ``NAME:weights`` for torchvision's network of that name.

    ``mean``, ``std``: of the colours on a scale of 1, for an encoder that does not say; else CLIP's for an ONNX file
    without a preprocessor_config.json beside it, ImageNet's for torchvision. Raises UsageError where there is none,
    ModelError where it cannot be used, MissingExtraError without the library that it takes.
    """
    name, _, weights = where.partition(":")
    if Path(where).is_dir():
        made = _folder(where)
    elif weights and not Path(where).exists():
        made = _torchvision(name, weights, mean, std)
    else:
        made = _onnx(where, mean, std)
    return made


def _encoder_file(form: str, content: bytes, preprocessing: ImagePreprocessing, notes: tuple[str, ...]) -> EncoderFile:
    encoder = encoder_of(form, content)
    if encoder.size is not None and form == "onnx":
        preprocessing = preprocessing.model_copy(update={"size": encoder.size})
    with torch.inference_mode():
        found = encoder(torch.zeros(1, len(preprocessing.mean), *preprocessing.size))
    if found.ndim != 2 or not found.is_floating_point():
        raise ModelError(
            f"The encoder gives {tuple(found.shape)} for one image: expected one vector, or tokens of one.",
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


def _folder(where: str) -> EncoderFile:
    folder = Folder(where)
    if not folder.has("config.json"):
        raise ModelError(
            f"{folder.name!r} is no transformers folder: it holds no config.json.", code="AUD-LOAD-INCOMPLETE"
        )
    settings = folder.json("config.json")
    listed = settings.get("architectures")
    name = listed[0] if isinstance(listed, list) and listed else ""
    preprocessing, _ = image_preprocessing(folder, settings)
    options = folder.json("preprocessor_config.json")
    fit = "cover" if options.get("do_center_crop") else "stretch"
    content = pack_encoder("transformers", str(name), read_weights(folder), settings)
    return _encoder_file("transformers", content, preprocessing.model_copy(update={"fit": fit}), ())


def _torchvision(name: str, weights: str, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> EncoderFile:
    from auditor.models.files.strict_zip import open_archive
    from auditor.models.files.weight_files import pickle_record
    from auditor.models.files.weights import as_state_dict, load_safetensors, load_torch

    source = read_source(weights, noun="file of the encoder's weights", max_bytes=_MOST_BYTES)
    if weights.endswith(".safetensors"):
        loaded = load_safetensors(source)
    else:
        archive = open_archive(source.data, source.name)
        record = pickle_record(archive)
        if record is None:
            raise ModelError(
                f"{source.name!r} is neither a safetensors file nor one that torch.save wrote.", code="AUD-LOAD-UNKNOWN"
            )
        loaded = as_state_dict(load_torch(source, archive, record), source.name)
    preprocessing = ImagePreprocessing(
        size=(_SIDE, _SIDE), mean=mean or IMAGENET_MEAN, std=std or IMAGENET_STD, fit="cover"
    )
    return _encoder_file("torchvision", pack_encoder("torchvision", name, loaded, {}), preprocessing, ())


def _onnx(where: str, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> EncoderFile:
    source = read_source(where, noun="encoder", max_bytes=_MOST_BYTES)
    beside = Path(where).parent / "preprocessor_config.json"
    notes: tuple[str, ...] = ()
    if mean is None and std is None and beside.is_file():
        mean, std = _colours(read_source(beside, max_bytes=1 << 20).data)
    elif mean is None:
        notes = ("The encoder's file does not say how colours are scaled: CLIP's mean and deviation were used.",)
    preprocessing = ImagePreprocessing(size=(_SIDE, _SIDE), mean=mean or CLIP_MEAN, std=std or CLIP_STD, fit="cover")
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
