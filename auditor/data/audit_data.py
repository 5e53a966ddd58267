"""AuditData: the rows of an audit, their construction from a table on disk, and texts with people's groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from auditor.core.errors import DataError, NotApplicableError, UsageError, did_you_mean
from auditor.core.rows import BoolArray, FloatArray, IntArray, Rows, is_number, take_rows
from auditor.data.audit_data_parts import Design, Recorded, design_of
from auditor.data.group_counts import MISSING, CodedGroups, GroupCounts, coded, count_groups, together
from auditor.data.preprocessing import as_text, label_name
from auditor.data.row_keys import Keys, digest_of_keys, generator_of, keys_of, occurrence_of, order_of
from auditor.judging.measurement import Copies


class GroupedText(str):
    """A text, and the group of its person in each of the sensitive features, by name."""

    groups: dict[str, str]


def attach_groups(texts: npt.NDArray[Any], groups: pd.DataFrame) -> npt.NDArray[Any]:
    """(n,) the texts with their groups attached; ``groups``: (n, s) names, as in :class:`AuditData`."""
    if len(texts) != len(groups):
        raise DataError(f"There are {len(texts)} texts and groups of {len(groups)}.")
    names = list(map(str, groups.columns))
    out = np.empty(len(texts), object)
    for i, (text, row) in enumerate(zip(texts, groups.astype(str).itertuples(index=False), strict=True)):
        out[i] = GroupedText(text)
        out[i].groups = dict(zip(names, row, strict=True))
    return out


def needed_groups(groups: pd.DataFrame | None, columns: tuple[str, ...], noun: str) -> pd.DataFrame:
    """The groups of texts, if they are those that a model decides by; DataError if one is missing."""
    absent = [name for name in columns if groups is None or name not in groups.columns]
    if absent or groups is None:
        raise DataError(
            f"The model decides by group, and the {noun} has no {absent[0]!r} for its texts: add --sensitive "
            f"{absent[0]}, with --sensitive-file FILE and --join-on COLUMN where it stands in another table.",
            code="AUD-DATA-COLUMN",
        )
    return groups


def groups_in(texts: npt.NDArray[Any], columns: tuple[str, ...]) -> pd.DataFrame:
    """(n, columns) the groups that the texts bring along.

    Raises NotApplicableError for a text that has none, as one that a probe has changed or made, since nobody knows whom
    it is about; DataError where its groups are of other features.
    """
    for text in texts:
        if not isinstance(text, GroupedText):
            raise NotApplicableError(
                f"The model decides by group ({' x '.join(columns)}), and texts that were changed or made are about "
                "nobody whose group is known: ask this of the model before it was post-processed."
            )
        absent = [name for name in columns if name not in text.groups]
        if absent:
            raise DataError(
                f"The model decides by group and needs {absent[0]!r} of every text: add --sensitive {absent[0]}, with "
                "--sensitive-file FILE and --join-on COLUMN where the groups stand in another table."
            )
    return pd.DataFrame({name: [text.groups.get(name, MISSING) for text in texts] for name in columns}, dtype=object)


# The fields of AuditData that say nothing of single rows: all others are taken and joined row by row.
_OF_NO_ROW = ("classes", "positive", "binned", "unreadable", "notes", "copies", "table", "members_table")


@dataclass(frozen=True, eq=False, kw_only=True)
class AuditData:
    """The rows to audit a model on; ``is_member`` marks training rows among them.

    X: (n, ...) a DataFrame of raw features, an object array of texts, uint8 images (n, height, width, channels), or
    int16 sound (n, samples).
    y_true: (n,) index into ``classes``, -1 where a row has no label; None without labels. target_values: (n,) true
    numbers of a regression, NaN where a row has none; None without them, and for every classifier. positive: index of
    the favourable label. sensitive_features: (n, s) DataFrame of group names. is_member: (n,) True for training rows.
    ``binned``: the sensitive features whose groups are bins of a column's values, not the values themselves.
    ``recorded``: what a model answered on these rows, where nothing else is known of it.
    ``files``: (n,) the path of the file that each row was read from, where every row was one file.
    ``unreadable``: a sentence on each file that was to be a row and could not be read. ``notes``: what was done to the
    rows on the way here, for the report. ``design``: which rows belong together and what they weigh; None where they
    are independent and weigh the same. ``copies``: of the rows of a file, how many repeat others; None where nobody
    looked. ``identifiers``: columns that name a row each and are no features; None where they were not read.
    ``table``: the path of the table that the rows were read from; ``members_table``: that of training rows among them.
    """

    X: Rows
    y_true: IntArray | None = None
    target_values: FloatArray | None = None
    classes: tuple[str, ...] = ()
    positive: int | None = None
    sensitive_features: pd.DataFrame | None = None
    is_member: BoolArray | None = None
    binned: tuple[str, ...] = ()
    recorded: Recorded | None = None
    files: npt.NDArray[np.object_] | None = None
    unreadable: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    design: Design | None = None
    copies: Copies | None = None
    identifiers: pd.DataFrame | None = None
    table: str | None = None
    members_table: str | None = None

    def __post_init__(self) -> None:
        for name, value in self._by_row().items():
            if not isinstance(value, Recorded) and len(value) != len(self.X):
                raise DataError(f"{name} has {len(value)} rows, X has {len(self.X)}.")
        groups = self.sensitive_features
        if groups is not None and groups.isna().any(axis=None):
            object.__setattr__(self, "sensitive_features", groups.apply(_without_holes))

    def __len__(self) -> int:
        return len(self.X)

    @property
    def modality(self) -> Literal["tabular", "text", "image", "audio"]:
        """The kind of a row."""
        if isinstance(self.X, np.ndarray) and self.X.ndim == 2 and self.X.dtype == np.int16:
            return "audio"
        if isinstance(self.X, pd.DataFrame) or self.X.ndim == 2:
            return "tabular"
        return "text" if self.X.dtype == object else "image"

    @classmethod
    def from_arrays(
        cls,
        X: Rows | Sequence[str],
        y_true: Sequence[object] | npt.NDArray[Any] | pd.Series[Any] | None = None,
        *,
        classes: Sequence[object],
        positive: object | None = None,
        sensitive_features: pd.DataFrame | pd.Series[Any] | Mapping[str, Sequence[object]] | None = None,
        is_member: BoolArray | Sequence[bool] | None = None,
        clusters: Sequence[object] | npt.NDArray[Any] | pd.Series[Any] | None = None,
        weights: Sequence[float] | npt.NDArray[Any] | pd.Series[Any] | None = None,
        cluster_at_most: int | None = None,
        weight_at_most: float | None = None,
    ) -> AuditData:
        """Audit data from arrays in memory: labels as given, groups as columns.

        ``classes`` in the order of the model's outputs; ``positive`` is one of them, and may be left out where they are
        0/1 or booleans. Rows are taken by position. ``clusters``: of each row, a label that it shares with rows that
        are not independent of it; ``weights``: what it weighs. ``cluster_at_most``, ``weight_at_most``: the most rows
        of a cluster and the largest weight that there can be. Raises DataError for a label that is none of the classes,
        and where an index says that the same rows stand in another order.
        """
        names = tuple(label_name(c) for c in classes)
        by_row = {"y_true": y_true, "sensitive_features": sensitive_features, "is_member": is_member}
        check_order(X, {**by_row, "clusters": clusters, "weights": weights})
        return cls(
            X=_as_rows(X),
            y_true=None if y_true is None else encode_labels(pd.Series(list(y_true)), names, "y_true"),
            classes=names,
            positive=favourable(positive, names),
            sensitive_features=_as_groups(sensitive_features),
            is_member=None if is_member is None else np.asarray(is_member, bool),
            design=_as_design(clusters, weights, cluster_at_most, weight_at_most),
        )

    @classmethod
    def for_regression(
        cls,
        X: Rows | Sequence[str],
        y_true: Sequence[object] | npt.NDArray[Any] | pd.Series[Any] | None = None,
        *,
        sensitive_features: pd.DataFrame | pd.Series[Any] | Mapping[str, Sequence[object]] | None = None,
        is_member: BoolArray | Sequence[bool] | None = None,
        clusters: Sequence[object] | npt.NDArray[Any] | pd.Series[Any] | None = None,
        weights: Sequence[float] | npt.NDArray[Any] | pd.Series[Any] | None = None,
        cluster_at_most: int | None = None,
        weight_at_most: float | None = None,
    ) -> AuditData:
        """Audit data from arrays in memory, for a regression model; NaN or None for a missing true number.

        Clusters and weights as for :meth:`from_arrays`. Raises DataError for a true value that is no finite
        number.
        """
        by_row = {"y_true": y_true, "sensitive_features": sensitive_features, "is_member": is_member}
        check_order(X, {**by_row, "clusters": clusters, "weights": weights})
        return cls(
            X=_as_rows(X),
            target_values=None if y_true is None else numeric_target(pd.Series(list(y_true)), "y_true"),
            sensitive_features=_as_groups(sensitive_features),
            is_member=None if is_member is None else np.asarray(is_member, bool),
            design=_as_design(clusters, weights, cluster_at_most, weight_at_most),
        )

    def take(self, index: npt.NDArray[Any] | slice) -> AuditData:
        """A subset of the rows, by mask, positions or slice."""
        taken: dict[str, Any] = {
            name: value.take(index) if isinstance(value, Recorded | Design) else take_rows(value, index)
            for name, value in self._by_row().items()
        }
        return replace(self, **taken)

    def with_members(self, members: AuditData) -> AuditData:
        """These rows and then training rows, with what both say of each; training rows may lack groups and design."""
        theirs = members._by_row()
        joined = {name: _joined(own, theirs.get(name), len(members)) for name, own in self._by_row().items()}
        if (groups := self.sensitive_features) is not None:
            known = theirs.get("sensitive_features", pd.DataFrame(MISSING, range(len(members)), groups.columns))
            both = pd.concat([groups, known], ignore_index=True)
            joined["sensitive_features"] = both.astype("string").astype("category")
        joined["members_table"] = members.table
        joined["is_member"] = np.r_[np.zeros(len(self), bool), np.ones(len(members), bool)]
        joined["unreadable"] = (*self.unreadable, *members.unreadable)
        joined["notes"] = tuple(dict.fromkeys([*self.notes, *members.notes]))
        return replace(self, **joined)

    def _by_row(self) -> dict[str, Any]:
        """The fields that say something of each row, those that are None left out."""
        held = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _OF_NO_ROW}
        return {name: value for name, value in held.items() if value is not None}

    @cached_property
    def evaluation(self) -> AuditData:
        """The rows the model was not trained on: all of them where ``is_member`` is None."""
        return self if self.is_member is None or not self.is_member.any() else self.take(~self.is_member)

    @cached_property
    def members(self) -> AuditData | None:
        """The training rows, if any."""
        if self.is_member is None or not self.is_member.any():
            return None
        return replace(self.take(self.is_member), table=self.members_table)

    @cached_property
    def _coded(self) -> dict[tuple[str, ...], CodedGroups]:
        return {}

    def groups(self, *features: str) -> CodedGroups:
        """The groups of a sensitive feature, or of several together; coded once and cached."""
        if self.sensitive_features is None:
            raise DataError(f"There are no sensitive features, so no groups by {' x '.join(features)}.")
        if features not in self._coded:
            own = [self.groups(name) for name in features] if len(features) > 1 else []
            self._coded[features] = together(own) if own else coded(self.sensitive_features[features[0]])
        return self._coded[features]

    @cached_property
    def keys(self) -> Keys:
        """(n,) one key per row, of its features, label and recorded answers; equal rows have equal keys."""
        return keys_of(self.X, self.y_true, self.target_values, self.recorded)

    @cached_property
    def _contents(self) -> Keys:
        """The keys without what a model answered, where there is anything else to tell rows apart by."""
        bare = isinstance(self.X, pd.DataFrame) and not len(self.X.columns)
        if self.recorded is None or bare:
            return self.keys
        return keys_of(self.X, self.y_true, self.target_values, None)

    @cached_property
    def _occurrence(self) -> Keys:
        return occurrence_of(self._contents)

    @property
    def digest(self) -> str:
        """Hex SHA-256 of the rows' features and labels, independent of row order; groups are not included."""
        return digest_of_keys(self._contents)

    def order(self, purpose: str) -> IntArray:
        """(n,) the rows' positions in an order as good as random that no seed and no order of the file changes."""
        return order_of(self._contents, purpose, self._occurrence)

    def generator(self, purpose: str) -> np.random.Generator:
        """A generator seeded by the rows, for a split that cannot be redrawn."""
        return generator_of(self._contents, purpose)

    def count_by_group(
        self, y_pred: IntArray, classes: Sequence[str], by_columns: Sequence[pd.Series[Any]] | None = None
    ) -> GroupCounts:
        """Row counts by true class, decision and group: of the sensitive features, or of the columns ``by_columns``.

        ``classes``: the model's, where the data do not name them.
        """
        table = self.sensitive_features
        own = [] if table is None else [table[c] for c in table.columns]
        columns = [column.astype("category") for column in (own if by_columns is None else by_columns)]
        return count_groups(
            y_pred,
            self.y_true,
            [(c.cat.codes.to_numpy(), [str(level) for level in c.cat.categories]) for c in columns],
            features=[str(c.name) for c in columns],
            classes=self.classes or classes,
            positive=self.positive,
        )


def _joined(own: Any, theirs: Any, n: int) -> Any:
    """What is said of rows and then of ``n`` training rows; None where nothing is said of those that has to be."""
    if isinstance(own, Design):
        return own.followed_by(n)
    if theirs is None:
        return None
    if isinstance(own, Recorded):
        return own.followed_by(theirs)
    if isinstance(own, pd.DataFrame) and isinstance(theirs, pd.DataFrame):
        return pd.concat([own, theirs], ignore_index=True)
    return np.concatenate([np.asarray(own), np.asarray(theirs)])


_IMPLIED: dict[tuple[str, ...], int] = {("0", "1"): 1, ("False", "True"): 1, ("1", "0"): 0, ("True", "False"): 0}


def favourable(positive: object | None, classes: Sequence[str]) -> int | None:
    """Index of the favourable label; if not named, 1 or True for classes 0/1 or booleans; else None."""
    if positive is None:
        return _IMPLIED.get(tuple(classes))
    name = label_name(positive)
    if name not in classes:
        raise UsageError(
            f"--positive {name!r} is none of the model's classes ({', '.join(classes)})"
            f"{did_you_mean(name, classes) or '.'}"
        )
    return list(classes).index(name)


def encode_labels(values: pd.Series[Any], classes: Sequence[str], column: str) -> IntArray:
    """(n,) class indices, -1 where missing; raises DataError for labels that are none of the classes."""
    codes, levels = pd.factorize(as_text(values))
    place = {name: i for i, name in enumerate(classes)}
    index = [place.get(label_name(level), -2) for level in levels]
    if -2 in index:
        strange = [str(level) for level, i in zip(levels, index, strict=True) if i == -2]
        raise DataError(
            f"Column {column!r} holds {strange[0][:40]!r}, which is none of the model's classes "
            f"({', '.join(classes[:8])}). Name the classes in the order of the model's outputs with --classes."
        )
    return np.asarray([*index, -1], np.int64)[codes]


_NO_NUMBER = ("nan", "na", "n/a", "null", "none", "")
# Squared errors of larger numbers, cubed for their skewness, would overflow.
LARGEST_TARGET = 1e30


def numeric_target(values: pd.Series[Any], column: str) -> FloatArray:
    """(n,) true numbers of a regression, NaN if missing; DataError for text and non-finite values."""
    if is_number(values):
        numbers = values.to_numpy(np.float64, na_value=np.nan)
    else:
        text = as_text(values)
        read = pd.to_numeric(text, errors="coerce")
        strange = text[text.notna() & read.isna() & ~text.str.strip().str.lower().isin(_NO_NUMBER)]
        if len(strange):
            raise DataError(
                f"Column {column!r} holds {str(strange.iloc[0])[:40]!r}, which is no number, and this model predicts "
                "numbers: name a numeric column with --target."
            )
        numbers = read.to_numpy(np.float64, na_value=np.nan)
    if (np.abs(numbers) > LARGEST_TARGET).any():
        raise DataError(f"Column {column!r} holds infinity or a number beyond {LARGEST_TARGET:g}: leave such rows out.")
    return np.asarray(numbers, np.float64)


def _as_rows(X: Rows | Sequence[str]) -> Rows:
    return X if isinstance(X, (pd.DataFrame, np.ndarray)) else np.asarray(list(X), object)


def check_order(X: object, others: Mapping[str, object]) -> None:
    """Raises DataError where something has the index of X in another order: taken by position, rows would be mixed
    up."""
    if not isinstance(X, pd.DataFrame | pd.Series):
        return
    for name, values in others.items():
        for part in values.values() if isinstance(values, Mapping) else [values]:
            if not isinstance(part, pd.DataFrame | pd.Series) or part.index.equals(X.index):
                continue
            if len(part) == len(X) and part.index.isin(X.index).all() and X.index.isin(part.index).all():
                raise DataError(
                    f"{name} has the rows of X in another order, by its index: put them into one order, or pass "
                    ".to_numpy() if the order is right."
                )


def _as_groups(
    sensitive_features: pd.DataFrame | pd.Series[Any] | Mapping[str, Sequence[object]] | None,
) -> pd.DataFrame | None:
    if sensitive_features is None:
        return None
    if isinstance(sensitive_features, pd.Series):
        frame = sensitive_features.to_frame()
    elif isinstance(sensitive_features, pd.DataFrame):
        frame = sensitive_features
    else:
        # Each column by position: pandas would put columns of different indexes into one order of its own.
        columns = {
            name: (values if isinstance(values, pd.Series) else pd.Series(list(values))).reset_index(drop=True)
            for name, values in sensitive_features.items()
        }
        frame = pd.DataFrame(columns)
    return pd.DataFrame({str(c): groups_of(frame[c]) for c in frame.columns}).reset_index(drop=True)


def _as_design(clusters: Any, weights: Any, cluster_at_most: int | None, weight_at_most: float | None) -> Design | None:
    return design_of(
        None if clusters is None else pd.Series(list(clusters)),
        None if weights is None else pd.Series(list(weights)),
        cluster=None if clusters is None else str(getattr(clusters, "name", None) or "clusters"),
        weight=None if weights is None else str(getattr(weights, "name", None) or "weights"),
        cluster_at_most=cluster_at_most,
        weight_at_most=weight_at_most,
    )


def groups_of(values: pd.Series[Any]) -> pd.Series[Any]:
    """The group of each row by name: values as text, ``MISSING`` where there is none."""
    named = as_text(values).fillna(MISSING)
    return named.map({level: label_name(level) for level in named.unique()}).astype("category").reset_index(drop=True)


def _without_holes(values: pd.Series[Any]) -> pd.Series[Any]:
    """Missing values as the group ``MISSING``, behind the categories there are."""
    if not values.isna().any():
        return values
    if not isinstance(values.dtype, pd.CategoricalDtype):
        return values.astype(object).where(values.notna(), MISSING)
    named = values if MISSING in values.cat.categories else values.cat.add_categories([MISSING])
    return named.fillna(MISSING)
