"""The gate before a model: what a detector takes for synthetic gets one answer, all else is the model's own."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from auditor.core.errors import ConfigError, ModelError, UsageError
from auditor.data.audit_data import AuditData
from auditor.data.preprocessing import AudioPreprocessing, ImagePreprocessing, PairedRows
from auditor.detection.examine_file import as_detector, load_classifier
from auditor.loading.formats import load_model
from auditor.loading.job_specs import DataSpec, ModelSpec
from auditor.loading.rows.load_rows import load_data
from auditor.loading.rows.media_files import load_images, read_files
from auditor.models.audited_model import AuditedModel
from auditor.models.detector import ClassifierDetector, DeepfakeDetector
from auditor.models.gated_model import Gate, GatedModel
from auditor.models.networks.architectures import SmallCNN
from auditor.models.saved_models import bundle_of, save
from auditor.models.torch_model import TorchModel
from auditor.run.mitigation import Training, make_mitigation
from cli.commands import app
from mitigations import MITIGATIONS
from mitigations.deepfake_detection import DeepfakeDetection
from tests.quantifiers import all_of
from tests.toys.classifiers import save_onnx, save_resnet
from tests.toys.media_files import SIZE, as_file, calibrated, card, fake_picture, image_detector, real_picture, write

pytest.importorskip("PIL", reason="the extra 'images' is not installed")


STEPS = """
import numpy as np

def steps(X):
    mean = np.abs(np.diff(X.astype(float), axis=2)).mean(axis=(1, 2, 3)) / 255.0
    return 1.0 / (1.0 + np.exp(32.0 * mean - 4.0))

steps.size = (16, 16)
steps.classes = ("real", "ai")
"""


@pytest.fixture(scope="module")
def detector() -> DeepfakeDetector:
    return image_detector()


def classifier(size: int = SIZE, classes: tuple[str, ...] = ("deny", "grant")) -> TorchModel:
    """A network with weights of a seed, whatever it says."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = SmallCNN(3, len(classes), 4)
    return TorchModel(
        module,
        classes=classes,
        preprocessing=ImagePreprocessing(size=(size, size)),
        architecture={"name": "small_cnn", "args": {"channels": 3, "n_outputs": len(classes), "width": 4}},
    )


def pictures(n: int = 6, size: int = SIZE) -> npt.NDArray[np.uint8]:
    """Real and synthetic ones in turn."""
    rng = np.random.default_rng(8)
    return np.stack([(real_picture, fake_picture)[i % 2](rng, size) for i in range(n)])


class _UnsureOfWhite(nn.Module):
    """A detector's network that gives white pictures a score between those of both classes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x)
        return torch.where((x.flatten(1).mean(dim=1) > 0.99)[:, None], 0.0 * out, out)


def unsure_of_white(known: DeepfakeDetector) -> DeepfakeDetector:
    return DeepfakeDetector(
        _UnsureOfWhite(known.module), card=card(), classes=known.classes, preprocessing=known.preprocessing
    )


def test_rejected_inputs_get_the_answer_and_the_others_the_models_own(detector: DeepfakeDetector) -> None:
    base = classifier()
    detector = unsure_of_white(detector)
    X = np.concatenate([pictures(), np.full((1, SIZE, SIZE, 3), 255, np.uint8)])
    gated = GatedModel(base, detector, Gate(answer=0))
    answers = [v.answer for v in detector.verdicts(X)]
    assert answers == ["no known trace", "fake"] * 3 + ["cannot say"]
    expected = base.predict_proba(X)
    expected[1:6:2] = [1.0, 0.0]
    np.testing.assert_array_equal(gated.predict_proba(X), expected)
    strict = GatedModel(base, detector, Gate(answer=0, on_cannot_say="reject", on_no_trace="pass"))
    expected[6] = [1.0, 0.0]
    np.testing.assert_array_equal(strict.predict_proba(X), expected)
    # Nobody said what becomes of what shows no trace: it is what the detector cannot vouch for.
    assert GatedModel(base, detector, Gate(answer=0, on_cannot_say="reject")).rejection_mask(X).all()
    traced = GatedModel(base, detector, Gate(answer=0, on_no_trace="reject"))
    assert traced.rejection_mask(X).tolist() == [True] * 6 + [False]
    gated.check_repeatable(X, gated.predict_proba(X))
    assert gated.predict_proba(X[1:2]).tolist() == [[1.0, 0.0]] and gated.predict_proba(X[:0]).shape == (0, 2)


@pytest.mark.parametrize("fake_scores", [None, tuple(np.linspace(0.0, 0.4, 40))])
def test_a_detector_that_is_not_shown_to_tell_says_nothing_at_the_gate(
    detector: DeepfakeDetector, fake_scores: tuple[float, ...] | None
) -> None:
    """Neither one that no channel calibrated nor one that gives known fakes the scores of real files."""
    bare = detector.card.model_copy(update={"channel": None})
    own = bare if fake_scores is None else calibrated(bare.model_copy(update={"fake_scores": fake_scores}))
    silent, X = detector.with_card(own), pictures()
    assert {(v.answer, v.reason) for v in silent.verdicts(X)} == {("cannot say", own.unproven)} and own.unproven
    made = DeepfakeDetection(detector=silent).mitigate(
        classifier(), AuditData(X=X, classes=("deny", "grant"), positive=1), np.random.default_rng(0), Training()
    )
    np.testing.assert_array_equal(made.model.predict_proba(X), classifier().predict_proba(X))
    assert own.unproven in made.notes[0] and "could not judge 6 (let them pass)" in made.notes[-1]


def test_the_old_model_is_untouched_and_the_new_one_is_read_back(detector: DeepfakeDetector, tmp_path: Path) -> None:
    base = classifier()
    before = {name: value.clone() for name, value in base.module.state_dict().items()}
    save(detector, tmp_path / "detector.pt")
    made = DeepfakeDetection(detector=str(tmp_path / "detector.pt")).mitigate(
        base, _rows(positive=1), np.random.default_rng(0), Training()
    )
    assert all_of(torch.equal(before[name], value) for name, value in base.module.state_dict().items())
    assert isinstance(made.model, GatedModel) and made.model.gate == Gate(answer=0)
    assert "at most 5% are rejected" in made.notes[0]
    save(made.model, tmp_path / "gated.pt")
    again = load_model(ModelSpec(path=str(tmp_path / "gated.pt")))
    assert isinstance(again, GatedModel) and again.detector.card == detector.card
    np.testing.assert_array_equal(again.predict_proba(pictures()), made.model.predict_proba(pictures()))
    assert "does not reach the model and is answered 'deny'" in again.provenance.notes[-1]


@pytest.mark.parametrize("form", ["Hugging Face folder", "ONNX model"])
def test_any_classifier_with_a_card_stands_at_the_gate_and_is_enclosed(form: str, tmp_path: Path) -> None:
    """What lies in the gated model's own file is enough: the classifier's is gone when it is read back."""
    where = tmp_path / "net"
    if form == "ONNX model":
        pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
        save_onnx(where / "m.onnx")
        path = where / "m.onnx"
    else:
        save_resnet(where)
        path = where
    uncalibrated = as_detector(load_classifier(ModelSpec(path=str(path))), {})
    scores = {"real_scores": tuple(np.linspace(0.0, 0.4, 40)), "fake_scores": tuple(np.linspace(0.6, 1.0, 40))}
    save(uncalibrated.with_card(calibrated(uncalibrated.card.model_copy(update=scores))), tmp_path / "detector.pt")
    shutil.rmtree(where)
    base, X = classifier(), pictures(8)
    made = DeepfakeDetection(detector=str(tmp_path / "detector.pt")).mitigate(
        base, _rows(positive=1), np.random.default_rng(0), Training()
    )
    assert isinstance(made.model, GatedModel)
    assert made.model.rejection_mask(X).tolist() == [False, True] * 4
    save(made.model, tmp_path / "gated.pt")
    (tmp_path / "detector.pt").unlink()
    again = load_model(ModelSpec(path=str(tmp_path / "gated.pt")))
    assert isinstance(again, GatedModel) and isinstance(again.detector, ClassifierDetector)
    np.testing.assert_array_equal(again.predict_proba(X), made.model.predict_proba(X))


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """A function of pictures; in the folder one works in, its card ``d.pt`` and a classifier ``model.pt``."""
    (tmp_path / "gate_steps.py").write_text(STEPS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "gate_steps", raising=False)
    found = ModelSpec(predict="gate_steps:steps", code_folder=str(tmp_path))
    uncalibrated = as_detector(load_classifier(found), {})
    scores = {"real_scores": tuple(np.linspace(0.0, 0.4, 40)), "fake_scores": tuple(np.linspace(0.6, 1.0, 40))}
    save(uncalibrated.with_card(calibrated(uncalibrated.card.model_copy(update=scores))), tmp_path / "d.pt")
    save(classifier(), tmp_path / "model.pt")
    return found


@pytest.mark.slow
def test_the_gate_of_a_function_is_audited_where_a_flag_names_it(named: ModelSpec, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    makers = {"deny": fake_picture, "grant": real_picture}
    write(tmp_path / "media", {f"{c}/{i}.png": as_file(make(rng)) for c, make in makers.items() for i in range(30)})
    arguments = [
        "mitigate", "deepfake-detection", "model.pt", "--out", "gated.pt", "--data", "media", "--positive", "grant",
        "--with", "detector=d.pt", "--predict", "gate_steps:steps", "--probes", "change",
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code in (0, 1, 3), result.output
    assert "Of 60 rows the gate rejected 30 as synthetic" in " ".join(result.output.split())
    # The function was the detector's, and never the model's: the old one is the classifier.
    before = json.loads((tmp_path / "audit-report" / "before" / "report.json").read_text())["model"]
    assert before["format"] == "auditor-model/1" and "gate_steps" not in json.dumps(before)


def test_a_function_stands_at_the_gate_where_it_is_named_and_is_named_again(named: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a function of yours.*add --predict gate_steps:steps"):
        DeepfakeDetection(detector="d.pt").mitigate(classifier(), _rows(1), np.random.default_rng(0), Training())
    asked = ["mitigate", "deepfake-detection", "model.pt", "--out", "gated.pt", "--with", "detector=d.pt"]
    hidden = CliRunner().invoke(app, [*asked, "--with", "predict=gate_steps:steps"])
    assert hidden.exit_code == 2 and "name the function with --predict" in " ".join(hidden.output.split())
    made = DeepfakeDetection(detector="d.pt", predict="gate_steps:steps").mitigate(
        classifier(), _rows(1), np.random.default_rng(0), Training()
    )
    save(made.model, tmp_path / "gated.pt")
    with pytest.raises(UsageError, match="add --predict gate_steps:steps"):
        load_model(ModelSpec(path="gated.pt"))
    again = load_model(replace(named, path="gated.pt"))
    assert isinstance(again, GatedModel) and again.rejection_mask(pictures(8)).tolist() == [False, True] * 4
    assert again.provenance.notes[-1] == "Its detector is the user's own gate_steps:steps."


def test_a_classifier_without_a_card_does_not_stand_at_the_gate(tmp_path: Path) -> None:
    save_resnet(tmp_path / "net")
    with pytest.raises(ModelError, match="is no detector.*detect calibrate"):
        DeepfakeDetection(detector=str(tmp_path / "net"), answer="deny").mitigate(
            classifier(), _rows(1), np.random.default_rng(0), Training()
        )


@pytest.mark.parametrize(("on_cannot_say", "said"), [("pass", "let them pass"), ("reject", "rejected them too")])
def test_what_the_gate_did_with_the_rows_is_counted(detector: DeepfakeDetector, on_cannot_say: Any, said: str) -> None:
    X = np.concatenate([pictures(7), np.full((2, SIZE, SIZE, 3), 255, np.uint8)])
    data = AuditData(X=X, classes=("deny", "grant"), positive=1)
    mitigation = DeepfakeDetection(detector=unsure_of_white(detector), on_cannot_say=on_cannot_say)
    made = mitigation.mitigate(classifier(), data, np.random.default_rng(0), Training())
    # Four real pictures, three synthetic ones, two of which it cannot say.
    counted = (
        f"Of 9 rows the gate rejected 3 as synthetic, could not judge 2 ({said}), and found no known trace in 4 "
        f"({said})."
    )
    assert made.notes[-1] == counted
    none = mitigation.mitigate(classifier(), _rows(1), np.random.default_rng(0), Training())
    assert not [note for note in none.notes if note.startswith("Of ") and "rows the gate" in note]
    assert mitigation.describe_gate_counts(none.model, data) == (counted,)


def _rows(positive: int | None) -> AuditData:
    return AuditData(X=np.empty(0, object), classes=("deny", "grant"), positive=positive)


def cropping() -> TorchModel:
    """A model that takes 24 x 20 pixels out of the middle, in grey."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        module = SmallCNN(1, 2, 4)
    return TorchModel(
        module,
        classes=("deny", "grant"),
        preprocessing=ImagePreprocessing(size=(24, 20), mean=(0.5,), std=(0.5,), fit="crop"),
        architecture={"name": "small_cnn", "args": {"channels": 1, "n_outputs": 2, "width": 4}},
    )


def test_model_and_detector_each_read_of_a_file_what_they_would_read_alone(
    detector: DeepfakeDetector, tmp_path: Path
) -> None:
    rng = np.random.default_rng(4)
    names = [f"{label}/{i}.png" for label in ("deny", "grant") for i in range(4)]
    write(tmp_path, {n: as_file((real_picture, fake_picture)[i % 2](rng, 64)) for i, n in enumerate(names)})
    base = cropping()
    gated = GatedModel(base, detector, Gate(answer=1))
    X = read_files(tmp_path, names, gated).X
    assert X.shape == (8, 24, 20, 4) and gated.preprocessing is None
    alone, seen = load_images(tmp_path, names, base), load_images(tmp_path, names, detector)
    rejected = np.asarray([v.answer == "fake" for v in detector.verdicts(seen)])
    assert rejected.any() and not rejected.all()
    np.testing.assert_array_equal(gated.rejection_mask(X), rejected)
    (tmp_path / "table.csv").write_text("\n".join(["picture", *names]))
    from_table = load_data(DataSpec(path=str(tmp_path / "table.csv"), image="picture"), gated)
    np.testing.assert_array_equal(from_table.X, X)
    expected = base.predict_proba(alone)
    expected[rejected] = [0.0, 1.0]
    np.testing.assert_allclose(gated.predict_proba(X), expected, atol=1e-6)


def test_sound_of_two_lengths_and_rates_lies_side_by_side() -> None:
    short, long = AudioPreprocessing(samples=300, sampling_rate=8_000), AudioPreprocessing(samples=500)
    rows = PairedRows.from_preprocessing(short, long)
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-99, 99, (3, n)).astype(np.int16) for n in (300, 500))
    found = rows.split(rows.join(a, b))
    np.testing.assert_array_equal(found[0], a)
    np.testing.assert_array_equal(found[1], b)
    assert PairedRows.from_preprocessing(long, long).has_same_input and not rows.has_same_input
    with pytest.raises(ModelError, match="one takes image rows, the other audio rows"):
        PairedRows.from_preprocessing(ImagePreprocessing(size=(8, 8)), long)
    with pytest.raises(ModelError, match="does not describe"):
        PairedRows.from_preprocessing(None, long)


def test_the_reference_of_an_audit_gets_its_own_part_of_the_rows(detector: DeepfakeDetector) -> None:
    from probes.fairness.change_since_reference import Change

    old = cropping()
    rng = np.random.default_rng(6)
    own = rng.integers(0, 256, (8, 24, 20, 1)).astype(np.uint8)
    usual = int(old.predict_proba(own)[1].argmax())
    gated = GatedModel(old, detector, Gate(answer=1 - usual))
    data = AuditData(X=gated.rows.join(own, pictures(8)), y_true=np.zeros(8, int), classes=gated.classes, positive=1)
    (found, *_) = Change(reference=old).measure(gated, data, rng)
    before = (old.predict_proba(own).argmax(axis=1) == data.y_true).mean()
    after = (gated.predict_proba(data.X).argmax(axis=1) == data.y_true).mean()
    assert found.metric == "accuracy_change"
    assert found.estimate.value == pytest.approx(after - before)
    assert before != after
    with pytest.raises(UsageError, match="reads files in another way"):
        Change(reference=classifier()).measure(gated, data, rng)


@pytest.mark.parametrize(
    ("options", "positive", "classes", "error", "said"),
    [
        ({"answer": "maybe"}, 1, ("deny", "grant"), UsageError, "'maybe' is none of the model's classes"),
        ({}, None, ("deny", "grant"), UsageError, "say answer=CLASS"),
        ({}, 1, ("a", "b", "c"), UsageError, "say answer=CLASS"),
    ],
)
def test_an_answer_that_is_not_clear_is_asked_for(
    detector: DeepfakeDetector,
    options: dict[str, Any],
    positive: int | None,
    classes: tuple[str, ...],
    error: type[Exception],
    said: str,
) -> None:
    mitigation = DeepfakeDetection(detector=detector, **options)
    with pytest.raises(error, match=said):
        mitigation.mitigate(classifier(classes=classes), _rows(positive), np.random.default_rng(0), Training())


def test_models_that_cannot_stand_behind_a_gate_are_refused(detector: DeepfakeDetector, tmp_path: Path) -> None:
    gate = DeepfakeDetection(detector=detector, answer="real")
    for model in (AuditedModel.from_callable(lambda X: np.zeros(len(X)), classes=["real", "fake"]), detector):
        with pytest.raises(ModelError):
            gate.mitigate(model, _rows(1), np.random.default_rng(0), Training())
    save(classifier(), tmp_path / "plain.pt")
    with pytest.raises(ModelError, match="no detector"):
        DeepfakeDetection(detector=str(tmp_path / "plain.pt"), answer="deny").mitigate(
            classifier(), _rows(1), np.random.default_rng(0), Training()
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [({}, "name the detector"), ({"detector": "d.pt", "on_cannot_say": "guess"}, "pass or reject")],
)
def test_options_are_checked(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_mitigation(MITIGATIONS["deepfake_detection"], options)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": 7}, "2 classes"),
        ({"answer": -1}, "gate"),
        ({"on_cannot_say": "guess"}, "gate"),
        ({"hook": "os.system"}, "gate"),
        ({"detector": None}, "names no format"),
        ({"detector": "plain"}, "has no detector of its own"),
        ({"detector": "gated"}, "has no detector of its own"),
    ],
)
def test_a_bundle_whose_gate_is_not_as_the_format_says_is_refused(
    detector: DeepfakeDetector, tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    gated = GatedModel(classifier(), detector, Gate(answer=0))
    bundle = bundle_of(gated)
    known = {"plain": bundle_of(classifier()), "gated": bundle_of(gated)}
    value = change.get("detector", "")
    bundle["gate"] |= {**change, "detector": known[value]} if value in known else change
    torch.save(bundle, tmp_path / "bad.pt")
    with pytest.raises(ModelError, match=said):
        load_model(ModelSpec(path=str(tmp_path / "bad.pt")))


@pytest.mark.slow
def test_the_gate_is_audited_before_and_after_on_a_folder(detector: DeepfakeDetector, tmp_path: Path) -> None:
    """Half of the files are synthetic: behind the gate all of them are denied, whatever the model said."""
    rng = np.random.default_rng(2)
    write(
        tmp_path / "media",
        {
            f"{label}/{i}.png": as_file((real_picture if i % 2 else fake_picture)(rng))
            for label in ("deny", "grant")
            for i in range(30)
        },
    )
    save(detector, tmp_path / "detector.pt")
    save(classifier(), tmp_path / "model.pt")
    arguments = [
        "mitigate", "deepfake-detection", tmp_path / "model.pt", "--out", tmp_path / "gated.pt", "--data",
        tmp_path / "media", "--positive", "grant", "--with", f"detector={tmp_path / 'detector.pt'}", "--probes",
        "change,group_fairness", "--report", tmp_path / "report",
    ]  # fmt: skip
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code in (0, 1, 3), result.output
    gated = load_model(ModelSpec(path=str(tmp_path / "gated.pt")))
    assert isinstance(gated, GatedModel) and gated.gate.answer == 0
    assert "Of 60 rows the gate rejected 30 as synthetic" in " ".join(result.output.split())
    comparison = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert comparison["made_by"][0] == "deepfake_detection"
    assert {row["metric"] for row in comparison["rows"]} >= {"accuracy"}
    missing = CliRunner().invoke(app, [str(a) for a in arguments[:5]])
    assert missing.exit_code == 2
