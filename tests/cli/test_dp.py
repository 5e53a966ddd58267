"""The three commands as a user runs them: what they print, write and return."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from auditor.privacy.accounting import Phase, noise_for, privacy_spent
from auditor.privacy.run_record import read_run
from auditor.report.record.energy import EnergyCounter, EnergyRecord
from auditor.training.meter import write_energy
from cli.commands import app
from tests import ROOT
from tests.privacy.test_dp_linter import RIGHT

pytestmark = [
    pytest.mark.filterwarnings("ignore:Secure RNG turned off"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),
]


def run(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


BUDGET = ("dp", "budget", "--rows", "20000", "--batch-size", "200", "--epochs", "2")


def test_budget_of_a_run_is_the_accountants(tmp_path: Path) -> None:
    done = run(*BUDGET, "--noise", "1.1", "--delta", "1e-5", "--json")
    said = json.loads(done.stdout)
    phases = [Phase(noise_multiplier=1.1, sample_rate=0.01, steps=200)]
    assert done.exit_code == 0 and said["phases"] == [dict(vars(phases[0]))]
    for one in said["accountants"]:
        assert one["epsilon"] == pytest.approx(privacy_spent(phases, 1e-5, one["accountant"]).epsilon)
    assert [one["is_bound"] for one in said["accountants"]] == [True, True, True, False]


# A time of the run is a point of the plot, up to 20 of them: eight steps are eight.
FEW_STEPS = ("dp", "budget", "--rows", "20000", "--batch-size", "200", "--steps", "8")


@pytest.mark.slow
def test_noise_for_a_target_and_a_plot(tmp_path: Path) -> None:
    for name, begins in (("e.svg", b"<?xml"), ("e.png", b"\x89PNG")):
        words = (*FEW_STEPS, "--epsilon", "1", "--accountant", "rdp", "--plot", str(tmp_path / name))
        done = run(*words)
        assert done.exit_code == 0 and "NOT a bound" in done.stdout and f"wrote {tmp_path / name}" in done.stdout
        assert (tmp_path / name).read_bytes().startswith(begins)
    delta = 20_000**-1.1
    noise = noise_for(1.0, delta, sample_rate=0.01, steps=8, accountant="rdp")
    assert f"noise multiplier {noise:.4g}" in done.stdout
    first = (tmp_path / "e.svg").read_bytes()
    run(*words[:-1], str(tmp_path / "e.svg"))
    assert (tmp_path / "e.svg").read_bytes() == first


def test_phases_and_steps_are_other_ways_to_say_it() -> None:
    done = run("dp", "budget", "--phase", "1.1,0.01,100", "--phase", "0,0.01,1", "--delta", "1e-5")
    assert done.exit_code == 0 and done.stdout.count("infinite") == 4
    by_rate = run(
        "dp", "budget", "--sample-rate", "0.01", "--steps", "200", "--noise", "1.1", "--delta", "1e-5", "--json"
    )
    assert by_rate.stdout.replace("null", "") == run(
        *BUDGET, "--noise", "1.1", "--delta", "1e-5", "--json"
    ).stdout.replace("null", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--noise", "1"), "--delta D"),
        (("--rows", "100"), "--batch-size"),
        (("--rows", "100", "--batch-size", "10"), "--epochs E or --steps T"),
        (("--rows", "100", "--batch-size", "10", "--epochs", "1", "--steps", "5"), "--epochs E or --steps T"),
        (("--rows", "100", "--batch-size", "10", "--epochs", "1"), "--noise S"),
        (("--rows", "100", "--batch-size", "10", "--epochs", "0"), "positive"),
        (("--rows", "100", "--delta", "0.01"), "below 1/100"),
        (("--rows", "100", "--batch-size", "10", "--sample-rate", "0.1"), "same thing"),
        (("--sample-rate", "2", "--delta", "1e-5"), "at most 1"),
        (("--phase", "1,2", "--delta", "1e-5"), "NOISE,SAMPLE_RATE,STEPS"),
        (("--phase", "1,0.1,5", "--noise", "1", "--delta", "1e-5"), "leave --noise away"),
        ((*BUDGET[2:], "--epsilon", "1", "--accountant", "gdp"), "pld, prv or rdp"),
        ((*BUDGET[2:], "--epsilon", "1e6"), "ask for a smaller epsilon"),
        (("--rows", "100", "--plot", "x.gif"), ".svg or .png"),
    ],
)
def test_a_budget_that_cannot_be_is_said(words: tuple[str, ...], said: str) -> None:
    done = run("dp", "budget", *words)
    assert done.exit_code == 2 and said in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({}, 0, "problems that break the guarantee: 0;"),
        ({"sampler": "weighted"}, 1, "BREAKS  weighted_sampler"),
        ({"clipped_share": 1.0}, 0, "harms   clipping_always_binds"),
        ({"n_trials": None}, 3, "unsaid  search_not_accounted: n_trials is not recorded"),
        ({"divided_by": "other"}, 3, "open    divided_by_actual_size: "),
        ({"delta": 0.0}, 1, "BREAKS  claim_below_accounting"),
        ({"layers": ["BatchNormAct2d"]}, 1, "BREAKS  cross_example_layers"),
        ({"phases": []}, 4, ""),
        ({"format": "x"}, 4, ""),
    ],
)
def test_lint_says_and_returns_what_it_found(tmp_path: Path, change: dict[str, Any], code: int, said: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({k: v for k, v in (RIGHT | change).items() if v is not None}))
    done = run("dp", "lint", str(path))
    assert done.exit_code == code and said in done.stdout
    assert run("dp", "lint", str(tmp_path / "none.json")).exit_code == 2
    if code != 4:
        assert done.stdout.endswith("took: not recorded\n")


def test_lint_tells_what_the_training_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    energy = EnergyRecord(
        of="training",
        cpu_s=12.5,
        gpu_s=0.0,
        counters=(EnergyCounter(name="RAPL intel-rapl:0", counts="package", resolution_j=1e-6, joules=41.5),),
    )
    path = tmp_path / "run.json"
    path.write_text(json.dumps(RIGHT | {"energy": energy.model_dump(mode="json")}))
    done = run("dp", "lint", str(path))
    assert "took: 41.5 J by RAPL intel-rapl:0" in done.stdout and "took 12.5 s of processor time" in done.stdout
    assert json.loads(run("dp", "lint", str(path), "--json").stdout)["energy"] == energy.model_dump(mode="json")
    # Of a bundle it is what lies beside it, as long as it is of that bundle.
    model = tmp_path / "model.pt"
    model.write_bytes(b"a bundle")
    monkeypatch.setattr(
        "auditor.privacy.dp_record_of_bundle.read_bundle", lambda path: read_run(tmp_path / "plain.json")
    )
    (tmp_path / "plain.json").write_text(json.dumps(RIGHT))
    assert run("dp", "lint", str(model)).stdout.endswith("took: not recorded\n")
    write_energy(model, energy)
    assert "took: 41.5 J by RAPL intel-rapl:0" in run("dp", "lint", str(model)).stdout
    model.write_bytes(b"another bundle")
    assert run("dp", "lint", str(model)).stdout.endswith("took: not recorded\n")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_training.py").write_text((ROOT / "demo/private_training.py").read_text())
    (tmp_path / "my_guesses.py").write_text(
        "import numpy as np\n"
        "from auditor.privacy.dp_audit_scores import CanaryScores\n"
        "def perfect(audit):\n"
        "    coins = audit.coins()\n"
        "    audit.submit(CanaryScores(included=coins, scores=coins.astype(float)))\n"
        "def blind(audit):\n"
        "    coins = np.arange(audit.n_canaries) % 2 == 0\n"
        "    audit.submit(CanaryScores(included=coins, scores=np.arange(audit.n_canaries) // 2 * 1.0))\n"
        "calls = []\n"
        "def unlike(audit):\n"
        "    import torch\n"
        "    from opacus.accountants import RDPAccountant\n"
        "    from opacus.optimizers import DPOptimizer\n"
        "    accountant = RDPAccountant()\n"
        "    calls.append(1)\n"
        "    accountant.history = [(1.0, 0.1, len(calls))]\n"
        "    weight = torch.nn.Parameter(torch.zeros(50))\n"
        "    weight.grad_sample = torch.zeros(1, 50)\n"
        "    sgd = torch.optim.SGD([weight], lr=0.1)\n"
        "    optimizer = DPOptimizer(sgd, noise_multiplier=1.0, max_grad_norm=1.0, expected_batch_size=1)\n"
        "    audit.attach(optimizer, sample_rate=0.1, accountant=accountant)\n"
        "    optimizer.step()\n"
        "def raises(audit):\n"
        "    raise KeyError('row')\n"
        "def nothing(audit):\n"
        "    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("my_guesses", "my_training"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("function", "more", "code", "said"),
    [
        ("perfect", (), 1, "CONTRADICTED"),
        ("blind", (), 3, "CANNOT TELL"),
        ("blind", ("--canaries", "10"), 3, "CANNOT TELL"),
        ("blind", (), 3, "power       not known: it is simulated for gradient Dirac canaries"),
        ("blind", ("--phase", "0.5,0.1,20"), 3, "NOT SUPPORTED"),
        ("blind", ("--multi-run", "--runs", "120", "--phase", "0.5,0.1,20"), 3, "NOT SUPPORTED"),
        ("unlike", ("--canaries", "10", "--runs", "2"), 2, "were not accounted alike"),
        ("nothing", (), 2, ""),
        ("raises", (), 2, ""),
        ("missing", (), 2, ""),
        ("perfect", ("--multi-run",), 2, ""),
        ("perfect", ("--guesses", "a"), 2, ""),
        ("perfect", ("--multi-run", "--runs", "120"), 1, "scores, multi-run"),
        ("perfect", ("--canaries", "10", "--runs", "3"), 1, "30 scores"),
    ],
)
def test_audit_returns_its_verdict(here: Path, function: str, more: tuple[str, ...], code: int, said: str) -> None:
    claim = "3" if function == "blind" else "1"
    done = run("dp", "audit", f"my_guesses:{function}", "--claimed-epsilon", claim, "--delta", "1e-5", *more)
    assert done.exit_code == code and said in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("more", [(), ("--phase", "0.5,0.1,20"), ("--multi-run", "--runs", "120")])
def test_the_evidence_of_an_audit_is_verified(here: Path, more: tuple[str, ...]) -> None:
    run("evidence", "keygen", "k")
    words = ("--claimed-epsilon", "3", "--delta", "1e-5", "--bundle", "dp.zip", "--sign", "k")
    done = run("dp", "audit", "my_guesses:blind", *words, "--json", *more)
    assert done.exit_code == 3 and json.loads(done.stdout)["verdict"] in ("cannot_tell", "not_supported")
    checked = run("evidence", "verify", "dp.zip", "--key", "k.pub", "--json")
    states = {check["name"]: check["state"] for check in json.loads(checked.stdout)["checks"]}
    assert states["record"] == states["signature"] == "ok" and "wrong" not in states.values(), states
    assert checked.exit_code in (0, 3)
    mine = run("dp", "audit", "my_guesses:blind", *words[:4], "--sign", "k")
    assert mine.exit_code == 2 and "add --bundle" in mine.stderr


@pytest.mark.slow
def test_the_demo_training_is_consistent_and_without_noise_contradicted(here: Path) -> None:
    words = ("--claimed-epsilon", "1", "--delta", "1e-5", "--canaries", "500", "--json")
    right = run("dp", "audit", "my_training:train", *words)
    assert right.exit_code == 0, right.stderr
    said = json.loads(right.stdout)
    assert said["verdict"] == "consistent" and [one["noise_factor"] for one in said["power"]] == [0.0, 0.25, 0.5]
    assert said["power"][0]["chance"] >= 0.95
    wrong = run("dp", "audit", "my_training:train_without_noise", *words)
    assert wrong.exit_code == 1 and json.loads(wrong.stdout)["verdict"] == "contradicted"
