"""A scan of a model behind a URL: no call twice, no key anywhere, no network in the measuring process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auditor.core.errors import ModelError, NotApplicableError, UsageError
from auditor.judging.criterion import load_criteria
from auditor.models.endpoint.api_messages import Answer, Choice, Position, Request
from auditor.models.endpoint.client import Limits, Outcome
from auditor.models.endpoint.endpoint_model import EndpointModel, ScoringEndpointModel, endpoint_model
from auditor.models.endpoint.session import NAME, EndpointAsked, Journal, open_endpoint
from auditor.models.generation import Sampling
from auditor.report.record.audit_report import AuditReport
from auditor.run.scan import job_of
from auditor.run.scan import scan as run_scan
from auditor.run.scan_options import Configured, ScanOptions, flags
from auditor.run.scan_servers import servers_at_hand
from cli.scan_request import configure
from probes import PROBES
from tests.data.test_benchmarks import bbq_row
from tests.models.endpoint.reference import Serves, SteadyToy
from tests.models.endpoint.stub import LIES, Stub, running, served
from tests.models.endpoint.stub import NAME as MODEL
from tests.models.endpoint.test_client import answering as serving
from tests.quantifiers import all_of, none_of

KEY = "sk-very-secret-0123456789"


class Counting(Stub):
    """The stub, which remembers what it was asked, and may hold its answers back."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.bodies: Counter[str] = Counter()
        self.slow = 0.0

    def answer(self, route: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.slow:
            time.sleep(self.slow)
        self.bodies[json.dumps([route, body], sort_keys=True)] += 1
        return super().answer(route, body)


def asked_of(url: str, **limits: Any) -> EndpointAsked:
    return EndpointAsked(url=url, model=MODEL, limits=Limits(**({"wait": 0.001, "concurrency": 1} | limits)))


def requests(n: int, start: int = 0) -> list[Request]:
    return [Request(prompt=f"word{i} and", max_tokens=2, temperature=0.0) for i in range(start, start + n)]


def bbq_file(folder: Path, n: int = 12) -> Path:
    path = folder / "bbq.jsonl"
    rows = [bbq_row(example_id=i, question_index=str(i % 6), context=f"Number {i} spoke.") for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def scanned(url: str, out: Path, probes: str, **options: Any) -> AuditReport:
    asked = ScanOptions.from_values(
        {"model": url, "model_name": MODEL, "out": str(out), "probes": probes, "concurrency": 1, **options}
    )
    letters = {"bbq": {"answer_by": "letter"}} if "bbq" in probes else {}
    return run_scan(Configured(asked, letters, tuple(load_criteria())), PROBES).report


def test_a_scan_leaves_a_server_that_drips_after_its_own_limit(tmp_path: Path) -> None:
    def drips(handler: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"H" * 200:
                handler.wfile.write(bytes([byte]))
                time.sleep(0.05)
        handler.close_connection = True

    started = time.monotonic()
    with running(serving(drips)[0]) as url, pytest.raises(ModelError, match=r"longer than 0\.3 s"):
        scanned(url, tmp_path / "out", "performance", max_seconds=0.3)
    assert time.monotonic() - started < 6.0


# ---- the journal -----------------------------------------------------------------------------------------------------


def test_what_was_answered_is_not_asked_again_and_a_torn_line_is(tmp_path: Path) -> None:
    stub = Counting(seed=1)
    with served(stub) as url:
        with pytest.raises(KeyboardInterrupt), open_endpoint(asked_of(url), tmp_path / NAME) as endpoint:
            first = endpoint.outcomes("bbq", [*requests(5), *requests(1)])
            raise KeyboardInterrupt
        before = stub.calls
        path = tmp_path / NAME
        path.write_bytes(path.read_bytes()[:-20])
        with open_endpoint(asked_of(url), path) as endpoint:
            assert stub.calls == before + 2  # the fingerprint, past the journal
            again = endpoint.outcomes("bbq", [*requests(5), *requests(1)])
            assert stub.calls == before + 3 and again == first
            assert endpoint.outcomes("bbq", requests(2, start=9))[0].answer is not None
            assert any("from the journal of a run that did not end" in note for note in endpoint.notes())
            assert 30 <= endpoint.handshake.calls <= 40
        assert stub.calls == before + 5
        # It ended: the next scan asks this server anew.
        with open_endpoint(asked_of(url), path) as endpoint:
            assert endpoint.resumed == 0
            assert 30 <= endpoint.handshake.calls <= 40
        assert stub.calls > before + 30


def test_a_run_that_is_killed_goes_on_with_no_call_repeated(tmp_path: Path) -> None:
    stub, benchmark = Counting(seed=2), bbq_file(tmp_path, 40)
    out = tmp_path / "out"
    with served(stub) as url:
        flags = ["--model-name", MODEL, "--concurrency", "1", "--out", str(out), "--format", "json", "--quiet"]
        flags += ["--probes", "bbq", "--benchmark", f"bbq={benchmark}", "--set", "bbq.answer_by=letter"]
        flags += ["--api-key-env", "TEST_KEY", "--bundle", str(tmp_path / "audit.zip")]
        command = [sys.executable, "-m", "auditor", "scan", url, *flags]
        environment = os.environ | {"TEST_KEY": KEY}
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while stub.calls < 60 and process.poll() is None and time.monotonic() < deadline:
            stub.slow = 0.05 if stub.calls > 45 else 0.0
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        stub.slow = 0.0
        held = Counter(stub.bodies)
        assert stub.calls >= 60 and not (out / "report.json").exists()
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1, 3), done.stderr
    new = stub.bodies - held
    # The one that was on its way when the process was killed, and the fingerprint of the server.
    assert sum((new & held).values()) <= 3, new & held
    report = AuditReport.model_validate_json((out / "report.json").read_bytes())
    assert any(f.probe == "bbq" and f.value is not None for f in report.findings)
    assert any("from the journal" in note for note in report.model.notes)
    assert all_of(key == f"Bearer {KEY}" for key in stub.keys)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in written} >= {NAME, "report.json", "audit.zip"}
    assert none_of(KEY.encode() in path.read_bytes() for path in written)
    assert KEY not in done.stdout + done.stderr


def test_a_journal_of_another_endpoint_of_another_model_or_none_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_text("mine\n")
    with pytest.raises(UsageError, match="is no journal of calls"):
        Journal(path, "http://127.0.0.1:1/v1", MODEL)
    assert path.read_text() == "mine\n"
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="cannot be written"):
        Journal(path, "http://127.0.0.1:1/v1", MODEL)
    path.unlink()
    Journal(path, "http://127.0.0.1:1/v1", MODEL).close(finished=False)
    with pytest.raises(UsageError, match="of an unfinished scan of another endpoint"):
        Journal(path, "http://127.0.0.1:1/v1", "other")
    held = Journal(path, "http://127.0.0.1:1/v1", MODEL)
    with pytest.raises(UsageError, match="Another scan writes into"):
        Journal(path, "http://127.0.0.1:1/v1", MODEL)
    held.close(finished=False)
    assert path.stat().st_mode & 0o077 == 0


def test_a_server_that_is_another_by_now_is_not_mixed_with_the_one_before(tmp_path: Path) -> None:
    one = Stub(seed=5)
    with served(one) as url:
        with pytest.raises(KeyboardInterrupt), open_endpoint(asked_of(url), tmp_path / NAME):
            raise KeyboardInterrupt
        one.toy = one.other
        with (
            pytest.raises(ModelError, match="Another model answers now"),
            open_endpoint(asked_of(url), tmp_path / NAME),
        ):
            pass


def test_what_came_after_a_model_was_exchanged_is_no_answer_and_what_came_before_stays(tmp_path: Path) -> None:
    stub = Stub(seed=6, lies=frozenset({"caches"}))
    with served(stub) as url, open_endpoint(asked_of(url), tmp_path / NAME) as endpoint:
        before = endpoint.outcomes("bbq", requests(120))
        assert all_of(outcome.answer is not None for outcome in before)
        assert not endpoint.swapped and endpoint.agreed == endpoint.client.calls
        stub.toy, n = stub.other, stub.calls
        # A hundred answers of another model are found out, and no further ones are asked for.
        after = endpoint.outcomes("honest", requests(500, start=200))
        assert stub.calls == n + 102 and len(after) == 500
        assert all_of(outcome.spent and "Another model answers" in outcome.failed for outcome in after)
        assert any("of the first one" in note for note in endpoint.notes())
        assert endpoint.outcomes("honest", requests(1))[0].spent
    # Nothing of it is resumed.
    assert json.loads((tmp_path / NAME).read_text().splitlines()[-1]) == {"finished": True}


def test_the_last_of_a_scan_is_checked_too_and_a_few_that_are_not_are_told(tmp_path: Path) -> None:
    stub = Stub(seed=6)
    with served(stub) as url, open_endpoint(asked_of(url), tmp_path / NAME) as endpoint:
        endpoint.outcomes("bbq", requests(5))
        assert any("the last 5 answers was not asked" in note for note in endpoint.notes())
        stub.toy = stub.other
        assert all_of(outcome.spent for outcome in endpoint.outcomes("bbq", requests(30, start=9)))


# ---- the scan --------------------------------------------------------------------------------------------------------


def test_what_is_accepted_and_not_done_fails_and_what_needs_it_does_not_run(tmp_path: Path) -> None:
    stub = Stub(seed=3, lies=frozenset({"drops_logprobs"}))
    with served(stub) as url:
        configured = configure(
            {"model": url, "model_name": MODEL, "out": str(tmp_path), "probes": "stereotype,extraction"}, None, []
        )
        report = run_scan(configured, PROBES).report
    found = {(f.probe, f.metric): f for f in report.findings}
    lie = found["intake", "accepted_and_not_done"]
    assert lie.outcome == "FAIL" and lie.value == 2.0 and "logprobs, top_logprobs" in lie.detail
    # A server is asked about as a server, in whatever language: there is no file to be sound.
    assert [q.id for q in report.questions["intake"]] == ["server"]
    assert "text_likelihoods is refuted" in found["stereotype", None].reason
    assert "own weights and tokenizer" in found["extraction", None].reason
    assert report.model.path == url and report.model.format == "endpoint"
    assert any("Could not tell: same_model" in note for note in report.model.notes)
    assert none_of("left this machine" in note for note in report.model.notes)


def test_the_measuring_process_has_no_network_and_calls_that_are_spent_leave_the_rest(tmp_path: Path) -> None:
    (tmp_path / "probe_that_connects.py").write_text(_CONNECTS)
    stub, benchmark = Stub(seed=4), bbq_file(tmp_path)
    with served(stub) as url:
        asked = ScanOptions.from_values({
            "model": url, "model_name": MODEL, "out": str(tmp_path / "out"), "probes": "bbq,stereotype",
            "probe": ["probe_that_connects:Connects"], "benchmark": [f"bbq={benchmark}"], "max_calls": 60,
        })  # fmt: skip
        before = Path.cwd()
        try:
            os.chdir(tmp_path)
            report = run_scan(Configured(asked, {"bbq": {"answer_by": "letter"}}, ()), PROBES).report
        finally:
            os.chdir(before)
    reasons = {f.probe: f.reason for f in report.findings if f.outcome == "NOT_RUN"}
    assert "PermissionError" in reasons["Connects"]
    assert reasons["stereotype"] == "All 60 calls of --max-calls are made: raise it."
    assert stub.calls == 60
    # What was asked for has the calls first.
    assert "bbq" not in reasons and "--max-calls" in reasons["performance"]


_CONNECTS = """
import socket
from auditor.run.probe import Need

class Connects:
    name, pillar, goal, citation, methods, needs = "Connects", "language", "?", "?", ("a",), (Need.LANGUAGE_MODEL,)

    def measure(self, model, data, rng):
        socket.create_connection(("127.0.0.1", 9))
"""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "http://127.0.0.1:9/v1"}, "Which of the server's models"),
        ({"model": "m.pt", "model_name": "x"}, "--model-name is for a model behind a URL"),
        ({"model": "m.pt", "allow_remote": True}, "--allow-remote is for a model behind a URL"),
        ({"model": "http://example.org/v1", "model_name": "x"}, "add --allow-remote to send them"),
        ({"model": "http://127.0.0.1:9/v1", "model_name": "x", "trust_pickle": True}, "--trust-pickle says how a file"),
        ({"model": "http://127.0.0.1:9/v1", "model_name": "x", "api_key_env": KEY}, "takes the name of an environment"),
    ],
)
def test_flags_that_do_not_fit_are_told_in_a_sentence(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        with servers_at_hand(ScanOptions.from_values({"out": str(tmp_path), **options})):
            pass
    assert KEY not in str(raised.value)


def test_a_url_comes_from_the_command_line_alone(tmp_path: Path) -> None:
    (tmp_path / "audit.toml").write_text('[audit]\nmodel = "http://127.0.0.1:8000/v1"\nmodel_name = "x"\n')
    with pytest.raises(UsageError, match="for the command line alone to say"):
        configure({}, str(tmp_path / "audit.toml"), [])


def test_a_bundle_s_url_is_asked_by_nobody() -> None:
    # As auditor evidence reproduce makes the job of a stranger's request, and every command that loads a file.
    asked = ScanOptions.from_values({"model": "http://127.0.0.1:9/v1", "model_name": "x", "allow_remote": True})
    with pytest.raises(UsageError, match="asked by auditor scan, where the URL is typed"):
        job_of(Configured(asked, {}, ()), PROBES)
    assert flags()["allow_remote"].of_one_run and flags()["api_key_env"].of_one_run


def test_a_path_that_is_none_and_a_name_that_is_not_served_are_told_in_a_sentence(tmp_path: Path) -> None:
    with served(Stub(seed=1, routes=frozenset())) as url:
        with pytest.raises(ModelError, match=r"^Neither interface of the endpoint answers\. .*HTTP 404"):
            with open_endpoint(asked_of(url), None):
                pass
    with served(Stub(seed=1)) as url:
        with pytest.raises(ModelError, match=r"^Neither interface of the endpoint answers\. .*this model is not supp"):
            with open_endpoint(EndpointAsked(url=url, model="nobody"), None):
                pass
    with pytest.raises(ModelError, match="does not answer"):
        with open_endpoint(asked_of(url), None):
            pass


class Thinks(Counting):
    """It thinks in a field of its own, for as many tokens as it may beyond what it was asked for, and says B."""

    def _choice(self, *asked: Any) -> dict[str, Any]:
        made = super()._choice(*asked)
        if "message" in made:
            made["message"] = {"content": None, "reasoning_content": "A, or maybe not."}
            if asked[3]["max_tokens"] > 100:
                made["message"]["content"], made["finish_reason"] = "B", "stop"
        return made


@pytest.mark.parametrize("thinking_tokens", [0, 200])
def test_what_is_thought_is_never_the_answer_and_has_tokens_of_its_own(tmp_path: Path, thinking_tokens: int) -> None:
    stub = Thinks(seed=4)
    with served(stub) as url:
        report = scanned(
            url, tmp_path / "out", "bbq", benchmark=[f"bbq={bbq_file(tmp_path)}"], max_calls=70,
            thinking_tokens=thinking_tokens, reasoning_effort="low",
        )  # fmt: skip
    asked = [json.loads(body)[1] for body in stub.bodies]
    assert all_of(body["reasoning_effort"] == "low" and body["max_tokens"] > thinking_tokens for body in asked)
    details = " ".join(f.detail for f in report.findings if f.probe == "bbq" and f.metric == "accuracy")
    assert ("All 12 replies name an option" if thinking_tokens else "12 cut off before an answer") in details, details


# ---- the model -------------------------------------------------------------------------------------------------------


@cache
def handshake_of(*lies: str) -> Any:
    with (
        served(Stub(seed=7, lies=frozenset(lies))) as url,
        open_endpoint(asked_of(url, concurrency=4), None) as endpoint,
    ):
        return endpoint.handshake


def answering(*texts: str | Outcome) -> Any:
    seen: list[Request] = []

    def ask(requests: Sequence[Request]) -> list[Outcome]:
        found = []
        for request in requests:
            said = texts[min(len(seen), len(texts) - 1)]
            seen.append(request)
            found.append(said if isinstance(said, Outcome) else Outcome(Answer(None, (Choice(said, "stop"),))))
        return found

    ask.seen = seen  # type: ignore[attr-defined]
    return ask


def test_texts_are_drawn_with_seeds_of_their_own_and_end_where_they_were_to(tmp_path: Path) -> None:
    ask = answering(" of course. And more.", "The story is long! Yes", " no end")
    model = endpoint_model(handshake_of(), ask).with_chat_options("auto", "")
    found = model.continued(["The story"], 3, Sampling(until="sentence"), np.random.default_rng(0))
    assert found == [[" of course.", " is long!", " no end"]]
    assert len({request.seed for request in ask.seen}) == 3 and ask.seen[0].route == "chat"
    assert all_of(request.temperature == 1.0 and request.top_p == 0.95 for request in ask.seen)
    plain = endpoint_model(handshake_of(), ask).with_chat_options("off", "")
    assert plain.continued(["Once"], 1, Sampling(), np.random.default_rng(0)) and ask.seen[-1].prompt == "Once"


def test_what_a_server_was_not_shown_to_do_is_not_asked_of_it() -> None:
    ask = answering("x")
    with pytest.raises(NotApplicableError, match="drawn anew for each request: fresh_draws is accepted, and not done"):
        endpoint_model(handshake_of("caches", "ignores_seed"), ask).with_chat_options("off", "").continued(
            ["a"], 2, Sampling(), np.random.default_rng(0)
        )
    with pytest.raises(NotApplicableError, match="whole_prompt is accepted, and not done"):
        endpoint_model(handshake_of("truncates"), ask).with_chat_options("off", "")
    assert not ask.seen


def test_a_text_that_was_not_written_is_no_text_and_a_filtered_reply_no_reply() -> None:
    gone = Outcome(failed="It took too long.")
    model = EndpointModel(handshake_of(), answering("fine", gone))
    with pytest.raises(ModelError, match=r"1 of 2 texts were not written.*It took too long\. Run the scan again"):
        model.continued(["a"], 2, Sampling(), np.random.default_rng(0))
    filtered = Outcome(Answer(None, (Choice("sorry", "content_filter"),)))
    said = EndpointModel(handshake_of(), answering("A", filtered, gone)).replies([["q"]] * 3, 4)
    assert [reply.failed for reply in said] == ["", "The server filtered the answer.", "It took too long."]
    with pytest.raises(ModelError, match="--max-calls"):
        EndpointModel(
            handshake_of(), answering(Outcome(failed="All calls of --max-calls are made.", spent=True))
        ).replies([["q"]], 4)


def echo(tokens: Sequence[str], values: Sequence[float | None]) -> Outcome:
    positions = tuple(Position(t, v) for t, v in zip(tokens, values, strict=True))
    return Outcome(Answer(None, (Choice("".join(tokens), "length", positions),)))


def test_an_echoed_text_has_the_likelihood_of_its_own_tokens_alone() -> None:
    first = echo(["The", " cat", " sat", " down"], [None, -2.0, -3.0, -9.0])
    second = echo([" The", " dog", " sat", "!"], [None, -5.0, -1.0, -9.0])
    model = endpoint_model(handshake_of(), answering(first, second))
    assert isinstance(model, ScoringEndpointModel)
    whole, rest = model.pair_scores_and_rest([("The cat sat", "The dog sat")], [" sat"])
    assert whole.tolist() == [[-5.0, -6.0]] and rest.tolist() == [[-3.0, -1.0]]
    again = endpoint_model(handshake_of(), answering(first))
    total, n = again.continuations(["The"], [" cat sat"])  # type: ignore[attr-defined]
    assert (total.tolist(), n.tolist()) == ([-5.0], [2])
    moved = echo(["The sat", " cat", "!"], [None, -4.0, -9.0])
    shuffled = endpoint_model(handshake_of(), answering(first, moved, moved))
    assert isinstance(shuffled, ScoringEndpointModel)
    [text] = shuffled.encode(["The cat sat"])
    # Its own tokens in another order, which the server reads as others: likely as a whole, and not by its parts.
    other = replace(text, ids=(0, 2, 1))
    with pytest.raises(ModelError, match="other tokens than it was asked of"):
        shuffled.token_log_probabilities([other], [[1]])
    assert np.nansum(shuffled.token_log_probabilities([other])[0]) == -4.0
    for lie, said in (
        (echo(["A", " cat", " sat", "x"], [None, -2.0, -3.0, -9.0]), "whose tokens do not spell it"),
        (echo(["The", " cat", " sat", "x"], [None, None, -3.0, -9.0]), "without the log-probabilities of all"),
        (echo(["The cat sat", "x"], [None, -9.0]), "whose tokens do not spell it"),
        (echo(["The", " cat", " sat", "x"], [None, -2.0, 2.0, -9.0]), "a log-probability above 0"),
    ):
        with pytest.raises(ModelError, match=said):
            endpoint_model(handshake_of(), answering(lie)).encode(["The cat sat"])  # type: ignore[attr-defined]


# ---- the model that it is said to serve ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> tuple[SteadyToy, Path]:
    toy, where = SteadyToy(5), tmp_path_factory.mktemp("steady")
    toy.save(where)
    return toy, where


SERVED: dict[str, tuple[dict[str, Any], str]] = {
    "itself": ({}, "PASS"),
    "itself by texts alone": ({"refuses": frozenset({"logprobs"})}, "INCONCLUSIVE"),
    "another model": ({"toy_served": SteadyToy(6)}, "FAIL"),
    "another model by texts alone": ({"toy_served": SteadyToy(6), "refuses": frozenset({"logprobs"})}, "FAIL"),
    "a server of lies": ({"lies": frozenset(LIES)}, "not PASS"),
}


@pytest.mark.parametrize("what", SERVED)
def test_a_scan_says_whether_its_reference_is_what_is_served(
    what: str, steady: tuple[SteadyToy, Path], tmp_path: Path
) -> None:
    (toy, reference), (more, outcome) = steady, SERVED[what]
    with served(Serves(5, **{"toy_served": toy, **more})) as url:
        report = scanned(url, tmp_path, "extraction", reference=str(reference))
    (found,) = (f for f in report.findings if f.metric == "served_otherwise")
    assert found.criterion is not None
    assert found.outcome == outcome if outcome != "not PASS" else found.outcome in ("FAIL", "INCONCLUSIVE"), found
    assert any(f"served_model is about the reference {reference}" in note for note in report.model.notes)
    if outcome == "INCONCLUSIVE":
        assert found.value is None and "texts alone do not prove" in found.reason
    assert ".." not in found.reason
    (counted,) = (f for f in report.findings if f.metric == "accepted_and_not_done")
    assert "served_model" not in counted.detail.split(".")[0]


def test_a_reference_that_is_none_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    stub = Stub(seed=1)
    with served(stub) as url, pytest.raises(UsageError, match="no language model at 'nowhere'"):
        scanned(url, tmp_path, "extraction", reference="nowhere")
    assert stub.calls == 0


def test_without_calls_for_it_a_reference_is_not_found_to_be_served(
    steady: tuple[SteadyToy, Path], tmp_path: Path
) -> None:
    with served(Serves(5, toy_served=steady[0])) as url:
        report = scanned(url, tmp_path, "extraction", reference=str(steady[1]), max_calls=36)
    (found,) = (f for f in report.findings if f.metric == "served_otherwise")
    assert found.outcome == "INCONCLUSIVE" and found.value is None and "--max-calls" in found.reason
    assert ".." not in found.reason
