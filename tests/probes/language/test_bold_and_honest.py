"""BOLD and HONEST on toy files with toy models."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from auditor.core.errors import NotApplicableError
from auditor.data.benchmarks.sentence_files import read_bold
from auditor.judging.measurement import Outcome
from auditor.run.run_audit import no_data
from auditor.statistics.estimate import Undefined
from auditor.statistics.values import WorstValueGap
from probes.language.bold_and_honest import Bold, Honest, _bold_domain
from tests.probes.language.talkers import goodness, judged, talker
from tests.toys.labelled import calibrated

# ---- BOLD and HONEST -----------------------------------------------------------------------------------------------


def test_bold(tmp_path: Path) -> None:
    people = {"cats": "cat", "dogs": "dog"}
    path = tmp_path / "species_prompt.json"
    content = {group: {f"n{i}": [f"the {word} w{i}"] for i in range(20)} for group, word in people.items()}
    path.write_text(json.dumps(content))
    probe = Bold(benchmarks={"bold": str(path)}, scorer=goodness(), max_new_tokens=2, calibration=calibrated())
    found = probe.measure(talker("dog"), no_data(), np.random.default_rng(0))
    assert [m.metric for m in found] == [
        "group_score_gap", "mean_score", "mean_score", "flagged_rate", "corrected_rate", "corrected_rate_gap",
        *("flagged_rate", "corrected_rate") * 2,
    ]  # fmt: skip
    assert found[5].estimate.value == pytest.approx(1.0) and found[5].estimate.bounds(0.05)[0] > 0.4
    assert found[0].estimate.value == pytest.approx(1.0) and "species_prompt.json" in found[0].detail
    assert judged(found, "group_score_gap").outcome is Outcome.FAIL
    small = Bold(benchmarks={"bold": str(path)}, scorer=goodness(), n_prompts=5)
    assert small.measure(talker("dog"), no_data(), np.random.default_rng(0))[0].too_few
    with pytest.raises(NotApplicableError, match="--benchmark bold=PATH"):
        Bold().measure(talker(None), no_data(), np.random.default_rng(0))


def three_groups(folder: Path, sizes: dict[str, int]) -> str:
    """Groups named after the word in their prompts, each about so many things."""
    content = {word: {f"n{i}": [f"the {word} w{i}", f"a {word} w{i}"] for i in range(n)} for word, n in sizes.items()}
    (folder / "species_prompt.json").write_text(json.dumps(content))
    return str(folder / "species_prompt.json")


@pytest.mark.parametrize(
    ("spoken_of", "expected"), [("dog", Outcome.FAIL), (None, Outcome.INCONCLUSIVE), ("bird", Outcome.INCONCLUSIVE)]
)
@pytest.mark.parametrize("n_small", [1, 4])
def test_a_group_of_few_people_is_no_pass_and_hides_no_other(
    tmp_path: Path, n_small: int, spoken_of: str | None, expected: Outcome
) -> None:
    path = three_groups(tmp_path, {"cat": 30, "dog": 30, "bird": n_small})
    probe = Bold(benchmarks={"bold": path}, scorer=goodness(), max_new_tokens=2, calibration=calibrated())
    found = probe.measure(talker(spoken_of), no_data(), np.random.default_rng(0))
    assert found[0].estimate.value == pytest.approx(float(spoken_of == "dog"))
    assert (
        f"not compared, so that it cannot be shown to be small: prompts about few people or things ({n_small} of"
        in (found[0].detail)
    )
    assert found[0].estimate.bounds(0.05)[1] == 1.0
    assert judged(found, "group_score_gap").outcome is expected
    assert isinstance(found[3].estimate, Undefined) == (n_small == 1)
    of_two = three_groups(tmp_path, {"cat": 150, "dog": 150})
    without = Bold(benchmarks={"bold": of_two}, scorer=goodness(), n_prompts=150, calibration=calibrated())
    clean = without.measure(talker(None), no_data(), np.random.default_rng(0))
    assert judged(clean, "group_score_gap").outcome is Outcome.PASS


def test_groups_of_one_thing_each_have_no_gap(tmp_path: Path) -> None:
    probe = Bold(benchmarks={"bold": three_groups(tmp_path, {"cat": 30, "dog": 1})}, scorer=goodness())
    gap = probe.measure(talker(None), no_data(), np.random.default_rng(0))[0]
    assert isinstance(gap.estimate, Undefined) and "more than one person or thing" in gap.estimate.reason
    assert judged([gap], "group_score_gap").outcome is Outcome.INCONCLUSIVE


def test_every_domain_of_the_published_file_has_a_gap() -> None:
    data = os.environ.get("AUDITOR_TEST_DATA")
    if data is None or not (Path(data) / "bold").is_dir():
        pytest.skip("AUDITOR_TEST_DATA names no folder with bold/")
    # What is said is of no matter here, only who the prompts are about.
    prompts = read_bold(Path(data) / "bold").examples
    groups: dict[str, dict[str, dict[str, list[float]]]] = {}
    for i, p in enumerate(prompts):
        groups.setdefault(p.domain, {}).setdefault(p.group, {}).setdefault(p.name, []).append(i % 7 / 7)
    gaps = {domain: _bold_domain(domain, of, "", "")[0] for domain, of in groups.items()}
    assert len(gaps) == 5
    for gap in gaps.values():
        assert 0.0 <= gap.estimate.value <= 1.0 and not gap.too_few
    religion = gaps["religious_ideology"]
    assert "7 of 'hinduism', 4 of 'sikhism', 1 of 'atheism'" in religion.detail
    assert isinstance(religion.estimate, WorstValueGap) and religion.estimate.bounds(0.05)[1] == 1.0
    assert (len(religion.estimate.parts), religion.estimate.uncompared) == (4, 3)
    assert gaps["gender"].detail.count("not compared") == 0


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
    raw = judged(found, "honest_score")
    assert raw.outcome is Outcome.INCONCLUSIVE and "add --set honest.calibration=FILE" in raw.reason
    (tmp_path / "labelled.csv").write_text(
        "text,label\n" + "".join(f'"{w}, {i}",{int(w == "Bad")}\n' for i in range(80) for w in ("Bad", "kind"))
    )
    tried = Honest(benchmarks=given, lexicon=probe.lexicon, calibration=str(tmp_path / "labelled.csv"))
    found = tried.measure(talker("dog"), no_data(), np.random.default_rng(0))
    assert {m.group.get("category", ""): m.estimate.value for m in found[3:]} == {"": 0.5, "cats": 0.0, "dogs": 1.0}
    assert judged(found, "corrected_honest_score").outcome is Outcome.FAIL
    assert judged(found, "honest_score").outcome is Outcome.INCONCLUSIVE, "a rate as counted is never judged"
    clean = tried.measure(talker(None), no_data(), np.random.default_rng(0))
    assert judged(clean, "corrected_honest_score").outcome is Outcome.PASS


def test_what_is_left_of_a_category_or_a_domain_is_said(tmp_path: Path) -> None:
    rows = [f"the cat w{i} [M].\tcat\tcats\tt" for i in range(30)] + ["[M] is the dog w1.\tdog\tdogs\tt"]
    (tmp_path / "honest.tsv").write_text("\n".join(["template_masked\tidentity\tcategory\ttype", *rows]))
    (tmp_path / "words.txt").write_text("bad\n")
    probe = Honest(benchmarks={"honest": str(tmp_path / "honest.tsv")}, lexicon=str(tmp_path / "words.txt"))
    dogs = probe.measure(talker("dog"), no_data(), np.random.default_rng(0))[-1]
    assert dogs.group == {"category": "dogs"} and dogs.n_samples == 0 and isinstance(dogs.estimate, Undefined)
    assert "none of its templates that end in [M]" in dogs.estimate.reason
    (tmp_path / "one_prompt.json").write_text(json.dumps({"cats": {f"n{i}": [f"the cat w{i}"] for i in range(12)}}))
    probe_of_one = Bold(
        benchmarks={"bold": str(tmp_path / "one_prompt.json")},
        scorer=goodness(),
        max_new_tokens=2,
        calibration=calibrated(),
    )
    gap = probe_of_one.measure(talker(None), no_data(), np.random.default_rng(0))[0]
    assert isinstance(gap.estimate, Undefined) and "one group" in gap.estimate.reason
    assert judged([gap], "group_score_gap").outcome is Outcome.INCONCLUSIVE
