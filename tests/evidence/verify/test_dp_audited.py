"""Evidence of audits of a claimed epsilon: bounds, tests and verdicts follow from the canaries, whoever has the key."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auditor.evidence.container import unpack
from auditor.evidence.derived_evidence import write_derived
from auditor.evidence.dp_audit_evidence import CANARIES, CanaryRecord, Claim, dp_audit_evidence, held_against
from auditor.evidence.signing import load_private_key, load_public_key, make_key
from auditor.evidence.verify.checks import Verified
from auditor.evidence.verify.dispatch import verify_evidence
from auditor.privacy.accounting import Phase
from auditor.privacy.dp_audit_scores import DIRAC, CanaryScores
from auditor.privacy.released_noise import ReleasedNoise, Sensitivity
from cli.verify import stored_probe
from tests.evidence.derived import forged

Bend = Callable[[dict[str, Any]], object]
STEPS, SIZE, M = 30, 400, 400
KINDS = ("seen", "one_each", "undefined", "gaussian")


def canaries(sure: float) -> CanaryScores:
    """Scores that tell the canaries as well as ``sure`` has it, and noise that is the stated one."""
    rng = np.random.default_rng(4)
    included = rng.random(M) < 0.5
    noise = rng.normal(0.0, 1.0, (STEPS, SIZE))
    released = ReleasedNoise(
        sizes=np.array([float(SIZE)]),
        squares=(noise**2).sum(axis=1, keepdims=True),
        totals=noise.sum(axis=1),
        squared_sum=float((noise.sum(axis=0) ** 2).sum()),
        multipliers=np.ones(STEPS),
        watched=noise[:, :64],
    )
    return CanaryScores(
        included=included,
        scores=sure * included + rng.normal(size=M),
        noise=(released,),
        steps=STEPS,
        sample_rate=0.2,
        sensitivity=Sensitivity(largest=0.9, n_rows=3, batch_rows=20),
        clipping_seen=STEPS,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dp")
    make_key(folder / "k")
    phases = (Phase(noise_multiplier=1.0, sample_rate=0.2, steps=STEPS),)
    claims = {
        "seen": (canaries(4.0), Claim(claimed_epsilon=6.0, delta=1e-5, accounting=phases, seed=3)),
        "one_each": (canaries(8.0), Claim(claimed_epsilon=1.0, delta=1e-5, one_each=True)),
        "undefined": (canaries(0.0), Claim(claimed_epsilon=2.0, delta=0.0, guesses=(40, 80))),
        "gaussian": (
            replace(canaries(1.0), kind=DIRAC),
            Claim(claimed_epsilon=3.0, delta=1e-5, accounting=phases, guesses=(40,)),
        ),
    }
    for name, (seen, claim) in claims.items():
        result, gaussian = held_against(seen, claim)
        made = dp_audit_evidence(result, gaussian, seen, claim, {"train": "mine:train"})
        write_derived(folder / f"{name}.zip", made, key=load_private_key(folder / "k"))
    return folder


def checked(path: Path, folder: Path) -> Verified:
    return verify_evidence(path, stored_probe, trusted=[load_public_key(folder / "k.pub")])


def wrong(found: Verified) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if check.state == "wrong"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_audit_is_made_anew_and_its_scores_stay_the_signers_word(folder: Path, kind: str) -> None:
    found = checked(folder / f"{kind}.zip", folder)
    assert wrong(found) == {} and found.exit_code() == 0
    assert f"{CANARIES}: *" in [each.where for each in found.plain_statements]
    record = json.loads(unpack((folder / f"{kind}.zip").read_bytes(), kind)["record.json"])
    verdicts = {"seen": "not_supported", "one_each": "contradicted", "undefined": "cannot_tell"}
    assert record["verdict"] == verdicts.get(kind, record["verdict"])
    # What is bent below is there.
    assert (record["noise"] is not None) == (kind in ("seen", "gaussian"))
    if kind != "one_each":
        assert (record["gaussian"] is not None) == (kind == "gaussian")
        assert len(record["guesses"]) > 0


def _scale(name: str) -> Bend:
    def bend(record: dict[str, Any]) -> None:
        assert record[name]
        record[name] *= 0.99

    return bend


def _of_guess(name: str) -> Bend:
    def bend(record: dict[str, Any]) -> None:
        record["guesses"][0][name] = record["guesses"][0][name] * 0.5 + 0.01

    return bend


def _noise_p(record: dict[str, Any]) -> None:
    record["noise"]["tests"][0]["p_value"] = 1e-9


BENT: list[tuple[str, str, Bend, str]] = [
    ("seen", "epsilon", _scale("lower_bound"), "lower_bound"),
    ("seen", "provable", _scale("largest_provable"), "largest_provable"),
    ("seen", "accounted", _scale("accounted_epsilon"), "accounted_epsilon"),
    ("seen", "p-value", _of_guess("p_value_of_claim"), "guesses"),
    ("seen", "right guesses", _of_guess("n_correct"), "guesses"),
    ("seen", "noise", _noise_p, "noise"),
    ("seen", "verdict", lambda r: r.update(verdict="consistent", exit_code=0), "verdict"),
    ("seen", "exit code", lambda r: r.update(exit_code=0), "exit_code"),
    ("seen", "claim", lambda r: r.update(claimed_epsilon=8.0), "claimed_epsilon"),
    ("seen", "sensitivity", lambda r: r["sensitivity"].update(largest=0.5), "sensitivity"),
    ("gaussian", "gaussian", lambda r: r["gaussian"].update(epsilon=0.1), "gaussian"),
    ("gaussian", "power", lambda r: r["power"][2].update(chance=1.1), "power"),
    ("one_each", "epsilon", _scale("lower_bound"), "lower_bound"),
    ("undefined", "verdict", lambda r: r.update(verdict="consistent", exit_code=0), "verdict"),
]


@pytest.mark.grid
@pytest.mark.parametrize(("kind", "what", "bend", "named"), BENT, ids=[f"{k}-{w}" for k, w, _, _ in BENT])
def test_a_bent_conclusion_is_named_though_the_right_key_signed_it(
    folder: Path, tmp_path: Path, kind: str, what: str, bend: Bend, named: str
) -> None:
    found = checked(forged(folder / f"{kind}.zip", tmp_path / "f.zip", folder / "k", record=bend), folder)
    said = wrong(found)
    assert found.exit_code() == 1 and named in said and "signature" not in said, said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("claimed_epsilon", 9.0),
        ("delta", 1e-3),
        ("confidence", 0.9),
        ("guesses", [10]),
        ("accounting", None),
        ("seed", "x"),
    ],
)
def test_another_claim_is_not_what_was_held_against_the_canaries(
    folder: Path, tmp_path: Path, name: str, value: object
) -> None:
    path = forged(folder / "seen.zip", tmp_path / "f.zip", folder / "k", request=lambda r: r.update({name: value}))
    found = checked(path, folder)
    assert found.exit_code() == 1 and wrong(found)


@pytest.mark.parametrize("what", ["coin", "score", "noise", "dropped", "infinite", "none"])
def test_other_canaries_do_not_come_to_the_record(folder: Path, tmp_path: Path, what: str) -> None:
    content = json.loads(unpack((folder / "seen.zip").read_bytes(), "s")[CANARIES])
    if what == "coin":
        content["included"] = [not each for each in content["included"]]
    elif what == "score":
        content["scores"] = sorted(content["scores"])
    elif what == "noise":
        content["noise"][0]["squares"] = [[2.0 * each for each in row] for row in content["noise"][0]["squares"]]
    elif what == "dropped":
        content["included"].pop()
    elif what == "infinite":
        content["scores"][0] = "Infinity"
    else:
        content = {}
    path = forged(folder / "seen.zip", tmp_path / "f.zip", folder / "k", {CANARIES: json.dumps(content).encode()})
    found = checked(path, folder)
    assert found.exit_code() == 1 and wrong(found)


def test_what_was_seen_comes_back_to_the_bit() -> None:
    seen = canaries(1.0)
    again = CanaryRecord.model_validate_json(CanaryRecord.from_scores(seen).model_dump_json()).to_scores()
    assert (again.scores == seen.scores).all() and (again.included == seen.included).all()
    assert (again.noise[0].watched == seen.noise[0].watched).all() and again.sensitivity == seen.sensitivity
    nan = ReleasedNoise(**{**vars(seen.noise[0]), "squared_sum": float("nan")})
    stored = CanaryRecord.from_scores(CanaryScores(included=seen.included, scores=seen.scores, noise=(nan,)))
    assert np.isnan(CanaryRecord.model_validate_json(stored.model_dump_json()).to_scores().noise[0].squared_sum)
