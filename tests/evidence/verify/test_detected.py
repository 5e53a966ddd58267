"""Evidence of what a detector said: answers follow from scores, limits and calibration, whoever has the key."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from auditor.detection.detection_record import DetectorRecord, FileResult, FileVerdict
from auditor.detection.detector_calibration import judged_by_all, judged_together
from auditor.detection.examine_file import silenced
from auditor.detection.video_verdict import judge_frames
from auditor.evidence.container import unpack
from auditor.evidence.derived_evidence import write_derived
from auditor.evidence.detection_evidence import (
    DETECTOR,
    SECOND,
    AskedDetector,
    detection_content,
    detection_evidence,
    exit_code_of,
)
from auditor.evidence.signing import load_private_key, load_public_key, make_key
from auditor.evidence.verify.checks import Verified
from auditor.evidence.verify.dispatch import verify_evidence
from auditor.models.detector_card import ChannelCalibration, DetectorCard, answer_of
from cli.verify import stored_probe
from tests.evidence.derived import forged

Bend = Callable[[dict[str, Any]], object]
RNG = np.random.default_rng(2)
CARD = DetectorCard(
    medium="image",
    fake=1,
    real_scores=tuple(np.sort(RNG.uniform(0.0, 0.4, 60)).tolist()),
    fake_scores=tuple(np.sort(RNG.uniform(0.5, 1.0, 60)).tolist()),
    channel=ChannelCalibration(n_fake=60, n_found=60),
)
OWN, OTHER = ("PNG", "8 x 8"), ("JPEG", "9 x 9")
ON_CHANNEL = CARD.model_copy(update={"channel": ChannelCalibration(facts=(OWN,) * 60, n_fake=60, n_found=60)})
ON_FILMS = CARD.model_copy(update={"channel": ChannelCalibration(unit="video", n_fake=60, n_found=60)})


FILM = [0.9, 0.95, 0.8, 0.99, 0.97, 0.96]


def verdict(score: float, card: DetectorCard = CARD) -> FileVerdict:
    answer, reason = answer_of(card, *card.p_values(score))
    p_real, p_fake = card.p_values(score)
    return FileVerdict(answer=answer, reason=reason, probability=score, p_real=p_real, p_fake=p_fake)


def video(scores: list[float], card: DetectorCard = CARD) -> FileVerdict:
    return judge_frames(card, np.asarray(scores), np.arange(len(scores)) / 1.0)


def found(medium: Any, said: FileVerdict | None = None, **more: Any) -> FileResult:
    return FileResult(medium=medium, form="PNG", size_bytes=9, sha256="a" * 64, verdict=said, **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detected")
    make_key(folder / "k")
    known = DetectorRecord.from_card(("real", "fake"), CARD, "b" * 64, with_calibration=True)
    results = [
        ("fake.png", found("image", verdict(0.9))),
        ("real.png", found("image", verdict(0.1))),
        ("open.png", found("image", verdict(0.45))),
        ("film.mp4", found("video", silenced(video(FILM), CARD, ()))),
        (
            "song.wav",
            found(
                "audio",
                FileVerdict(
                    answer="cannot say",
                    reason="Unsupported: the detector is for images and video, and this is audio.",
                ),
            ),
        ),
        ("none.png", FileResult(error="It is an empty file.")),
    ]
    sure = verdict(0.9, ON_CHANNEL)
    both = [found("image", silenced(sure, ON_CHANNEL, facts), facts=facts) for facts in (OWN, OTHER) for _ in range(10)]
    on_films, on_channel = (
        DetectorRecord.from_card(("real", "fake"), card, "b" * 64) for card in (ON_FILMS, ON_CHANNEL)
    )
    for name, detector, kept in (
        ("some", known, results),
        ("all", known, results[:1]),
        ("film", on_films, [("f", found("video", video(FILM)))]),
        ("channel", on_channel, [(f"{i}", result) for i, result in enumerate(both)]),
        ("no", None, [("x", found("image"))]),
    ):
        judged, selected = judged_together(detector.card if detector else None, [result for _, result in kept])
        kept = list(zip([path for path, _ in kept], judged, strict=True))
        code = exit_code_of([result for _, result in kept])
        asked = [] if detector is None else [AskedDetector(path="d.pt", known=detector, batch=selected, prevalence=0.2)]
        record = detection_content(asked, kept, code)
        made = detection_evidence(record, asked, request={"known_real": False})
        write_derived(folder / f"{name}.zip", made, key=load_private_key(folder / "k"))
    return folder


def checked(path: Path, folder: Path) -> Verified:
    return verify_evidence(path, stored_probe, trusted=[load_public_key(folder / "k.pub")])


def wrong(found: Verified) -> dict[str, str]:
    return {check.name: check.detail for check in found.checks if check.state == "wrong"}


@pytest.mark.parametrize("name", ["some", "all", "film", "no", "channel"])
def test_what_a_detector_said_is_made_anew(folder: Path, name: str) -> None:
    seen = checked(folder / f"{name}.zip", folder)
    assert wrong(seen) == {} and seen.exit_code() == 0
    assert any("files.verdict.probability" in each.where for each in seen.plain_statements)
    record = json.loads(unpack((folder / f"{name}.zip").read_bytes(), name)["record.json"])
    answers = [file["verdict"] and file["verdict"]["answer"] for file in record["files"]]
    expected = ["fake", "no known trace", "cannot say", "cannot say", "cannot say", None]
    on_channel = ["fake"] * 10 + ["cannot say"] * 10
    assert answers == {"some": expected, "all": ["fake"], "film": ["fake"], "no": [None], "channel": on_channel}[name]
    assert record["exit_code"] == (0 if name in ("all", "film") else 3)
    if name == "channel":
        assert record["batch"] == {"n": 10, "n_fake": 10, "n_selected": 10, "level": 0.05}
        assert record["detector"]["predictive_value"]["prevalence"] == 0.2


def test_the_signed_statement_names_the_detector_and_every_file_that_was_read(folder: Path) -> None:
    envelope = json.loads(unpack((folder / "some.zip").read_bytes(), "some")["signature.dsse.json"])
    subjects = {s["name"]: s["digest"]["sha256"] for s in json.loads(base64.b64decode(envelope["payload"]))["subject"]}
    assert subjects["detector"] == "b" * 64 and subjects["file fake.png"] == "a" * 64
    assert len(subjects) == 7 and "file none.png" not in subjects


@pytest.mark.parametrize("files", [None, 3, ["x"], [{"sha256": 1}], [{"sha256": "a"}], {"path": "x"}])
def test_a_changed_list_of_files_ends_in_a_verdict(folder: Path, tmp_path: Path, files: object) -> None:
    def bend(record: dict[str, Any]) -> None:
        record["files"] = files

    assert wrong(checked(forged(folder / "all.zip", tmp_path / "f.zip", folder / "k", record=bend), folder))


def test_a_record_by_earlier_rules_is_named_as_such(folder: Path, tmp_path: Path) -> None:
    def older(record: dict[str, Any]) -> None:
        record["schema_version"] = "3"

    seen = checked(forged(folder / "all.zip", tmp_path / "f.zip", folder / "k", record=older), folder)
    assert "rules of schema 3: verify it with the version that wrote it" in " ".join(wrong(seen).values())


def of(place: int, **changed: Any) -> Bend:
    def bend(record: dict[str, Any]) -> None:
        said = record["files"][place]["verdict"]
        assert any(said[name] != value for name, value in changed.items())
        said.update(changed)

    return bend


BENT: list[tuple[str, Bend]] = [
    ("answer", of(0, answer="no known trace")),
    ("p-value", of(0, p_real=0.5)),
    ("score", of(0, probability=0.2)),
    ("reason", of(1, reason="It is certain.")),
    ("unknown made known", of(3, answer="fake", probability=0.99, p_real=0.01, p_fake=0.9)),
    ("known made unknown", of(0, answer="cannot say", probability=None, p_real=None, p_fake=None, q_value=None)),
    ("silent made sure", of(3, answer="fake")),
    ("q-value", of(0, q_value=0.001)),
    ("predictive value", lambda r: r["detector"]["predictive_value"].update(value=0.99)),
    ("first answer", lambda r: r["files"][1].update(answer="fake")),
    ("other medium", of(4, reason="It is certain.")),
    ("exit code", lambda r: r.update(exit_code=0)),
    ("error rate", lambda r: r["detector"]["card"].update(error_rate=0.4)),
    ("reading", lambda r: r.update(reading="This is proof.")),
    ("unread, and judged", lambda r: r["files"][5].update(verdict=r["files"][0]["verdict"])),
    ("dropped", lambda r: r["files"].pop(2)),
]


@pytest.mark.grid
@pytest.mark.parametrize(("what", "bend"), BENT, ids=[what for what, _ in BENT])
def test_a_bent_answer_is_named_though_the_right_key_signed_it(
    folder: Path, tmp_path: Path, what: str, bend: Bend
) -> None:
    seen = checked(forged(folder / "some.zip", tmp_path / "f.zip", folder / "k", record=bend), folder)
    said = wrong(seen)
    places = {"files", "exit_code", "detector", "reading", "record.json", "request.json"}
    assert seen.exit_code() == 1 and said.keys() & places and "signature" not in said, said


@pytest.mark.parametrize(
    "bend",
    [
        of(0, probability=0.2),
        of(0, low=0.929),
        lambda r: r["files"][0]["verdict"]["frames"].pop(),
    ],
)
def test_a_bent_answer_on_a_film_is_named(folder: Path, tmp_path: Path, bend: Bend) -> None:
    seen = checked(forged(folder / "film.zip", tmp_path / "f.zip", folder / "k", record=bend), folder)
    assert seen.exit_code() == 1 and wrong(seen)


@pytest.mark.parametrize("what", ["scores", "number", "none"])
def test_another_calibration_does_not_come_to_the_answers(folder: Path, tmp_path: Path, what: str) -> None:
    content = json.loads(unpack((folder / "some.zip").read_bytes(), "s")[DETECTOR])
    if what == "scores":
        content["card"]["real_scores"] = [min(1.0, score + 0.5) for score in content["card"]["real_scores"]]
    elif what == "number":
        content["n_real"] = 6_000
    part = None if what == "none" else json.dumps(content).encode()
    seen = checked(forged(folder / "some.zip", tmp_path / "f.zip", folder / "k", {DETECTOR: part}), folder)
    assert seen.exit_code() == 1 and wrong(seen)


# ---- a detector of pictures and one of sound -----------------------------------------------------------------------

PICTURES = ON_FILMS.model_copy(update={"real_scores": tuple(np.linspace(0.0, 0.4, 120).tolist())})
SPEECH = CARD.model_copy(update={"medium": "speech"})


@pytest.fixture(scope="module")
def two(folder: Path) -> Path:
    """A film that both judged, and one without sound."""
    scores = [0.9, 0.95, 0.8, 0.99, 0.97, 0.96]
    pictures, silent = found("video", video(scores, PICTURES)), found("video", video([0.1] * 6, PICTURES))
    heard = found("video", verdict(0.1, SPEECH))
    unheard = FileResult(medium="video", form="MP4", error="It has no sound.")
    picture = found("image", silenced(verdict(0.9, PICTURES), PICTURES, ()))
    by_detector = ([pictures, silent, picture], [heard, unheard, found("image")])
    results, batches = judged_by_all((PICTURES, SPEECH), by_detector)
    asked = [
        AskedDetector(
            path=f"{card.medium}.pt",
            known=DetectorRecord.from_card(("real", "fake"), card, sha * 64, with_calibration=True),
            batch=batch,
            few=few,
        )
        for card, sha, batch, few in zip((PICTURES, SPEECH), "bc", batches, ("", "9 of 20"), strict=True)
    ]
    named = list(zip(("film.mp4", "mute.mp4", "a.png"), results, strict=True))
    record = detection_content(asked, named, exit_code_of(results, asked))
    made = detection_evidence(record, asked, request={"known_real": True})
    write_derived(folder / "two.zip", made, key=load_private_key(folder / "k"))
    return folder / "two.zip"


def test_what_two_detectors_said_together_is_made_anew(folder: Path, two: Path) -> None:
    seen = checked(two, folder)
    assert wrong(seen) == {} and seen.exit_code() == 0
    record = json.loads(unpack(two.read_bytes(), "two")["record.json"])
    assert [file["verdict"]["answer"] for file in record["files"]] == ["fake", "cannot say", "cannot say"]
    assert record["second_detector"]["path"] == "speech.pt" and "second_batch" in record


@pytest.mark.parametrize(
    "bend",
    [
        lambda r: r["files"][1]["verdict"].update(answer="fake"),
        lambda r: r["files"][0]["parts"][0]["verdict"].update(answer="no known trace"),
        lambda r: r["files"][0]["parts"][1]["verdict"].update(p_real=0.001),
        lambda r: r["files"][0]["parts"].pop(),
        lambda r: r["files"][1]["parts"][1]["verdict"].update(answer="no known trace"),
        lambda r: r["files"][0]["verdict"].update(reason="By its sound."),
        lambda r: r.pop("second_detector"),
        lambda r: r["second_detector"]["card"].update(error_rate=0.4),
    ],
)
def test_a_bent_part_of_what_two_detectors_said_is_named(folder: Path, two: Path, tmp_path: Path, bend: Bend) -> None:
    seen = checked(forged(two, tmp_path / "f.zip", folder / "k", record=bend), folder)
    assert seen.exit_code() == 1 and wrong(seen)


def test_the_calibration_of_the_second_detector_is_needed(folder: Path, two: Path, tmp_path: Path) -> None:
    seen = checked(forged(two, tmp_path / "f.zip", folder / "k", {SECOND: None}), folder)
    assert seen.exit_code() == 1 and wrong(seen)


def test_a_detector_that_is_a_word_is_wrong_and_no_error_of_the_tools(folder: Path, tmp_path: Path) -> None:
    bundle = next(iter(sorted(folder.glob("*.zip"))))
    path = forged(bundle, tmp_path / "f.zip", folder / "k", record=lambda record: record.update(detector="real"))
    found = verify_evidence(path, stored_probe, trusted=[load_public_key(folder / "k.pub")])
    assert any("cannot be made anew" in check.detail for check in found.checks if check.state == "wrong")
