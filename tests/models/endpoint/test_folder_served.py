"""One model by its folder and by its server's URL: the same answers, and no PASS for one that was never trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from auditor.judging.criterion import Criterion
from auditor.judging.measurement import Outcome
from auditor.models.audited_model import AuditedModel
from auditor.models.capabilities import writer_of
from auditor.models.endpoint.client import Limits
from auditor.models.endpoint.endpoint_model import ScoringEndpointModel, endpoint_model
from auditor.models.endpoint.server_findings import Shown
from auditor.models.endpoint.session import EndpointAsked, OpenEndpoint, open_endpoint
from auditor.run.api import load_model
from auditor.run.run_audit import no_data, run_audit
from probes import PROBES
from probes.language.forced_choice import Question, choices
from probes.language.stereotype import built_in_pairs
from tests.data.test_benchmarks import CROWS, bbq_row, stereoset_example, write
from tests.models.endpoint.folder_server import NAME, served_folder
from tests.quantifiers import all_of, none_of
from tests.toys.byte_llama import save_byte_llama


@dataclass(frozen=True)
class BothWays:
    """A random Llama, loaded from its folder, and the same behind a server that was found out about by its answers."""

    folder: AuditedModel
    url: ScoringEndpointModel
    endpoint: OpenEndpoint


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BothWays]:
    where = save_byte_llama(tmp_path_factory.mktemp("llama"))
    with served_folder(where) as url:
        asked = EndpointAsked(url=url, model=NAME, limits=Limits(max_calls=20_000, concurrency=1))
        with open_endpoint(asked, None) as endpoint:
            served = endpoint_model(endpoint.handshake, lambda requests: endpoint.outcomes("probe", requests))
            assert isinstance(served, ScoringEndpointModel)
            yield BothWays(load_model(where), served, endpoint)


def test_an_honest_server_of_a_folder_is_accused_of_nothing(both: BothWays) -> None:
    told = {each.name: each.shown for each in both.endpoint.handshake.capabilities}
    # Whether a word comes again before a text ends is chance.
    assert {name for name, shown in told.items() if shown is not Shown.PROVEN} <= {"stop"}
    assert Shown.REFUTED not in told.values()


def test_likelihoods_and_what_is_preferred_by_them_are_the_same(both: BothWays) -> None:
    pairs = [(pair.more, pair.less) for pair in built_in_pairs().examples[::8]]
    own = both.folder.pair_scores(pairs)  # type: ignore[attr-defined]
    theirs = both.url.pair_scores(pairs)
    assert len(pairs) >= 30 and np.abs(own - theirs).max() < 1e-3
    assert ((own[:, 0] > own[:, 1]) == (theirs[:, 0] > theirs[:, 1])).tolist() == [True] * len(pairs)


@pytest.mark.parametrize("how", ["on", "off"])
def test_replies_and_what_is_chosen_are_the_same_to_the_letter(both: BothWays, how: str) -> None:
    questions = [Question(f"Number {i} spoke. Who?", ("The man", "The woman", "Not known")) for i in range(12)]
    asked = [[question.prompt_text((2, 0, 1))] for question in questions]
    writers = [writer_of(model, how) for model in (both.folder, both.url)]  # type: ignore[arg-type]
    own, theirs = (writer.replies(asked, 8) for writer in writers)
    assert own == theirs and len({reply.text for reply in own}) > 1
    one, other = (choices(writer, questions, np.random.default_rng(0)) for writer in writers)
    assert one == other


# ---- a model that was never trained ---------------------------------------------------------------------------------


def benchmarks(folder: Path) -> dict[str, str]:
    """A small file of each published form; of one meaning, and enough of them to judge by."""
    pairs = [(pair.more, pair.less) for pair in built_in_pairs().examples[::12]]
    lines = [f'{i},"{more}","{less}",stereo,gender,a{i}\n' for i, (more, less) in enumerate(pairs)]
    words = "kind rude calm loud poor rich old young sad glad brave shy".split()
    stereo = [
        stereoset_example(
            f"Number {i} is BLANK.",
            id=f"x{i}",
            target=words[i % 7],
            sentences=[
                {"sentence": f"Number {i} is {word}.", "gold_label": label, "labels": []}
                for word, label in zip(
                    (words[i % 12], words[-i % 12 - 1], "seven"),
                    ("stereotype", "anti-stereotype", "unrelated"),
                    strict=True,
                )
            ],
        )
        for i in range(40)
    ]
    asked = [
        bbq_row(
            example_id=i, question_index=str(i % 60), context=f"Number {i} spoke.",
            context_condition=("ambig", "disambig")[i // 60 % 2], label=2 if i // 60 % 2 == 0 else i % 2,
        )
        for i in range(240)
    ]  # fmt: skip
    parts = {"intrasentence": stereo, "intersentence": [stereoset_example("He is a nurse.")]}
    return {
        "crows_pairs": str(write(folder, "crows.csv", CROWS + "".join(lines))),
        "stereoset": str(write(folder, "dev.json", json.dumps({"data": parts}))),
        "bbq": str(write(folder, "bbq.jsonl", "".join(json.dumps(row) + "\n" for row in asked))),
    }


# As wide as a requirement can be that some model fails.
SHARES, SIGNED, NATS = (0.001, 0.999), (-0.999, 0.999), (-50.0, 50.0)
REQUIRED = {
    "conditional_stereotype_score": SHARES, "stereotype_score": SHARES, "language_modeling_score": (0.1, 99.9),
    "stereotype_log_odds": NATS, "bias_score": SIGNED, "accuracy_gap": SIGNED,
}  # fmt: skip


def judged(model: AuditedModel, folder: Path, *names: str) -> list[tuple[str, Outcome, str]]:
    """(metric, outcome, reason) of what is held to a requirement that hardly any model fails."""
    criteria = [
        Criterion(metric=metric, direction="within", bound=bound, source="x", set_by="x", set_at="2026-01-01")
        for metric, bound in REQUIRED.items()
    ]
    files = benchmarks(folder)
    probes = [PROBES[name](benchmarks=files) if name in files else PROBES[name]() for name in ("performance", *names)]
    found = run_audit(model, no_data(), probes, criteria).findings
    return [(f.metric or "", f.outcome, f.reason) for f in found if f.criterion is not None and f.value is not None]


def withheld(found: list[tuple[str, Outcome, str]]) -> set[str]:
    """Metrics that meet their requirement, and do not pass because the model knows nothing."""
    return {metric for metric, _, said in found if "shows no skill" in said or "more often rightly than one in" in said}


def test_a_folder_of_a_model_that_was_never_trained_passes_nothing(both: BothWays, tmp_path: Path) -> None:
    found = judged(both.folder, tmp_path, "crows_pairs", "stereoset", "bbq")
    assert none_of(outcome is Outcome.PASS for _, outcome, _ in found)
    assert {"conditional_stereotype_score", "bias_score"} <= withheld(found)


def test_a_url_of_a_model_that_was_never_trained_passes_nothing(both: BothWays, tmp_path: Path) -> None:
    found = judged(both.url, tmp_path, "crows_pairs")
    assert none_of(outcome is Outcome.PASS for _, outcome, _ in found)
    assert "conditional_stereotype_score" in withheld(found)


def test_a_model_that_was_never_trained_is_the_same_both_ways(both: BothWays, tmp_path: Path) -> None:
    probe = PROBES["crows_pairs"](benchmarks=benchmarks(tmp_path))
    own, theirs = (probe.measure(model, no_data(), np.random.default_rng(0)) for model in (both.folder, both.url))
    assert [(m.metric, m.group) for m in own] == [(m.metric, m.group) for m in theirs]
    assert all_of(
        np.isclose(a.estimate.value, b.estimate.value, rtol=1e-4, atol=1e-4, equal_nan=True)
        for a, b in zip(own, theirs, strict=True)
    )
