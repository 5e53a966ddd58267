"""An audit of many probes with all that it leaves behind, and the same as somebody who holds the key bends it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auditor.data.audit_data import AuditData
from auditor.evidence.evidence_bundle import Evidence, write_bundle
from auditor.evidence.manifest import ChainedLog, code_digests
from auditor.evidence.verify import bundle_parts
from auditor.evidence.verify.checks import Verified
from auditor.evidence.verify.verify_bundle import verify_bundle
from auditor.judging.budgets import Family
from auditor.judging.criterion import load_criteria
from auditor.judging.measurement import Measurement, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.report.record.audit_report import AuditReport
from auditor.run.membership_scores import ScoresProbe
from auditor.run.predictions import counts_of, head_of
from auditor.run.run_audit import ask, assemble, data_record, environment, generator_for, model_record
from auditor.statistics.estimate import Estimate
from cli.verify import stored_probe
from probes import PROBES
from tests.evidence.kept_rows import kept

# Of answers, of decisions alone, and of features, of which a bundle holds none.
NAMES = ("performance", "group_fairness", "adverse_impact", "score_fairness", "out_of_distribution")
N = 120
# Of whoever audits, and bends.
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


@pytest.fixture(scope="module", autouse=True)
def code_of_once() -> Iterator[None]:
    """The code installed here is digested once: it does not change while a test runs."""
    with pytest.MonkeyPatch.context() as patch:
        here = code_digests()
        patch.setattr(bundle_parts, "code_digests", lambda: here)
        yield


@pytest.fixture(scope="module")
def known_intervals() -> Iterator[None]:
    """What an estimate of the same statistics came to already is not computed again for every bundle, nor is the same
    record read again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AuditReport, "model_validate_json", cache(AuditReport.model_validate_json))
        for kind in _kinds(Estimate):
            for name in ("bounds", "p_value", "detectable", "growth"):
                if name in vars(kind):
                    patch.setattr(kind, name, cache(vars(kind)[name]))
        yield


def _kinds(kind: type[Estimate]) -> list[type[Estimate]]:
    return [kind, *(each for child in kind.__subclasses__() for each in _kinds(child))]


@cache
def audited(*, include_rows: bool, names: Sequence[str] = NAMES) -> Evidence:
    """A tabular scan with labels, a sensitive feature and scores, of a model that prefers group a."""
    rng = np.random.default_rng(3)
    group = rng.choice(["a", "b", "c"], N, p=[0.45, 0.35, 0.2])
    y = rng.integers(0, 2, N)
    score = np.clip(0.25 + 0.4 * y + 0.15 * (group == "a") + rng.normal(0, 0.12, N), 0.01, 0.99)
    X = pd.DataFrame({"score": score, "noise": rng.normal(0, 1, N)})
    data = AuditData.from_arrays(
        X, np.where(y == 1, "yes", "no"), classes=["no", "yes"], positive="yes", sensitive_features={"g": group}
    )
    model = AuditedModel.from_callable(lambda X: X["score"].to_numpy(float), classes=["no", "yes"], features=list(X))
    return left_behind(model, data, names, include_rows=include_rows)


def left_behind(
    model: AuditedModel,
    data: AuditData,
    names: Sequence[str],
    *,
    include_rows: bool,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> Evidence:
    """Everything that an audit leaves behind."""
    probes = {n: PROBES[n](**(options or {}).get(n, {})) for n in names}
    results = [ask(probe, model, data, generator_for(0, n)) for n, probe in probes.items()]
    scored = [probe.kept for probe in probes.values() if isinstance(probe, ScoresProbe) and include_rows]
    head = head_of(model, data, include_rows=include_rows)
    counts = counts_of(model, data)
    return Evidence(
        report=assemble(
            results,
            load_criteria(),
            model=model_record(model),
            data=data_record(data),
            environment=environment(device="cpu", seed=0),
            family=Family(),
        ),
        results=results,
        criteria=load_criteria(),
        family=Family(),
        request={"options": {"probes": list(names)}, "probe_options": options or {}},
        log=ChainedLog(),
        answers=None if head is None else kept(model, data, head),
        counts=counts,
        memberships=scored[0] if scored else None,
        code=code_digests(),
    )


def bent(made: Evidence, results: Sequence[ProbeResult]) -> Evidence:
    """The evidence with other answers of its probes, and a record that follows from them."""
    report = assemble(
        results,
        made.criteria,
        model=made.report.model,
        data=made.report.data,
        environment=made.report.environment,
        family=made.family,
    )
    return replace(made, results=list(results), report=report)


def with_probe(
    made: Evidence, name: str, change: Callable[[tuple[Measurement, ...]], tuple[Measurement, ...]]
) -> Evidence:
    """The evidence with other measurements of one probe, all else made to follow from them."""
    results = [replace(r, measurements=change(r.measurements)) if r.probe == name else r for r in made.results]
    return bent(made, results)


def checked(made: Evidence, path: Path, *, redact: bool = False) -> Verified:
    """What verification says of it, with a log of its own, digests that fit, and the signature that is expected."""
    log = ChainedLog()
    log.add("started", command=["scan"])
    report = made.report.model_copy(update={"created": datetime.now(UTC).isoformat(timespec="seconds")})
    write_bundle(path, replace(made, log=log, report=report), key=KEY, redact=redact)
    return verify_bundle(path, stored_probe, trusted=[KEY.public_key()])


def wrong(found: Verified) -> dict[str, str]:
    """What does not agree, by the name of the check."""
    said: dict[str, list[str]] = {}
    for check in found.checks:
        if check.state == "wrong":
            said.setdefault(check.name, []).append(check.detail)
    return {name: "; ".join(details) for name, details in said.items()}


def is_unproven(found: Verified, place: str) -> bool:
    """Whether a place, or what it lies in, is among what is not proven."""
    return lies_under(place, [each.where for each in found.unproven])


def lies_under(place: str, wheres: Iterable[str]) -> bool:
    """Whether a place, or what it lies in, is one of these or fits one of these patterns."""
    return any(re.fullmatch(_pattern(where), place) for where in wheres)


def _pattern(where: str) -> str:
    # All below a place is meant with it.
    within = re.escape(re.sub(r"\.?\*$", "", where)).replace(r"\*", ".*")
    return rf"{within}(.*)" if where.endswith(": *") else rf"{within}([.\[].*)?"
