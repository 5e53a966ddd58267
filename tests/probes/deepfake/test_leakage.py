"""Copies between training and evaluation, against a loop over pairs; what counts as a copy, and what does not."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auditor.core.errors import DataError, NotApplicableError
from auditor.data.audit_data import AuditData
from auditor.detection.fingerprints import fingerprints_of
from auditor.judging.criterion import load_criteria
from auditor.judging.judgement import Judgement
from auditor.judging.judging import judge
from auditor.judging.measurement import Measurement, Outcome, ProbeResult
from auditor.loading.rows.media_files import load_images
from auditor.models.detector import DeepfakeDetector
from probes.deepfake.source_leakage import NEAR, SourceLeakage, digests, fingerprints, twins
from tests.toys import detectors as toys
from tests.toys.media_files import as_file, card, image_detector, write


def measure(data: AuditData, **options: Any) -> dict[str, Measurement]:
    found = SourceLeakage(**options).measure(toys.of_halves(), data, np.random.default_rng(0))
    return {m.metric: m for m in found}


def judged(data: AuditData) -> dict[str, Judgement]:
    result = ProbeResult(
        probe="source_leakage", pillar="deepfake", citation="", measurements=tuple(measure(data).values())
    )
    return {f.measurement.metric: f for f in judge([result], load_criteria())[0] if f.measurement is not None}


def test_exact_copies_are_counted_and_named() -> None:
    data = toys.copied(40, 0.25)
    found = measure(data)
    assert found["exact_duplicate_share"].estimate.value == found["near_duplicate_share"].estimate.value == 0.25
    assert found["exact_duplicate_share"].detail.startswith("10 of 40 files; for example row 0 = row 0 in training")
    assert judged(data)["near_duplicate_share"].outcome is Outcome.FAIL
    assert judged(toys.distinct(40))["near_duplicate_share"].outcome is Outcome.PASS


def _on_files(data: AuditData, where: Path) -> AuditData:
    files = [where / f"{i}.bin" for i in range(len(data))]
    for i, file in enumerate(files):
        file.write_bytes(np.asarray(data.X)[i].tobytes())
    return replace(data, files=np.asarray(list(map(str, files)), object))


@pytest.mark.grid
@pytest.mark.parametrize("train", ["none", "another folder"])
def test_a_detector_graded_on_its_own_training_files_does_not_pass(train: str, tmp_path: Path) -> None:
    """Whoever scans a detector need not know, or say, what it was trained on: its card does."""
    data = _on_files(toys.distinct(40), tmp_path)
    data = data.evaluation if train == "none" else data
    rows = data.evaluation
    assert rows.files is not None
    known = [hashlib.sha256(Path(str(file)).read_bytes()).hexdigest()[:16] for file in rows.files]
    for n, outcome in ((len(known), Outcome.FAIL), (0, Outcome.PASS)):
        detector = DeepfakeDetector.around(toys.of_halves(), card(trained_on=tuple(known[:n])))
        found = SourceLeakage().measure(detector, data, np.random.default_rng(0))
        result = ProbeResult(probe="source_leakage", pillar="deepfake", citation="", measurements=tuple(found))
        by_metric = {f.measurement.metric: f for f in judge([result], load_criteria())[0] if f.measurement is not None}
        near = by_metric["near_duplicate_share"]
        assert near.outcome is (Outcome.NOT_APPLICABLE if (train, n) == ("none", 0) else outcome)
        if n:
            assert near.measurement is not None and "by the detector's own card" in near.measurement.detail


def test_training_files_saved_again_are_near_copies_by_the_detectors_own_card(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="the extra 'images' is not installed")
    rng = np.random.default_rng(5)
    shapes = [np.kron(rng.integers(0, 256, (6, 6, 3)), np.ones((12, 12, 1))).astype(np.uint8) for _ in range(24)]
    names = [f"{i}.jpg" for i in range(24)]
    write(tmp_path, {name: as_file(shape, "JPEG", quality=60) for name, shape in zip(names, shapes, strict=True)})
    prints = tuple(fingerprints_of(as_file(shape), "", "image")[0] for shape in shapes[:12])
    detector = image_detector().with_card(card(trained_on=("0" * 16,), fingerprints=prints))
    labels = ["real", "fake"] * 12
    X = load_images(tmp_path, names, detector)
    data = AuditData.from_arrays(X, labels, classes=("real", "fake"))
    data = replace(data, files=np.asarray([str(tmp_path / name) for name in names], object))
    found = {m.metric: m for m in SourceLeakage().measure(detector, data, np.random.default_rng(0))}
    assert found["near_duplicate_share"].estimate.value == 0.5
    assert found["exact_duplicate_share"].estimate.value == 0.0


def test_a_compressed_copy_is_near_and_not_exact() -> None:
    PIL = pytest.importorskip("PIL.Image", reason="the extra `images` is not installed")
    from probes.deepfake.degradations import changed_picture

    data = toys.distinct(20)
    X = np.asarray(data.X).copy()
    for i, (name, level) in enumerate([("jpeg", 60), ("noise", 0.02), ("resize", 0.75), ("blur", 0.5)]):
        picture = changed_picture(PIL.fromarray(X[i]), name, level, np.random.default_rng(0))
        X[20 + i] = np.asarray(picture)
    found = measure(replace(data, X=X))
    assert found["exact_duplicate_share"].estimate.value == 0.0
    assert found["near_duplicate_share"].estimate.value == 4 / 20


def test_a_copy_of_the_other_class_is_no_leak_of_the_answer_and_contradicts_it() -> None:
    data = toys.distinct(20)
    X = np.asarray(data.X).copy()
    # An evaluation file labelled real, in training as synthetic; and one that is in both classes of the evaluation.
    X[21], X[2], X[3] = X[0], X[4], X[4]
    found = measure(replace(data, X=X))
    assert found["exact_duplicate_share"].estimate.value == 1 / 20
    assert found["contradictory_share"].estimate.value == 4 / 20
    slightly = X.copy()
    slightly[21, 0, 0, 0] ^= 1
    found = measure(replace(data, X=slightly))
    assert found["near_duplicate_share"].estimate.value == 0.0
    assert found["other_class_duplicate_share"].estimate.value == 1 / 20


def test_fakes_made_from_real_training_files_do_not_pass() -> None:
    """30 of 100 evaluation files are synthetic versions, compressed and retouched, of real files of the training."""
    data = toys.distinct(100)
    X = np.asarray(data.X).copy()
    assert data.y_true is not None
    fakes = np.flatnonzero(data.y_true[:100] == 1)[:30]
    sources = 100 + np.flatnonzero(data.y_true[100:] == 0)[:30]
    X[fakes] = X[sources]
    X[fakes, 4:8, 4:8] ^= 31
    found = judged(replace(data, X=X))
    assert found["near_duplicate_share"].outcome is Outcome.PASS
    assert found["other_class_duplicate_share"].outcome is Outcome.FAIL
    assert found["other_class_duplicate_share"].measurement.estimate.value == 0.30  # type: ignore[union-attr]
    assert judged(data)["other_class_duplicate_share"].outcome is Outcome.PASS


def scenes(n: int, rng: np.random.Generator) -> Any:
    """(n, 64, 64, 3) pictures of ever finer blots, as photographs have, no two alike."""
    X = np.zeros((n, 64, 64, 3))
    for k in (2, 4, 8, 16):
        X += rng.normal(0.0, 40.0, (n, k, k, 3)).repeat(64 // k, axis=1).repeat(64 // k, axis=2)
    return np.clip(np.rint(120.0 + X), 0, 255).astype(np.uint8)


def test_flipped_copies_are_found_and_other_pictures_are_not() -> None:
    X = scenes(40, np.random.default_rng(0))
    X[0] = X[20][:, ::-1]
    # A crop is said to be none that is recognised.
    X[1] = np.asarray(X[21][8:56, 8:56]).repeat(4, axis=0).repeat(4, axis=1)[::3, ::3]
    X[5] = X[24][:, ::-1]
    classes = ["real", "fake"] * 20
    data = AuditData.from_arrays(X, classes, classes=toys.CLASSES, is_member=np.arange(40) >= 20)
    found = SourceLeakage().measure(toys.of_halves(), data, np.random.default_rng(0))
    shares = {m.metric: m for m in found}
    assert shares["exact_duplicate_share"].estimate.value == 0.0
    assert shares["near_duplicate_share"].estimate.value == 1 / 20
    assert "1 of them mirrored" in shares["near_duplicate_share"].detail
    # The fake 5 of the evaluation is the real 24 of the training.
    assert shares["other_class_duplicate_share"].estimate.value == 1 / 20


def test_without_training_files_the_rest_is_measured_and_the_flag_named() -> None:
    data = toys.pictures(10)
    findings = judged(data)
    assert findings["near_duplicate_share"].outcome is Outcome.NOT_APPLICABLE
    assert "--train" in findings["near_duplicate_share"].reason
    assert findings["contradictory_share"].outcome is Outcome.PASS


def test_shared_identities_are_counted_over_the_files_that_have_one() -> None:
    data = toys.distinct(6)
    who: list[object] = ["ann", "ann", "bob", None, "cay", "dan", "ann", "eve", "eve", "bob", "eve", "eve"]
    data = AuditData.from_arrays(
        np.asarray(data.X), ["real", "fake"] * 6, classes=toys.CLASSES, is_member=data.is_member,
        sensitive_features={"speaker": who},
    )  # fmt: skip
    shared = measure(data, identity="speaker")["shared_identity_share"]
    assert shared.estimate.value == 3 / 5 and shared.n_samples == 5 and "2 shared: ann, bob" in shared.detail
    with pytest.raises(NotApplicableError, match="--sensitive source"):
        measure(data, identity="source")


def test_without_a_column_or_an_embedder_the_report_says_that_identities_were_not_compared() -> None:
    assert "identities were not compared" in measure(toys.distinct(6))["near_duplicate_share"].detail


def people(n: int, rng: np.random.Generator) -> tuple[Any, list[int]]:
    """(n, 16, 16, 3) pictures of noise in which a person is a colour, and who it is; every person twice."""
    who = [i // 2 for i in range(n)]
    colours = rng.normal(0.0, 60.0, (n, 3))[who]
    return np.clip(128 + colours[:, None, None] + rng.normal(0, 4, (n, 16, 16, 3)), 0, 255).astype(np.uint8), who


@pytest.mark.parametrize("onnx", [False, True])
def test_people_in_training_and_evaluation_are_found_by_an_embedder(onnx: bool, tmp_path: Any) -> None:
    embedder, least = "tests.probes.deepfake.test_leakage:colours", 0.999
    if onnx:
        pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
        from tests.loading.test_detector_encoders import colour_means

        (tmp_path / "encoder.onnx").write_bytes(colour_means())
        embedder, least = str(tmp_path / "encoder.onnx"), 0.99
    X, _ = people(40, np.random.default_rng(1))
    # Person 0 is in both; else the first 20 pictures are of other people than the last.
    X[39] = X[1]
    X[39, 0, 0] ^= 1
    data = AuditData.from_arrays(X, ["real", "fake"] * 20, classes=toys.CLASSES, is_member=np.arange(40) >= 20)
    found = measure(data, embedder=embedder, same_identity=least)["alike_identity_share"]
    vectors = colours(X) if not onnx else colours(X, centre=False)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = ((vectors[:20] @ vectors[20:].T).max(axis=1) >= least).mean()
    assert 0.1 <= expected < 0.6
    if not onnx:
        assert found.estimate.value == expected and "recognises 100% of training files mirrored" in found.detail
        with pytest.raises(NotApplicableError, match="same_identity"):
            measure(data, embedder=embedder)
    else:
        assert found.n_samples == 20


def test_an_embedder_that_tells_nobody_apart_or_knows_nobody_again_is_no_evidence() -> None:
    X, _ = people(40, np.random.default_rng(0))
    data = AuditData.from_arrays(X, ["real", "fake"] * 20, classes=toys.CLASSES, is_member=np.arange(40) >= 20)
    here = "tests.probes.deepfake.test_leakage"
    same = measure(data, embedder=f"{here}:everybody", same_identity=0.5)["alike_identity_share"]
    assert np.isnan(same.estimate.value) and "takes 100% of all pairs" in str(same.estimate)
    random = measure(data, embedder=f"{here}:anybody", same_identity=0.9)["alike_identity_share"]
    assert random.estimate.value == 0.0 and "recognises 0% of training files" in random.weak
    # What mirroring leaves alone to the last digit says nothing of a person: here the sum of all pixels.
    summed = measure(data, embedder=f"{here}:sums", same_identity=0.9)["alike_identity_share"]
    assert summed.estimate.value == 0.0 and "recognises 0% of training files" in summed.weak
    with pytest.raises(DataError, match="one vector of finite numbers each"):
        measure(data, embedder=f"{here}:nobody", same_identity=0.9)


def colours(rows: Any, centre: bool = True) -> Any:
    """The mean colour, from the middle grey: whose picture it is."""
    return np.asarray(rows, float).mean(axis=(1, 2)) - 128.0 * centre


def everybody(rows: Any) -> Any:
    return np.ones((len(rows), 4))


def anybody(rows: Any) -> Any:
    seeds = [int.from_bytes(hashlib.sha256(np.ascontiguousarray(row).tobytes()).digest()[:4], "big") for row in rows]
    return np.stack([np.random.default_rng(seed).standard_normal(64) for seed in seeds])


def sums(rows: Any) -> Any:
    totals = np.asarray(rows, np.int64).sum(axis=(1, 2, 3)).tolist()
    return np.stack([np.random.default_rng(total).standard_normal(64) for total in totals])


def nobody(rows: Any) -> Any:
    return np.full((len(rows), 4), np.nan)


def test_twins_against_a_loop_over_pairs() -> None:
    data = toys.copied(12, 0.3)
    X = np.asarray(data.X)
    own, others = X[:12], X[12:]
    values, vectors = digests(own), fingerprints(own)
    assert values[3] == hashlib.sha256(own[3].tobytes()).hexdigest()
    found = twins((values, vectors), (digests(others), fingerprints(others)), least=0.99)

    def coarse(x: Any) -> Any:
        grey = x.astype(float).mean(axis=2)
        # 32 pixels to 24: cell k averages the pixels that it touches.
        edges = [(k * 32 // 24, -(-(k + 1) * 32 // 24)) for k in range(24)]
        return np.array([[grey[a:b, c:d].mean() for c, d in edges] for a, b in edges]).ravel()

    small = [coarse(y) for y in others]
    for i in range(12):
        same = [j for j in range(12) if (own[i] == others[j]).all()]
        assert found.exact[i] == (same[0] if same else -1)
        alike = [np.corrcoef(coarse(own[i]), y)[0, 1] for y in small]
        assert (found.near[i] >= 0) == (max(alike) >= 0.99)


def test_pictures_without_anything_to_see_are_nobodys_near_copy() -> None:
    grey = np.full((3, 16, 16, 3), 90, np.uint8)
    grey[1] += 1
    one, two, three = ((digests(x), fingerprints(x)) for x in (grey[:1], grey[1:2], grey[1:]))
    assert twins(one, three, least=0.99).exact.tolist() == [1]
    assert twins(one, two, least=0.99).near.tolist() == [-1]


def test_sound_is_recognised_after_a_codec_and_other_sound_is_not() -> None:
    pytest.importorskip("av", reason="the extra `media` is not installed")
    from probes.deepfake.degradations import changed_sound

    rng = np.random.default_rng(0)
    sounds = []
    for _ in range(6):
        # Up to 5 kHz, as speech is: what an encoder cuts off above is not there.
        loud = rng.uniform(0.1, 1.0, (8, 5)).repeat(125, axis=1)
        noise = rng.standard_normal((8, 1_001)) + 1j * rng.standard_normal((8, 1_001))
        stretches = np.fft.irfft(noise * np.pad(loud, ((0, 0), (0, 376))), n=2_000, axis=1)
        sounds.append(np.rint(3_000 * stretches / stretches.std()).clip(-32768, 32767).astype(np.int16).ravel())
    X = np.stack(sounds)
    copies = np.stack([changed_sound(x, 16_000, "mp3", 64, rng) for x in X])
    own, others = (digests(X), fingerprints(X)), (digests(copies), fingerprints(copies))
    assert twins(own, others, least=NEAR["audio"]).near.tolist() == list(range(6))
    assert (twins(own, others, least=NEAR["audio"]).exact == -1).all()
    apart = twins(own, own, least=NEAR["audio"], eligible=~np.eye(6, dtype=bool))
    assert (apart.near == -1).all()


def test_real_speech_is_told_apart_however_short_the_words() -> None:
    """Spoken digits between pauses, in two languages, are no copies of each other; the same after a codec are."""
    import os
    from pathlib import Path

    folder = os.environ.get("AUDITOR_TEST_DATA")
    if not folder or not (Path(folder) / "audio_real_fake").is_dir():
        pytest.skip("AUDITOR_TEST_DATA has no audio_real_fake")
    pytest.importorskip("av", reason="the extra `media` is not installed")
    from auditor.data.audio import decode, fit_recording
    from auditor.data.preprocessing import AudioPreprocessing
    from probes.deepfake.degradations import changed_sound

    names = sorted((Path(folder) / "audio_real_fake" / "real").glob("*.wav"))
    X = np.stack([fit_recording(decode(path.read_bytes(), path.name), AudioPreprocessing()) for path in names])
    vectors = fingerprints(X)
    assert (vectors @ vectors.T - 2.0 * np.eye(len(X))).max() < 0.25
    few = X[::15]
    for codec, kilobits in (("mp3", 32), ("opus", 24)):
        copies = np.stack([changed_sound(x, 16_000, codec, kilobits, np.random.default_rng(0)) for x in few])
        assert np.einsum("nd,nd->n", fingerprints(few), fingerprints(copies)).min() > 0.8


def test_real_photographs_are_not_taken_for_copies_of_each_other_and_compressed_ones_are() -> None:
    import os
    from pathlib import Path

    folder = os.environ.get("AUDITOR_TEST_DATA")
    if not folder or not (Path(folder) / "real_vs_ai_images_559").is_dir():
        pytest.skip("AUDITOR_TEST_DATA has no real_vs_ai_images_559")
    PIL = pytest.importorskip("PIL.Image", reason="the extra `images` is not installed")
    from probes.deepfake.degradations import changed_picture

    X, copies = [], []
    for path in sorted((Path(folder) / "real_vs_ai_images_559").glob("*/*.jpg"))[::2]:
        with PIL.open(path) as opened:
            picture = opened.convert("RGB").resize((160, 160))
        X.append(np.asarray(picture))
        copies.append(np.asarray(changed_picture(picture, "jpeg", 45, np.random.default_rng(0))))
    vectors = fingerprints(np.stack(X))
    alike = vectors @ fingerprints(np.stack(copies)).T
    assert np.diag(alike).min() > NEAR["image"]
    assert (alike - 2.0 * np.eye(len(alike))).max() < 0.95
