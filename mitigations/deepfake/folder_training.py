"""From a folder of real and synthetic files to a detector: usable files, and reasons for exclusions."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from auditor.core.errors import DataError, UsageError
from auditor.core.files import printable_name, read_regular
from auditor.data.preprocessing import label_name
from auditor.detection.file_kinds import IN_WORDS, kind_of
from auditor.detection.file_kinds import Medium as FileMedium
from auditor.detection.fingerprints import MOST_NEAR, fingerprints_of, repeated
from auditor.loading.job_specs import DetectorTrainingSpec
from auditor.loading.rows.folders import Listing, list_folder
from auditor.loading.rows.table_files import open_table
from auditor.models.detector import DeepfakeDetector
from auditor.models.detector_card import DIGITS, IS_FOR, MOST_TRAINED, Medium
from mitigations.deepfake.detector_fitting import classes_of
from mitigations.deepfake.media_training import TrainingOptions, fit_detector, read_media

_MOST_NAMED = 5
# The first is what a detector of such files is for; others can be brought to it.
_USABLE: Mapping[Medium, tuple[FileMedium, ...]] = {"image": ("image",), "speech": ("audio", "video")}
_OF_ONE_MEDIUM: Mapping[str, Medium] = {"size": "image", "seconds": "speech"}


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedDetector:
    """The detector; ``notes`` on its training; ``left_out``: a sentence on each unusable file.

    ``few``: why the files are fewer than they seem, in a sentence, or "".
    """

    detector: DeepfakeDetector
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    few: str = ""


@dataclass(frozen=True, kw_only=True)
class _File:
    """A file to train on: its ``name`` below the folder, its class, and what it is."""

    name: str
    label: str
    medium: FileMedium
    digest: str
    fingerprints: tuple[str, ...]


def train_on_folder(
    spec: DetectorTrainingSpec,
    rng: np.random.Generator,
    device: str,
    say: Callable[[str], None],
    on_file: Callable[[str], None] = lambda _: None,
) -> TrainedDetector:
    """Train the detector that a spec describes on all usable files of its folder.

    Files that cannot be read, or are of another medium, are left out and named; of identical files in one class one is
    kept. Raises DataError for a folder without exactly two classes, for identical files in both, whose labels
    contradict each other, and for too few files; UsageError where it is not clear which class is synthetic, or which
    medium is meant. ``on_file`` is told which file is about to be read, since a decoder may not return from it.
    """
    folder = Path(spec.folder)
    left_out: list[str] = []
    listing, classes = _listing(folder, left_out)
    say(f"reading {len(listing.names):,} files")
    files, notes = _distinct(folder, listing, classes, left_out, on_file)
    medium = _medium(spec.medium, files)
    left_out += [
        f"{printable_name(file.name)}: It is {IN_WORDS[file.medium]}, and this detector is for {IS_FOR[medium]}."
        for file in files
        if file.medium not in _USABLE[medium]
    ]
    files = [file for file in files if file.medium in _USABLE[medium]]
    of_kinds = _kinds(spec, files, classes[classes_of(classes, spec.fake)[1]])
    say(f"fitting a detector to {len(files):,} files, and measuring it on kinds left out")
    options = _training_options(spec, medium, device)
    paths = [folder / file.name for file in files]

    def hear(path: Path) -> None:
        on_file(printable_name(path.relative_to(folder).as_posix()))

    media = read_media(medium, paths, options, rng.spawn(1)[0], hear)
    on_file("")
    read = set(media.rows.tolist())
    unread = [file.name for i, file in enumerate(files) if i not in read]
    left_out += [f"{printable_name(name)}: {why}" for name, why in zip(unread, media.problems, strict=True)]
    files, kinds = [files[i] for i in media.rows], [of_kinds[i] for i in media.rows]
    labels = [file.label for file in files]
    detector = fit_detector(media, labels, kinds, options, rng)
    known = sorted(file.digest[:DIGITS] for file in files)[:MOST_TRAINED]
    shown_by = sorted(file.fingerprints[0] for file in files if file.fingerprints)[:MOST_TRAINED]
    card = detector.card.model_copy(
        update={
            "trained_on": tuple(known),
            "fingerprints": tuple(shown_by),
        }
    )
    scores = (("real", card.real_scores), ("synthetic", card.fake_scores))
    notes[:0] = [
        f"Too few {' and '.join(few)} files: an error rate of {card.error_rate:g} takes at least {card.fewest} of each "
        "class, so that this detector will always answer 'cannot say'."
        for few in [[name for name, own in scores if len(own) < card.fewest]]
        if few
    ]
    return TrainedDetector(
        detector=detector.with_card(card),
        notes=(*notes, *card.notes),
        left_out=tuple(left_out),
        few=_near_copies(files, medium),
    )


def _near_copies(files: Sequence[_File], medium: Medium) -> str:
    """That files of a class are near copies of each other, in a sentence; "" where at most one in twenty are."""
    said = []
    for label in dict.fromkeys(file.label for file in files):
        own = [file.fingerprints for file in files if file.label == label]
        near = repeated(own, medium)
        if near > MOST_NEAR * len(own):
            said.append(f"{near:,} of {len(own):,} files of {printable_name(label)!r}")
    if not said:
        return ""
    return (
        f"{' and '.join(said)} are near copies of another, or share one layout: files so alike lie on both sides of "
        "every measurement, so that errors are more than is stated, and more real files called fake: leave one of each."
    )


def _listing(folder: Path, left_out: list[str]) -> tuple[Listing, tuple[str, ...]]:
    if not folder.is_dir():
        raise UsageError(f"There is no folder at {str(folder)!r}.")
    found = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    classes = tuple(dict.fromkeys(label_name(name) for name in found))
    if len(classes) != 2:
        raise DataError(
            f"The folder {printable_name(folder.name)!r} has {len(classes)} sub-folders"
            f"{' (' + printable_name(', '.join(classes[:_MOST_NAMED])) + ')' if classes else ''}: a detector is "
            "trained on two, one of real files and one of synthetic ones."
        )
    return list_folder(folder, classes, left_out), classes


# ---- which files ---------------------------------------------------------------------------------------------------


def _distinct(
    folder: Path,
    listing: Listing,
    classes: tuple[str, ...],
    left_out: list[str],
    on_file: Callable[[str], None],
) -> tuple[list[_File], list[str]]:
    """The readable files, each content once, and notes. Raises DataError for a content that stands in both classes."""
    by_content: dict[str, list[_File]] = defaultdict(list)
    for name, code in zip(listing.names, listing.codes, strict=True):
        on_file(printable_name(name))
        try:
            content = read_regular(Path(os.path.realpath(folder / name)), "The file")
            if not content:
                raise DataError("It is an empty file.")
            medium = kind_of(content).medium
            if medium is None:
                raise DataError("It is no image, sound or video of a kind that can be read.")
            prints = fingerprints_of(content, name, "image" if medium == "image" else "speech")
        except DataError as error:
            left_out.append(f"{printable_name(name)}: {error}")
            continue
        digest = hashlib.sha256(content).hexdigest()
        file = _File(name=name, label=classes[int(code)], medium=medium, digest=digest, fingerprints=prints)
        by_content[digest].append(file)
    torn = [same for same in by_content.values() if len({file.label for file in same}) > 1]
    if torn:
        pairs = [" and ".join(printable_name(file.name) for file in same[:2]) for same in torn[:_MOST_NAMED]]
        more = f" And {len(torn) - _MOST_NAMED} more." if len(torn) > _MOST_NAMED else ""
        what, its, it = ("file stands", "its", "it") if len(torn) == 1 else ("files stand", "their", "them")
        raise DataError(
            f"{len(torn):,} {what} in both classes, so that {its} labels contradict each other: {'; '.join(pairs)}."
            f"{more} Remove {it} from one."
        )
    notes = list(listing.notes)
    if again := sum(len(same) - 1 for same in by_content.values()):
        have, its, was = ("file has", "its", "was") if again == 1 else ("files have", "their", "were")
        notes.append(f"{again:,} {have} the content of another file of {its} class, and {was} left out.")
    return [same[0] for same in by_content.values()], notes


def _medium(requested: str | None, files: Sequence[_File]) -> Medium:
    for medium in _USABLE:
        if requested == medium:
            return medium
    if requested is not None:
        raise UsageError(f"--medium must be image or speech, not {requested!r}.")
    counts = Counter(file.medium for file in files)
    n_images, n_recordings = counts["image"], counts["audio"] + counts["video"]
    if n_images and n_recordings:
        raise UsageError(
            f"The folder holds {n_images:,} image{'' if n_images == 1 else 's'} and {n_recordings:,} "
            f"recording{'' if n_recordings == 1 else 's'}: say "
            "which a detector is wanted for, with --medium image or --medium speech."
        )
    return "image" if n_images else "speech"


def _kinds(spec: DetectorTrainingSpec, files: Sequence[_File], fake: str) -> list[str | None]:
    """The generator of every synthetic file and the source of every real one, None where the table does not say."""
    if spec.kinds is None:
        return [None] * len(files)
    generators = _column(spec, spec.kind_column)
    sources = _column(spec, spec.source_column)
    if not any(file.name in table for table in (generators, sources) for file in files):
        raise DataError(
            f"No file of the folder stands in the column {spec.join_on!r} of {Path(spec.kinds).name}: it holds paths "
            f"below the folder, such as {printable_name(files[0].name)}."
        )
    return [(generators if file.label == fake else sources).get(file.name) for file in files]


def _column(spec: DetectorTrainingSpec, column: str | None) -> Mapping[str, str]:
    """The kind by path, of one column of the table."""
    import pyarrow as pa

    if column is None or spec.kinds is None:
        return {}
    table = open_table(spec.kinds, "table of kinds")
    wanted = list(dict.fromkeys([spec.join_on, column]))
    found = table.read(wanted, dict.fromkeys(wanted, pa.string())).to_pydict()
    kinds: dict[str, str] = {}
    for name, kind in zip(found[spec.join_on], found[column], strict=True):
        if not name:
            continue
        if name in kinds and kinds[name] != kind:
            raise DataError(f"{Path(spec.kinds).name} names two kinds of {printable_name(name)!r}: every file has one.")
        if kind and kind.strip():
            kinds[name] = label_name(kind.strip())[:200]
    return kinds


def _training_options(spec: DetectorTrainingSpec, medium: Medium, device: str) -> TrainingOptions:
    """Options that were given; UsageError for one that this medium's detectors do not have."""
    given: dict[str, Any] = {key: value for key, value in spec.options.items() if value is not None}
    known = {field.name for field in fields(TrainingOptions)}
    for key in given:
        if key not in known or _OF_ONE_MEDIUM.get(key, medium) != medium:
            raise UsageError(f"--{key.replace('_', '-')} is no option of this medium's detectors: leave it out.")
    return TrainingOptions(**given, fake=spec.fake, device=device)
