"""Frozen encoders of images or sound from one file, and the linear head on one.

Nothing in the bytes runs as code: onnxruntime interprets a graph of its own operators, and a network is
one of transformers' own classes with weights in the safetensors format, whose header's metadata name the class.

Quantised ONNX programs get signed weights: equal integers, with faster CPU instructions.

Source: Ojha, Li and Lee, Towards universal fake image detectors that generalize across generative models, CVPR 2023.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from auditor.core.errors import MissingExtraError, ModelError, first_line
from auditor.models.networks.detector_networks import HeadOnFeatures, LinearHead

_INTEGER_PRODUCTS = ("MatMulInteger", "ConvInteger")


def with_signed_weights(content: bytes) -> bytes:
    """The program with 8-bit weights of integer products shifted from [0, 255] to [-128, 127], and their zero points.

    ``(a - z_a) (b - z_b)`` is the same integer when ``b`` and ``z_b`` are both 128 less, so no output is another, to
    the last bit; onnxruntime multiplies bytes by signed bytes up to twice as fast. The bytes as they were, where
    nothing is to be shifted, a weight has another use, onnx is not installed, or this processor's products of signed
    bytes are not exact.
    """
    try:
        import onnx
    except ImportError:
        return content
    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # what protobuf raises on what is none; onnxruntime says what is wrong with it
        return content
    return bytes(model.SerializeToString()) if _exact() and _shifted(onnx, model.graph) else content


@cache
def _exact() -> bool:
    """Whether the largest products of signed bytes are right: without VNNI's instructions sums of two are cut off."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    weights = np.full((64, 32), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "products",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["n", 32])],
        [onnx.numpy_helper.from_array(weights, "b")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = [session.run(None, {"a": np.full((rows, 64), 255, np.uint8)})[0] for rows in (1, 50)]
    return not any((each != 255 * 127 * 64).any() for each in found)


def _shifted(onnx: Any, graph: Any) -> bool:
    """Whether anything was shifted in a graph; all of its weights are, or none."""
    unsigned = {t.name: t for t in graph.initializer if t.data_type == onnx.TensorProto.UINT8}
    chosen: dict[str, Any] = {}
    for node in graph.node:
        if node.op_type not in _INTEGER_PRODUCTS or len(node.input) < 2 or node.input[1] not in unsigned:
            continue
        # Without a zero point it is 0, which a signed byte of this shift cannot be.
        if len(node.input) < 4 or node.input[3] not in unsigned:
            return False
        chosen |= {name: unsigned[name] for name in (node.input[1], node.input[3])}
    if not chosen or _used_elsewhere(graph, chosen):
        return False
    for name, tensor in chosen.items():
        values = (onnx.numpy_helper.to_array(tensor) ^ np.uint8(128)).view(np.int8)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
    # What is said of the types of these names.
    for listed in (graph.input, graph.value_info):
        for value in listed:
            if value.name in chosen:
                value.type.tensor_type.elem_type = onnx.TensorProto.INT8
    return True


def _used_elsewhere(graph: Any, names: dict[str, Any]) -> bool:
    if any(attribute.HasField("g") or attribute.graphs for node in graph.node for attribute in node.attribute):
        return True
    return any(
        name in names and not (node.op_type in _INTEGER_PRODUCTS and i in (1, 3))
        for node in graph.node
        for i, name in enumerate(node.input)
    ) or any(output.name in names for output in graph.output)


FORMS = ("onnx", "transformers")
_QUIET = 1e-7
_VECTORS = ("image_embeds", "pooler_output", "last_hidden_state")


class Encoder:
    """Images (n, 3, height, width), or sound (n, samples), to features (n, d); shared by copies of its network.

    ``size``: (height, width), or (samples,), where the file fixes it; ``of_sound``: which of the two it takes.
    """

    def __init__(
        self, encode: Callable[[Tensor], Tensor], size: tuple[int, ...] | None = None, *, of_sound: bool = False
    ) -> None:
        self._encode = encode
        self.size = size
        self.of_sound = of_sound

    def __call__(self, x: Tensor) -> Tensor:
        return self._encode(x)

    def __deepcopy__(self, _: Any) -> Encoder:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("an encoder is kept as the bytes of its file")


def encoder_of(form: str, content: bytes) -> Encoder:
    """The encoder of a file's bytes. Raises ModelError where they are none, MissingExtraError without its library."""
    if form == "onnx":
        return _onnx(content)
    network, metadata = _network(form, content)
    network.requires_grad_(False).eval()
    size = metadata.get("image_size")
    of_sound = getattr(network, "main_input_name", "") == "input_values"
    return Encoder(_OfNetwork(network), (int(size), int(size)) if size else None, of_sound=of_sound)


def standardise(x: Tensor) -> Tensor:
    """Sound (n, samples), each recording at mean 0 and variance 1."""
    return (x - x.mean(dim=1, keepdim=True)) / torch.sqrt(x.var(dim=1, keepdim=True, correction=0) + _QUIET)


def _pooled(vectors: Tensor) -> Tensor:
    """(n, d) from (n, d), tokens (n, t, d) or maps (n, d, h, w): the mean over what is left."""
    if vectors.ndim == 4:
        return vectors.mean(dim=(2, 3))
    return vectors.mean(dim=1) if vectors.ndim == 3 else vectors


# ---- ONNX ----------------------------------------------------------------------------------------------------------


def _onnx(content: bytes) -> Encoder:
    try:
        import onnxruntime
    except ImportError:
        raise MissingExtraError("An ONNX encoder needs onnxruntime: pip install 'responsible-auditor[onnx]'.") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        content = with_signed_weights(content)
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # whatever onnxruntime raises on what it cannot read
        raise ModelError(f"The encoder is no ONNX file that can be used: {first_line(error)}.") from error
    inputs = [i for i in session.get_inputs() if len(i.shape) in (2, 4) and i.type == "tensor(float)"]
    if len(session.get_inputs()) != 1 or len(inputs) != 1:
        raise ModelError(
            "The ONNX encoder must take one input of 32-bit floats: images (n, 3, height, width) or sound (n, samples)."
        )
    outputs = [o.name for o in session.get_outputs()]
    chosen = next((name for name in _VECTORS if name in outputs), outputs[0])
    of_sound = len(inputs[0].shape) == 2
    size, name = inputs[0].shape[1 if of_sound else 2 :], inputs[0].name

    def encode(x: Tensor) -> Tensor:
        try:
            # One at a time: a network quantised on the fly scales by all that is in its batch, and an image's vector
            # would depend on its neighbours.
            images = x.detach().float().cpu().numpy()
            parts = [torch.from_numpy(session.run([chosen], {name: one[None]})[0]) for one in images]
        except Exception as error:  # whatever onnxruntime raises on an input of another shape
            raise ModelError(
                f"The ONNX encoder cannot take an input of shape {tuple(x.shape)}: {first_line(error)}."
            ) from error
        return _pooled(torch.cat(parts).to(x.device))

    fixed = all(isinstance(side, int) for side in size)
    return Encoder(encode, tuple(size) if fixed else None, of_sound=of_sound)


# ---- torch ---------------------------------------------------------------------------------------------------------


class _OfNetwork:
    """A torch network as an encoder, on whatever device its input is."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, x: Tensor) -> Tensor:
        if next(self.network.parameters()).device != x.device:
            self.network.to(x.device)
        found = self.network(**{str(self.network.main_input_name): x}, output_hidden_states=True)
        vectors = (getattr(found, name, None) for name in _VECTORS)
        return _pooled(next((v for v in vectors if v is not None), found.hidden_states[-1]))


def pack_encoder(name: str, weights: Mapping[str, Tensor], settings: Mapping[str, Any]) -> bytes:
    """One file of a network's weights, with the settings to rebuild it in the header's metadata."""
    import safetensors.torch

    own = {key: tensor.detach().cpu().clone().contiguous() for key, tensor in weights.items()}
    metadata = {"form": "transformers", "name": name, "settings": json.dumps(dict(settings))}
    return safetensors.torch.save(own, metadata)


def _network(form: str, content: bytes) -> tuple[nn.Module, Mapping[str, Any]]:
    # Imported here: the intake builds the networks that this module is part of.
    from auditor.models.files.model_bytes import Source
    from auditor.models.files.weight_files import safetensors_header
    from auditor.models.files.weights import load_safetensors

    metadata = safetensors_header(content, "The encoder").get("__metadata__", {})
    weights = load_safetensors(Source(path="The encoder", data=content, sha256=""))
    try:
        name, settings = str(metadata["name"]), json.loads(metadata["settings"])
        if metadata["form"] != form or not isinstance(settings, dict):
            raise ValueError
    except (KeyError, ValueError, TypeError):
        raise ModelError("The detector's encoder does not say which network its weights belong to.") from None
    # What is made in inference mode could never pass on a gradient.
    with torch.inference_mode(False):
        own = {key: tensor.clone() for key, tensor in weights.items()}
        return transformers_network(name, settings, own), settings


def transformers_network(name: str, settings: Mapping[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """One of transformers' own networks of images or sound with its weights; ModelError if unknown or mismatched.

    A bare encoder of the table of ``AutoModel`` or a classifier, whose last hidden states are taken.
    """
    from transformers.models.auto import modeling_auto

    from auditor.models.files.hf_folder import OF_SAMPLES, build_network, quiet_and_offline
    from auditor.models.files.model_folder import Folder

    kind = settings.get("model_type")
    of_sound = kind in OF_SAMPLES
    classifiers = f"MODEL_FOR_{'AUDIO' if of_sound else 'IMAGE'}_CLASSIFICATION_MAPPING_NAMES"
    tables = (modeling_auto.MODEL_MAPPING_NAMES, getattr(modeling_auto, classifiers))
    known = [table.get(kind) if isinstance(kind, str) else None for table in tables]
    names = [n for entry in known for n in ((entry,) if isinstance(entry, str) else entry or ())]
    if kind == "clip_vision_model":
        names.append("CLIPVisionModelWithProjection")
    if name not in names or ("vocab_size" in settings and not of_sound):
        raise ModelError(
            f"{name[:60]!r} is none of transformers' own encoders of images or sound: name a folder of one such as "
            "ViTModel, Dinov2Model, CLIPVisionModelWithProjection, Wav2Vec2Model or HubertModel."
        )
    with quiet_and_offline():
        network, _ = build_network("sound" if of_sound else "image", name, settings, weights, Folder("the encoder"))
    return network


_MEBIBYTE = 1 << 20


class EncoderProbe(HeadOnFeatures):
    """Images (n, 3, height, width) or sound (n, samples) to (n, 2) logits: a head on an encoder's features of length 1.

    ``form``: index into :data:`auditor.models.networks.encoders.FORMS`. ``n_mebibytes``: of the encoder's file, which
    is the buffer ``content`` (``length`` bytes of it). ``differentiable``: whether a gradient reaches the input, which
    it does through torch and not through onnxruntime. ``scaled``: whether sound is brought to mean 0 and
    variance 1 first. ``n_groups``, ``k``, ``n_real``, ``n_fake``: as earlier versions wrote them.
    """

    def __init__(
        self,
        form: int,
        n_mebibytes: int,
        n_features: int,
        n_groups: int = 0,
        fake: int = 1,
        k: int = 0,
        n_real: int = 0,
        n_fake: int = 0,
        scaled: bool = False,
    ) -> None:
        super().__init__()
        if form not in range(len(FORMS)):
            raise ValueError(f"the form of an encoder is 0 to {len(FORMS) - 1}")
        if k or n_real or n_fake:
            raise ValueError("heads by nearest neighbours are of earlier versions: train the detector anew")
        self.form = form
        self.scaled = scaled
        self.content: Tensor
        self.length: Tensor
        # Rows of a mebibyte, since a bundle's arguments are no larger than 2^24.
        self.register_buffer("content", torch.zeros(n_mebibytes, _MEBIBYTE, dtype=torch.uint8))
        self.register_buffer("length", torch.zeros((), dtype=torch.int64))
        self.head: LinearHead = LinearHead(n_features, fake)
        self._encoder: Encoder | None = None
        self.register_load_state_dict_post_hook(_forget_encoder)  # type: ignore[no-untyped-call]

    @property
    def differentiable(self) -> bool:
        """Whether the input's gradient exists."""
        return FORMS[self.form] != "onnx"

    @property
    def encoder(self) -> Encoder:
        """The encoder of ``content``, created on first use.

        Raises ModelError where it is none.
        """
        if self._encoder is None:
            content = self.content.flatten()[: int(self.length)].cpu().numpy().tobytes()
            self._encoder = encoder_of(FORMS[self.form], content)
        return self._encoder

    def use(self, encoder: Encoder) -> None:
        """Use an encoder that was created from ``content`` elsewhere."""
        self._encoder = encoder

    def features(self, x: Tensor) -> Tensor:
        """(n, d) the encoder's features, of length 1."""
        found = self.encoder(standardise(x) if self.scaled else x)
        wanted = self.head.weight.shape[0]
        if found.ndim != 2 or found.shape[1] != wanted:
            raise ModelError(
                f"The detector's encoder gives {found.shape[-1]} features, and the detector's head takes {wanted}: it "
                "is not the encoder that it was fitted to."
            )
        return nn.functional.normalize(found, dim=1)


def hold(probe: EncoderProbe, content: bytes) -> None:
    """Insert an encoder's file into a probe created large enough for it."""
    probe.content.view(-1)[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    probe.length.fill_(len(content))
    probe._encoder = None


def mebibytes(content: bytes) -> int:
    """The size of a file in mebibytes, rounded up."""
    return -(-len(content) // _MEBIBYTE)


def _forget_encoder(probe: nn.Module, _: Any) -> None:
    if isinstance(probe, EncoderProbe):
        probe._encoder = None
