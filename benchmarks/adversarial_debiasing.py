"""An epoch of adversarial debiasing against an epoch of plain training, on the same network, rows and batches.

MLP 64-32 on 2,900 rows of 11 numbers in batches of 128, Adam, one thread. Three steps of the adversary to each of the
predictor, and the predictor's second gradient, projection included; the warm-up is left out of the timing. ``ratio`` is
plain / ours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from auditor.data.audit_data import AuditData
from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import MLP
from auditor.models.torch_model import TorchModel
from auditor.training import training_loop
from benchmarks.common import emit, interleaved, seconds
from mitigations.training.adversarial_debiasing import AdversarialDebiasing
from mitigations.training.retraining import training_set

ROWS, FEATURES, EPOCHS, PAIRS, BAR = 2_900, 11, 4, 9, 0.2
RECIPE = Recipe(epochs=EPOCHS, batch_size=128)


def main() -> None:
    """Runs the comparison and prints it."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    group = rng.choice(["a", "b"], ROWS)
    x = rng.normal(size=(ROWS, FEATURES)).astype(np.float32) + 0.5 * (group == "a")[:, None]
    y = (x.sum(axis=1) + rng.normal(size=ROWS) > 2.5).astype(int)
    data = AuditData.from_arrays(x.astype(np.float32), y, classes=[0, 1], sensitive_features={"group": list(group)})

    def model() -> TorchModel:
        return TorchModel(MLP(FEATURES, [64, 32], 2), classes=[0, 1], recipe=RECIPE)

    rows = training_set(model(), data, "cpu", groups=True)
    schedule = training_loop.Schedule(epochs=EPOCHS, batch_size=RECIPE.batch_size)

    def plain() -> float:
        new = model()

        def loss(batch: Sequence[Tensor]) -> Tensor:
            return nn.functional.cross_entropy(new.logits(batch[0]), batch[1])

        step = training_loop.PlainStep(
            new.module, training_loop.optimizer_of(RECIPE, list(new.module.parameters())), loss
        )
        return seconds(lambda: training_loop.train(step, (rows.x, rows.y), schedule))

    def ours() -> float:
        step = AdversarialDebiasing(warm_up=0.0).step(model(), rows, RECIPE)
        return seconds(lambda: training_loop.train(step, (rows.x, rows.y, rows.s, step.weights), schedule))

    plain(), ours()
    mine, theirs, ratio = interleaved(ours, plain, PAIRS)
    emit("adversarial_debiasing", ours=mine, peer=theirs, ratio=ratio, bar=BAR, threads=1, rows=ROWS, epochs=EPOCHS)


if __name__ == "__main__":
    main()
