"""Images drawn from single updates: found where updates are plain, not found behind noise, and never by chance."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from sklearn.datasets import load_digits
from torch import Tensor, nn
from typer.testing import CliRunner

from auditor.core.errors import DataError, UsageError
from auditor.privacy.federated.inversion_audit import (
    ClientStep,
    ClientTask,
    Defence,
    Effort,
    InversionAudit,
    audit_updates,
    invert,
    likeness,
    rank_sum_p_value,
)
from cli.commands import app
from tests.quantifiers import all_of

DIGITS = load_digits()
IMAGES, LABELS = torch.tensor(DIGITS.images / 16.0, dtype=torch.float32)[:, None], torch.tensor(DIGITS.target)
LITTLE = Effort(steps=60)


def convolutions(act: type[nn.Module] = nn.Sigmoid) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), act(), nn.Conv2d(8, 8, 3, stride=2, padding=1), act(), nn.Flatten(),
            nn.Linear(128, 10),
        )  # fmt: skip


def connected() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def audited(module: nn.Module, seed: int = 0, send: Any = None, **more: Any) -> InversionAudit:
    task = ClientTask(module=module, images=IMAGES, labels=LABELS, send=send)
    return audit_updates(task, rng=np.random.default_rng(seed), **({"updates": 3, "effort": LITTLE} | more))


@pytest.mark.grid
@pytest.mark.parametrize(
    ("module", "more"),
    [
        (convolutions(), {}),
        (convolutions(nn.ReLU), {}),
        (convolutions(), {"batch": 4}),
        (convolutions(), {"step": ClientStep(local_steps=3)}),
        (connected(), {}),
        # Clipping alone shortens an update and hides nothing.
        (convolutions(), {"defence": Defence(clipping_norm=0.1)}),
    ],
)
def test_plain_updates_give_their_pictures_away(module: nn.Module, more: dict[str, Any]) -> None:
    found = audited(module, **more)
    assert found.verdict == "gives_away" and found.p_value <= 1e-3
    assert all_of(one.similarity > 0.6 for one in found.attempts)


def test_a_first_layer_that_is_fully_connected_needs_no_descent() -> None:
    found = audited(connected(), effort=Effort(steps=1))
    assert {one.method for one in found.attempts} == {"first_layer"} and found.attempts[0].similarity > 0.999


@pytest.mark.grid
@pytest.mark.parametrize("module", [convolutions(), connected()])
def test_clipping_and_noise_stop_it_and_the_plain_update_shows_that_it_was_tried(module: nn.Module) -> None:
    found = audited(module, defence=Defence(clipping_norm=1.0, noise_multiplier=1.0))
    assert found.verdict == "stopped" and found.p_value > 0.05
    assert found.plain is not None and found.plain_p_value is not None and found.plain_p_value <= 1e-3
    assert "Other attacks may" in found.reason


def test_an_attack_that_sees_nothing_in_plain_updates_says_nothing() -> None:
    class Blind(nn.Module):
        """Answers that do not depend on the image, and so updates that do not."""

        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(10))

        def forward(self, x: Tensor) -> Tensor:
            return self.bias + 0.0 * x.sum(dim=(1, 2, 3))[:, None]

    found = audited(Blind(), effort=Effort(steps=5))
    assert found.verdict == "cannot_tell" and "says nothing" in found.reason


def test_what_a_client_sends_is_asked_of_it() -> None:
    module, step = convolutions(), ClientStep()

    def but_the_last_layer(images: Tensor, labels: Tensor) -> list[Tensor]:
        return [part * 3.0 for part in step.update(module, images, labels)]

    assert audited(module, send=but_the_last_layer).verdict == "gives_away"
    noise = torch.Generator().manual_seed(0)
    found = audited(
        module, send=lambda x, y: [torch.randn(p.shape, generator=noise) for p in step.update(module, x, y)]
    )
    assert found.verdict == "stopped"
    with pytest.raises(UsageError, match="leave them away"):
        audited(module, send=but_the_last_layer, defence=Defence(clipping_norm=1.0))


def test_ranks_behind_nothing_but_noise_are_uniform() -> None:
    found = audited(
        connected(),
        updates=100,
        others=4,
        effort=Effort(steps=1),
        defence=Defence(clipping_norm=1e-3, noise_multiplier=1e4),
    )
    counts = np.bincount([one.rank for one in found.attempts], minlength=5)
    assert len(counts) == 5 and chisquare(counts).pvalue > 1e-3


def test_the_p_value_of_ranks_is_the_share_of_all_ranks() -> None:
    every = np.add.outer(np.add.outer(np.arange(5), np.arange(5)), np.arange(5))
    for ranks in ([0, 0, 0], [1, 3, 0], [4, 4, 4]):
        assert rank_sum_p_value(ranks, 4) == pytest.approx((every <= sum(ranks)).mean())
    assert rank_sum_p_value([7], 99) == pytest.approx(0.08)


def test_likeness_is_the_best_correlation_with_what_was_drawn() -> None:
    drawn, images = torch.rand(2, 1, 4, 4), torch.rand(3, 1, 4, 4)
    by_hand = [max(np.corrcoef(i.ravel(), d.ravel())[0, 1] for d in drawn.numpy()) for i in images.numpy()]
    assert np.allclose(likeness(drawn, images), by_hand) and likeness(drawn, torch.ones(1, 1, 4, 4))[0] == 0.0


def test_an_update_is_what_the_weights_move_by() -> None:
    module, step = convolutions(), ClientStep(local_steps=3, learning_rate=0.2)
    other = convolutions()
    optimizer = torch.optim.SGD(other.parameters(), lr=0.2)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(other(IMAGES[:5]), LABELS[:5]).backward()
        optimizer.step()
    found = step.update(module, IMAGES[:5], LABELS[:5])
    for update, before, after in zip(found, module.parameters(), other.parameters(), strict=True):
        assert torch.allclose(before - 0.2 * update, after, atol=1e-6)


def test_an_update_that_is_not_finite_leaves_the_images_that_descent_began_at() -> None:
    module = convolutions()
    sent = [torch.full_like(p, float("nan")) for p in module.parameters()]
    drawn = invert(
        module, sent, LABELS[:1], (1, 8, 8), step=ClientStep(), effort=Effort(steps=2),
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert torch.isfinite(drawn.images).all()


def test_what_cannot_be_asked_is_refused() -> None:
    for more, said in (
        ({"others": 200}, "largest class"),
        ({"others": 180, "batch": 1800}, "images are needed"),
    ):
        with pytest.raises(DataError, match=said):
            audited(convolutions(), **more)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cannot show anything"):
        audited(convolutions(), updates=1, others=9)
    for wrong in (
        lambda: Defence(noise_multiplier=1.0),
        lambda: Defence(clipping_norm=0.0),
        lambda: ClientStep(local_steps=0),
        lambda: Effort(steps=0),
        lambda: ClientTask(module=convolutions(), images=IMAGES, labels=LABELS[:3]),
        lambda: ClientTask(module=convolutions(), images=IMAGES * 255.0, labels=LABELS),
    ):
        with pytest.raises(UsageError):
            wrong()


@pytest.mark.parametrize(
    ("function", "words", "code", "said"),
    [
        ("clients", (), 1, "GIVES AWAY"),
        ("clients", ("--clip", "1", "--noise", "1"), 0, "STOPPED"),
        ("blind", ("--steps", "2"), 3, "CANNOT TELL"),
        ("wrong", (), 2, "return a ClientTask"),
        ("raises", (), 2, "KeyError"),
        ("clients", ("--noise", "1"), 2, "give a clipping norm"),
        ("clients", ("--others", "500"), 4, "largest class"),
    ],
)
def test_the_command_returns_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, words: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "my_clients.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from tests.privacy.federated.test_gradient_inversion import IMAGES, LABELS, connected\n"
        "from auditor.privacy.federated.inversion_audit import ClientTask\n"
        "def clients():\n"
        "    return ClientTask(module=connected(), images=IMAGES, labels=LABELS)\n"
        "def blind():\n"
        "    flat = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 10))\n"
        "    flat[2].weight.data.zero_().requires_grad_(False)\n"
        "    flat[2].weight.requires_grad_(False)\n"
        "    return ClientTask(module=flat, images=IMAGES, labels=LABELS)\n"
        "def wrong():\n"
        "    return IMAGES\n"
        "def raises():\n"
        "    raise KeyError('image')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_clients", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    given = ("dp", "inversion", f"my_clients:{function}", "--updates", "2", "--steps", "10", *words)
    done = CliRunner().invoke(app, list(given))
    assert done.exit_code == code and said in done.stdout + done.stderr, done.stdout + done.stderr
    if code == 1:
        as_json = json.loads(CliRunner().invoke(app, [*given, "--json"]).stdout)
        assert as_json["verdict"] == "gives_away" and len(as_json["attempts"]) == 2
