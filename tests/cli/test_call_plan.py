"""``auditor scan URL --dry-run``: nothing is sent, and as much is planned as the probes then ask."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.commands import app
from tests.models.endpoint.stub import NAME, Stub, served
from tests.probes.language.test_text_judge import Judging

SCAN = ("--model-name", NAME, "--probes", "refusal_parity", "--seed", "3", "--set", "refusal_parity.n_requests=2")


def planned(output: str, name: str) -> tuple[int, int, int]:
    found = re.search(
        rf"^{name} +(?:about )? *([\d,]+) calls, about ([\d,]+) tokens sent, at most ([\d,]+) w", output, re.M
    )
    assert found is not None, output
    return tuple(int(each.replace(",", "")) for each in found.groups())  # type: ignore[return-value]


def test_a_plan_makes_no_call_and_names_what_the_scan_then_makes(tmp_path: Path) -> None:
    stub = Stub(5)
    with served(stub) as url:
        plan = CliRunner().invoke(app, ["scan", url, *SCAN, "--dry-run", "--price-in", "2", "--price-out", "4"])
        assert plan.exit_code == 0 and not stub.calls, plan.output
        CliRunner().invoke(app, ["scan", url, *SCAN, "--out", str(tmp_path)])
    made = re.search(r"([\d,]+) of refusal_parity", (tmp_path / "report.json").read_text())
    calls, sent, written = planned(plan.output, "refusal_parity")
    assert made is not None and calls == int(made[1].replace(",", "")) > 0
    _, all_sent, all_written = planned(plan.output, "together")
    assert all_sent >= sent > 0 and all_written >= written >= calls
    price = re.search(r"price at most about ([\d.e+-]+)", plan.output)
    assert price is not None and float(price[1]) == pytest.approx((all_sent * 2 + all_written * 4) / 1e6, rel=1e-3)


def test_a_judge_beside_a_server_is_planned_by_as_many_calls_as_it_then_gets(tmp_path: Path) -> None:
    stub, judge = Stub(3), Judging(4)
    with served(stub) as url, served(judge) as at:
        scan = ["scan", url, *SCAN, "--judge", at, "--judge-name", NAME]
        plan = CliRunner().invoke(app, [*scan, "--dry-run"])
        assert plan.exit_code == 0 and not stub.calls and not judge.judged, plan.output
        done = CliRunner().invoke(app, [*scan, "--out", str(tmp_path)])
    of_judge = plan.output.partition("The judge, at prices of its own:")[2]
    assert planned(of_judge, "refusal_parity")[0] == judge.judged > 0
    notes = " ".join(json.loads((tmp_path / "report.json").read_text())["model"]["notes"])
    assert f"The judge is 'toy' at {at}" in notes and f"{judge.judged} of refusal_parity" in notes, done.output


def test_a_judge_of_texts_that_are_recorded_is_planned_too(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text,about\n" + "".join(f"Text {i}.,{'ab'[i % 2]}\n" for i in range(10)))
    words = ["--predictions", str(tmp_path / "texts.csv"), "--generated", "text", "--sensitive", "about", "--judge"]
    words += ["http://127.0.0.1:1/v1", "--judge-name", "m", "--probes", "generated_text", "--price-in", "1"]
    plan = CliRunner().invoke(app, ["scan", *words, "--price-out", "1"])
    assert plan.exit_code == 0 and planned(plan.output, "generated_text")[0] == 10, plan.output
    assert "price at most about" in plan.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("model.pt", "--dry-run"), "--dry-run plans the calls of a server"),
        (("http://127.0.0.1:1/v1", "--dry-run"), "--model-name NAME"),
        (("http://127.0.0.1:1/v1", "--model-name", "m", "--price-in", "1"), "--price-out"),
    ],
)
def test_a_plan_of_nothing_is_refused(words: tuple[str, ...], said: str) -> None:
    done = CliRunner().invoke(app, ["scan", *words])
    assert done.exit_code == 2 and said in " ".join(done.output.split()), done.output
