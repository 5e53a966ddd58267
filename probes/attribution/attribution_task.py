"""The task of every attribution method: the score, the samples, the units and the baseline."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.rows import IntArray
from probes.attribution.attribution_units import Baseline, Differentiable, Posed, Units
from probes.probe_inputs import draw

if TYPE_CHECKING:
    from torch import nn

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


# Observed rows whose values stand in for a table's missing ones; the score is averaged over them.
INFILL_ROWS = 10


@dataclass(frozen=True, eq=False, kw_only=True)
class Problem:
    """The explained object: a score of each of n samples over their units.

    classes: (n,) the class whose score is explained. background: rows that say what absence means. units: what can be
    taken away. differentiable: points, paths and their score for gradient methods; None where there is none, and
    ``why_not`` says why. notes: what a reader should know, such as texts that were cut. again: the same question about
    as many other samples, with a generator for what it draws; None where it can be asked of these only.
    """

    model: AuditedModel
    sample: AuditData
    background: AuditData
    classes: IntArray
    units: Units
    differentiable: Differentiable | None
    why_not: str
    notes: tuple[str, ...]
    put: Callable[[AuditedModel], Posed]
    again: Callable[[AuditData, np.random.Generator], Problem] | None = None

    def __len__(self) -> int:
        return len(self.sample)

    def with_module(self, module: nn.Module) -> Problem:
        """The same task for another module of the same kind: same samples, classes, infill and baseline."""
        model = _with_module(self.model, module)
        posed = self.put(model)
        return replace(self, model=model, units=posed.units, differentiable=posed.differentiable, why_not=posed.why_not)


def pose(
    model: AuditedModel,
    sample: AuditData,
    background: AuditData,
    classes: IntArray,
    *,
    baseline: Baseline = "auto",
    rng: np.random.Generator,
    max_memory: int | None = None,
    n_infill: int = INFILL_ROWS,
) -> Problem:
    """The question for some samples; ``classes`` (n,) are explained.

    Units are the raw features of a table, the words or tokens of a text by position, a grid of patches of an image.
    What stands where a unit was taken away: a table's values come from ``n_infill`` background rows, and the score is
    averaged over them; a text's token becomes the mask token where the tokenizer has one, else the text is closed over
    the gap; a patch is blurred. baseline, where gradient paths begin: ``mean`` of the background rows (tables),
    ``zero``, ``uniform`` (drawn from between the least and the largest value), ``blur`` (images), ``pad``, ``mask``,
    ``mean`` of the tokens (texts). auto: mean, blur, and mask where there is one, else pad, or mean where the padding
    is embedded as zeros. max_memory: bytes that one forward and backward pass may take, 1 GiB by default.

    Raises NotApplicableError where the baseline is not for this modality, or the texts are too long for the model.
    """
    from probes.attribution.image_units import image_question
    from probes.attribution.table_units import table_question
    from probes.attribution.text_units import text_question

    if sample.modality == "tabular":
        infill = draw(background, n_infill, rng)
        question = table_question(model, sample, background, infill, classes, baseline, rng, max_memory)
    elif sample.modality == "text":
        question = text_question(model, sample, classes, baseline, max_memory)
    else:
        question = image_question(model, sample, classes, baseline, rng, max_memory)
    posed = question.put(model)

    def pose_again(other: AuditData, generator: np.random.Generator) -> Problem:
        return pose(
            model,
            other,
            background,
            classes,
            baseline=baseline,
            rng=generator,
            max_memory=max_memory,
            n_infill=n_infill,
        )

    return Problem(
        model=model,
        sample=sample,
        background=background,
        classes=classes,
        units=posed.units,
        differentiable=posed.differentiable,
        why_not=posed.why_not,
        notes=question.notes,
        put=question.put,
        again=pose_again,
    )


def _with_module(model: AuditedModel, module: nn.Module) -> AuditedModel:
    """A copy of the model around another module; outputs that the model remembers are not the copy's."""
    from auditor.models.torch_model import TorchModel

    if isinstance(model, TorchModel):
        return model.with_module(module)
    other = copy.copy(model)
    other.module = module  # type: ignore[attr-defined]
    return other
