"""Verification of the record's description of rows and classes against the bundle's data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np

from auditor.data.group_counts import GroupCounts
from auditor.data.groups_digest import GroupsDigest
from auditor.evidence.verify.checks import Check
from auditor.evidence.verify.json_difference import difference
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.group_sizes import sizes_in
from auditor.run.predictions import BLURRED_OVER, Answers, AnswersHead

# By name, what the record says and what is stored.
_Pairs = dict[str, tuple[object, object]]


def check_metadata(
    report: AuditReport, head: AnswersHead | None, table: GroupCounts | None, answers: Answers | None
) -> Iterator[Check]:
    """Differences of the record's model and data from the stored head, group table and rows."""
    pairs = {
        **_of_table(report, table, answers),
        **_of_head(report, head, table),
        **_of_rows(report, table, answers),
    }
    wrong = [where for name, (said, found) in pairs.items() if (where := difference(_plain(said), _plain(found), name))]
    yield from (Check(name="data", state="wrong", detail=f"the record's {where}") for where in wrong)
    if pairs and not wrong:
        yield Check(name="data", state="ok", detail=f"the record's {', '.join(pairs)} are those of what is stored")


def _of_table(report: AuditReport, table: GroupCounts | None, answers: Answers | None) -> _Pairs:
    """Classes, sensitive features and sizes of groups."""
    data, pairs = report.data, _Pairs()
    if table is not None:
        positive = None if table.positive is None else table.classes[table.positive]
        pairs["sensitive"] = data.sensitive, table.features
        pairs["positive"] = data.positive, positive
        pairs["classes"] = report.model.classes, table.classes
    sizes = sizes_in(table) if table is not None else _sizes(answers)
    if sizes is not None and data.groups is not None:
        pairs["groups"] = data.groups, sizes
    return pairs


def _of_head(report: AuditReport, head: AnswersHead | None, table: GroupCounts | None) -> _Pairs:
    """What the head of the rows says of all of them."""
    pairs = _Pairs()
    if head is None:
        return pairs
    if head.kind == "classifier":
        positive = None if head.positive is None else head.classes[head.positive]
        pairs["rows' classes"] = report.model.classes, head.classes
        pairs["rows' positive"] = report.data.positive, positive
    # Scores of rows that do not say their group are blurred, and no others.
    pairs["blurred"] = head.blurred, BLURRED_OVER if table and not head.features else 1
    if table is not None:
        pairs["rows of the table"] = head.n, table.n
    return pairs


def _of_rows(report: AuditReport, table: GroupCounts | None, answers: Answers | None) -> _Pairs:
    """Digests of the groups, and rows without a label."""
    data, pairs = report.data, _Pairs()
    if answers is not None and answers.groups and data.groups_sha256 is not None:
        pairs["groups_sha256"] = data.groups_sha256, _digests(answers)
    if data.missing is not None:
        unlabelled = _unlabelled(table, answers)
        # Where no row has a label, whether there was a column of them is for the record to say.
        if unlabelled is not None and (data.missing.labels is not None or unlabelled < (data.n_rows or 0)):
            pairs["rows without label"] = data.missing.labels, unlabelled
    return pairs


def _sizes(answers: Answers | None) -> Mapping[str, Mapping[str, int]] | None:
    return {name: Counter(own) for name, own in answers.groups.items()} if answers and answers.groups else None


def _unlabelled(table: GroupCounts | None, answers: Answers | None) -> int | None:
    if answers is not None:
        return int(np.isnan(answers.truth).sum())
    return None if table is None else int(table.table[:, -1].sum())


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _digests(answers: Answers) -> Mapping[str, str]:
    found = {}
    for name, levels in zip(answers.head.features, answers.head.levels, strict=True):
        place = {level: i for i, level in enumerate(levels)}
        digest = GroupsDigest()
        digest.add(np.asarray([place[level] for level in answers.groups[name]], np.int64), levels)
        found[name] = digest.hexdigest()
    return found
