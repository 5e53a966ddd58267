"""Leakage in the rows: repeats within the training rows and across the test rows, and a column that alone decides."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.rows import BoolArray, IntArray
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.planted.twin_costs import Forecast
from auditor.run.probe import BaseProbe, Need
from auditor.statistics.estimate import Exact
from auditor.statistics.rates import Difference
from probes.fairness.proxy_association import Source, Split, binned, macro_auc, other_columns, predicted
from probes.performance.copy_pairs import pairs_figure
from probes.performance.row_copies import MEANING, RowCopies, as_copies, copies_of
from probes.probe_inputs import training_rows
from probes.twins import no_plant

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel

# Beyond that, which values there are in the training rows decides for many test rows at once.
_MOST_REPEATED = 0.05


class DataLeakage(BaseProbe):
    """Rows that stand in the training and in the test rows, repeats of training rows, and a column that gives the label
    away.

    A copy has the same features, whatever its label: ``exact``; ``near`` (numbers alike in three significant digits,
    texts alike but for case and punctuation); of a table of three columns or more ``one column apart``; of texts, and
    of up to 10,000 pictures or recordings, ``similar`` (texts that share four in five of all runs of three words, files
    that look or sound the same). All rows are compared, by a hash of their features; similar texts meet by MinHash,
    each with the first and the last of those like it, and are then compared run by run.

    - ``duplicate_rate``: Of the training rows. Known exactly. Up to three pairs that are no exact copies are shown side
      by side: only the columns or words in which they differ, masked where they are personal data, of a special
      category, or a text that most rows have for themselves.
    - ``overlap_rate``: Of the test rows, and of each group of them; where there are test rows. Known exactly.
    - ``excess_overlap_rate``: ``overlap_rate`` less ``duplicate_rate``, as an exact difference of two shares. Rows that
      were drawn independently stand in the training rows as often as training rows repeat another, so that chance and
      columns of few values make no leak of it. Repeats come in pairs, and count as half as many of half the rows; where
      more than 5 % of the training rows repeat another, nothing is judged. A model recalls the answer of such rows, and
      its measured accuracy is too high by up to their share times its error on new rows.
    - ``recall_gain``: How much a model that recalls the label of each such row gains in measured accuracy over one that
      gives these rows the most frequent label. Known exactly.
    - ``strongest_feature_auc``: Of the column that tells the label best in one half of the training rows, the AUC in
      the other half, as :class:`~probes.fairness.proxy_association.ProxyAssociation` measures that of a feature; of
      more than two classes the mean of each against the rest. The halves are made by a hash of the rows' contents.

    Copies that were changed by more than that are not found, nor is a label that several columns give away together,
    nor time that runs backwards.

    Sources: Kapoor and Narayanan, Patterns 4 (2023), for kinds of leakage; Kaufman et al., ACM TKDD 6 (2012); Broder,
    SEQUENCES 1997, for MinHash; Lee et al., ACL 2022, for near duplicates of texts.
    """

    name = "data_leakage"
    pillar = "performance"
    goal = "Do test rows stand among the training rows, and does one column give the label away?"
    citation = "Kapoor and Narayanan, Patterns 2023; Kaufman et al., ACM TKDD 2012"
    methods = ("hashes",)
    needs = (Need.CLASSES, Need.TRAIN)
    questions = (
        AuditQuestion(
            "leaked",
            metrics=("*overlap_rate", "duplicate_rate", "recall_gain"),
            form="percent",
            # A copy that chance allows is no news.
            headline=("excess_overlap_rate",),
        ),
        AuditQuestion("decides_alone", form="pairs"),
    )
    forecast = Forecast(twin=0.006, number=0.0, million=0.6, most_rows=20_000, own_million=2.5, training_rows=True)
    exact = {
        "duplicate_rate": "every row is compared",
        "overlap_rate": "every row is compared",
        "recall_gain": "every row is compared",
    }
    metrics = define_metrics(
        """
        duplicate_rate: share of the training rows that have a copy among them; [0, 1], ideal 0; at 0.01 one row in 100
          repeats another; Kapoor and Narayanan, Patterns 2023
        overlap_rate: share of the test rows that have a copy among the training rows; [0, 1], ideal 0; at 0.01 the
          answer of one test row in 100 can be recalled; Kapoor and Narayanan, Patterns 2023
        excess_overlap_rate: how much larger the share of test rows with a copy among the training rows is than that of
          training rows with another one; [-1, 1], ideal 0; at 0.005 five test rows in 1,000 stand in the training rows
          beyond what independent rows do; Kapoor and Narayanan, Patterns 2023
        recall_gain: share of the test rows that have a copy among the training rows and its label, less the share that
          have a copy and the most frequent label; [-1, 1], ideal 0; at 0.01 a measured accuracy is up to one point in
          100 too high; Lee et al., ACL 2022
        strongest_feature_auc: area under the ROC curve of the label by the one column that tells it best; [0, 1], ideal
          0.5; at 1 that column decides alone, as what is known only after the label does; Kaufman et al., ACM TKDD 2012
        """
    )

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the training rows, and on the evaluation rows if they are others; the model is not called."""
        train = training_rows(data)
        pairs: dict[str, IntArray] = {}
        found = self.measure_copies(data, tuple(MEANING), pairs)
        found[0] = replace(found[0], figure=pairs_figure(pairs, train))
        if train.modality == "tabular" and train.y_true is not None:
            found += _strongest(train)
        return found

    def measure_copies(self, data: AuditData, kinds: Collection[str], pairs: dict[str, IntArray]) -> list[Measurement]:
        """The measurements of the copies of some kinds; some ``pairs`` of training rows by kind are put there."""
        train = training_rows(data)
        found: list[Measurement] = []
        test = None if data.members is None else data.evaluation
        for copies, own in copies_of(train.X, None if test is None else test.X, train.modality, kinds):
            pairs |= {copies: own.pairs} if len(own.pairs) else {}
            found.append(_share("duplicate_rate", copies, own.repeated, "training rows"))
            if test is not None:
                found += _overlap(copies, own, train, test)
        return found

    def measure_planted(
        self, model: AuditedModel, data: AuditData, measured: Measurement, value: float, rng: np.random.Generator
    ) -> list[Measurement]:
        """The measurements of a twin: training and test rows dealt anew, and so many more test rows that are copies."""
        kind = measured.at.get("copies")
        if measured.metric != "excess_overlap_rate" or data.is_member is None:
            raise no_plant(measured)
        members = rng.permutation(data.is_member)
        copied = ~members & (rng.random(len(data)) < value)
        index = np.arange(len(data))
        index[copied] = rng.choice(np.flatnonzero(members), int(copied.sum()))
        twin = data.take(index)
        twin = replace(twin, X=as_copies(twin.X, copied, str(kind), rng), is_member=members, recorded=None)
        return self.measure_copies(twin, (str(kind),), {})


def _share(metric: str, copies: str, held: BoolArray, of: str, group: dict[str, str] | None = None) -> Measurement:
    return Measurement(
        metric=metric,
        method="hashes",
        estimate=Exact(known=float(held.mean())),
        n_samples=held.size,
        ideal=0.0,
        group=group or {},
        at={"copies": copies},
        detail=f"{int(held.sum()):,} of {held.size:,} {of} have a copy {MEANING[copies]}",
    )


def _overlap(copies: str, own: RowCopies, train: AuditData, rows: AuditData) -> Iterator[Measurement]:
    shared, repeated = own.original >= 0, own.repeated
    yield Measurement(
        metric="excess_overlap_rate",
        method="hashes",
        estimate=Difference(
            successes=(int(shared.sum()), int(repeated.sum()) // 2), n=(int(shared.size), repeated.size // 2)
        ),
        n_samples=shared.size,
        ideal=0.0,
        at={"copies": copies},
        too_few=f"{repeated.mean():.1%} of the training rows repeat another: chance alone makes copies of such rows."
        if repeated.mean() > _MOST_REPEATED
        else "",
        detail=f"{int(shared.sum()):,} of {shared.size:,} test rows have a copy among the training rows "
        f"{MEANING[copies]}, and {int(repeated.sum()):,} of {repeated.size:,} training rows another one",
    )
    yield _share("overlap_rate", copies, shared, "test rows")
    if train.y_true is not None and rows.y_true is not None and (rows.y_true >= 0).any():
        yield _recalled(copies, own.original, train.y_true, rows.y_true)
    for name in () if rows.sensitive_features is None else map(str, rows.sensitive_features.columns):
        groups = rows.groups(name)
        for i, title in enumerate(groups.titles):
            yield _share("overlap_rate", copies, shared[groups.codes == i], "test rows", {name: title})


def _recalled(copies: str, original: IntArray, known: IntArray, labels: IntArray) -> Measurement:
    """What the labels of the originals tell of test rows, beyond the most frequent label."""
    asked = labels >= 0
    usual = int(np.bincount(labels[asked]).argmax())
    shared = asked & (original >= 0) & (known[original] >= 0)
    right, usually = int((known[original] == labels)[shared].sum()), int((labels[shared] == usual).sum())
    n = int(asked.sum())
    return Measurement(
        metric="recall_gain",
        method="hashes",
        estimate=Exact(known=(right - usually) / n),
        n_samples=n,
        ideal=0.0,
        at={"copies": copies},
        detail=f"of {int(shared.sum()):,} test rows with a copy {MEANING[copies]}, {right:,} have its label, "
        f"and {usually:,} the most frequent one",
    )


def _strongest(rows: AuditData) -> Iterator[Measurement]:
    """The AUC, in one half, of the column that tells the label best in the other."""
    from auditor.data.group_counts import coded_texts

    assert rows.y_true is not None
    rows = rows.take(rows.y_true >= 0)
    columns = other_columns(rows)
    if not columns or rows.y_true is None:
        return
    train = np.zeros(len(rows), bool)
    train[rows.order("data_leakage")[: len(rows) // 2]] = True
    labels = coded_texts([rows.classes[i] for i in rows.y_true])
    split = Split.from_groups("label", labels, train, None)
    learning = Split.from_groups("label", labels, ~train, None)
    if split.kept.size < 2:
        return
    nowhere = np.empty(0, np.int64)
    sources = [Source("feature", name, codes=binned(name, values, train)) for name, values in columns.items()]

    def auc(source: Source, half: Split) -> Any:
        # What was learned in one half, in either half.
        scores, _ = predicted(source, split, nowhere)
        assert source.codes is not None
        return macro_auc(scores, half.test_label, source.codes[half.tested])[0]

    best = max(sources, key=lambda source: auc(source, learning).value)
    yield Measurement(
        metric="strongest_feature_auc",
        method="hashes",
        estimate=auc(best, split),
        n_samples=len(rows),
        ideal=0.5,
        ideal_when_same="nothing",
        detail=f"{best.what}, of {len(sources):,} columns",
    )
