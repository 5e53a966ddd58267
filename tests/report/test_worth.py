"""What the first screen of every rendering says of the model's worth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from auditor.data.audit_data import AuditData
from auditor.judging.measurement import Outcome
from auditor.models.audited_model import AuditedModel
from auditor.models.regression_model import AuditedRegressor
from auditor.report.document import Paragraph, Span
from auditor.report.html import render_html
from auditor.report.markdown import render_markdown
from auditor.report.record.audit_report import AuditReport
from auditor.report.record.summary_lines import worth_of
from auditor.report.report_document import report_document
from auditor.run.run_audit import run_audit
from cli.terminal import print_report
from probes import PROBES
from tests.quantifiers import all_of


def report(column: str, *probes: str, labels: bool = True) -> AuditReport:
    """Of a model whose score is a column: the label itself with noise, noise alone, or the label turned round."""
    rng = np.random.default_rng(0)
    y = rng.random(1_000) < 0.3
    X = pd.DataFrame({"good": 0.4 * y + 0.6 * rng.random(1_000), "noise": rng.random(1_000)})
    X["bad"] = 1.0 - X["good"]
    data = AuditData.from_arrays(
        X,
        y.astype(int) if labels else None,
        classes=("0", "1"),
        sensitive_features={"sex": np.where(rng.random(1_000) < 0.5, "f", "m").tolist()},
    )
    model = AuditedModel.from_callable(lambda rows: rows[column].to_numpy(), classes=("0", "1"))
    return run_audit(model, data, [PROBES[name]() for name in probes])


@pytest.mark.parametrize(
    ("column", "outcome", "words"),
    [
        ("good", Outcome.PASS, "It shows skill (roc_auc 0."),
        ("noise", Outcome.INCONCLUSIVE, "a model without skill passes no gap"),
        ("bad", Outcome.FAIL, "It shows no skill (roc_auc 0."),
    ],
)
def test_skill_is_said_beside_the_base_rate(column: str, outcome: Outcome, words: str) -> None:
    made = report(column, "performance")
    found = worth_of(made)
    assert found is not None and found.outcome is outcome and words in found.skill
    accuracy = next(f for f in made.findings if f.metric == "accuracy" and not f.group)
    base = next(f for f in made.findings if f.metric == "base_rate")
    assert accuracy.value is not None and base.value is not None
    assert found.line.startswith(f"Accuracy: right for {100 * accuracy.value:.0f}\N{NO-BREAK SPACE}% of the rows (")
    assert f"always answering '0' would be right for {100.0 * base.value:.3g} % of these rows." in found.line


def test_what_is_not_known_is_said() -> None:
    without_labels = worth_of(report("good", "performance", "group_fairness", labels=False))
    assert without_labels is not None and without_labels.outcome is Outcome.NOT_JUDGED
    assert "not known" in without_labels.skill and "--target COLUMN" in without_labels.skill
    not_asked = worth_of(report("good", "group_fairness"))
    assert not_asked is not None and "the probe performance does" in not_asked.skill


def test_a_report_of_nothing_says_nothing_of_it() -> None:
    made = report("good")
    assert worth_of(made) is None
    assert "Performance." not in render_html(made)


def test_numbers_stand_beside_the_mean() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(10.0, 2.0, 500)
    data = AuditData.for_regression(pd.DataFrame({"x": x}), x + rng.normal(size=500))
    model = AuditedRegressor.from_callable(lambda rows: rows["x"].to_numpy())
    found = worth_of(run_audit(model, data, [PROBES["performance"]()]))
    assert found is not None and found.outcome is Outcome.PASS
    assert found.line.startswith("Mean absolute error 0.") and "predicting the mean, 9." in found.line


def test_skill_without_a_limit_is_no_pass_on_paper_or_on_the_page() -> None:
    for column, tone in (("good", "not-judged"), ("bad", "fail")):
        made = report(column, "performance")
        [paper] = [
            block
            for block in report_document(made)
            if isinstance(block, Paragraph) and block.line[0] == Span("Performance.", "strong")
        ]
        assert paper.tone == tone and all_of(span.tone in ("", tone) for span in paper.line)
        said = " ".join(span.text for span in paper.line)
        assert f'class="worth is-{tone}"' in render_html(made)
        assert ("It shows" in said) is ("worth-skill" in render_html(made).partition('class="worth')[2][:900])


def test_it_stands_first_in_every_rendering(capsys: pytest.CaptureFixture[str]) -> None:
    made = report("good", "group_fairness", "performance")
    page, text = render_html(made), render_markdown(made)
    print_report(made, [])
    shown = capsys.readouterr().out
    for rendered in (page, text, shown):
        assert "would be right for" in rendered
    assert page.index("Performance.") < page.index('class="tally-bar"')
    assert page.index("Performance.") < page.index('id="scope"')
    assert page.index('<option value="p-performance"') < page.index('<option value="p-fairness"')
    assert text.index("Performance.") < text.index("PASS** |")
