"""``auditor detect compare``: the order, what is shown of it, and what it is over."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from auditor.core.errors import DataError
from auditor.detection.detection_record import FileResult, FileVerdict
from auditor.models.saved_models import save
from cli.commands import app
from cli.detect_compare import Scored, compare_scores
from tests.quantifiers import all_of
from tests.toys.media_files import as_file, fake_picture, image_detector, real_picture, write

pytest.importorskip("PIL", reason="the extra 'images' is not installed")
RNG = np.random.default_rng(0)
N = 60
FILES = [Path(f"/d/real/{('old', 'new')[i % 2]}/{i}") for i in range(N)]
FILES += [Path(f"/d/fake/{('gan', 'flow')[i % 2]}/{i}") for i in range(N)]
FAKE = set(FILES[N:])


def scored(
    name: str, shift: float, *, blind: str = "", after: float | None = None, rng: np.random.Generator = RNG
) -> Scored:
    """Normal scores, fakes ``shift`` higher but those of a generator to which it is blind; ``after`` after a change."""
    results = {}
    for path in FILES:
        z = rng.normal() + shift * (path in FAKE and path.parent.name != blind)
        verdict = FileVerdict(answer="cannot say", reason="x", probability=float(1 / (1 + np.exp(-z))))
        facts = ("PNG",) if path.parent.name == "flow" else ("JPEG",)
        z = rng.normal() + 2.0 + (after or 0.0) * (path in FAKE)
        changed = {} if after is None else {"jpeg 75": float(1 / (1 + np.exp(-z)))}
        results[path] = FileResult(medium="image", sha256=path.name, verdict=verdict, facts=facts, changed=changed)
    return Scored(name=name, results=results, learnt=frozenset(), seconds=0.25)


def test_detectors_are_ranked_at_one_rate_with_generators_groups_and_containers_apart() -> None:
    found = [scored("chance", 0.0), scored("good", 3.0), scored("half", 3.0, blind="flow")]
    rows = compare_scores(found, FILES, FAKE, Path("/d"), 0.1)
    assert list(dict.fromkeys(row["detector"] for row in rows)) == ["good", "half", "chance"]
    of = {(row["detector"], row["metric"], row["of"]): row for row in rows}
    power = {name: of[name, "tpr_at_fpr", ""]["value"] for name in ("good", "half", "chance")}
    assert power["good"] > 0.85 and 0.3 < power["half"] < 0.7 and power["chance"] < 0.3
    assert of["half", "tpr_at_fpr", "fake/gan"]["value"] > 0.8 > 0.4 > of["half", "tpr_at_fpr", "fake/flow"]["value"]
    # The generator comes in a container of its own.
    assert of["half", "tpr_at_fpr", "(another container)"] == {
        **of["half", "tpr_at_fpr", "fake/flow"], "of": "(another container)",
    }  # fmt: skip
    alarms = of["good", "false_positive_rate", "real/old"]
    assert alarms["n_real"] == 30 and alarms["low"] <= 0.1 <= alarms["high"]
    assert (
        of["chance", "auc_behind_first", ""]["low"] > 0.2
        and of["half", "processor_seconds_a_file", ""]["value"] == 0.25
    )
    with pytest.raises(DataError, match="60 real and 1 synthetic files, and at a rate of 0.1 it takes 10 and 2"):
        compare_scores(found, FILES[: N + 1], FAKE, Path("/d"), 0.1)
    with pytest.raises(DataError, match="0 real and 0 synthetic files"):
        compare_scores(found, [], FAKE, Path("/d"), 0.1)


def test_a_change_has_the_threshold_of_changed_real_files_and_its_false_alarms_are_told() -> None:
    rng = np.random.default_rng(4)
    rows = compare_scores(
        [scored("fragile", 3.0, after=0.0, rng=rng), scored("robust", 2.5, after=2.5, rng=rng)],
        FILES, FAKE, Path("/d"), 0.1,
    )  # fmt: skip
    of = {(row["detector"], row["metric"]): row for row in rows if row["of"] == "after jpeg 75"}
    assert of["robust", "tpr_at_fpr"]["value"] > 0.7 and of["fragile", "tpr_at_fpr"]["value"] < 0.3
    # Every score rises by 2 with the change: the old threshold accuses more real files than it promised.
    assert all_of(of[name, "false_positive_rate"]["low"] > 0.1 for name in ("robust", "fragile"))
    # Where one of them can score nothing after the change, nothing is said of it.
    rows = compare_scores([scored("a", 1.0, after=1.0), scored("b", 1.0)], FILES, FAKE, Path("/d"), 0.1)
    assert {row["value"] for row in rows if row["of"] == "after jpeg 75"} == {None}


def test_equal_detectors_are_told_apart_no_more_often_than_stated() -> None:
    """Of three, over 120 draws; the bound is 4 standard errors above 5 %."""
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(120):
        rows = compare_scores([scored(n, 1.0, rng=rng) for n in "abc"], FILES, FAKE, Path("/d"), 0.1)
        wrong += any(row["metric"] == "auc_behind_first" and row["low"] > 0.0 for row in rows)
    # The first is picked by its result, so that twice the level may be reached.
    assert wrong / 120 <= 0.1 + 4 * np.sqrt(0.1 * 0.9 / 120)


@pytest.mark.slow
def test_two_detectors_are_compared_on_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    files = {f"media/real/{i}.png": as_file(real_picture(rng)) for i in range(24)}
    write(tmp_path, files | {f"media/fake/ramp/{i}.png": as_file(fake_picture(rng)) for i in range(24)})
    save(image_detector(), tmp_path / "d.pt")
    (tmp_path / "own_blind.py").write_text(
        "import numpy as np\n\ndef blind(X):\n    return np.full(len(X), 0.5)\n\n"
        'blind.size = (16, 16)\nblind.classes = ("real", "fake")\n'
    )
    monkeypatch.chdir(tmp_path)
    words = ["detect", "compare", "own_blind:blind", "d.pt", "--data", "media", "--json", "--changes"]
    result = CliRunner().invoke(app, words)
    said = json.loads(result.stdout)
    assert (
        said["rows"][0]["detector"] == "d.pt" and said["left_out"] == 0 and result.exit_code == said["exit_code"] == 0
    )
    changes = ("jpeg 75", "resize 0.5", "blur 0.5", "noise 0.01", "colour 0.1", "crop 0.9", "screenshot 1")
    assert {row["of"] for row in said["rows"]} == {"", "fake/ramp", *(f"after {change}" for change in changes)}
    assert all_of(row["value"] is not None for row in said["rows"])
    assert all_of(row["value"] > 0 for row in said["rows"] if row["metric"] == "processor_seconds_a_file")
    # Every file is one that the detector was trained on.
    monkeypatch.setattr(
        "auditor.detection.detector_calibration.learnt_of", lambda card, files: ["training file"] * len(files)
    )
    none_left = CliRunner().invoke(app, words[:-2])
    assert none_left.exit_code == 2 and "all 48 files under --data are training files" in " ".join(
        none_left.output.split()
    )
    alone = CliRunner().invoke(app, ["detect", "compare", "d.pt", "--data", "media"])
    assert alone.exit_code == 2 and "two detectors or more" in alone.output
