"""BOLD and HONEST on toy files with toy models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from auditor.errors import NotApplicableError
from auditor.finding import Outcome
from auditor.run import no_data
from auditor.statistics.estimate import Undefined
from probes.language.bold import Bold
from probes.language.honest import Honest
from tests.language.talkers import goodness, judged, talker

# ---- BOLD and HONEST -----------------------------------------------------------------------------------------------


def test_bold(tmp_path: Path) -> None:
    people = {"cats": "cat", "dogs": "dog"}
    path = tmp_path / "species_prompt.json"
    content = {group: {f"n{i}": [f"the {word} w{i}"] for i in range(20)} for group, word in people.items()}
    path.write_text(json.dumps(content))
    probe = Bold(benchmarks={"bold": str(path)}, scorer=goodness(), max_new_tokens=2)
    found = probe.measure(talker("dog"), no_data(), np.random.default_rng(0))
    assert [m.metric for m in found] == ["group_score_gap", "mean_score", "mean_score"]
    assert found[0].estimate.value == pytest.approx(1.0) and "species_prompt.json" in found[0].detail
    assert judged(found, "group_score_gap").outcome is Outcome.FAIL
    small = Bold(benchmarks={"bold": str(path)}, scorer=goodness(), n_prompts=5)
    assert small.measure(talker("dog"), no_data(), np.random.default_rng(0))[0].too_few
    with pytest.raises(NotApplicableError, match="--benchmark bold=PATH"):
        Bold().measure(talker(None), no_data(), np.random.default_rng(0))


def test_honest(tmp_path: Path) -> None:
    rows = [f"the {word} w{i} [M].\t{word}\t{word}s\tt" for i in range(30) for word in ("cat", "dog")]
    (tmp_path / "honest.tsv").write_text("\n".join(["template_masked\tidentity\tcategory\ttype", *rows]))
    (tmp_path / "words.tsv").write_text("id\tlemma\n1\tBad\n")
    given = {"honest": str(tmp_path / "honest.tsv")}
    with pytest.raises(NotApplicableError, match=r"60 HONEST templates were read.*honest\.lexicon"):
        Honest(benchmarks=given).measure(talker(None), no_data(), np.random.default_rng(0))
    probe = Honest(benchmarks=given, lexicon=str(tmp_path / "words.tsv"))
    found = probe.measure(talker("dog"), no_data(), np.random.default_rng(0))
    assert {m.group.get("category", ""): m.estimate.value for m in found} == {"": 0.5, "cats": 0.0, "dogs": 1.0}
    assert judged(found, "honest_score").outcome is Outcome.FAIL
    clean = probe.measure(talker(None), no_data(), np.random.default_rng(0))
    assert judged(clean, "honest_score").outcome is Outcome.PASS


def test_what_is_left_of_a_category_or_a_domain_is_said(tmp_path: Path) -> None:
    rows = [f"the cat w{i} [M].\tcat\tcats\tt" for i in range(30)] + ["[M] is the dog w1.\tdog\tdogs\tt"]
    (tmp_path / "honest.tsv").write_text("\n".join(["template_masked\tidentity\tcategory\ttype", *rows]))
    (tmp_path / "words.txt").write_text("bad\n")
    probe = Honest(benchmarks={"honest": str(tmp_path / "honest.tsv")}, lexicon=str(tmp_path / "words.txt"))
    dogs = probe.measure(talker("dog"), no_data(), np.random.default_rng(0))[-1]
    assert dogs.group == {"category": "dogs"} and dogs.n_samples == 0 and isinstance(dogs.estimate, Undefined)
    assert "none of its templates that end in [M]" in dogs.estimate.reason
    (tmp_path / "one_prompt.json").write_text(json.dumps({"cats": {f"n{i}": [f"the cat w{i}"] for i in range(12)}}))
    probe_of_one = Bold(benchmarks={"bold": str(tmp_path / "one_prompt.json")}, scorer=goodness(), max_new_tokens=2)
    gap = probe_of_one.measure(talker(None), no_data(), np.random.default_rng(0))[0]
    assert isinstance(gap.estimate, Undefined) and "one group" in gap.estimate.reason
    assert judged([gap], "group_score_gap").outcome is Outcome.INCONCLUSIVE
