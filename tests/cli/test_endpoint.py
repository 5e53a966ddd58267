"""``auditor probes endpoint`` as a user runs it: what it prints, what it exits with, and what it never prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.commands import app
from tests.models.endpoint.reference import Serves, SteadyToy
from tests.models.endpoint.stub import NAME, Stub, running, served
from tests.models.endpoint.test_client import KEY, answering, reply
from tests.quantifiers import all_of


def run(*words: str) -> Any:
    return CliRunner().invoke(app, ["probes", "endpoint", *words])


def test_a_lie_exits_1_and_says_which() -> None:
    with served(Stub(11, frozenset({"drops_echo"}))) as url:
        done = run(url, "--model-name", NAME)
    assert done.exit_code == 1, done.output
    assert "echo              refuted: accepted, and not done" in done.output
    assert "exit 1: 1 of 20 capabilities are accepted and not done" in done.output


def test_json_holds_every_capability_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    stub = Stub(3, refuses=frozenset({"n"}))
    with served(stub) as url:
        done = run(url, "--model-name", NAME, "--api-key-env", "MY_KEY", "--json")
    said = json.loads(done.stdout)
    assert done.exit_code == said["exit_code"] == 3 and said["url"] == url and said["calls"] == stub.calls
    found = {each["name"]: each for each in said["capabilities"]}
    assert found["n"]["shown"] == "refuted" and not found["n"]["accepted_and_ignored"]
    assert len(found) == 20 and all_of(each["why"] for each in found.values())
    assert set(stub.keys) == {f"Bearer {KEY}"} and KEY not in done.output


def served_as(stub: Stub, reference: Path, *more: str) -> dict[str, Any]:
    with served(stub) as url:
        done = run(url, "--model-name", NAME, "--reference", str(reference), "--json", *more)
    said = json.loads(done.stdout)
    # What else is found of a model that looks at nothing is another matter.
    assert said["exit_code"] == done.exit_code == 1 and said["calls"] == stub.calls
    found: dict[str, Any] = said["capabilities"][-1]
    assert found["name"] == "served_model" and len(said["capabilities"]) == 21
    return found


def test_a_reference_is_the_served_model(tmp_path: Path) -> None:
    toy = SteadyToy(5)
    toy.save(tmp_path / "llm")
    found = served_as(Serves(5, toy_served=toy), tmp_path / "llm")
    assert found["shown"] == "proven" and not found["accepted_and_ignored"], found


def test_without_calls_for_it_nothing_is_said_of_a_reference(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    found = served_as(Serves(5, toy_served=SteadyToy(5)), tmp_path, "--max-calls", "35")
    assert found["shown"] == "could not tell" and "--max-calls" in found["why"]


def test_what_a_server_says_stays_inert() -> None:
    hostile = json.dumps({"error": {"message": "\x1b[31mno\u202e [link](x) =1+1 <b>"}}).encode()
    handler, _ = answering(reply(400, hostile))
    with running(handler) as url:
        done = run(url, "--model-name", "\u202eevil\x1b")
    assert done.exit_code == 4 and done.output.count("\n") == 1 and done.output.startswith("auditor: ")
    assert "\x1b" not in done.output and "\u202e" not in done.output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("https://models.example.com/v1", "--model-name", "m"), 2, "--allow-remote"),
        (("http://127.0.0.1:1/v1", "--model-name", "m", "--api-key-env", KEY), 2, "name of an environment variable"),
        (("http://127.0.0.1:1/v1", "--model-name", "m", "--max-calls", "0"), 2, "--max-calls"),
        (("http://127.0.0.1:1/v1", "--model-name", "m", "--max-calls", "1"), 4, "does not answer"),
        (("http://127.0.0.1:1/v1", "--model-name", "m", "--reference", "nowhere"), 2, "no language model at 'nowhere'"),
        (("http://127.0.0.1:1/v1", "--model-name", "m", "--reference", "."), 2, "no language model at '.'"),
        (("http://127.0.0.1:1/v1", "--model-name", "m", "--within", "0.1"), 2, "add --reference"),
        (("http://127.0.0.1:1/v1", "--model-name", "m", "--reference", __file__, "--within", "2"), 2, "0 and 1"),
    ],
)
def test_what_cannot_be_asked_is_one_sentence(words: tuple[str, ...], code: int, said: str) -> None:
    done = run(*words)
    assert done.exit_code == code and said in done.output and done.output.count("\n") == 1, done.output
    assert KEY not in done.output
