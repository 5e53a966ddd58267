"""From a folder of real and synthetic files to a detector: usable files, and reasons for exclusions."""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import AuditorError, DataError, UsageError
from auditor.core.files import printable_name, read_regular
from auditor.data.preprocessing import label_name
from auditor.detection.file_kinds import IN_WORDS, kind_of
from auditor.detection.file_kinds import Medium as FileMedium
from auditor.detection.fingerprints import MOST_NEAR, fingerprints_of, repeated
from auditor.loading.job_specs import DetectorTrainingSpec
from auditor.loading.rows.folders import Listing, list_folder
from auditor.loading.rows.table_files import open_table
from auditor.models.detector_card import DIGITS, MOST_TRAINED, KnownRate
from auditor.statistics.rates import Proportion

if TYPE_CHECKING:
    from auditor.models.detector import DeepfakeDetector

_MOST_NAMED = 5
MOST_COLLECTIONS = 10
_CONFIDENCE = 0.95
_IS_FOR = {"image": "images", "speech": "speech"}
# The first is what a detector of such files is for; others can be brought to it.
_USABLE: dict[str, tuple[FileMedium, ...]] = {"image": ("image",), "speech": ("audio", "video")}


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedDetector:
    """The detector; ``notes`` on its training; ``left_out``: a sentence on each unusable file.

    ``few``: why the files are fewer than they seem, in a sentence, or "".
    """

    detector: DeepfakeDetector
    notes: tuple[str, ...]
    left_out: tuple[str, ...]
    few: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class _Files:
    """Files to train on: ``names`` (n,) below the folder, ``labels``, ``media``, ``digests`` and ``fingerprints`` (n,),
    none or more of each, and what is to be said.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    media: tuple[FileMedium, ...]
    digests: tuple[str, ...]
    fingerprints: tuple[tuple[str, ...], ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    def take(self, keep: Sequence[bool], left_out: Sequence[str]) -> _Files:
        def keep_values(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(value for value, kept in zip(values, keep, strict=True) if kept)

        return replace(
            self,
            names=keep_values(self.names),
            labels=keep_values(self.labels),
            media=keep_values(self.media),
            digests=keep_values(self.digests),
            fingerprints=keep_values(self.fingerprints),
            left_out=(*self.left_out, *left_out),
        )


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
    unusable: list[str] = []
    listing, classes = _listing(folder, unusable)
    say(f"reading {len(listing.names):,} files")
    files = _distinct(folder, listing, classes, on_file)
    medium = _medium(spec.medium, files)
    files = _of_medium(files, medium)
    kinds = _kinds(spec, files, _fake_name(classes, spec.fake))
    paths = _Told(folder, files.names, on_file)
    say(f"fitting a detector to {len(paths):,} files, and measuring it on kinds left out")
    train = _train_images if medium == "image" else _train_speech
    options = {**spec.options, "fake": spec.fake, "device": device}
    detector, problems = train(paths, files, kinds, options, rng)
    detector, unmeasured = _with_collections(spec, detector, files, list(paths), kinds, options, rng, say)
    known = sorted(found[:DIGITS] for found in files.digests)[:MOST_TRAINED]
    shown_by = sorted(found[0] for found in files.fingerprints if found)[:MOST_TRAINED]
    learnt = {"trained_on": tuple(known), "fingerprints": tuple(shown_by)}
    detector = detector.with_card(detector.card.model_copy(update=learnt))
    few = [
        name
        for name, scores in (("real", detector.card.real_scores), ("synthetic", detector.card.fake_scores))
        if len(scores) < detector.card.fewest
    ]
    notes = [*files.notes, *detector.card.notes, *unmeasured]
    if few:
        notes.insert(
            0,
            f"Too few {' and '.join(few)} files: an error rate of {detector.card.error_rate:g} takes at least "
            f"{detector.card.fewest} of each class, so that this detector will always answer 'cannot say'.",
        )
    left_out = (*unusable, *files.left_out, *problems)
    return TrainedDetector(detector=detector, notes=tuple(notes), left_out=left_out, few=_near_copies(files, medium))


def _near_copies(files: _Files, medium: str) -> str:
    """That files of a class are near copies of each other, in a sentence; "" where at most one in twenty are."""
    said = []
    for label in dict.fromkeys(files.labels):
        own = [found for found, of in zip(files.fingerprints, files.labels, strict=True) if of == label]
        near = repeated(own, "image" if medium == "image" else "speech")
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
            f"trained on two, "
            "one of real files and one of synthetic ones."
        )
    return list_folder(folder, classes, left_out), classes


def _fake_name(classes: tuple[str, ...], fake: str | None) -> str:
    from mitigations.deepfake.detector_fitting import classes_of

    named, index = classes_of(classes, fake)
    return named[index]


# ---- which files ---------------------------------------------------------------------------------------------------


def _distinct(folder: Path, listing: Listing, classes: tuple[str, ...], on_file: Callable[[str], None]) -> _Files:
    """The readable files, each content once. Raises DataError for a content that stands in both classes."""
    by_content: dict[str, list[int]] = defaultdict(list)
    media: dict[int, FileMedium] = {}
    prints: dict[int, tuple[str, ...]] = {}
    left_out = []
    for i, name in enumerate(listing.names):
        on_file(printable_name(name))
        try:
            content = read_regular(Path(os.path.realpath(folder / name)), "The file")
            if not content:
                raise DataError("It is an empty file.")
            medium = kind_of(content).medium
            if medium is None:
                raise DataError("It is no image, sound or video of a kind that can be read.")
            media[i] = medium
            prints[i] = fingerprints_of(content, name, "image" if medium == "image" else "speech")
            by_content[hashlib.sha256(content).hexdigest()].append(i)
        except DataError as error:
            left_out.append(f"{printable_name(name)}: {error}")
    torn = [rows for rows in by_content.values() if len({int(listing.codes[i]) for i in rows}) > 1]
    if torn:
        pairs = [" and ".join(printable_name(listing.names[i]) for i in rows[:2]) for rows in torn[:_MOST_NAMED]]
        more = f" And {len(torn) - _MOST_NAMED} more." if len(torn) > _MOST_NAMED else ""
        said = (
            "1 file stands in both classes, so that its labels contradict each other"
            if len(torn) == 1
            else f"{len(torn):,} files stand in both classes, so that their labels contradict each other"
        )
        raise DataError(f"{said}: {'; '.join(pairs)}.{more} Remove {'it' if len(torn) == 1 else 'them'} from one.")
    digest = {rows[0]: found for found, rows in by_content.items()}
    kept = sorted(digest)
    again = sum(len(rows) - 1 for rows in by_content.values())
    notes = list(listing.notes)
    if again:
        notes.append(
            "1 file has the content of another file of its class, and was left out."
            if again == 1
            else f"{again:,} files have the content of another file of their class, and were left out."
        )
    return _Files(
        names=tuple(listing.names[i] for i in kept),
        labels=tuple(classes[int(listing.codes[i])] for i in kept),
        media=tuple(media[i] for i in kept),
        digests=tuple(digest[i] for i in kept),
        fingerprints=tuple(prints[i] for i in kept),
        left_out=tuple(left_out),
        notes=tuple(notes),
    )


def _medium(requested_medium: str | None, files: _Files) -> str:
    if requested_medium is not None:
        if requested_medium not in _USABLE:
            raise UsageError(f"--medium must be image or speech, not {requested_medium!r}.")
        return requested_medium
    counts = Counter(files.media)
    if counts["image"] and (counts["audio"] or counts["video"]):
        n_images, n_recordings = counts["image"], counts["audio"] + counts["video"]
        raise UsageError(
            f"The folder holds {n_images:,} image{'' if n_images == 1 else 's'} and {n_recordings:,} "
            f"recording{'' if n_recordings == 1 else 's'}: say "
            "which a detector is wanted for, with --medium image or --medium speech."
        )
    return "image" if counts["image"] else "speech"


def _of_medium(files: _Files, medium: str) -> _Files:
    keep = [found in _USABLE[medium] for found in files.media]
    others = [
        f"{printable_name(name)}: It is {IN_WORDS[found]}, and this detector is for {_IS_FOR[medium]}."
        for name, found, kept in zip(files.names, files.media, keep, strict=True)
        if not kept
    ]
    return files.take(keep, others)


def _kinds(spec: DetectorTrainingSpec, files: _Files, fake: str) -> list[str | None]:
    """The generator of every synthetic file and the source of every real one, None where the table does not say."""
    if spec.kinds is None:
        return [None] * len(files.names)
    generators = _column(spec, spec.kind_column)
    sources = _column(spec, spec.source_column)
    collections = _column(spec, spec.collection_column)
    if not any(name in table for table in (generators, sources, collections) for name in files.names):
        raise DataError(
            f"No file of the folder stands in the column {spec.join_on!r} of {Path(spec.kinds).name}: it holds paths "
            f"below the folder, such as {printable_name(files.names[0])}."
        )
    return [
        (generators if label == fake else sources).get(name)
        for name, label in zip(files.names, files.labels, strict=True)
    ]


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


class _Told(list[Path]):
    """Paths of which ``on_file`` hears as they are gone through, "" once they are read."""

    def __init__(self, folder: Path, names: Sequence[str], on_file: Callable[[str], None]) -> None:
        super().__init__(folder / name for name in names)
        self._names = names
        self._on_file = on_file

    def __iter__(self) -> Iterator[Path]:
        for name, path in zip(self._names, super().__iter__(), strict=True):
            self._on_file(printable_name(name))
            yield path
        self._on_file("")


# ---- collections ---------------------------------------------------------------------------------------------------


def _with_collections(
    spec: DetectorTrainingSpec,
    detector: DeepfakeDetector,
    files: _Files,
    paths: list[Path],
    kinds: list[str | None],
    options: dict[str, Any],
    rng: np.random.Generator,
    say: Callable[[str], None],
) -> tuple[DeepfakeDetector, tuple[str, ...]]:
    """The detector with what is known of collections left out whole, and what of them could not be measured."""
    from auditor.models.detector import DeepfakeDetector

    table = _column(spec, spec.collection_column)
    collections = [table.get(name) for name in files.names]
    if len({name for name in collections if name is not None}) < 2:
        return detector, ()
    say("measuring it on collections left out whole")
    train = _train_images if detector.card.medium == "image" else _train_speech
    seed = int(rng.integers(2**31))

    def fit(rows: Sequence[int]) -> DeepfakeDetector:
        kept = set(rows)
        rest = files.take([i in kept for i in range(len(paths))], ())
        how = {**options, "answers": False}
        return train([paths[i] for i in rows], rest, [kinds[i] for i in rows], how, np.random.default_rng(seed))[0]

    fake = detector.classes[detector.card.fake]
    rates, notes = rates_by_collection(paths, [label == fake for label in files.labels], collections, fit)
    card = detector.card.model_copy(update={"known_rates": (*detector.card.known_rates, *rates)})
    return DeepfakeDetector.around(detector, card), notes


def rates_by_collection(
    paths: Sequence[Path],
    is_fake: Sequence[bool],
    collections: Sequence[str | None],
    fit: Callable[[Sequence[int]], DeepfakeDetector],
) -> tuple[tuple[KnownRate, ...], tuple[str, ...]]:
    """Answers of whole detectors on collections left out of their training, and the unmeasurable ones.

    For each named collection in turn ``fit`` makes a detector of the files of all others, its calibration included;
    ``false_positive_rate`` is the share of the collection's real files that it calls fake, ``true_positive_rate`` that
    of its synthetic ones, each with Clopper and Pearson's interval: of files of this collection, not of the next.
    """
    named = sorted({name for name in collections if name is not None})
    rates: list[KnownRate] = []
    notes = []
    if len(named) > MOST_COLLECTIONS:
        notes.append(f"Of {len(named):,} collections the first {MOST_COLLECTIONS} were left out in turn.")
    for name in named[:MOST_COLLECTIONS]:
        own = [i for i, found in enumerate(collections) if found == name]
        try:
            detector = fit([i for i, found in enumerate(collections) if found != name])
        except AuditorError as error:
            notes.append(f"The collection {name} could not be left out: {error}")
            continue
        called = {i: _called_fake(detector, paths[i]) for i in own}
        rates += _known_rates(name, [called[i] for i in own if not is_fake[i]], "false_positive_rate", fake=False)
        rates += _known_rates(name, [called[i] for i in own if is_fake[i]], "true_positive_rate", fake=True)
    return tuple(rates), tuple(notes)


def _called_fake(detector: DeepfakeDetector, path: Path) -> bool:
    from auditor.detection.examine_file import Examination

    verdict = Examination(detector=detector, scores_only=True).examine_file(path).verdict
    return verdict is not None and verdict.answer == "fake"


def _known_rates(collection: str, flags: Sequence[bool], metric: str, *, fake: bool) -> list[KnownRate]:
    if not flags:
        return []
    share = Proportion(successes=sum(flags), n=len(flags))
    low, high = share.interval(_CONFIDENCE)
    return [
        KnownRate(
            metric=metric,
            value=share.value,
            low=low,
            high=high,
            confidence=_CONFIDENCE,
            collection=collection,
            unseen=True,
            n_real=0 if fake else len(flags),
            n_fake=len(flags) if fake else 0,
        )
    ]


# ---- training ------------------------------------------------------------------------------------------------------


def _train_images(
    paths: list[Path], files: _Files, kinds: list[str | None], options: dict[str, Any], rng: np.random.Generator
) -> tuple[DeepfakeDetector, list[str]]:
    from mitigations.deepfake.image_training import ImageOptions, fit_image_detector, read_images

    made = ImageOptions(**_check_options(options, ImageOptions))
    found = read_images(paths, made, rng.spawn(1)[0])
    labels, own = _values_at(found.rows, files.labels), _values_at(found.rows, kinds)
    return fit_image_detector(found, labels, own, made, rng), _problem_texts(found.rows, found.problems, files)


def _train_speech(
    paths: list[Path], files: _Files, kinds: list[str | None], options: dict[str, Any], rng: np.random.Generator
) -> tuple[DeepfakeDetector, list[str]]:
    from mitigations.deepfake.speech_training import SpeechOptions, fit_speech_detector, read_recordings

    made = SpeechOptions(**_check_options(options, SpeechOptions))
    found = read_recordings(paths, made)
    labels, own = _values_at(found.rows, files.labels), _values_at(found.rows, kinds)
    return fit_speech_detector(found, labels, own, made, rng), _problem_texts(found.rows, found.problems, files)


def _problem_texts(rows: Any, problems: Sequence[str], files: _Files) -> list[str]:
    """What is wrong with the files that were not read, each under its whole name."""
    read = {int(i) for i in rows}
    unread = [name for i, name in enumerate(files.names) if i not in read]
    return [f"{printable_name(name)}: {problem}" for name, problem in zip(unread, problems, strict=True)]


def _values_at(rows: Any, values: Sequence[Any]) -> list[Any]:
    return [values[int(i)] for i in rows]


def _check_options(options: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """Options that were given; UsageError for one that this medium's detectors do not have."""
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in kind.__dataclass_fields__:  # type: ignore[attr-defined]
            raise UsageError(f"--{key.replace('_', '-')} is no option of this medium's detectors: leave it out.")
    return given
