"""User-defined text generation functions, named by ``--generate package.module:function``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from auditor.core.errors import ModelError, NotApplicableError, UsageError
from auditor.core.files import sha256_of
from auditor.loading.functions import provenance_of, raised
from auditor.loading.job_specs import ModelSpec
from auditor.loading.user_code import called_in, import_object, source_file
from auditor.models.audited_model import AuditedModel, Provenance, Said
from auditor.models.capabilities import Generates, Reply
from auditor.models.chat import How
from auditor.models.generation import Sampling

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
