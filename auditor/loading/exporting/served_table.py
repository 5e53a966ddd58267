"""The exported parts of a table classifier, as plain data: encoding, network and group rule.

Estimators of scikit-learn and boosted trees are converted to ONNX graphs by skl2onnx and onnxmltools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from auditor.core.errors import UnsupportedError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.data.group_counts import MISSING
from auditor.data.preprocessing import CategoricalColumn, NumericColumn, TabularPreprocessing, label_name
from auditor.models.audited_model import MORE_THAN_HALF, AuditedModel
from auditor.models.files.model_bytes import read_source
from auditor.models.format_names import ONNX_FORMAT
from auditor.models.output_kind import Outputs
from auditor.models.postprocessing import IsotonicMap, PlattScaling, PostprocessedModel, Postprocessing, Steps
from auditor.models.torch_context import without_gradients
from auditor.models.torch_model import TorchModel, evaluating

# What a table of rules per group and point may hold; more would be slower than the network by far.
MOST_POINTS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Served:
    """A table classifier with a decision that depends on the row only.

    ``features``: the columns that the scores are made of, in order; ``numeric``: those of them that are numbers, all
    others being text. ``positive``: index of the favourable class of two, whose probability is held against
    ``threshold``; None decides by the largest probability. ``rule``: what is done to the probabilities by group.
    """

    features: tuple[str, ...]
    numeric: tuple[str, ...]
    classes: tuple[str, ...]
    positive: int | None
    threshold: float
    rule: Postprocessing | None

    @property
    def columns(self) -> tuple[str, ...]:
        """Raw columns in input order: the features, then columns used for groups only."""
        groups = self.rule.columns if self.rule else ()
        return (*self.features, *(c for c in groups if c not in self.features))


@dataclass(frozen=True, kw_only=True)
class ServedGraph(Served):
    """A served model with scores from an ONNX file: its bytes, and the numbers that it takes names of columns by."""

    content: bytes
    codes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ServedTable(Served):
    """A served model with scores from a network of encoded rows."""

    preprocessing: TabularPreprocessing
    network: nn.Module
    device: torch.device
    outputs: Outputs

    @property
    def one_number(self) -> bool:
        """Whether the network returns one number a row, for two classes."""
        with without_gradients(), evaluating(self.network):
            row = torch.zeros(1, self.preprocessing.width, device=self.device)
            return len(self.classes) == 2 and self.network(row).numel() == 1

    def levels(self, name: str) -> dict[str, int]:
        """The levels of a categorical feature, each with its place among the indicators; of other columns none."""
        for column in self.preprocessing.columns:
            if column.name == name and isinstance(column, CategoricalColumn):
                return {label_name(level): i for i, level in enumerate(column.levels)}
        return {}


def served_parts(model: AuditedModel, positive: int | None) -> ServedTable | ServedGraph:
    """The parts of a model bundle, an ONNX model, an estimator or boosted trees of a table, with the rule over it.

    Raises UnsupportedError for any other, and for decisions by chance.
    """
    base, rule = (model.base, model.postprocessing) if isinstance(model, PostprocessedModel) else (model, None)
    _refuse_chance(base, rule)
    shared: dict[str, Any] = {
        "classes": base.classes,
        "positive": positive,
        "threshold": _threshold(model, positive),
        "rule": rule,
    }
    if base.provenance.format == ONNX_FORMAT and base.provenance.path is not None and base.features is not None:
        source = read_source(base.provenance.path)
        if source.sha256 != base.provenance.sha256:
            raise UnsupportedError(
                f"{source.name!r} has changed since it was loaded, or has tensors beside it: load it again, or save it "
                "as one file."
            )
        numeric = tuple(name for name in base.features if name not in base.group_columns)
        return ServedGraph(features=base.features, numeric=numeric, content=source.data, **shared)
    if (graph := base.onnx_graph()) is not None and base.features is not None:
        content, numeric = graph
        codes = base.category_codes
        return ServedGraph(features=base.features, numeric=numeric, content=content, codes=codes, **shared)
    if type(base) is not TorchModel or not isinstance(base.preprocessing, TabularPreprocessing):
        raise UnsupportedError(
            "Only a model bundle of a table's rows, a classifier with its encoding, a scikit-learn classifier, boosted "
            "trees or an ONNX model of a table can be exported, with or without a group rule; this is "
            f"{base.provenance.format}, whose own library serves it"
            + (", and auditor.load_model with the rule over it." if rule is not None else ".")
        )
    return ServedTable(
        features=base.preprocessing.features,
        numeric=tuple(c.name for c in base.preprocessing.columns if isinstance(c, NumericColumn)),
        preprocessing=base.preprocessing,
        network=base.module,
        device=base.device,
        outputs=base.output_kind,
        **shared,
    )


def _threshold(model: AuditedModel, positive: int | None) -> float:
    """What the probability of the favourable class is held against. Raises ModelError where nothing is."""
    own = model.threshold_of(1 if positive is None else positive)
    return 0.5 if positive is None and own == MORE_THAN_HALF else own


def _refuse_chance(base: AuditedModel, rule: Postprocessing | None) -> None:
    by_network = rule is None and isinstance(base, TorchModel) and _draws(base.module)
    if by_network or (rule is not None and rule.randomised):
        anew = (
            "exponentiated_gradient ... --with rule=majority"
            if by_network
            else "threshold_optimizer ... --with deterministic=true"
        )
        raise UnsupportedError(
            "Some of this model's decisions are drawn by a hash of the row, which no exported file can do: make it "
            f"anew with auditor mitigate {anew}."
        )
    if rule is not None and max(map(_points, rule.rules)) * len(rule.rules) > MOST_POINTS:
        raise UnsupportedError("The group rule has too many points to be exported: fit it with fewer.")


def _draws(network: nn.Module) -> bool:
    """Whether decisions are drawn with the probabilities that a network returns."""
    return getattr(network, "decision_seed", None) is not None


def _points(rule: Steps | PlattScaling | IsotonicMap) -> int:
    if isinstance(rule, Steps):
        return len(rule.thresholds)
    return len(rule.scores) if isinstance(rule, IsotonicMap) else 1


@dataclass(frozen=True)
class GroupCodes:
    """Integer codes of groups. ``names[c]``: the values of column c in any group, ``codes`` (G, columns): their indices
    for each group; a row with the codes of group g has index g, any other row index G."""

    names: tuple[tuple[str, ...], ...]
    codes: IntArray

    @classmethod
    def from_rule(cls, rule: Postprocessing) -> GroupCodes:
        """The group codes of a rule."""
        columns = list(zip(*(g.group for g in rule.groups), strict=True))
        names = tuple(tuple(dict.fromkeys(column)) for column in columns)
        codes = [[own.index(name) for own, name in zip(names, g.group, strict=True)] for g in rule.groups]
        return cls(names, np.asarray(codes, np.int64))

    def numbers(self, column: int) -> FloatArray:
        """(k,) the names of a numeric column as numbers, NaN where a name is none."""
        return np.asarray([_number(name) for name in self.names[column]])

    def missing(self, column: int) -> int | None:
        """The index of missing values in a column, if they form a group."""
        return self.names[column].index(MISSING) if MISSING in self.names[column] else None


def _number(name: str) -> float:
    try:
        return float(name)
    except ValueError:
        return float("nan")


@dataclass(frozen=True)
class RuleTables:
    """Every group's rule as rows of tables, the last row for all other groups.

    ``edges``: (G + 1, m), infinite where a group has fewer. The place k of a score is how many edges it has passed:
    those below it, or with ``reached`` those at it too. Its answer is ``slope[k] (score - base[k]) + value[k]``, each
    table (G + 1, m + 1), and where ``scaled`` (G + 1,) the sigmoid of ``slope log_odds(score) + intercept``, both
    (G + 1,).
    """

    edges: FloatArray
    base: FloatArray
    slope: FloatArray
    value: FloatArray
    reached: bool
    scaled: BoolArray
    odds_slope: FloatArray
    odds_intercept: FloatArray

    @classmethod
    def from_rule(cls, rule: Postprocessing) -> RuleTables:
        """The rule tables of a rule."""
        n, m = len(rule.rules), max(map(_points, rule.rules))
        edges = np.full((n, m), np.inf)
        base, slope, value = np.zeros((n, m + 1)), np.zeros((n, m + 1)), np.zeros((n, m + 1))
        scaled, odds = np.zeros(n, bool), np.zeros((2, n))
        for i, one in enumerate(rule.rules):
            if isinstance(one, PlattScaling):
                scaled[i], odds[:, i] = True, (one.slope, one.intercept)
            elif isinstance(one, Steps):
                edges[i, : len(one.thresholds)] = one.thresholds
                value[i, : len(one.chances)] = one.chances
            else:
                x, y = np.asarray(one.scores), np.asarray(one.values)
                k = len(x)
                edges[i, :k], value[i, 0], value[i, 1 : k + 1], base[i, 1 : k + 1] = x, y[0], y, x
                slope[i, 1:k] = np.diff(y) / np.diff(x)
        return cls(edges, base, slope, value, not rule.decides, scaled, odds[0], odds[1])
