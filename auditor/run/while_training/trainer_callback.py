"""Integration in transformers' ``Trainer``: a callback, and a wrapper for text classifiers with a tokenizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from auditor.core.errors import ModelError, UsageError
from auditor.loading.huggingface_folders import TextClassifier
from auditor.models.forward_passes import device_of
from auditor.models.torch_model import TorchModel
from auditor.training.interim.trackers import Tracker, trackers_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Trainer, TrainerControl, TrainerState, TrainingArguments

    from auditor.core.rows import Rows
    from auditor.run.while_training.training_audit import TrainingAudit

_TEXT_BATCH = 64
_MOST_EPOCHS = 1_000_000


class AuditCallback(TrainerCallback, ExportableState):  # type: ignore[misc]
    """A ``Trainer`` callback that audits the model after each epoch, or each n-th step; see ``add_to``.

    The audit's state rides in ``trainer_state.json`` of each checkpoint, and ``resume_from_checkpoint`` goes on from
    it. Weights to roll back to do not, being no JSON: after it was resumed there are none until a look passes.

    ``log``: called with the numbers of a look; ``trainer.log`` sends them wherever the trainer reports to.
    ``trackers``: finds what is told of outcomes, at the first look, when the trainer's own callbacks have begun.
    """

    # Where restore_callback_states_from_checkpoint is set the Trainer makes every callback anew, of JSON.
    _audits: ClassVar[WeakValueDictionary[str, TrainingAudit]] = WeakValueDictionary()

    def __init__(
        self,
        audit: TrainingAudit | str,
        *,
        log: Callable[[dict[str, float]], None] | None = None,
        trackers: Callable[[], list[Tracker]] | None = None,
    ) -> None:
        if isinstance(audit, str):
            if audit not in self._audits:
                raise UsageError(
                    "The checkpoint is of an audit of other rows, probes, criteria, error rate or seed: give the "
                    "audit what it was begun with, or resume without restore_callback_states_from_checkpoint."
                )
            audit = self._audits[audit]
        self.audit: TrainingAudit = audit
        self._audits[audit.key] = audit
        self.saved: dict[str, Any] | None = None
        self._trackers = trackers
        if log is not None and audit.log is None:
            audit.log = lambda numbers, at: log(numbers)

    def state(self) -> dict[str, Any]:
        """The callback's state in ``trainer_state.json``."""
        return {"args": {"audit": self.audit.key}, "attributes": {"saved": self.audit.state_dict()["audit"]}}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Plan the looks, resume from the checkpoint's state if there is one, and start the clock."""
        every = self.audit.every
        planned = math.ceil(state.num_train_epochs) if every == "epoch" else state.max_steps // int(every)
        # Of rows without a length the Trainer knows no number of epochs, and says the largest there is.
        self.audit.plan(planned if 1 <= planned <= _MOST_EPOCHS else None)
        kept = (state.stateful_callbacks or {}).get(type(self).__name__)
        if state.global_step and isinstance(kept, dict) and not self.audit.peeks:
            self.audit.load_state_dict({"audit": (kept.get("attributes") or {}).get("saved")})
        self.audit.begin()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take a look, if looks are by epoch."""
        if self.audit.every == "epoch":
            self._look(kwargs["model"], round(float(state.epoch or 0.0), 6), control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Take a look at each n-th step, if looks are by step."""
        if self.audit.every != "epoch":
            self._look(kwargs["model"], float(state.global_step), control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the closing look and write the report."""
        self.audit.finish(kwargs["model"])

    def _look(self, model: nn.Module, position: float, control: TrainerControl) -> None:
        if self._trackers is not None:
            self.audit.track(self._trackers)
            self._trackers = None
        # Logging takes back the Trainer's own intention to log.
        intended = dict(vars(control))
        self.audit.step(model, at=position)
        vars(control).update(intended)
        if self.audit.should_stop:
            control.should_training_stop = True


def add_to(trainer: Trainer, audit: TrainingAudit) -> AuditCallback:
    """Add an audit to a trainer; numbers, intervals and outcomes are logged to the trainer's loggers.

    TensorBoard is given outcomes as a text, Weights & Biases as a table, MLflow the report as artifacts. Raises
    UsageError for a network that no look could measure.
    """
    try:
        audit.check(trainer.model)
    except UsageError as error:
        config, classes = getattr(trainer.model, "config", None), audit.data.classes
        if list(getattr(config, "id2label", {}).values()) == list(classes):
            raise
        raise UsageError(f"{error} Here: model.config.id2label = {dict(enumerate(classes))}.") from None
    own = trainer.callback_handler.callbacks
    callback = AuditCallback(
        audit, log=trainer.log, trackers=lambda: trackers_of(own, step=lambda at: int(trainer.state.global_step))
    )
    trainer.add_callback(callback)
    # At the end of the training it has something to tell before the others close their files.
    own.remove(callback)
    own.insert(0, callback)
    return callback


def text_classifier(network: nn.Module, tokenizer: PreTrainedTokenizerBase, *, max_length: int = 512) -> TorchModel:
    """A sequence classifier of transformers and its tokenizer as an AuditedModel of texts; ``wrap`` of an audit.

    Its classes are the network's ``id2label``, in order. Raises ModelError for a tokenizer without a padding token.
    """
    pad = tokenizer.pad_token_id
    if pad is None:
        raise ModelError("The tokenizer names no padding token: set tokenizer.pad_token.")
    config: Any = network.config
    labels: dict[int, str] = config.id2label

    def encode(X: Rows) -> Tensor:
        if not isinstance(X, np.ndarray) or X.dtype != object:
            raise ModelError("This model reads text: give the texts as an array of objects.")
        found = tokenizer([str(t) for t in X], padding=True, truncation=True, max_length=max_length)["input_ids"]
        ids = torch.tensor(found, dtype=torch.int64).reshape(len(X), -1)
        # A text without a single token would leave the network nothing to look at.
        return ids if ids.shape[1] else torch.full((len(X), 1), int(pad), dtype=torch.int64)

    return TorchModel(
        TextClassifier(network, int(pad), tokenizer.padding_side == "left"),
        classes=[labels[i] for i in range(len(labels))],
        encoder=encode,
        token_name=tokenizer.convert_ids_to_tokens,
        outputs="logits",
        device=device_of(network),
        batch_rows=_TEXT_BATCH,
    )
