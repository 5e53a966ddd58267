"""Planted controls measured anew: twins are made of the answers that a bundle encloses, by seeds of its own numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from auditor.evidence.manifest import Asked
from auditor.evidence.verify.checks import Check, Unproven
from auditor.evidence.verify.remeasure import Kept, Remade
from auditor.judging.planting import Planting
from auditor.run.planted.measure_twins import with_planted
from auditor.run.predictions import StoredModel


def check_planted(
    results_file: Asked,
    options: Mapping[str, Mapping[str, Any]],
    kept: Kept,
    remade: Remade,
    seed: int,
    n_train: int = 0,
) -> tuple[list[Check], list[Unproven]]:
    """Whether the planted controls are those of the enclosed rows; where these do not tell, they are nobody's proof.

    ``n_train``: the training rows of the audit, which are not enclosed.
    """
    stated = {result.probe: result.planted for result in results_file.results if result.planted}
    checks: list[Check] = []
    unproven: list[Unproven] = []
    found = {}
    if stated and kept.answers is not None and kept.whole and not remade.other_code:
        made = {r.probe: remade.make(r.probe, options.get(r.probe, {})) for r in results_file.results}
        # Those that answer from other than these rows had their share of the time as well.
        kinds = remade.make.kinds()
        probes = [(made[r.probe] or kinds.get(r.probe), r) for r in results_file.results]
        model: Any = StoredModel(kept.answers)
        rows = kept.answers.data()
        planting = Planting(tuple(results_file.criteria), results_file.family, seed)
        again = with_planted(probes, model, rows, planting, len(rows) + n_train)
        found = {r.probe: r.planted for r in again if made[r.probe] is not None}
    # Who says what became of some twins says it of all that there are.
    for name in stated | {name: planted for name, planted in found.items() if planted}:
        planted = stated.get(name, ())
        if name not in found:
            why = "what it said of twins with known faults is the signer's word"
            unproven.append(Unproven(where=f"results.json: {name}.planted", why=why))
        elif found[name] == planted:
            n = sum(p.twins.planted + p.twins.clean for p in planted)
            checks.append(Check(name=name, state="ok", detail=f"{n:,} twins of its planted controls measured anew"))
        else:
            checks.append(
                Check(name=name, state="wrong", detail="its planted controls are not what these rows come to")
            )
    return checks, unproven
