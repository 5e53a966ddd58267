"""Membership scores are kept where rows are asked for, and all numbers of membership inference are measured of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

from auditor.core.errors import DataError
from auditor.data.audit_data import AuditData
from auditor.evidence.container import unpack
from auditor.evidence.evidence_bundle import Evidence
from auditor.evidence.manifest import MEMBERSHIP, TABLES
from auditor.evidence.signing import make_key
from auditor.judging.measurement import Measurement
from auditor.loading.job_specs import Job, Limits, ModelSpec, ProbeSpec
from auditor.models.audited_model import AuditedModel
from auditor.run import membership_scores
from auditor.run.child_jobs import answer
from auditor.run.job_channel import Said
from auditor.run.job_messages import Asking, Scored
from auditor.run.job_results import Measured
from auditor.run.membership_scores import MembershipScores, read_membership, read_membership_head, scores_of
from auditor.statistics.rank_estimates import AreaUnderCurve
from probes import PROBES
from tests.evidence.verify.forged import (  # noqa: F401
    bent,
    checked,
    code_of_once,
    is_unproven,
    known_intervals,
    left_behind,
    with_probe,
    wrong,
)
from tests.evidence.verify.test_adversary import looked_at, mutations
from tests.evidence.verify.test_forger import forgeries, named
from tests.evidence.verify.whole import Whole
from tests.quantifiers import all_of

NAME = "membership_inference"
CHEAP = "loss_threshold,loss_threshold_per_class,quantile_regression"
N = 240

pytestmark = pytest.mark.usefixtures("known_intervals")


@cache
def world() -> tuple[AuditedModel, AuditData]:
    """A model that is surer of the rows it learned, which are every other one."""
    rng = np.random.default_rng(5)
    member, y = np.arange(2 * N) % 2 == 0, rng.integers(0, 2, 2 * N)
    sure = np.clip(rng.normal(np.where(member, 0.85, 0.7), 0.15), 0.01, 0.99)
    X = pd.DataFrame({"p": np.where(y == 1, sure, 1.0 - sure), "noise": rng.normal(size=2 * N)})
    data = AuditData.from_arrays(
        X, np.where(y == 1, "yes", "no"), classes=["no", "yes"], positive="yes", is_member=member,
        sensitive_features={"g": rng.choice(["a", "b"], 2 * N)},
    )  # fmt: skip
    return AuditedModel.from_callable(lambda X: X["p"].to_numpy(float), classes=["no", "yes"], features=list(X)), data


@cache
def audited(methods: str = CHEAP, *, include_rows: bool = True) -> Evidence:
    """Its audit, with all that it leaves behind."""
    model, data = world()
    options = {NAME: {"methods": methods, "n_shadows": 4}}
    return left_behind(model, data, ("performance", NAME), include_rows=include_rows, options=options)


def kept(made: Evidence) -> MembershipScores:
    assert made.memberships is not None
    return made.memberships


def with_scores(made: Evidence, **changes: Any) -> Evidence:
    return replace(made, memberships=replace(kept(made), **changes))


def measured_of(made: Evidence) -> Evidence:
    """The evidence with the numbers that its scores come to, and a record that follows from them."""
    probe: Any = PROBES[NAME]()
    again = {(m.metric, m.method, *m.group.items(), *m.at.items()): m for m in probe.measure_scores(kept(made))}

    def of(m: Measurement) -> Measurement:
        now = again[(m.metric, m.method, *m.group.items(), *m.at.items())]
        return replace(now, ideal_when_same=m.ideal_when_same)

    return with_probe(made, NAME, lambda them: tuple(map(of, them)))


# ---- what is kept, and what follows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("methods", [CHEAP, "label_only,rmia,bavaria"])
def test_every_number_is_counted_anew_from_the_scores(tmp_path: Path, methods: str) -> None:
    made = audited(methods)
    found = checked(made, tmp_path / "a.zip")
    assert wrong(found) == {}
    ok = {c.name: c.detail for c in found.checks if c.state == "ok"}
    n = len(next(r.measurements for r in made.results if r.probe == NAME))
    assert n > 15 and ok[NAME] == f"{n} statistics counted anew from the scores" and MEMBERSHIP in ok
    assert not is_unproven(found, f"results.json: {NAME}[loss_threshold attack_auc].estimate.centre")
    assert not is_unproven(found, f"results.json: {NAME}.alike")
    assert {f.id for f in made.report.findings if f.probe == NAME} <= found.from_rows
    assert is_unproven(found, f"{MEMBERSHIP}: line 3") and is_unproven(found, f"{TABLES}: membership.detail")


def test_scores_read_back_as_they_were_and_hold_no_feature(tmp_path: Path) -> None:
    made = audited()
    checked(made, tmp_path / "a.zip")
    entries = unpack((tmp_path / "a.zip").read_bytes(), "a.zip")
    head = read_membership_head(entries[TABLES])
    assert head is not None
    again = read_membership(entries[MEMBERSHIP], head)
    assert again.rows_to_csv() == entries[MEMBERSHIP] == kept(made).rows_to_csv()
    for name, scores in kept(made).scores.items():
        assert np.array_equal(again.scores[name][again.scored[name]], scores[again.scored[name]])
    header, first = entries[MEMBERSHIP].decode().splitlines()[:2]
    named = "score:loss_threshold,score:loss_threshold_per_class,score:quantile_regression"
    assert header == f"number,member,truth,right,{named},group:g" and first.startswith("1,1,")
    assert len(entries[MEMBERSHIP].splitlines()) == 2 * N + 1


def test_without_rows_nothing_is_kept_and_the_numbers_are_not_proven(tmp_path: Path) -> None:
    found = checked(audited(include_rows=False), tmp_path / "a.zip")
    entries = unpack((tmp_path / "a.zip").read_bytes(), "a.zip")
    assert MEMBERSHIP not in entries and "membership" not in json.loads(entries[TABLES])
    assert wrong(found) == {} and is_unproven(found, f"results.json: {NAME}[loss_threshold attack_auc]")


def test_scores_that_are_left_out_keep_their_digest_and_prove_nothing(tmp_path: Path) -> None:
    found = checked(audited(), tmp_path / "a.zip", redact=True)
    assert wrong(found) == {} and MEMBERSHIP not in unpack((tmp_path / "a.zip").read_bytes(), "a.zip")
    assert {c.name: c.state for c in found.checks}[MEMBERSHIP] == "not checked"
    assert is_unproven(found, f"results.json: {NAME}[loss_threshold attack_auc]")


# ---- forged by whoever holds the key ---------------------------------------------------------------------------------


def lower(m: Measurement) -> Measurement:
    if not isinstance(m.estimate, AreaUnderCurve):
        return m
    centre = 0.5 + (m.estimate.centre - 0.5) / 10
    return replace(m, estimate=m.estimate.model_copy(update={"centre": centre}))


def test_a_forged_area_of_which_all_else_follows_is_found(tmp_path: Path) -> None:
    made = with_probe(audited(), NAME, lambda them: tuple(map(lower, them)))
    assert "attack_auc" in wrong(checked(made, tmp_path / "a.zip"))[f"{NAME} from scores"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: replace(m, detail="nothing to see"), "detail says"),
        (lambda m: replace(m, weak=m.weak.replace("only attacks", "attacks")), "weak says"),
        (lambda m: replace(m, tried="Tried: everything."), "tried says"),
        (lambda m: replace(m, too_few="" if m.too_few else "there are too few"), "too_few says"),
    ],
)
def test_words_that_do_not_follow_are_found(
    tmp_path: Path, change: Callable[[Measurement], Measurement], said: str
) -> None:
    made = with_probe(audited(), NAME, lambda them: (change(them[0]), *them[1:]))
    assert said in wrong(checked(made, tmp_path / "a.zip"))[f"{NAME} from scores"]


def test_scores_of_rows_whose_answers_are_kept_are_those_of_the_answers(tmp_path: Path) -> None:
    made = audited()
    scores = dict(kept(made).scores)
    # Members as hard as others, in scores and numbers and record: but the others' losses are those of rows.csv.
    worse = scores["loss_threshold"].copy()
    other = ~kept(made).is_member
    worse[other] += 0.5
    forged = measured_of(with_scores(made, scores={**scores, "loss_threshold": worse}))
    found = wrong(checked(forged, tmp_path / "a.zip"))
    assert "the loss of row 1 of --data is not that of its answer in rows.csv" in found[f"{NAME} from scores"]
    assert "are not the ranks of those of loss_threshold" in found[f"{NAME} from scores"]
    # What is said of members alone, no answer contradicts: it is named as the signer's word.
    better = scores["quantile_regression"].copy()
    better[~other] -= 0.5
    forged = measured_of(with_scores(made, scores={**scores, "quantile_regression": better}))
    seen = checked(forged, tmp_path / "a.zip")
    assert wrong(seen) == {} and is_unproven(seen, f"{MEMBERSHIP}: line 2")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("labels", "has another true class in rows.csv"),
        ("right", "is decided right is otherwise in rows.csv"),
        ("groups", "is in another group of 'g' in rows.csv"),
        ("number", "it has a member that is no row of --train"),
    ],
)
def test_what_is_said_of_a_row_is_held_against_its_answer(tmp_path: Path, name: str, said: str) -> None:
    made = audited()
    them: Any = kept(made)
    if name == "groups":
        changed: Any = {"g": [*them.groups["g"][:-1], "a" if them.groups["g"][-1] == "b" else "b"]}
    else:
        changed = getattr(them, name).copy()
        changed[N - 1 if name == "number" else -1] = (
            N + 9 if name == "number" else not changed[-1] if name == "right" else 1 - changed[-1]
        )
    found = wrong(checked(measured_of(with_scores(made, **{name: changed})), tmp_path / "a.zip"))
    assert said in "; ".join(found.values())


def test_decisions_that_nobody_knows_of_are_missed(tmp_path: Path) -> None:
    made = audited()
    head = kept(made).head.model_copy(update={"judges_decisions": False})
    found = wrong(checked(measured_of(with_scores(made, right=None, head=head)), tmp_path / "a.zip"))
    assert "nobody says which decisions are right" in found[f"{NAME} from scores"]


def test_an_attack_that_is_kept_back_is_missed(tmp_path: Path) -> None:
    made = audited()
    head = kept(made).head
    fewer = kept(made).head.model_copy(update={"attacks": head.attacks[:-1]})
    scores, scored = (
        {k: v for k, v in d.items() if k in fewer.scored_attacks} for d in (kept(made).scores, kept(made).scored)
    )
    less = with_scores(made, head=fewer, scores=scores, scored=scored)
    gone = head.attacks[-1].method
    less = with_probe(less, NAME, lambda them: tuple(m for m in them if m.method != gone and not m.group))
    said = wrong(checked(less, tmp_path / "a.zip"))[f"{NAME} from scores"]
    assert f"{gone} was asked for, and nothing is said of it" in said


@pytest.mark.parametrize("how", ["dropped", "added", "altered"])
def test_every_measurement_that_is_bent_is_named(tmp_path: Path, how: str) -> None:
    made, ones = audited(), 0
    for turn in (0, 3):
        results, forged = forgeries(how, list(made.results), turn)
        found = checked(bent(made, results), tmp_path / "a.zip")
        own = [each for each in forged if each.probe == NAME]
        assert all_of(named(found, each) for each in own)
        ones += len(own)
    assert ones >= 8


def test_whatever_is_changed_in_the_scores_or_their_head_is_found_or_not_proven(tmp_path: Path) -> None:
    for name in ("auditor", "registrar", "decider"):
        make_key(tmp_path / f"{name}.key")
    checked(audited(), tmp_path / "audit.zip")
    bundle = Whole(tmp_path / "audit.zip", tmp_path)
    rng = np.random.default_rng(11)
    entries = {name: bundle.entries[name] for name in (MEMBERSHIP, TABLES)}
    seen = [looked_at(bundle, made, tmp_path / "b.zip") for made in mutations(entries, rng, 24)]
    escaped = [each.mutation for each in seen if not (each.found or each.unproven)]
    assert not escaped, [(each.place, each.how) for each in escaped]
    assert sum(each.found for each in seen) > 0.8 * len(seen)


# ---- what a process may say ------------------------------------------------------------------------------------------


def said_of(made: Evidence) -> Scored:
    return Scored(head=kept(made).head, columns=kept(made).columns())


def test_scores_are_heard_once_they_were_asked_for_and_of_the_probe_that_is_asked() -> None:
    message = said_of(audited())
    with pytest.raises(ValueError, match="nobody asked for"):
        Measured(allowed=frozenset({NAME}), keeps=True, keeps_members=True).take(message, print)
    asked = Measured(allowed=frozenset({NAME}), keeps=True, keeps_members=True)
    asked.take(Asking(probe=NAME), print)
    again = Scored.model_validate_json(message.model_dump_json())
    asked.take(again, print)
    assert asked.memberships is not None and asked.memberships.rows_to_csv() == kept(audited()).rows_to_csv()
    with pytest.raises(ValueError, match="once"):
        asked.take(again, print)
    unasked = Measured(allowed=frozenset({NAME}), keeps=True)
    unasked.take(Asking(probe=NAME), print)
    with pytest.raises(ValueError, match="nobody asked for"):
        unasked.take(message, print)


@pytest.mark.parametrize(("evidence", "most", "sent"), [("rows", 10**6, 1), ("rows", 100, 0), ("scores", 10**6, 0)])
def test_a_process_says_scores_where_rows_were_asked_for_and_they_are_few(
    monkeypatch: pytest.MonkeyPatch, evidence: Literal["rows", "scores"], most: int, sent: int
) -> None:
    said: list[Said] = []
    channel: Any = SimpleNamespace(send=said.append)
    monkeypatch.setattr(membership_scores, "MOST_SCORES", most)
    limits = Limits(memory_bytes=1 << 30, seconds=60.0)
    asked = (ProbeSpec(name=NAME, target=""),)
    job = Job(model=ModelSpec(), data=None, probes=asked, seed=0, limits=limits, evidence=evidence)
    answer([PROBES[NAME](methods="loss_threshold")], *world(), job, channel)
    kinds = [each.kind for each in said]
    assert kinds == ["asking", *["scored"] * sent, "answered"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"number": (1,)}, "do not fit"),
        ({"member": (False,) + (True,) * (2 * N - 1)}, "Members stand before"),
        ({"number": (1, 1, *range(3, 2 * N + 1))}, "is there twice"),
        ({"truth": (-1,) * 2 * N}, "each row has a true class"),
    ],
)
def test_scores_that_are_none_are_refused(change: dict[str, Any], said: str) -> None:
    message = said_of(audited())
    with pytest.raises(DataError, match=said):
        scores_of(message.head, message.columns.model_copy(update=change))


def test_more_scores_than_a_bundle_keeps_and_what_is_no_number_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    them = kept(audited())
    assert them.can_be_kept
    scores = dict(them.scores)
    scores["loss_threshold"] = np.where(np.arange(2 * N) == 3, -np.inf, scores["loss_threshold"])
    assert not replace(them, scores=scores).can_be_kept
    monkeypatch.setattr(membership_scores, "MOST_SCORES", 6 * N - 1)
    assert not them.can_be_kept
    with pytest.raises(DataError, match="more than"):
        scores_of(them.head, them.columns())
