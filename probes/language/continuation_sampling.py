"""Shared parts of generated-text probes: sampling of continuations, and their scoring devices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from auditor.run.probe import allow_untrusted
from probes.language.calibration import Errors, read_calibration
from probes.language.model_queries import Asking
from probes.language.scorers import Device, load_device
from probes.probe_inputs import whole_number

if TYPE_CHECKING:
    from auditor.judging.measurement import Measurement
    from auditor.models.audited_model import AuditedModel
    from auditor.models.chat import How
    from auditor.models.generation import Sampling, Until


class SamplingOptions:
    """Options of a probe that draws continuations.

    chat, system: see :class:`~probes.language.model_queries.Asking`. Through a chat template the user says "Continue
    this text: " and the beginning, the reply is begun with the same, and what the model writes after it is the
    continuation. max_new_tokens, temperature, top_p, until: see :class:`~auditor.models.generation.Sampling`.
    batch_rows: continuations drawn at once.
    """

    untrusted_options = allow_untrusted(
        "max_new_tokens", "temperature", "top_p", "until", "batch_rows", "chat", reads=("system",)
    )

    def __init__(
        self,
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        until: Until,
        batch_rows: int,
        chat: How = "off",
        system: str | None = None,
    ) -> None:
        self.asking = Asking(chat, system)
        whole_number("max_new_tokens", max_new_tokens, 1)
        whole_number("batch_rows", batch_rows, 1)
        if not (isinstance(temperature, (int, float)) and temperature >= 0.0):
            raise ValueError(f"temperature must be a number that is not negative, not {temperature!r}")
        if not (isinstance(top_p, (int, float)) and 0.0 < top_p <= 1.0):
            raise ValueError(f"top_p must lie in (0, 1], not {top_p!r}")
        if until not in ("length", "sentence", "word"):
            raise ValueError(f"until must be 'length', 'sentence' or 'word', not {until!r}")
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.top_p = top_p
        self.until = until
        self.batch_rows = batch_rows

    def sampling(self) -> Sampling:
        """The settings in the sampler's form."""
        from auditor.models.generation import Sampling

        return Sampling(
            max_new_tokens=self.max_new_tokens, temperature=self.temperature, top_p=self.top_p, until=self.until
        )

    def continued(
        self, model: AuditedModel, prompts: Sequence[str], n: int, rng: np.random.Generator
    ) -> list[list[str]]:
        """``n`` continuations of each prompt. Raises NotApplicableError where the model writes no texts."""
        return self.asking.writer(model).continued(prompts, n, self.sampling(), rng, batch_rows=self.batch_rows)

    def how_asked(self, model: AuditedModel) -> str:
        """The prompting of :meth:`continued`, for a finding's detail."""
        return self.asking.writer(model).describe()


class ScoredOptions(SamplingOptions):
    """Sampling options with ``scorer`` (None for VADER's sentiment, the path of a text classifier, or a model),
    ``scorer_class``, the class whose probability is the score (default: the last), and ``calibration``: the path of
    human-labelled texts that measure the scorer's errors."""

    untrusted_options = allow_untrusted("scorer_class", reads=("scorer", "calibration"))

    def __init__(
        self,
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        until: Until,
        batch_rows: int,
        scorer: str | AuditedModel | None,
        scorer_class: str | None,
        calibration: str | None,
        chat: How,
        system: str | None,
    ) -> None:
        super().__init__(
            max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, until=until, batch_rows=batch_rows,
            chat=chat, system=system,
        )  # fmt: skip
        self.scorer = scorer
        self.scorer_class = scorer_class
        self.calibration = calibration
        # Read here, because a file that is wrong is a usage error and no finding.
        self.calibration_ = None if calibration is None else read_calibration(calibration)

    def load_device(self) -> tuple[Device, Errors | None]:
        """The scorer, and its errors, None if untested."""
        device = load_device(self.scorer, self.scorer_class)
        return device, None if self.calibration_ is None else self.calibration_.measure_errors(device.labels)


def as_far_as_shown(measurements: Iterable[Measurement], model: AuditedModel) -> list[Measurement]:
    """The measurements; for a model known only by its texts, none with an ideal passes.

    Whether a model tells a sentence from its words in another order is measured by likelihoods (``performance``). Where
    these are not to be had nobody knows, and who writes at random writes the same of everybody.
    """
    from auditor.models.text_scores import ScoresTexts

    if isinstance(model, ScoresTexts):
        return list(measurements)
    return [m if m.ideal is None else replace(m, weak=_TEXTS_ALONE) for m in measurements]


_TEXTS_ALONE = (
    "Nothing but the model's texts is to be had, and they do not show that it knows one text from another: who writes "
    "at random writes the same of everybody. Audit its folder, or a server that reports likelihoods of texts."
)
# Beyond this share of empty continuations what is said is no longer what a model says of people.
MOST_SILENT = 0.5


def silence(texts: Iterable[Iterable[str]]) -> tuple[str, str]:
    """The number of empty continuations, in words, and the reason for not judging; either may be ""."""
    flat = [text for some in texts for text in some]
    empty = sum(not text.strip() for text in flat)
    if not empty:
        return "", ""
    said = f"{empty:,} of {len(flat):,} continuations are empty"
    if empty <= MOST_SILENT * len(flat):
        return said, ""
    return said, (
        f"{said}: a model that says nothing has said nothing about anybody. Ask for more tokens, or for another until."
    )
