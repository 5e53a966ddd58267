"""Check whether a server serves a reference model: queried here, with the reference loaded in a sandbox."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import ModelError, UsageError
from auditor.loading.job_specs import Job, Limits, ModelSpec
from auditor.run.parent_process import compare_served

if TYPE_CHECKING:
    from auditor.models.endpoint.client import Client
    from auditor.models.endpoint.server_findings import Handshake


def check_reference(path: str) -> None:
    """Raise UsageError if a path contains no language model; all else is checked in the sandbox after the calls."""
    if not (Path(path).is_file() or (Path(path) / "config.json").is_file()):
        raise UsageError(f"There is no language model at {path!r}: name its folder, or a GGUF file.")


def with_reference(
    client: Client,
    handshake: Handshake,
    reference: str,
    limits: Limits,
    *,
    seed: int,
    device: str = "auto",
    within: float | None = None,
    allow_unsandboxed: bool = False,
    on_stage: Callable[[str], None] = lambda name: None,
) -> Handshake:
    """The handshake with one more capability: whether a reference is served, to ``within`` total variation.

    ``reference``: its folder or file; ``limits``: what its process may use; ``device``: where it is computed. What
    could not be compared is told as that. Raises ModelError for a reference that is refused.
    """
    from auditor.models.endpoint.served_model import WITHIN, ask_served, capability_of, untested, with_capability

    try:
        texts = ask_served(client, handshake, np.random.default_rng(seed), on_stage)
        job = Job(
            model=ModelSpec(path=str(Path(reference).resolve()), device=device),
            data=None,
            probes=(),
            seed=seed,
            limits=limits,
            with_intake=False,
            served=texts,
            allow_unsandboxed=allow_unsandboxed,
        )
        told = capability_of(compare_served(job, on_stage=on_stage), handshake, WITHIN if within is None else within)
    except ModelError as error:
        if error.code is not None:
            raise
        told = untested(error)
    return with_capability(handshake, told, client.calls)
