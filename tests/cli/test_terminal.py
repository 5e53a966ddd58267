"""What a recorded audit looks like on a terminal and in a pipe, and how the progress of one is shown."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Callable

import pytest

import cli.terminal
from auditor.core.errors import UsageError
from auditor.report.first_page import first_page
from auditor.report.record.audit_report import AuditReport
from cli.probe_tables import print_mitigations, print_probes
from cli.terminal import coloured, paragraph, print_grid, print_report, print_table, stages
from mitigations import MITIGATIONS
from probes import PROBES
from tests.quantifiers import all_of, none_of
from tests.report.samples import sample_report


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def printed(report: AuditReport, capsys: pytest.CaptureFixture[str], *, verbose: bool = False) -> list[str]:
    print_report(report, ["audit-report/report.json", "audit-report/report.html"], verbose=verbose)
    return capsys.readouterr().out.splitlines()


def test_the_first_ten_lines_say_the_verdict_what_to_do_and_where_the_report_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = sample_report()
    page = first_page(report)
    lines = printed(report, capsys)
    first = "\n".join(lines[:10])
    assert lines[0].startswith(page.outcome.words) and page.headline in lines[0]
    assert page.effect in first and page.actions[0].sentence in first and page.actions[0].command in first
    assert "audit-report/report.html" in first and f"exit {report.exit_code}: " in first
    table = [line.split("\t") for line in lines if "\t" in line]
    assert table[0] == ["question", "groups", "found", "allowed", "verdict"]
    assert [row[0] for row in table[1:]] == [line.question for line in page.lines]
    assert len(lines) < 40


def test_the_rest_is_a_count_until_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    report = sample_report()
    short, whole = printed(report, capsys), printed(report, capsys, verbose=True)
    counts = next(line for line in short if line.startswith("PASS "))
    assert all_of(f" {name} " in counts for name in ("FAIL", "INCONCLUSIVE", "NOT_RUN", "NOT_APPLICABLE", "NOT_JUDGED"))
    assert none_of(line.startswith("NOT_APPLICABLE") for line in short)
    assert any("--verbose" in line for line in short) and none_of("--verbose" in line for line in whole)
    assert len(whole) > len(short) and any(line.startswith("NOT_APPLICABLE") for line in whole)


@pytest.mark.parametrize("columns", [80, 120])
def test_a_table_on_a_terminal_keeps_to_its_width(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.delenv("NO_COLOR", raising=False)
    print_report(sample_report(), ["r/report.html"])
    lines = re.sub(r"\x1b\[\d*m", "", out.getvalue()).splitlines()
    page = first_page(sample_report())
    commands = {action.command for action in page.actions}
    assert all_of(len(line.rstrip()) <= columns or line.strip() in commands for line in lines)
    assert "\t" not in out.getvalue() and any(command in out.getvalue() for command in commands)


def test_no_word_of_a_table_is_cut_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "80")
    question, found = "Do groups get the good decision equally often?", "22 points apart (13 to 34)"
    row = (question, "African-American", found, "at most 10 points", "inconclusive, needs 8,167 rows in all")
    print_grid(("question", "groups", "found", "allowed", "verdict"), [row], ["FAIL"])
    lines = re.sub(r"\x1b\[\d*m", "", out.getvalue()).splitlines()
    printed_words = {word for line in lines for word in line.split()}
    assert {word for cell in row for word in cell.split()} <= printed_words and max(map(len, lines)) <= 80


@pytest.mark.parametrize(("listed", "most"), [(print_mitigations, 45), (print_probes, 130)])
def test_a_list_on_a_terminal_has_a_name_and_a_purpose_a_row(
    listed: Callable[..., None], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "80")
    listed(as_json=False)
    lines = re.sub(r"\x1b\[\d*m", "", out.getvalue()).splitlines()
    assert len(lines) <= most and max(map(len, lines)) <= 80 and "One in full: auditor " in out.getvalue()
    names = MITIGATIONS if listed is print_mitigations else PROBES
    assert set(names) <= {line.split()[0] for line in lines if line.strip()}


def test_one_mitigation_is_shown_in_full_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    print_mitigations("threshold-optimizer", as_json=False)
    told = " ".join(capsys.readouterr().out.split())
    assert told.startswith("threshold_optimizer") and " needs " in told and " COMPAS" in told
    with pytest.raises(UsageError, match="did you mean 'reweighing'"):
        print_mitigations("reweighting", as_json=False)


def test_colour_takes_no_width_and_a_label_has_a_column_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    green = coloured("proven", "PASS")
    assert green != "proven"
    said = paragraph(f"{green}  twenty eight numbers and their intervals", 0)
    assert said == f"{green}  twenty eight numbers and their\n        intervals"
    print_table(("verdict", "number", "difference"), [("better", "accuracy", "0.1")])
    assert "  number     accuracy\n  difference 0.1\n" in out.getvalue()


def test_progress_is_one_line_with_the_time_left_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    err = Terminal()
    monkeypatch.setattr(sys, "stderr", err)
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    with stages(show=True) as shown:
        shown.total = 10
        for name in "abcdefg":
            shown(name)
    assert "\n" not in err.getvalue() and err.getvalue().endswith("\r\033[K")
    assert "[7/10] g, about" in err.getvalue() and "left" in err.getvalue()
    assert "[2/10] b\r" in err.getvalue()


def test_a_log_has_a_line_for_each_slow_probe_and_quiet_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.terminal, "_WORTH_A_LINE", 5.0)
    for show, lines in ((True, ["slow: 10.0 s", "last: 10.0 s"]), (False, [])):
        err = io.StringIO()
        monkeypatch.setattr(sys, "stderr", err)
        now = [0.0]
        monkeypatch.setattr(time, "perf_counter", lambda: now[0])  # noqa: B023
        with stages(show=show) as shown:
            shown.total = 5
            for name, seconds in (("loading", 20), ("reading", 20), ("slow", 10), ("quick", 1), ("last", 10)):
                shown(name)
                now[0] += seconds
        assert err.getvalue().splitlines() == lines
