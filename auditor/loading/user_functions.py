"""User-defined functions, each named by a flag: prediction (``--predict``) and text generation (``--generate``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from auditor.core.errors import ModelError, NotApplicableError, UsageError
from auditor.core.files import regular_file, sha256_of
from auditor.core.rows import Rows
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing, Preprocessing, label_name
from auditor.loading.finish_loading import no_reordering
from auditor.loading.job_specs import ModelSpec
from auditor.loading.user_code import RAN_APART, ElsewhereFunction, called_in, import_object, source_file
from auditor.models.audited_model import AuditedModel, Provenance, Said, of_logits
from auditor.models.capabilities import Generates, Reply
from auditor.models.chat import How
from auditor.models.files.model_bytes import printable
from auditor.models.generation import Sampling
from auditor.models.regression_model import AuditedRegressor


def load_function(spec: ModelSpec) -> AuditedModel:
    """The model that a function of the user's is.

    The function receives a DataFrame, a list of texts, a uint8 array of images (n, height, width, 3), where it has an
    attribute ``size`` (height, width), or int16 sound (n, samples), where it has ``samples`` and ``sampling_rate``. It
    returns probabilities (n, n_classes), P(last class) (n,) or labels (n,), with ``--outputs logits`` logits
    (n, n_classes) or that of the last class (n,), or with ``--task regression`` numbers (n,). Its classes are
    ``--classes``, else its attribute
    ``classes``. Raises UsageError where it cannot be imported or names no classes.
    """
    if spec.predict is None:
        raise UsageError("Name the function with --predict package.module:function.")
    function = import_object(spec.predict, spec.code_folder, "--predict")
    if spec.task == "regression":
        return AuditedRegressor(
            _adapted(function, spec), features=spec.features, provenance=provenance_of(function, spec)
        )
    own = getattr(function, "classes", None)
    classes = spec.classes if spec.classes is not None else own
    if spec.classes is not None and own is not None:
        no_reordering([label_name(c) for c in spec.classes], [label_name(c) for c in own])
    if classes is None:
        raise UsageError(
            f"--predict {spec.predict}: add --classes a,b, or give the function an attribute "
            "`classes` with the classes in the order of its probabilities; or say --task regression."
        )
    if isinstance(classes, str) or len(classes) < 2 or len(set(map(str, classes))) != len(classes):
        raise UsageError("A classifier needs at least two classes with different names: see --classes.")
    predict = _adapted(function, spec)
    model = AuditedModel(
        of_logits(predict) if spec.outputs == "logits" else predict,
        classes=list(classes),
        features=spec.features,
        preprocessing=_media(function, spec),
        threshold=0.5 if spec.threshold is None else spec.threshold,
        provenance=provenance_of(function, spec),
    )
    code = source_file(function)
    model.said = Said(predict=spec.predict, code_sha256=None if code is None else sha256_of(code))
    return model


def _media(function: Callable[..., Any], spec: ModelSpec) -> Preprocessing | None:
    """What a function of pictures or sound takes, as its attributes say; None where they say nothing."""
    size, samples = getattr(function, "size", None), getattr(function, "samples", None)
    if size is None and samples is None:
        return None
    try:
        if size is not None:
            return ImagePreprocessing(size=tuple(size), mean=(0.0,) * 3, std=(1.0,) * 3)
        return AudioPreprocessing(sampling_rate=getattr(function, "sampling_rate", None), samples=samples)
    except (TypeError, ValueError):
        raise UsageError(
            f"--predict {spec.predict}: its attribute `size` must be (height, width) in pixels, or `samples` and "
            "`sampling_rate` whole numbers of samples and hertz."
        ) from None


def _adapted(function: Callable[[Any], npt.ArrayLike], spec: ModelSpec) -> Callable[[Rows], npt.ArrayLike]:
    own = called_in(spec.code_folder, function)

    def predict(X: Rows) -> npt.ArrayLike:
        texts = isinstance(X, np.ndarray) and X.dtype == object
        try:
            return own(list(X) if texts else X)
        except Exception as error:  # the user's function may raise anything
            raise raised(f"--predict {spec.predict}", error) from error

    return predict


def raised(subject: str, error: Exception) -> ModelError:
    """The error message for an exception in a user's function, with possible causes."""
    hint = ""
    if isinstance(error, PermissionError):
        hint = (
            " Its process is confined: it reads the modules of its own that it imports, and the file or folder that is "
            "named as MODEL. More files, the network or other programs need --allow-unsandboxed."
        )
    return ModelError(
        f"{subject} raised {type(error).__name__}: {printable(error, 300).removesuffix('.')}.{hint}",
        code="AUD-LOAD-ANSWERS",
    )


def provenance_of(function: Callable[..., Any], spec: ModelSpec) -> Provenance:
    """The origin of a user's function: its file and digest, and those of the model named beside it."""
    code = source_file(function)
    digest = None if code is None else sha256_of(code)
    loaded_by = f"the user's own {spec.predict or spec.generate}"
    apart = (RAN_APART,) if isinstance(function, ElsewhereFunction) else ()
    read = () if code is None else (f"The function was read from {printable(code.name)}, sha256 {digest}.",)
    if spec.path is None:
        return Provenance(
            path=None if code is None else str(code),
            sha256=digest,
            format="callable",
            loaded_by=loaded_by,
            size_bytes=None if code is None else code.stat().st_size,
            notes=apart,
        )
    if Path(spec.path).is_dir():
        return Provenance(path=spec.path, format="callable", loaded_by=loaded_by, notes=(*read, *apart))
    model = regular_file(spec.path, "model file")
    return Provenance(
        path=spec.path,
        sha256=sha256_of(model),
        format="callable",
        loaded_by=loaded_by,
        size_bytes=model.stat().st_size,
        notes=(
            "The model file was hashed, not opened: the function loads what it predicts with.",
            *read,
            *apart,
        ),
    )


_ALONE = "a function that turns text into text gives texts, and nothing else"
_LONGEST = 1 << 20


def _no_classes(rows: object) -> NoReturn:
    raise ModelError("A function that turns text into text predicts no classes.", code="AUD-LOAD-ANSWERS")


class FunctionWriter(Generates, AuditedModel):
    """A language model as a function: one text in, one sampled text out.

    Neither the length nor the temperature of what it writes is anybody's but its own.
    """

    kind = "language_model"
    why_not = MappingProxyType({"weights": _ALONE, "text_likelihoods": _ALONE})

    def __init__(self, function: Callable[[str], Any], name: str, *, provenance: Provenance | None = None) -> None:
        super().__init__(_no_classes, classes=(), provenance=provenance)
        self._function = function
        self._name = name

    def with_chat_options(self, chat_mode: How, system: str) -> FunctionWriter:
        if chat_mode == "on" or system:
            asked = "--system" if system else "--chat on"
            raise NotApplicableError(f"Needs a model with a chat template, and this is a function: leave {asked} out.")
        return self

    def describe(self) -> str:
        return "asked by its function, with its own settings"

    def continued(
        self, prompts: Sequence[str], n: int, sampling: Sampling, rng: np.random.Generator, *, batch_rows: int = 64
    ) -> list[list[str]]:
        """``n`` calls a text."""
        return [[sampling.truncate(self._call_function(prompt)) for _ in range(n)] for prompt in prompts]

    def replies(self, conversations: Sequence[Sequence[str]], max_new_tokens: int) -> list[Reply]:
        """One call per conversation, passed as one text."""
        return [Reply(self._call_function("\n\n".join(turns))) for turns in conversations]

    def _call_function(self, text: str) -> str:
        try:
            said = self._function(text)
        except Exception as error:  # the user's function may raise anything
            raise raised(f"--generate {self._name}", error) from error
        if not isinstance(said, str):
            raise ModelError(
                f"--generate {self._name} returned a {type(said).__name__}: it takes one text and returns one, as str.",
                code="AUD-LOAD-ANSWERS",
            )
        return said[:_LONGEST]


def load_generator(spec: ModelSpec) -> FunctionWriter:
    """The model that a function of the user's is. Raises UsageError where it cannot be imported."""
    if spec.generate is None:
        raise UsageError("Name the function with --generate package.module:function.")
    function = import_object(spec.generate, spec.code_folder, "--generate")
    model = FunctionWriter(
        called_in(spec.code_folder, function), spec.generate, provenance=provenance_of(function, spec)
    )
    code = source_file(function)
    model.said = Said(predict=spec.generate, code_sha256=None if code is None else sha256_of(code))
    return model
