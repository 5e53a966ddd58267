"""Shared parts of post-processing mitigations: labelled rows, their scores, and their groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from auditor.core.errors import DataError, ModelError, UsageError
from auditor.core.rows import BoolArray, FloatArray, IntArray
from mitigations.selection_guide import instead
from mitigations.training.retraining import check_classifier, refuse_bins

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel
    from auditor.models.postprocessing import PostprocessedModel, Postprocessing, Rule

IN_SAMPLE = (
    "Fitted on the rows given with --train: where the model learned from the same rows, its scores there are surer "
    "than on new ones, so give rows held back from its training where there are any."
)
AT_PREDICTION = (
    "The new model reads the group at every prediction ({columns}), and treats people of equal score differently by "
    "it; whether that is lawful is not for this tool to say. {otherwise}"
)


@dataclass(frozen=True, eq=False, kw_only=True)
class ScoredRows:
    """Labelled rows of a binary model: ``scores`` (n,) of the favourable class, ``y`` (n,) whether it is the label.

    ``features``: the columns of a table that the model was asked with. ``codes``: (n,) place of each row's group in
    ``groups``, every group having rows of both labels.
    """

    model: AuditedModel
    features: tuple[str, ...] | None
    scores: FloatArray
    y: BoolArray
    codes: IntArray
    groups: tuple[tuple[str, ...], ...]
    columns: tuple[str, ...]
    positive: int

    def __len__(self) -> int:
        return len(self.y)

    @property
    def threshold(self) -> float:
        """The smallest score with a favourable decision of the model."""
        return self.model.threshold_of(self.positive)

    def iter_groups(self) -> Iterator[tuple[str, BoolArray]]:
        """Every group's name and its rows (n,)."""
        for i, group in enumerate(self.groups):
            yield " x ".join(group), self.codes == i

    def postprocessed(
        self, rules: Mapping[int, Rule], otherwise: Rule, rng: np.random.Generator
    ) -> tuple[PostprocessedModel, tuple[str, ...]]:
        """The model with these rules, by index in ``groups``, and the notes for every such model."""
        from auditor.models.postprocessing import GroupRule, PostprocessedModel, Postprocessing

        done: Postprocessing = Postprocessing(
            columns=self.columns,
            positive=1 if self.positive == 1 else 0,
            groups=tuple(GroupRule(group=group, rule=rules[i]) for i, group in enumerate(self.groups)),
            otherwise=otherwise,
            seed=int(rng.integers(2**62)),
        )
        how = (
            "A group that these rows do not hold gets the old model's decision."
            if done.decides
            else "A group that these rows do not hold is calibrated by the map of all rows together."
        )
        notes = [AT_PREDICTION.format(columns=" x ".join(self.columns), otherwise=how), IN_SAMPLE]
        if done.randomised:
            chances = done.apply(self.scores, self.codes)
            drawn = int(((chances > 0.0) & (chances < 1.0)).sum())
            notes.append(
                f"Randomised: the decisions of {drawn:,} of {len(self):,} rows ({drawn / len(self):.1%}) are drawn, by "
                "a hash of the row, so that the same row always gets the same answer. The outputs are the chances. "
                "deterministic=true does without."
            )
        return PostprocessedModel(self.model, done, features=self.features), tuple(notes)


def old_decision(rows: ScoredRows) -> Rule:
    """The old model's own decision as a rule: favourable if the score is at least its threshold."""
    from auditor.models.postprocessing import Steps

    return Steps(thresholds=(float(np.nextafter(rows.threshold, -np.inf)),), chances=(0.0, 1.0))


def scored_rows(model: AuditedModel, data: AuditData) -> ScoredRows:
    """The labelled rows with their scores and groups. Raises for what post-processing cannot do without."""
    from auditor.models.postprocessing import why_not

    check_classifier(model)
    if model.n_outputs != 2:
        raise ModelError(f"Post-processing is for two classes, and this model has {model.n_outputs}: {instead(model)}.")
    if why := why_not(model):
        raise ModelError(why)
    if data.modality not in ("tabular", "text"):
        raise ModelError("Post-processing by group is for rows of a table and for texts, and these rows are neither.")
    if data.y_true is None:
        raise UsageError("Post-processing needs true labels: add --target COLUMN.")
    if data.positive is None:
        raise UsageError("Post-processing needs to know the favourable label: add --positive LABEL.")
    if data.sensitive_features is None or not len(data.sensitive_features.columns):
        raise UsageError("This mitigation needs a sensitive feature: add --sensitive COLUMN.")
    refuse_bins(data)
    labelled = data.take(data.y_true >= 0)
    if not len(labelled):
        raise DataError("No row has a label: fill the target column of --train.")
    assert labelled.y_true is not None and labelled.sensitive_features is not None
    frame = labelled.sensitive_features
    columns = tuple(str(c) for c in frame.columns)
    keys = list(map(tuple, frame.astype(str).itertuples(index=False)))
    groups = tuple(sorted(set(keys)))
    place = {group: i for i, group in enumerate(groups)}
    y = labelled.y_true == data.positive
    rows = ScoredRows(
        model=model,
        features=tuple(map(str, labelled.X.columns)) if isinstance(labelled.X, pd.DataFrame) else None,
        scores=model.predict_proba(labelled.X)[:, data.positive],
        y=y,
        codes=np.asarray([place[key] for key in keys], np.int64),
        groups=groups,
        columns=columns,
        positive=data.positive,
    )
    if len(groups) < 2:
        raise DataError(f"The rows hold one group only ({' x '.join(groups[0])}): nothing to even out.")
    for name, mask in rows.iter_groups():
        if y[mask].all() or not y[mask].any():
            raise DataError(
                f"All rows of {' x '.join(columns)} = {name} have one label: its errors cannot be told apart. "
                "Merge it with another group, or add rows."
            )
    return rows
