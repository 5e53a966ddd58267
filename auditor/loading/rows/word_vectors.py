"""Word and sentence vectors: word-vector files, a network's input embeddings, mean-pooled hidden states."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from auditor.core.errors import DataError, ModelError, NotApplicableError, UnsupportedError
from auditor.core.files import regular_file, sha256_of
from auditor.core.rows import FloatArray
from auditor.models.torch_context import without_gradients

if TYPE_CHECKING:
    from torch import nn

    from auditor.models.audited_model import AuditedModel
    from auditor.models.language_model import AuditedLanguageModel

_MAX_DIMENSIONS = 16_384
_MAX_WORD_BYTES = 4_096
_MAX_LINE_BYTES = 1 << 20
_BATCH = 64


@dataclass(frozen=True)
class Embedder:
    """Texts to vectors: ``embed`` gives (n, d), NaN for a text without one; ``source`` describes the origin."""

    embed: Callable[[Sequence[str]], FloatArray]
    source: str


# ---- files ---------------------------------------------------------------------------------------------------------


def word_vectors(path: str | Path, words: Collection[str]) -> Embedder:
    """The vectors of ``words`` in a word2vec file, binary or text, or in a GloVe text file.

    Read line by line; nothing but the wanted words is kept, and nothing is unpickled. A word is found as it is spelled;
    in lower case only where the file has no capitals at all, because elsewhere "frank" is not Frank. Raises UsageError
    where there is no regular file, DataError where it is none of the three.
    """
    file = regular_file(path, "word-vector file")
    wanted = {form for word in words for form in (word, word.lower())}
    with file.open("rb") as stream:
        found, dimensions, kind, cased = _read_vectors(stream, file.name, wanted)
    if not found:
        raise DataError(
            f"The word-vector file {file.name!r} ({kind}) has none of the {len(words):,} words looked for.",
            code="AUD-DATA-EMPTY",
        )

    def embed(texts: Sequence[str]) -> FloatArray:
        none = np.full(dimensions, np.nan)
        keys = texts if cased else [t.lower() for t in texts]
        return np.asarray([found.get(key, none) for key in keys]).reshape(-1, dimensions)

    case = "" if cased else ", all in lower case"
    return Embedder(embed, f"{kind} {file.name}, sha256 {sha256_of(file)[:16]}, {dimensions} dimensions{case}")


class _File(NamedTuple):
    found: Mapping[str, FloatArray]
    dimensions: int
    kind: str
    cased: bool


def _read_vectors(stream: BinaryIO, name: str, vocabulary: Collection[str]) -> _File:
    first = _line(stream, name)
    header = first.split()
    if len(header) == 2 and all(part.isdigit() for part in header):
        count, dimensions = int(header[0]), int(header[1])
        if not 0 < dimensions <= _MAX_DIMENSIONS or count < 1:
            raise DataError(
                f"{name!r} says it has {count:,} words of {dimensions:,} dimensions, which cannot be.",
                code="AUD-DATA-MALFORMED",
            )
        place = stream.tell()
        if _is_text(stream.read(_MAX_LINE_BYTES), dimensions):
            stream.seek(place)
            found, cased = _read_text(stream, name, vocabulary, dimensions)
            return _File(found, dimensions, "word2vec text", cased)
        stream.seek(place)
        found, cased = _read_binary(stream, name, vocabulary, count, dimensions)
        return _File(found, dimensions, "word2vec binary", cased)
    dimensions = len(header) - 1
    if not _is_text(first, dimensions):
        raise DataError(
            f"{name!r} is no word-vector file: expected word2vec (binary or text) or GloVe text, not compressed.",
            code="AUD-DATA-FORMAT",
        )
    stream.seek(0)
    found, cased = _read_text(stream, name, vocabulary, dimensions)
    return _File(found, dimensions, "GloVe text", cased)


def _line(stream: BinaryIO, name: str) -> bytes:
    line = stream.readline(_MAX_LINE_BYTES)
    if len(line) == _MAX_LINE_BYTES and not line.endswith(b"\n"):
        raise DataError(
            f"{name!r} has a line of more than {_MAX_LINE_BYTES:,} bytes: it is no word-vector file.",
            code="AUD-DATA-LIMIT",
        )
    return line


def _is_text(beginning: bytes, dimensions: int) -> bool:
    parts = beginning.split(b"\n", 1)[0].rstrip().rsplit(b" ", dimensions)
    if not 1 <= dimensions <= _MAX_DIMENSIONS or len(parts) != dimensions + 1:
        return False
    try:
        return all(math.isfinite(float(part)) for part in parts[1:])
    except ValueError:
        return False


def _read_text(
    stream: BinaryIO, name: str, vocabulary: Collection[str], dimensions: int
) -> tuple[dict[str, FloatArray], bool]:
    """The wanted vectors, and whether any word of the file has a capital."""
    found: dict[str, FloatArray] = {}
    cased = False
    while line := _line(stream, name):
        # Some words hold spaces, so the numbers are counted from the end.
        word, *numbers = line.rstrip().rsplit(b" ", dimensions)
        key = word.decode("utf-8", "replace")
        cased = cased or key != key.lower()
        if key not in vocabulary or key in found:
            continue
        try:
            found[key] = np.asarray([float(x) for x in numbers])
        except ValueError:
            raise DataError(
                f"{name!r}: the vector of {key!r} holds something that is no number.", code="AUD-DATA-MALFORMED"
            ) from None
        _check(found[key], dimensions, key, name)
    return found, cased


def _read_binary(
    stream: BinaryIO, name: str, vocabulary: Collection[str], count: int, dimensions: int
) -> tuple[dict[str, FloatArray], bool]:
    found: dict[str, FloatArray] = {}
    cased = False
    for number in range(1, count + 1):
        word = bytearray()
        while (byte := stream.read(1)) != b" ":
            if not byte or len(word) > _MAX_WORD_BYTES:
                raise DataError(
                    f"{name!r} ends or is damaged at word {number:,} of {count:,}.", code="AUD-DATA-MALFORMED"
                )
            word += byte
        raw = stream.read(4 * dimensions)
        if len(raw) != 4 * dimensions:
            raise DataError(
                f"{name!r} ends within the vector of word {number:,} of {count:,}.", code="AUD-DATA-MALFORMED"
            )
        key = word.lstrip(b"\n").decode("utf-8", "replace")
        cased = cased or key != key.lower()
        if key in vocabulary and key not in found:
            found[key] = np.frombuffer(raw, "<f4").astype(np.float64)
            _check(found[key], dimensions, key, name)
    return found, cased


def _check(vector: FloatArray, dimensions: int, word: str, name: str) -> None:
    if vector.shape != (dimensions,) or not np.isfinite(vector).all():
        raise DataError(
            f"{name!r}: the vector of {word!r} is not {dimensions} finite numbers.", code="AUD-DATA-MALFORMED"
        )


# ---- networks ------------------------------------------------------------------------------------------------------


def input_embeddings(model: AuditedModel) -> Embedder | None:
    """A model's own word-vector table, or None if it has no known one.

    Of a language model the mean of a word's pieces as they are within a sentence; a word with an unknown piece has no
    vector. Of a text classifier with a vocabulary the row of its embedding.
    """
    import torch

    from auditor.data.preprocessing import TextPreprocessing
    from auditor.models.language_model import AuditedLanguageModel
    from auditor.models.torch_model import TorchModel

    if isinstance(model, AuditedLanguageModel):
        return _of_pieces(model.module, model.tokenizer)
    if not (isinstance(model, TorchModel) and isinstance(model.preprocessing, TextPreprocessing)):
        return None
    text = model.preprocessing
    size = max(text.vocabulary.values(), default=0)
    tables = [m for m in model.module.modules() if isinstance(m, torch.nn.Embedding) and m.num_embeddings > size]
    if not tables:
        return None
    weight = tables[0].weight.detach().double().cpu().numpy()

    def embed(texts: Sequence[str]) -> FloatArray:
        rows = [text.vocabulary.get(t.lower() if text.lowercase else t) for t in texts]
        return np.asarray([np.full(weight.shape[1], np.nan) if r is None else weight[r] for r in rows])

    return Embedder(embed, f"input embeddings of the model, {weight.shape[1]} dimensions")


def _of_pieces(network: nn.Module, tokenizer: Any) -> Embedder:
    table: Any = network.get_input_embeddings()  # type: ignore[operator]
    weight = table.weight.detach().double().cpu().numpy()
    unknown = getattr(tokenizer, "unk_token_id", None)

    def word_vector(word: str) -> FloatArray:
        # In the middle of a text, where most words are: many tokenizers spell a first word differently.
        encoded = tokenizer(f"a {word}", add_special_tokens=False, return_offsets_mapping=True)
        pairs = zip(encoded.input_ids, encoded.offset_mapping, strict=True)
        ids = [i for i, (_, end) in pairs if end > 2]
        if not ids or unknown in ids:
            return np.full(weight.shape[1], np.nan)
        return np.asarray(weight[ids].mean(axis=0), np.float64)

    return Embedder(
        lambda texts: np.asarray([word_vector(t) for t in texts]),
        f"input embeddings of {type(network).__name__}, mean over a word's pieces, {weight.shape[1]} dimensions",
    )


def sentence_encoder(model: AuditedModel) -> Embedder | None:
    """Mean over tokens of a language model's last hidden states, or None for another kind of model."""
    from auditor.models.language_model import AuditedLanguageModel

    if not isinstance(model, AuditedLanguageModel):
        return None
    return _pooled(model.module, model.tokenizer, model.context, language=model)


def load_encoder(path: str | Path, device: str = "cpu") -> tuple[Embedder, Embedder]:
    """(word vectors, sentence vectors) of a Hugging Face folder: an encoder without a head, or a language model.

    Word vectors are its input embeddings, sentence vectors the mean over tokens of the last hidden states. The same
    checks as for any folder: safetensors alone, no code. Raises ModelError, UnsafeModelError.
    """
    from transformers.models.auto import modeling_auto

    from auditor.loading.job_specs import ModelSpec
    from auditor.loading.language_models import is_language_model, load_language_folder
    from auditor.models.files.hf_folder import build_network, quiet_and_offline, read_tokenizer, read_weights
    from auditor.models.files.model_folder import Folder

    folder = Folder(str(path))
    if not folder.has("config.json"):
        raise ModelError(
            f"{folder.name!r} is no Hugging Face folder: it holds no config.json.", code="AUD-LOAD-INCOMPLETE"
        )
    language = None
    if is_language_model(str(path)):
        language = load_language_folder(str(path), ModelSpec(path=str(path), device=device))
        network, tokenizer = language.module, language.tokenizer
    else:
        settings = folder.json("config.json")
        kind, listed = settings.get("model_type"), settings.get("architectures")
        name = listed[0] if isinstance(listed, list) and listed else None
        if not isinstance(name, str) or modeling_auto.MODEL_MAPPING_NAMES.get(kind) != name:
            raise UnsupportedError(f"{folder.name!r} is none of transformers' own encoders: see its architectures.")
        weights = read_weights(folder)
        with quiet_and_offline():
            network, _ = build_network("text", name, settings, weights, folder)
            tokenizer = read_tokenizer(folder)
        network = network.to(device)
    positions = getattr(network.config, "max_position_embeddings", None)
    return _of_pieces(network, tokenizer), _pooled(network, tokenizer, positions, folder.name, language)


def _pooled(
    network: nn.Module,
    tokenizer: Any,
    longest: int | None,
    name: str = "",
    language: AuditedLanguageModel | None = None,
) -> Embedder:
    def embed(texts: Sequence[str]) -> FloatArray:
        encoded = [tuple(tokenizer(t).input_ids) for t in texts]
        if longest is not None and any(len(ids) > longest for ids in encoded):
            raise NotApplicableError(f"A sentence has more than the {longest:,} tokens that the model reads.")
        if not all(encoded):
            raise NotApplicableError("A sentence has no token for this model.")
        found = None if language is None else language.mean_states(encoded)
        if found is None:
            found = _one_by_one(network, encoded)
        return np.stack([found[ids] for ids in encoded])

    whose = f"{type(network).__name__}{f' {name}' if name else ''}"
    return Embedder(embed, f"mean over tokens of the last hidden states of {whose}")


def _one_by_one(network: nn.Module, texts: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], FloatArray]:
    """Of each text, ids, the mean over its tokens of the last hidden states, whichever way the network reads."""
    import torch

    from auditor.models.forward_passes import device_of, quick_products
    from auditor.models.torch_model import evaluating

    device = device_of(network)
    # Of two halves it is the first that reads a text; a head over the vocabulary is no part of what was read.
    halves = getattr(network.config, "is_encoder_decoder", False)
    reader: Any = network.get_encoder() if halves else network.base_model  # type: ignore[operator]
    # Each once, and with its like, so that hardly any padding is read.
    distinct = sorted(set(texts), key=lambda ids: (len(ids), ids))
    found: dict[tuple[int, ...], FloatArray] = {}
    with without_gradients(), evaluating(network), quick_products():
        for start in range(0, len(distinct), _BATCH):
            batch = distinct[start : start + _BATCH]
            length = max(map(len, batch))
            mask = torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids in batch], device=device)
            ids = torch.tensor([[*ids, *[0] * (length - len(ids))] for ids in batch], device=device)
            out = reader(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            states = out.hidden_states[-1].double()
            weight = mask.unsqueeze(-1).double()
            found.update(zip(batch, ((states * weight).sum(1) / weight.sum(1)).cpu().numpy(), strict=True))
    return found
