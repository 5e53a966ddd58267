"""``auditor scan URL --dry-run``: nothing is sent, and as much is planned as the probes then ask."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.commands import app
from tests.models.endpoint.stub import NAME, Stub, served

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
