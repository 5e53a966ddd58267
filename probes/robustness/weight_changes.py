"""Weights of a model compared with an earlier model: the tensors that differ, and the differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from auditor.core.errors import LacksOptionError, ModelError, NotApplicableError
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, allow_untrusted
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.estimate_kinds import AnyEstimate

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

_MOST_NAMED = 5
# The layers that are listed; all of them count.
_MOST_LAYERS = 20
_TRUSTED = "nothing is said of a reference that is poisoned itself"


class WeightChanges(BaseProbe):
    """Differences of a model's file and weights from those of a reference, by layer.

    - ``changed_weight_share``: A tensor that only one of both has, or that has another shape there, has changed whole.
    - ``weight_change``: Of each ``layer`` that differs, the 20 most changed.

    All are known exactly; ideal 0 where nothing was to change. Weights are read as data: of a reference that holds
    weights alone the network need not be known. Nothing is said of a reference that is poisoned itself.

    reference: the model before, a path or a model. Raises NotApplicableError without one, and where there are neither
    weights nor files to compare.

    Source: SHA-256 is FIPS 180-4; the relative distance is elementary.
    """

    name = "weight_changes"
    pillar = "robustness"
    goal = "Are the file and the weights those of a known model, and which layers are not?"
    citation = "FIPS 180-4, for the digest"
    methods = ("weights",)
    needs = ()
    questions = (AuditQuestion("weights"),)
    exact = {
        "digest_changed": "the files are what they are",
        "changed_weight_share": "every weight is compared",
        "weight_change": "every weight is compared",
    }
    reads_rows = False
    untrusted_options = allow_untrusted(reads=("reference",))
    metrics = define_metrics(
        """
        digest_changed: 1 where the SHA-256 of the two files differ, else 0, where both have one; {0, 1}, ideal 0; at 1
          the file is not the reference's, byte for byte; FIPS 180-4
        changed_weight_share: share of the weights, matched by the names of their tensors, that are not those of the
          reference; [0, 1], ideal 0; at 0.1 a tenth of what the model knows was changed; FIPS 180-4 for the files, the
          share is elementary
        weight_change: of a layer, |w - w0| / max(|w|, |w0|), Euclidean; [0, 2], ideal 0; at 0.1 the layer moved by a
          tenth of its size; elementary: a relative distance
        """
    )

    def __init__(self, *, reference: str | AuditedModel | None = None) -> None:
        self.reference = reference

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> Sequence[Measurement]:
        """Measurements of the files and the weights, without rows or random draws."""
        if self.reference is None:
            raise LacksOptionError("Needs a model to compare with: add --reference MODEL.")
        found = compare_weights(model, self.reference)
        measured = []
        if all(found.digests):
            own, other = found.digests
            measured.append(
                _exact_measurement("digest_changed", float(own != other), 1, f"{found.digest_text}; {_TRUSTED}")
            )
        changed = found.weights
        if changed is not None:
            said = f"{changed.describe()}; {found.digest_text}; {_TRUSTED}"
            measured.append(_exact_measurement("changed_weight_share", changed.changed / changed.n, changed.n, said))
            measured += [
                _exact_measurement(
                    "weight_change", layer.change, layer.n, f"{layer.changed:,} of {layer.n:,} weights", layer.name
                )
                for layer in changed.layers[:_MOST_LAYERS]
            ]
        return measured


def _exact_measurement(metric: str, value: float, n: int, detail: str, layer: str | None = None) -> Measurement:
    estimate: AnyEstimate = Exact(known=value) if math.isfinite(value) else Undefined(reason="weights are no numbers")
    return Measurement(
        metric=metric,
        method="weights",
        estimate=estimate,
        n_samples=n,
        ideal=0.0,
        at={} if layer is None else {"layer": layer},
        detail=detail,
    )


@dataclass(frozen=True)
class LayerChange:
    """``|w - w0| / max(|w|, |w0|)`` of one tensor, Euclidean, in [0, 2]; NaN if weights are not numbers.

    ``changed`` of its ``n`` weights are others.
    """

    name: str
    change: float
    changed: int
    n: int


@dataclass(frozen=True)
class TensorChanges:
    """Weight changes: ``changed`` of ``n`` weights in all: those of ``layers``, and all of those that exist in one
    model only, or have another shape in the other (``unmatched``).

    ``n_layers``: tensors of either.
    """

    layers: tuple[LayerChange, ...]
    unmatched: tuple[str, ...]
    n_layers: int
    changed: int
    n: int

    def describe(self) -> str:
        """The tensors that differ, in words."""
        names = [layer.name for layer in self.layers]
        said = f"{len(names):,} of {self.n_layers:,} tensors differ{_names_text(names)}"
        if self.unmatched:
            said += f"; {len(self.unmatched):,} have no counterpart of their shape{_names_text(self.unmatched)}"
        return said


@dataclass(frozen=True)
class Beside:
    """A model beside the reference: the digests of both files ("" without a file), and the weight changes, None if the
    weights of one of them cannot be read."""

    digests: tuple[str, str]
    weights: TensorChanges | None

    @property
    def digest_text(self) -> str:
        """The digests, in words."""
        own, other = (digest[:16] or "none" for digest in self.digests)
        return f"sha256 {own}, of the reference {other}"


def compare_weights(model: AuditedModel, reference: str | AuditedModel) -> Beside:
    """The model compared with a reference, a path or a model.

    Raises what reading it raises, NotApplicableError where there is nothing to compare.
    """
    digest, tensors = _reference(reference)
    own = weights_of(model)
    weights = None if own is None or tensors is None else changes(own, tensors)
    found = Beside((model.provenance.sha256 or "", digest), weights if weights is not None and weights.n else None)
    if found.weights is None and not all(found.digests):
        raise NotApplicableError("Needs weights, or a file, of this model and of the reference to compare.")
    return found


def weights_of(model: AuditedModel) -> dict[str, Tensor] | None:
    """The tensors of a network by name, None for any other model."""
    from torch import nn

    for own in (model, getattr(model, "base", None)):
        module = getattr(own, "module", None)
        if isinstance(module, nn.Module):
            return dict(module.state_dict())
    return None


def _reference(reference: str | AuditedModel) -> tuple[str, Mapping[str, Tensor] | None]:
    if not isinstance(reference, str):
        return reference.provenance.sha256 or "", weights_of(reference)
    from auditor.loading.formats import load_model
    from auditor.loading.job_specs import ModelSpec

    try:
        loaded = load_model(ModelSpec(path=reference))
        return loaded.provenance.sha256 or "", weights_of(loaded)
    except ModelError as error:
        # Weights alone say enough here: which network they belong to need not be known.
        if error.code != "AUD-LOAD-ARCHITECTURE" or Path(reference).is_dir():
            raise
    return _bare(reference)


def _bare(path: str) -> tuple[str, dict[str, Tensor]]:
    from auditor.models.files.model_bytes import is_safetensors, read_source
    from auditor.models.files.weights import as_state_dict, load_safetensors, load_torch_file

    source = read_source(path)
    if is_safetensors(source.data):
        return source.sha256, load_safetensors(source)
    return source.sha256, as_state_dict(load_torch_file(source), source.name)


def changes(current: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> TensorChanges:
    """Changes of the tensors since ``before``, matched by name; the largest first."""
    layers, unmatched, changed, n = [], [], 0, 0
    names = list(dict.fromkeys([*current, *before]))
    for name in names:
        w, w0 = current.get(name), before.get(name)
        if w is None or w0 is None or w.shape != w0.shape:
            size = max(t.numel() for t in (w, w0) if t is not None)
            unmatched.append(name)
            changed, n = changed + size, n + size
            continue
        layer = _layer(name, w, w0)
        n += layer.n
        if layer.changed:
            layers.append(layer)
            changed += layer.changed
    layers.sort(key=lambda layer: (not math.isnan(layer.change), -layer.change, layer.name))
    return TensorChanges(tuple(layers), tuple(unmatched), len(names), changed, n)


def _layer(name: str, w: Tensor, w0: Tensor) -> LayerChange:
    import torch

    kind = torch.complex128 if w.is_complex() or w0.is_complex() else torch.float64
    a, b = (t.detach().cpu().to(kind).reshape(-1) for t in (w, w0))
    same = (a == b) | (a.isnan() & b.isnan())
    changed = int((~same).sum())
    if not changed:
        return LayerChange(name, 0.0, 0, a.numel())
    largest = max(float(a.norm()), float(b.norm()))
    away = float((a - b).norm()) / largest if largest > 0.0 else math.nan
    return LayerChange(name, away if math.isfinite(away) else math.nan, changed, a.numel())


def _names_text(names: tuple[str, ...] | list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return f" ({', '.join(names[:_MOST_NAMED])}{more})"
