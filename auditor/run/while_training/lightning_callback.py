"""Integration in PyTorch Lightning: a callback.

Needs the extra ``lightning``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from auditor.core.errors import MissingExtraError
from auditor.training.interim.trackers import trackers_of

try:
    from lightning.pytorch import Callback
except ImportError as error:
    raise MissingExtraError(
        "Auditing inside a Lightning trainer needs lightning: pip install 'responsible-auditor[lightning]'."
    ) from error

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from auditor.run.while_training.training_audit import TrainingAudit


class AuditCallback(Callback):  # type: ignore[misc]
    """A Lightning callback that audits after each training epoch or n-th step, and logs to the trainer's loggers.

    TensorBoard is given outcomes as a text, Weights & Biases as a table, MLflow the report as artifacts. The audit's
    state, rollback's weights with it, rides in each checkpoint, and ``fit(ckpt_path=...)`` goes on from it.

    The module's ``forward`` must return logits, or give the audit a ``wrap``.
    """

    def __init__(self, audit: TrainingAudit) -> None:
        self.audit = audit
        self._seen_step = 0
        self._tracked = False
        self._saved: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The audit's state, for the checkpoint."""
        return self.audit.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Store the state until the trainer knows the number of looks."""
        self._saved = state_dict

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Resume from the checkpoint's state if there is one."""
        self._seen_step = trainer.global_step
        if self._saved is not None:
            self.audit.load_state_dict(self._saved)
            self._saved = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the module can be audited, plan the looks, and start the clock; UsageError if it cannot."""
        self.audit.check(pl_module)
        every = self.audit.every
        planned = trainer.max_epochs if every == "epoch" else trainer.estimated_stepping_batches / int(every)
        self.audit.plan(int(planned) if planned is not None and 1 <= planned < math.inf else None)
        if self.audit.log is None and trainer.loggers:
            self.audit.log = lambda numbers, at: self._log(trainer, numbers)
        if not self._tracked:
            self._tracked = True
            self.audit.track(lambda: trackers_of(trainer.loggers, step=lambda at: int(trainer.global_step)))
        self.audit.begin()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take a look, if looks are by epoch."""
        if self.audit.every == "epoch":
            self.audit.step(pl_module, at=float(trainer.current_epoch + 1))
            self._obey(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take a look at each n-th step, if looks are by step."""
        # Several batches may make one step of the optimizer.
        if self.audit.every != "epoch" and trainer.global_step > self._seen_step:
            self._seen_step = trainer.global_step
            self.audit.step(pl_module, at=float(trainer.global_step))
            self._obey(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the closing look and write the report."""
        self.audit.finish(pl_module)

    def _obey(self, trainer: Trainer) -> None:
        if self.audit.should_stop:
            trainer.should_stop = True

    @staticmethod
    def _log(trainer: Trainer, numbers: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(numbers, step=trainer.global_step)
