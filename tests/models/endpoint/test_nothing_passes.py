"""All probes of language models, by folder and by URL: a model that was never trained passes none, nor does an echo."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from auditor.judging.criterion import Criterion, load_criteria
from auditor.judging.judging import judge
from auditor.judging.measurement import Outcome, ProbeResult
from auditor.models.audited_model import AuditedModel
from auditor.models.endpoint.api_messages import Answer, Choice, Request
from auditor.models.endpoint.client import Limits
from auditor.models.endpoint.client import Outcome as Answered
from auditor.models.endpoint.endpoint_model import EndpointModel, endpoint_model
from auditor.models.endpoint.session import EndpointAsked, OpenEndpoint, open_endpoint
from auditor.run.api import load_model
from auditor.run.run_audit import ask, generator_for, no_data
from auditor.run.scan import scan as run_scan
from auditor.run.scan_options import Configured, ScanOptions
from probes import PROBES
from tests.data.test_benchmarks import bbq_row
from tests.models.endpoint.folder_server import NAME, served_folder
from tests.models.endpoint.reference import shown
from tests.models.endpoint.stub import Drawn, Stub, served
from tests.probes.language.test_asked import veto
from tests.probes.language.test_letters import crows, stereoset, winobias, winogender
from tests.quantifiers import none_of
from tests.toys.byte_llama import save_byte_llama
from tests.toys.labelled import calibrated, refusals
from tests.toys.writers import DISHONEST, FAITHS

N = 16
# It reads texts out of a file, and asks no model.
OF_FILES = {"generated_text"}
OF_LANGUAGE = [key for key, kind in PROBES.items() if kind.pillar == "language" and key not in OF_FILES]
# They read how likely texts are, or weights.
OF_MORE_THAN_TEXTS = {"stereotype", "embedding_association"}
BY_LETTER = {"bbq", "crows_pairs", "stereoset", "winobias", "winogender"}


def benchmarks(folder: Path) -> dict[str, str]:
    rows = [
        bbq_row(
            example_id=i, question_index=str(i % N), context=f"Number {i} spoke.",
            context_condition=("ambig", "disambig")[i // N % 2], label=2 if i // N % 2 == 0 else i % 2,
        )
        for i in range(2 * N)
    ]  # fmt: skip
    (folder / "bbq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    people = {who: {f"{who}{i}": [f"The {who} {i} was"] for i in range(N)} for who in ("cats", "dogs")}
    (folder / "race_prompt.json").write_text(json.dumps(people))
    lines = [f"the {w} {i} likes [M].\tthe {w}\t{w}\tx" for w in ("male", "female") for i in range(N)]
    (folder / "honest.tsv").write_text("\n".join(["template_masked\tidentity\tcategory\ttype", *lines]))
    made = {name: make(folder, N).path for name, make in (("crows_pairs", crows), ("stereoset", stereoset))}
    for name, make in (("winobias", winobias), ("winogender", winogender)):
        (folder / name).mkdir()
        made[name] = make(folder / name, N).path
    named = {"bbq": "bbq.jsonl", "bold": "race_prompt.json", "honest": "honest.tsv"}
    return made | {name: str(folder / file) for name, file in named.items()} | {"misfire": veto(folder, 2 * N)}


def options(key: str, folder: Path) -> dict[str, Any]:
    """Of a probe, so that it is quick and all that it measures may be judged."""
    (folder / "words.txt").write_text("bad\nawful\n")
    own: dict[str, dict[str, Any]] = {
        "order_sensitivity": {"n_questions": 12},
        "refusal_parity": {"categories": "religion", "n_requests": 6, "calibration": refusals(groups=FAITHS)},
        "generation_bias": {"categories": "gender", "n_templates": 8, "n_samples": 2, "calibration": calibrated()},
        "bold": {"n_prompts": 8, "calibration": calibrated()},
        "honest": {"lexicon": str(folder / "words.txt"), "n_samples": 2, "calibration": calibrated()},
        "bbq": {"wordings": 1},
    }
    files = benchmarks(folder)
    return own.get(key, {}) | ({"benchmarks": files} if key in files else {})


def made(folder: Path, *keys: str, by_letter: bool = False) -> dict[str, Any]:
    """The probes, on small files in a folder."""
    found = {}
    for key in keys:
        (own := folder / key).mkdir()
        letter = {"answer_by": "letter"} if by_letter and key in BY_LETTER else {}
        found[key] = PROBES[key](**options(key, own), **letter)
    return found


def results(model: AuditedModel, probes: dict[str, Any]) -> list[ProbeResult]:
    return [ask(probe, model, no_data(), generator_for(0, key)) for key, probe in probes.items()]


def wide(found: Sequence[ProbeResult]) -> list[Criterion]:
    """Requirements that hardly any model fails, of all that the default profile judges or that a model without skill
    reaches the ideal of."""
    by_default = {criterion.metric for criterion in load_criteria()}
    made = {}
    for m in (m for result in found for m in result.measurements):
        limits = getattr(m.estimate, "limits", None)
        if m.group or m.ideal is None or m.chance is not None or limits is None:
            continue
        if not (m.metric in by_default or m.rests_on or m.weak):
            continue
        low, high = (max(min(end, 1e6), -1e6) for end in limits)
        room = 5e-4 * (high - low)
        bound: Any = (low + room, high - room)
        direction = "within"
        if m.ideal <= low:
            direction, bound = "at_most", high - room
        elif m.ideal >= high:
            direction, bound = "at_least", low + room
        known = {"metric": m.metric, "direction": direction, "bound": bound}
        made[m.metric] = Criterion(**known, source="x", set_by="x", set_at="2026-01-01")
    return list(made.values())


def passed(found: Sequence[ProbeResult]) -> set[str]:
    """What passes of a scan with all of them, or of one with each alone beside performance."""
    scans = [found, *([result] if result is found[0] else [found[0], result] for result in found)]
    every = [f for scan in scans for f in judge(scan, wide(scan))[0]]
    return {f"{f.probe} {f.metric}" for f in every if f.outcome is Outcome.PASS}


def reached(found: Sequence[ProbeResult]) -> set[str]:
    """What would pass if nobody asked whether the model knows anything."""
    bare = [
        replace(result, measurements=tuple(replace(m, weak="", ideal_when_same="nothing") for m in result.measurements))
        for result in found
    ]
    asked = wide(found)
    return {f.metric or "" for result in bare for f in judge([result], asked)[0] if f.outcome is Outcome.PASS}


def check(found: Sequence[ProbeResult], *, but: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Every probe ``but`` some measured; some numbers would pass of a model with skill, and none does."""
    assert {result.probe for result in found if not result.measurements} == but, found
    assert len(reached(found)) >= 2
    assert passed(found) == set()


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_byte_llama(tmp_path_factory.mktemp("llama"), layers=1)


ALL = ("performance", *OF_LANGUAGE)


@pytest.mark.parametrize("by_letter", [False, True])
def test_a_folder_that_was_never_trained_passes_nothing(llama: Path, tmp_path: Path, by_letter: bool) -> None:
    check(results(load_model(llama), made(tmp_path, *ALL, by_letter=by_letter)))


def saying(reply: Callable[[str], str]) -> Callable[[Sequence[Request]], list[Answered]]:
    def asked(requests: Sequence[Request]) -> list[Answered]:
        texts = [r.prompt if isinstance(r.prompt, str) else r.prompt[-1].content for r in requests]
        return [Answered(Answer(None, (Choice(reply(text), "stop"),))) for text in texts]

    return asked


@pytest.mark.grid
@pytest.mark.parametrize("who", DISHONEST)
def test_a_server_that_reads_nothing_passes_nothing(who: str, tmp_path: Path) -> None:
    """Whatever it was found to do when it was asked for that."""
    model = EndpointModel(shown(text_likelihoods="lacking"), saying(DISHONEST[who]()))
    found = results(model, made(tmp_path, *ALL))
    assert passed(found) == set()
    if who == "always says A":
        assert "accuracy_gap" in reached(found)
    assert {r.probe for r in found if not r.measurements} == {"performance", *OF_MORE_THAN_TEXTS}


@pytest.fixture(scope="module")
def behind_a_url(llama: Path) -> Iterator[OpenEndpoint]:
    """The same folder's server, which has shaken hands."""
    with served_folder(llama) as url:
        asked = EndpointAsked(url=url, model=NAME, limits=Limits(max_calls=20_000, concurrency=1))
        with open_endpoint(asked, None) as endpoint:
            yield endpoint


@pytest.mark.grid
@pytest.mark.slow
@pytest.mark.parametrize("likelihoods", [True, False])
def test_the_server_of_a_folder_that_was_never_trained_passes_nothing(
    behind_a_url: OpenEndpoint, tmp_path: Path, likelihoods: bool
) -> None:
    kind = endpoint_model if likelihoods else EndpointModel
    model = kind(behind_a_url.handshake, lambda requests: behind_a_url.outcomes("probe", requests))
    # What is asked for texts is asked alike both ways.
    asked_by = ("performance", "stereotype", *sorted(BY_LETTER)) if likelihoods else ALL
    found = results(model, made(tmp_path, *asked_by))
    check(found, but=set() if likelihoods else {"performance", *OF_MORE_THAN_TEXTS})


class Constant(Stub):
    """Whatever it is asked, it says one thing, or the prompt again."""

    says: str | None = None

    def _drawn(self, toy: Any, words: list[str], body: dict[str, Any], *rest: Any) -> tuple[Drawn, str]:
        text = " ".join(words) if self.says is None else self.says
        return Drawn([text] if text else [], [0.0] if text else [], [{text: 0.0}] if text else []), "stop"


@pytest.mark.parametrize("says", [None, "A", ""])
def test_a_scan_of_a_server_that_says_one_thing_passes_nothing_of_its_model(says: str | None, tmp_path: Path) -> None:
    stub = Constant(5)
    stub.says = says
    files = benchmarks(tmp_path)
    with served(stub) as url:
        options = ScanOptions.from_values(
            {
                "model": url, "model_name": "toy", "out": str(tmp_path / "out"), "probes": ",".join(sorted(BY_LETTER)),
                "benchmark": [f"{name}={files[name]}" for name in BY_LETTER], "concurrency": 1,
            }
        )  # fmt: skip
        report = run_scan(Configured(options, {}, tuple(load_criteria())), PROBES).report
    assert report.exit_code == 1
    assert {f.probe for f in report.findings} == {*BY_LETTER, "performance", "intake"}
    assert none_of(f.outcome == "PASS" for f in report.findings)
