"""Training together is training one by one: equal results, fallbacks that say so, checkpoints that change nothing."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from auditor.core.errors import ModelError
from auditor.core.randomness import seeded_globals
from auditor.models.audited_model import Recipe
from auditor.models.networks.architectures import MLP, BiLSTMText, SmallCNN, TransformerEncoder
from auditor.models.networks.layer_chain import NotASequenceError
from auditor.models.output_kind import as_logits
from auditor.training import ensembles, stack_tasks
from auditor.training.ensembles import memory_budget, random_halves, train_together
from auditor.training.stack_tasks import Seeds, VmapStack, linear_chain
from tests import ROOT
from tests.quantifiers import all_of

Bools = npt.NDArray[np.bool_]
RECIPES = {
    "adam": Recipe(epochs=4, batch_size=32, learning_rate=1e-2),
    "adam with decay": Recipe(epochs=2, batch_size=20, learning_rate=1e-2, weight_decay=1e-2),
    "adamw": Recipe(optimizer="adamw", epochs=3, batch_size=64, weight_decay=0.05),
    "sgd": Recipe(optimizer="sgd", epochs=3, batch_size=32, learning_rate=0.1),
    "sgd with momentum": Recipe(
        optimizer="sgd", epochs=4, batch_size=32, learning_rate=0.1, momentum=0.9, weight_decay=1e-3
    ),
}


def rows(n: int = 150, width: int = 10, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor, Bools]:
    """Rows in float64 with labels that can be learned, and halves for 6 models."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width))
    y = np.argmax(x[:, :classes] + 0.5 * rng.normal(size=(n, classes)), axis=1)
    return torch.from_numpy(x), torch.from_numpy(y), random_halves(6, n, rng)


def mlp() -> nn.Module:
    """A small network in float64."""
    return MLP(10, [16, 8], 3).double()


def normed() -> nn.Module:
    """A network that keeps running statistics."""
    return nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).double()


def alone(
    make: Callable[[], nn.Module], x: Tensor, y: Tensor, members: Bools, seeds: Sequence[int], recipe: Recipe
) -> npt.NDArray[np.float64]:
    """Logits of models trained one by one, the way it is usually written."""
    optimizers: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    momentum = {"momentum": recipe.momentum} if recipe.optimizer == "sgd" else {}
    found = []
    for own, seed in zip(members, seeds, strict=True):
        with seeded_globals(np.random.default_rng(Seeds.from_seed(seed).initialisation)):
            module = make()
        module.train()
        optimizer = optimizers[recipe.optimizer](
            module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, **momentum
        )
        shuffling = torch.Generator().manual_seed(Seeds.from_seed(seed).batches)
        learned = np.flatnonzero(own)
        for _ in range(recipe.epochs):
            order = learned[torch.randperm(len(learned), generator=shuffling).numpy()]
            for start in range(0, len(order), recipe.batch_size):
                batch = order[start : start + recipe.batch_size]
                if len(batch) == 1:
                    continue
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(x[batch]), y[batch]).backward()
                optimizer.step()
        with torch.no_grad():
            found.append(module.eval()(x).numpy())
    return np.stack(found)


@pytest.mark.parametrize("name", RECIPES)
def test_logits_are_those_of_models_trained_one_by_one(name: str) -> None:
    x, y, members = rows()
    together = train_together(mlp, x, y, members, seeds=range(6), recipe=RECIPES[name])
    assert together.notes == ()
    np.testing.assert_allclose(together.kept, alone(mlp, x, y, members, range(6), RECIPES[name]), atol=1e-9)


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (lambda: SmallCNN(3, 3, width=4), torch.rand(24, 3, 16, 16, dtype=torch.float64)),
        (lambda: TransformerEncoder(20, 3, 7, 16, 2, 1), torch.randint(0, 20, (24, 7))),
        (lambda: nn.Sequential(nn.Linear(10, 4), nn.LayerNorm(4), nn.Linear(4, 3)), torch.rand(24, 10).double()),
    ],
)
def test_convolutions_attention_and_norms_train_together(make: Callable[[], nn.Module], x: Tensor) -> None:
    def double() -> nn.Module:
        return make().double()

    rng = np.random.default_rng(1)
    y, members = torch.from_numpy(rng.integers(0, 3, 24)), random_halves(4, 24, rng)
    together = train_together(double, x, y, members, seeds=range(4), recipe=RECIPES["adam"])
    assert together.notes == ()
    np.testing.assert_allclose(together.kept, alone(double, x, y, members, range(4), RECIPES["adam"]), atol=1e-7)


# ---- the two ways --------------------------------------------------------------------------------------------------

CNN = (lambda: SmallCNN(1, 3), torch.rand(48, 1, 12, 12, generator=torch.Generator().manual_seed(0)))
SMALL = (lambda: MLP(10, [16, 8], 3), torch.randn(48, 10, generator=torch.Generator().manual_seed(0)))


def four(made: tuple[Callable[[], nn.Module], Tensor], *, batch_size: int = 24, **options: Any) -> ensembles.Ensemble:
    """Four models, 2 epochs of Adam on 24 of 48 rows each."""
    make, x = made
    rng = np.random.default_rng(0)
    y, members = torch.from_numpy(rng.integers(0, 3, len(x))), random_halves(4, len(x), rng)
    recipe = Recipe(epochs=2, batch_size=batch_size)
    return train_together(make, x, y, members, seeds=range(4), recipe=recipe, **options)


def test_what_is_slower_stacked_is_trained_one_by_one_and_that_is_recorded() -> None:
    """Convolutions of batches this large are slower in a stack: benchmarks/shadow_ways.py."""
    wide = (CNN[0], CNN[1].repeat(8, 1, 1, 1))
    (note,) = four(wide, batch_size=128).notes
    assert note.startswith("4 models were trained one by one, because stacked they would take 1.")
    assert note.endswith(" times as long") and four(wide, batch_size=128, stacked=True).notes == ()


def test_small_networks_are_stacked_and_nobody_forbids_one_by_one() -> None:
    assert four(SMALL).notes == ()
    # Asked for, it is no remark.
    assert four(SMALL, stacked=False).notes == ()


@pytest.mark.parametrize("made", [CNN, SMALL], ids=["vmap", "linear layers"])
def test_both_ways_come_to_the_same_models(made: tuple[Callable[[], nn.Module], Tensor]) -> None:
    double = (lambda: made[0]().double(), made[1].double())
    stacked, apart = (four(double, stacked=stacked).kept for stacked in (True, False))
    np.testing.assert_allclose(stacked, apart, atol=1e-9)
    assert np.abs(stacked[0] - stacked[1]).max() > 1e-3


def test_the_way_that_is_taken_is_the_same_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clock has a say: whatever it shows, the same seed gives the same digits."""
    found = [four(CNN)]
    for name in ("perf_counter", "process_time", "monotonic", "time"):
        monkeypatch.setattr(f"time.{name}", lambda: float(np.random.default_rng().normal()))
    found.append(four(CNN))
    np.testing.assert_array_equal(found[0].kept, found[1].kept)
    assert found[0].notes == found[1].notes


@pytest.mark.parametrize(
    ("make", "written_out"),
    [
        (lambda: MLP(10, [16, 8], 3), True),
        (lambda: nn.Sequential(nn.Linear(10, 4), nn.ReLU(), nn.Linear(4, 1)), True),
        (lambda: MLP(10, [16], 3, dropout=0.5), False),
        (lambda: nn.Sequential(nn.Linear(10, 4), nn.Tanh(), nn.Linear(4, 3)), False),
        (lambda: nn.Sequential(nn.Linear(10, 4, bias=False), nn.ReLU(), nn.Linear(4, 3)), False),
        (lambda: nn.Sequential(nn.Linear(10, 4), nn.Linear(4, 3)), False),
        (lambda: nn.Sequential(nn.Linear(10, 3), nn.ReLU()), False),
    ],
)
def test_linear_layers_with_relu_between_them_are_written_out_and_nothing_else(
    make: Callable[[], nn.Module], written_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    for name in ("LinearStack", "VmapStack"):
        kind = getattr(stack_tasks, name)
        monkeypatch.setattr(stack_tasks, name, lambda *a, _k=kind, _n=name, **b: (used.append(_n), _k(*a, **b))[1])
    y = torch.arange(48) % 2
    members = random_halves(4, 48, np.random.default_rng(0))
    arguments: dict[str, Any] = {"seeds": range(4), "recipe": RECIPES["sgd with momentum"]}
    found = train_together(lambda: make().double(), SMALL[1].double(), y, members, **arguments, stacked=True)
    assert set(used) == {"LinearStack" if written_out else "VmapStack"}
    apart = train_together(lambda: make().double(), SMALL[1].double(), y, members, **arguments, stacked=False)
    if not isinstance(make(), MLP) or written_out:  # dropout draws for all models at once
        np.testing.assert_allclose(found.kept, apart.kept, atol=1e-9)


def test_a_layer_that_stands_twice_or_stays_as_it_is_is_not_written_out() -> None:
    layer = nn.Linear(4, 4)
    frozen = MLP(4, [4], 2)
    next(frozen.parameters()).requires_grad_(False)
    for module in (nn.Sequential(layer, nn.ReLU(), layer), frozen):
        with pytest.raises(NotASequenceError):
            linear_chain(module)


def test_passes_in_bfloat16_leave_the_parameters_as_they_are() -> None:
    """As on a GPU that has it; ``vmap`` does not heed torch.autocast, so numbers are rounded for each pass."""
    make, x = CNN
    y = torch.arange(48) % 3
    stacks = []
    for half in (False, True):
        with seeded_globals(np.random.default_rng(0)):
            modules = [make(), make()]
        stack = VmapStack(modules, x, y, RECIPES["sgd"], "logits", plain_attention=False)
        stack.half = half
        start = torch.cat([p.detach().flatten() for p in stack.trained_parameters()])
        for _ in range(2):
            stack.learn(torch.arange(48).expand(2, -1))
        stacks.append(stack)
    exact, rounded = (torch.cat([p.detach().flatten() for p in stack.trained_parameters()]) for stack in stacks)
    assert rounded.dtype is torch.float32
    assert 1e-3 < float((exact - rounded).norm() / (exact - start).norm()) < 0.15


def test_attention_is_written_out_only_where_it_must_be(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    real = ensembles.why_no_vmap

    def watched(*arguments: Any, plain_attention: bool) -> str:
        asked.append(plain_attention)
        return real(*arguments, plain_attention=plain_attention)

    monkeypatch.setattr(ensembles, "why_no_vmap", watched)
    four(CNN)
    assert asked == [False]
    words = torch.arange(48 * 5).reshape(48, 5) % 20
    four((lambda: TransformerEncoder(20, 3, 5, 16, 2, 1), words))
    # The kernel of a CPU is one that vmap does not know.
    assert asked == [False, False, True]


def test_the_memory_of_a_gpu_is_half_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (10 << 30, 80 << 30))
    assert memory_budget(torch.device("cuda")) == 5 << 30
    assert memory_budget(torch.device("cpu")) == memory_budget()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_both_ways_learn_as_well() -> None:
    """In bfloat16 they are not the same digits; they are models of the same rows that fit them as well."""
    x, y, members = rows(600)
    x, y = x.float().cuda(), y.cuda()
    recipe = Recipe(epochs=20, batch_size=64, learning_rate=1e-2)
    found = [
        train_together(
            lambda: MLP(10, [16, 8], 3), x, y, members, seeds=range(6), recipe=recipe, stacked=stacked
        ).kept.argmax(axis=2)
        for stacked in (True, False)
    ]
    right = [(labels == y.cpu().numpy()).mean() for labels in found]
    assert min(right) > 0.6 and abs(right[0] - right[1]) < 0.05


def test_running_statistics_fall_back_to_a_loop_and_say_so() -> None:
    x, y, members = rows()
    found = train_together(normed, x, y, members, seeds=range(6), recipe=RECIPES["adam"])
    assert "one by one, because BatchNorm1d keeps running statistics" in found.notes[0]
    np.testing.assert_allclose(found.kept, alone(normed, x, y, members, range(6), RECIPES["adam"]), atol=1e-12)


def test_a_layer_that_vmap_does_not_know_falls_back_and_says_so() -> None:
    rng = np.random.default_rng(2)
    x, y, members = torch.from_numpy(rng.integers(0, 20, (24, 5))), torch.from_numpy(rng.integers(0, 3, 24)), None
    members = random_halves(2, 24, rng)

    def make() -> nn.Module:
        return BiLSTMText(20, 3, 4, 4, 4).double()

    found = train_together(make, x, y, members, seeds=[5, 6], recipe=RECIPES["adam"])
    assert "one by one, because vmap cannot take the module" in found.notes[0]
    np.testing.assert_allclose(found.kept, alone(make, x, y, members, [5, 6], RECIPES["adam"]), atol=1e-12)


def test_dropout_is_seeded_and_differs_between_models() -> None:
    x, y, _ = rows()
    members = np.ones((2, len(x)), bool)

    def make() -> nn.Module:
        torch.manual_seed(0)
        return MLP(10, [16], 3, dropout=0.5).double()

    # One row each, so that neither the order of rows nor the start can make the two models differ.
    members = np.zeros((2, len(x)), bool)
    members[:, 3] = True
    recipe = Recipe(epochs=3, batch_size=8)
    first, second = (train_together(make, x, y, members, seeds=[1, 2], recipe=recipe).kept for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first[0] - first[1]).max() > 1e-6


def test_the_size_of_the_chunks_changes_nothing_but_rounding() -> None:
    x, y, members = rows()
    found = [
        train_together(mlp, x, y, members, seeds=range(6), recipe=RECIPES["adam"], most_together=most).kept
        for most in (1, 4, 6)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-10)
    np.testing.assert_allclose(found[0], found[2], atol=1e-10)


def test_chunks_fit_the_memory_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, members = rows()
    said: list[str] = []
    train_together(mlp, x, y, members, seeds=range(6), recipe=RECIPES["sgd"], memory_bytes=1, progress=said.append)
    assert len(said) == 6
    monkeypatch.setattr("resource.getrlimit", lambda _: (1, 1))
    assert memory_budget() == ensembles._FEWEST_BYTES
    monkeypatch.setattr("resource.getrlimit", lambda _: (1 << 50, 1 << 50))
    assert memory_budget() == 1 << 30


def test_halves_come_in_complements_of_equal_size() -> None:
    even = random_halves(8, 100, np.random.default_rng(0))
    assert (even.sum(axis=1) == 50).all() and (even.sum(axis=0) == 4).all()
    odd = random_halves(6, 101, np.random.default_rng(0))
    assert (odd.sum(axis=1) == 50).all()
    assert ((odd[0::2] & odd[1::2]).sum(), (~(odd[0::2] | odd[1::2])).sum(axis=1).tolist()) == (0, [1, 1, 1])


# ---- checkpoints ---------------------------------------------------------------------------------------------------


class Killed(Exception):
    """Stands for a process that dies."""


def test_a_run_that_was_killed_goes_on_with_the_same_result(tmp_path: Path) -> None:
    x, y, members = rows()
    arguments: dict[str, Any] = {"seeds": range(6), "recipe": RECIPES["adam"], "most_together": 2}
    whole = train_together(mlp, x, y, members, **arguments).kept

    def dies(words: str) -> None:
        if "5 to 6" in words:
            raise Killed

    with pytest.raises(Killed):
        train_together(mlp, x, y, members, **arguments, checkpoint=tmp_path, progress=dies)
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 2
    # A file that was cut off, and files of other people.
    kept[0].write_bytes(kept[0].read_bytes()[:200])
    (tmp_path / "notes.txt").write_text("mine")
    trained: list[str] = []
    again = train_together(mlp, x, y, members, **arguments, checkpoint=tmp_path, progress=trained.append)
    np.testing.assert_array_equal(again.kept, whole)
    assert len(trained) == 2 and again.notes == ("2 of 6 models were read from the checkpoint folder",)
    read = train_together(mlp, x, y, members, **arguments, checkpoint=tmp_path, progress=trained.append)
    np.testing.assert_array_equal(read.kept, whole)
    assert len(trained) == 2


_IN_ANOTHER_PROCESS = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.training.test_ensembles import eight_models
eight_models(sys.argv[2])
"""


def eight_models(folder: str | None) -> npt.NDArray[np.float64]:
    """Logits of eight models that take a while, trained two at a time."""
    x, y, _ = rows(2000)
    members = random_halves(8, 2000, np.random.default_rng(0))
    recipe = Recipe(epochs=6, batch_size=32)
    return train_together(
        mlp,
        x,
        y,
        members,
        seeds=range(8),
        recipe=recipe,
        most_together=2,
        keep=partial(torch.mul, other=2),
        checkpoint=folder,
    ).kept


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on_in_another(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _IN_ANOTHER_PROCESS, str(ROOT), str(tmp_path)]
    process = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("ensemble-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    left = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("ensemble-*")}
    assert 1 <= len(left) < 4
    resumed = eight_models(str(tmp_path))
    assert all_of((tmp_path / name).stat().st_mtime_ns == at for name, at in left.items())
    np.testing.assert_array_equal(resumed, eight_models(None))


@pytest.mark.parametrize("change", ["x", "y", "members", "seeds", "recipe", "keep"])
def test_what_other_inputs_left_is_not_taken(tmp_path: Path, change: str) -> None:
    x, y, members = rows()
    first: dict[str, Any] = {"x": x, "y": y, "members": members, "seeds": range(6), "recipe": RECIPES["sgd"]}
    other = (
        first
        | {
            "x": {"x": x + 1e-9},
            "y": {"y": (y + 1) % 3},
            "members": {"members": members[::-1]},
            "seeds": {"seeds": range(1, 7)},
            "recipe": {"recipe": RECIPES["adam"]},
            "keep": {"keep": torch.exp},
        }[change]
    )
    train_together(mlp, **first, checkpoint=tmp_path)
    assert train_together(mlp, **other, checkpoint=tmp_path).notes == ()
    assert len(list(tmp_path.iterdir())) == 2


# ---- outputs, errors, manners --------------------------------------------------------------------------------------


def test_one_output_and_probabilities_become_logits() -> None:
    z = torch.tensor([[0.3], [-2.0]], dtype=torch.float64)
    p = torch.sigmoid(z)
    both = torch.cat([1 - p, p], dim=1)
    for logits in (as_logits(z, "logits"), as_logits(p, "probabilities"), as_logits(both, "probabilities")):
        torch.testing.assert_close(torch.softmax(logits, dim=-1), both)


def test_one_output_trains_as_two() -> None:
    x, y, members = rows(classes=2)
    found = train_together(
        lambda: nn.Linear(10, 1).double(), x, y, members, seeds=range(6), recipe=Recipe(epochs=30, learning_rate=0.05)
    )
    assert found.kept.shape == (6, 150, 2)
    assert ((found.kept.argmax(axis=2) == y.numpy()).mean(axis=1) > 0.7).all()


def test_impossible_requests_are_refused() -> None:
    x, y, members = rows()
    with pytest.raises(ModelError, match="none of adam, adamw, sgd"):
        train_together(mlp, x, y, members, seeds=range(6), recipe=Recipe(optimizer="lion"))
    uneven = members.copy()
    uneven[0, np.flatnonzero(uneven[0])[0]] = False
    with pytest.raises(ModelError, match="as many rows"):
        train_together(mlp, x, y, uneven, seeds=range(6), recipe=Recipe())
    with pytest.raises(ModelError, match="lower the recipe's learning rate"):
        train_together(
            mlp, x, y, members, seeds=range(6), recipe=Recipe(optimizer="sgd", learning_rate=1e200, epochs=5)
        )


def test_nobodys_random_numbers_move() -> None:
    x, y, members = rows()
    before = (random.getstate(), repr(np.random.get_state()), torch.get_rng_state())
    train_together(mlp, x, y, members, seeds=range(6), recipe=RECIPES["sgd"])
    assert (random.getstate(), repr(np.random.get_state())) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_two_pairs_of_halves_leave_no_row_out_of_all_models() -> None:
    """Of an odd number of rows each pair leaves one out; were it the same one, an attack would have no model of it."""
    for seed in range(50):
        halves = random_halves(4, 3, np.random.default_rng(seed))
        assert halves.any(axis=0).all() and (halves.sum(axis=1) == 1).all()
