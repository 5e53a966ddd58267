"""What training costs is counted, not timed: by the sizes alone, and not far from what it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from auditor.core.errors import ModelError
from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import MLP, BiLSTMText, SmallCNN
from auditor.training.computation_cost import (
    BYTES_A_SECOND,
    FLOPS_A_SECOND,
    SECONDS_A_CALL,
    SECONDS_A_PRIMITIVE_CALL,
    Work,
    work_of,
)
from auditor.training.ensembles import predicted_seconds, random_halves, train_together

Make = Callable[[], nn.Module]


def numbers(*shape: int) -> Tensor:
    """Numbers of a normal distribution, float32."""
    return torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def words(n: int, length: int) -> Tensor:
    """Indices of 200 words."""
    return torch.from_numpy(np.random.default_rng(0).integers(0, 200, (n, length)))


CASES: dict[str, tuple[Make, Tensor, int]] = {
    "mlp": (lambda: MLP(20, [64, 32], 2), numbers(2000, 20), 12),
    "cnn": (lambda: SmallCNN(1, 10), numbers(512, 1, 8, 8), 4),
    "bilstm": (lambda: BiLSTMText(200, 2), words(512, 20), 4),
}


@pytest.mark.parametrize("name", CASES)
def test_the_prediction_is_within_a_factor_of_three_of_processor_time(name: str) -> None:
    make, x, epochs = CASES[name]
    recipe = Recipe(epochs=epochs, batch_size=64)
    n, k = len(x), 4
    predicted = predicted_seconds(make, x, n_models=k, n_learned=n // 2, n_classes=2, recipe=recipe)
    members = random_halves(k, n, np.random.default_rng(0))
    labels = torch.from_numpy(np.random.default_rng(1).integers(0, 2, n))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        started = time.process_time()
        train_together(make, x, labels, members, seeds=range(k), recipe=recipe)
        taken = time.process_time() - started
    finally:
        torch.set_num_threads(threads)
    assert taken / 3.0 < predicted < taken * 3.0, (predicted, taken)


def test_the_prediction_is_the_same_every_time_and_grows_with_what_is_asked() -> None:
    make, x, _ = CASES["mlp"]

    def seconds(n_models: int = 32, n_learned: int = 1000, epochs: int = 10) -> float:
        recipe = Recipe(epochs=epochs, batch_size=50)
        return predicted_seconds(make, x, n_models=n_models, n_learned=n_learned, n_classes=2, recipe=recipe)

    first = seconds()
    assert seconds() == first
    # Two full chunks are two times one.
    assert seconds(n_models=64) == pytest.approx(2.0 * first)
    assert seconds(epochs=20) == pytest.approx(2.0 * seconds(), rel=0.1)
    assert seconds(n_learned=500) == pytest.approx(seconds() / 2.0, rel=0.1)
    with pytest.raises(ModelError, match="as many rows, one or more"):
        seconds(n_learned=0)


def test_matrix_products_convolutions_and_recurrent_layers_are_counted_by_hand() -> None:
    with torch.no_grad():
        product = work_of(lambda: torch.mm(numbers(3, 4), torch.ones(4, 5)))
        picture = work_of(lambda: nn.functional.conv2d(numbers(2, 4, 6, 6), torch.ones(8, 2, 3, 3), groups=2))
        layer = nn.LSTM(5, 7, batch_first=True)
        texts = work_of(lambda: layer(torch.ones(2, 3, 5)))
    assert (product.flops, product.primitive_calls) == (2 * 3 * 4 * 5, 0)
    assert (picture.flops, picture.primitive_calls) == (2 * 2 * 8 * 4 * 4 * 2 * 3 * 3, 1)
    assert (texts.flops, texts.primitive_calls) == (2 * 2 * 3 * (4 * 7 * 5 + 4 * 7 * 7), 1)


def test_what_goes_back_through_groups_of_channels_is_twice_what_went_forward() -> None:
    x, weight = numbers(2, 4, 6, 6).requires_grad_(), torch.ones(8, 2, 3, 3, requires_grad=True)
    forward = work_of(lambda: nn.functional.conv2d(x, weight, groups=2))
    made = nn.functional.conv2d(x, weight, groups=2).sum()
    assert work_of(made.backward).flops == 2 * forward.flops


def test_seconds_are_the_unit_costs_and_a_list_is_as_many_calls() -> None:
    work = Work(calls=1, primitive_calls=2, flops=3, written=4)
    expected = SECONDS_A_CALL + 2 * SECONDS_A_PRIMITIVE_CALL + 3 / FLOPS_A_SECOND + 4 / BYTES_A_SECOND
    assert work.seconds == pytest.approx(expected)
    assert work.of_numbers(2.0) == Work(calls=1, primitive_calls=2, flops=6, written=8)
    # A call, 10 numbers of the parameters and 3 a row: of 2 rows, of 4, and so of 20.
    assert Work(1, 0, 16, 0).extrapolate(Work(1, 0, 22, 0), 10.0) == Work(1, 0, 70, 0)
    held = [torch.ones(3), torch.ones(2)]
    assert work_of(lambda: torch._foreach_add_(held, 1.0)).calls == 2
    # A view moves nothing.
    assert work_of(lambda: held[0].view(3, 1).t()) == Work()
