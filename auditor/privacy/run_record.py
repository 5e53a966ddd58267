"""The record of a DP-SGD run for the linter, read from JSON, TOML or a model bundle, with facts of its layers.

A field that is left out was not recorded; the checks that need it say so. Nothing is assumed in its place.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from auditor.core.errors import DataError, ModelError, did_you_mean
from auditor.core.files import Closed, write_beside
from auditor.core.number_types import Count, NonNegative, Positive, PositiveCount, Share
from auditor.privacy.accounting import Accountant, Phase, Spent, privacy_spent, sampling_of, with_added
from auditor.report.record.energy import EnergyRecord

if TYPE_CHECKING:
    from torch import nn

    from auditor.models.audited_model import AuditedModel, Recipe

_RUNNING = ("running_mean", "running_var")


def layer_names(module: nn.Module) -> tuple[str, ...]:
    """Class names of the module and of all modules in it."""
    return tuple(type(layer).__name__ for layer in module.modules())


def statistics_keepers(module: nn.Module) -> tuple[str, ...]:
    """Distinct class names of layers with a buffer for a running mean or variance, under any name."""
    found = (
        type(layer).__name__
        for layer in module.modules()
        if any(name in _RUNNING and b is not None for name, b in layer.named_buffers(recurse=False))
    )
    return tuple(dict.fromkeys(found))


RUN_FORMAT = "auditor-dp-run/1"
_MOST_BYTES = 4 << 20

R = TypeVar("R", bound=Closed)

Sampler = Literal["poisson", "shuffled", "in_order", "with_replacement", "weighted", "other"]


class RecordedPhase(Closed):
    """Steps that the accountant counted with one noise multiplier and one sample rate."""

    noise_multiplier: NonNegative
    sample_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    steps: PositiveCount


class RecordedEncoding(Closed):
    """The budget spent on learning the preprocessing from training rows by a private mechanism.

    Gaussian mechanisms: ``looks`` one after the other, each with noise of ``noise_multiplier`` times its sensitivity,
    which the accountant composes with the steps. Others: ``epsilon``, which is added. ``delta``: what is added to that.
    """

    noise_multiplier: Positive | None = None
    looks: PositiveCount | None = None
    epsilon: Positive | None = None
    delta: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0

    @model_validator(mode="after")
    def _says_what_was_spent(self) -> Self:
        gaussian = self.noise_multiplier is not None and self.looks is not None
        if (self.noise_multiplier is None) != (self.looks is None) or gaussian == (self.epsilon is not None):
            raise ValueError("give noise_multiplier and looks of Gaussian mechanisms, or epsilon of others")
        return self


class RunRecord(Closed):
    """One run of DP-SGD, with the recorded facts.

    ``phases``: what the accountant counted. ``batch_size``: rows of a logical step on average, as intended; where the
    loader is known, ``sample_rate`` is the chance with which it draws a row. ``sampler``: ``poisson`` draws each row by
    itself; ``shuffled`` goes through all rows in batches of one size. ``noise_multiplier``: that was added.
    ``accumulated_batches``: batches between two noisy steps that were not counted by the accountant as one larger
    batch; 1 where there are none. ``virtual_steps``: how a logical batch that does not fit is cut into physical ones.
    ``divided_by``: what the noisy sum is divided by. ``empty_batches``: what an empty draw does. ``clipped_share``: of
    the rows' gradients, those that were clipped. ``preprocessing``: what its statistics and vocabulary were computed
    from; ``encoding``: what a private mechanism spent on that. ``added_epsilon``: of other mechanisms at delta 0, added
    to the accountant's. ``learning_rate_from``: the tool's own ``default``, or ``given``. ``n_trials``: runs on these
    rows, this one included, that choices rest on; ``trials_accounted``: whether the claim covers them. ``layers``:
    class names of the layers; ``running_statistics``: of those that keep running means or variances of the rows.
    ``not_moving``: trainable parameters that stayed as they were. ``wrong_gradient``: parameters whose per-row
    gradients are not those of the rows. ``wrong_batch``: parameters with more or fewer per-row gradients than rows.
    ``noise_seed_known``: the noise can be repeated by whoever knows a seed. ``step_sensitivity``: how far one row was
    seen to move the released sum, in clipping norms. ``draws``, ``steps_taken``: batches drawn and logical steps taken,
    as a loop was watched; ``repeated_draws``: batches that were the one before once more; ``noise_draws``: steps at
    which fresh noise of the stated size was seen to be added; ``moved_outside_steps``: times at which weights had moved
    that no step had moved. ``unclipped_steps``: steps whose sum was not that of gradients clipped row by row.
    ``rows_seen``: rows whose gradients were summed at ``steps_seen`` steps. ``energy``: what the training took, by
    :class:`auditor.training.meter.Meter`; no check asks for it.
    """

    format: Literal["auditor-dp-run/1"] = "auditor-dp-run/1"
    claimed_epsilon: Positive | None = None
    delta: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    accountant: Accountant | None = None
    phases: Annotated[tuple[RecordedPhase, ...], Field(min_length=1)] | None = None
    n_rows: PositiveCount | None = None
    batch_size: Positive | None = None
    sampler: Sampler | None = None
    sample_rate: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    noise_multiplier: NonNegative | None = None
    max_grad_norm: Positive | None = None
    accumulated_batches: PositiveCount | None = None
    virtual_steps: Literal["none", "batch_memory_manager", "own"] | None = None
    divided_by: Literal["expected_batch_size", "actual_batch_size", "nothing", "other"] | None = None
    expected_batch_size: Positive | None = None
    empty_batches: Literal["kept", "dropped"] | None = None
    clipped_share: Share | None = None
    preprocessing: Literal["none", "public", "training_rows", "private_mechanism"] | None = None
    encoding: RecordedEncoding | None = None
    added_epsilon: NonNegative | None = None
    learning_rate_from: Literal["default", "given"] | None = None
    n_trials: PositiveCount | None = None
    trials_accounted: bool | None = None
    layers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    running_statistics: tuple[str, ...] | None = None
    not_moving: tuple[str, ...] | None = None
    wrong_gradient: tuple[str, ...] | None = None
    wrong_batch: tuple[str, ...] | None = None
    noise_seed_known: bool | None = None
    step_sensitivity: NonNegative | None = None
    draws: Count | None = None
    steps_taken: Count | None = None
    noise_draws: Count | None = None
    repeated_draws: Count | None = None
    moved_outside_steps: Count | None = None
    unclipped_steps: Count | None = None
    rows_seen: Count | None = None
    steps_seen: PositiveCount | None = None
    energy: EnergyRecord | None = None

    def accounted(self) -> tuple[Phase, ...] | None:
        """The phases as the accounting takes them, the encoding's last; None where none is recorded."""
        if not self.phases:
            return None
        steps = [Phase(**vars(phase)) for phase in self.phases]
        learned = self.encoding
        if learned is not None and learned.noise_multiplier is not None and learned.looks is not None:
            steps.append(Phase(noise_multiplier=learned.noise_multiplier, sample_rate=1.0, steps=learned.looks))
        return tuple(steps)

    def privacy_spent(self, accountant: Accountant) -> Spent | None:
        """Epsilon at ``delta`` of all that is recorded, by one accountant; None where phases or delta are missing.

        What is not composed is added: see :func:`auditor.privacy.accounting.with_added`.
        """
        phases = self.accounted()
        beside = 0.0 if self.encoding is None else self.encoding.delta
        if phases is None or self.delta is None or self.delta <= beside:
            return None
        more = (self.added_epsilon or 0.0) + (0.0 if self.encoding is None else self.encoding.epsilon or 0.0)
        return with_added(privacy_spent(phases, self.delta - beside, accountant), epsilon=more, delta=beside)


def read_run(path: str | Path) -> RunRecord:
    """The record in a JSON or TOML file. Raises DataError naming the field that is wrong and the nearest known one."""
    return parse_run(read_plain(path), Path(path).name)


def read_plain(path: str | Path) -> object:
    """The contents of a run record's JSON or TOML file.

    Raises DataError where it is neither, or too large.
    """
    file = Path(path)
    if file.stat().st_size > _MOST_BYTES:
        raise DataError(f"{file.name!r} is larger than a run record of {_MOST_BYTES >> 20} MiB can be.")
    try:
        text = file.read_text(encoding="utf-8")
        raw: object = tomllib.loads(text) if file.suffix.lower() == ".toml" else json.loads(text)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{file.name!r} is neither JSON nor TOML: {str(error)[:200]}.") from None
    return raw


def write_run(run: Closed, path: str | Path) -> None:
    """Write a record as JSON for :func:`read_run` and ``auditor dp lint``, without unrecorded fields."""
    write_beside(path, run.model_dump_json(indent=2, exclude_none=True).encode())


def parse_run(raw: object, name: str) -> RunRecord:
    """The record of plain data. Raises DataError as :func:`read_run`."""
    return parse_as(RunRecord, RUN_FORMAT, raw, name)


def parse_as(kind: type[R], form: str, raw: object, name: str) -> R:
    """A record of one kind and format of plain data. Raises DataError as :func:`read_run`."""
    if not isinstance(raw, dict) or raw.get("format") != form:
        raise DataError(f'{name!r} is no record of a private run: it must be an object with "format": "{form}".')
    for key in raw:
        if key not in kind.model_fields:
            raise DataError(f"{name!r} has an unknown field {key!r}{did_you_mean(str(key), kind.model_fields) or '.'}")
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if first["type"] == "too_short":
            raise DataError(
                f"{name!r}, field {where!r} is empty: list what there was, or leave the field out where it was not "
                "recorded."
            ) from None
        raise DataError(f"{name!r}, field {where!r}: {first['msg']}.") from None


def run_of_recipe(
    recipe: Recipe, layers: tuple[str, ...] | None = None, running_statistics: tuple[str, ...] | None = None
) -> RunRecord | None:
    """The private training recorded in a model bundle's recipe; None if it was not private.

    Where it names the sampler ``poisson``, as that of ``auditor train`` does, the steps were Opacus': the loader's
    rate, a constant divisor, empty draws kept. A recipe without these fields says only what stands in it.
    """
    if recipe.epsilon is None:
        return None
    same = (
        "delta noise_multiplier max_grad_norm n_rows accountant sampler noise_seed_known n_trials added_epsilon "
        "learning_rate_from"
    )
    known: dict[str, Any] = {name: getattr(recipe, name) for name in same.split()} | {
        "claimed_epsilon": recipe.epsilon,
        "batch_size": float(recipe.batch_size),
        "layers": layers,
        "running_statistics": running_statistics,
        "preprocessing": recipe.preprocessing_from,
        "encoding": None if recipe.encoding is None else asdict(recipe.encoding),
    }
    if recipe.seen is not None:
        known |= asdict(recipe.seen)
    if recipe.n_rows is not None and recipe.sampler == "poisson":
        sampling = sampling_of(recipe.n_rows, min(recipe.batch_size, recipe.n_rows))
        known |= {"sample_rate": sampling.sample_rate, "empty_batches": "kept", "accumulated_batches": 1}
        known |= {"divided_by": "expected_batch_size", "virtual_steps": "none"}
        known["expected_batch_size"] = float(int(recipe.n_rows * sampling.accounted_rate))
        if recipe.noise_multiplier is not None:
            known["phases"] = (
                RecordedPhase(
                    noise_multiplier=recipe.noise_multiplier,
                    sample_rate=sampling.accounted_rate,
                    steps=sampling.steps_per_epoch * recipe.epochs,
                ),
            )
    return parse_run(
        {"format": RUN_FORMAT} | {k: v for k, v in known.items() if v is not None}, "the recipe of the bundle"
    )


def run_of_model(model: AuditedModel, name: str) -> RunRecord:
    """The private run that the model's recipe records. Raises ModelError where it records none."""
    from auditor.models.torch_model import TorchModel

    recipe = model.recipe if isinstance(model, TorchModel) else None
    if not isinstance(model, TorchModel) or recipe is None:
        raise ModelError(f"{name!r} does not say how it was trained: lint a run record, RUN.json, instead.")
    record = run_of_recipe(recipe, layer_names(model.module), statistics_keepers(model.module))
    if record is None:
        raise ModelError(f"{name!r} was not trained privately, by its own recipe: there is no claim to lint.")
    return record
