"""Source leakage: evaluation of a detector on files, persons or sources from its training data."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.core.errors import DataError, NotApplicableError, first_line
from auditor.core.rows import BoolArray, FloatArray, IntArray
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.models.detector_card import DIGITS
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Exact, Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from probes.deepfake.detector_files import content, fake_index

if TYPE_CHECKING:
    from auditor.core.rows import Rows
    from auditor.data.audit_data import AuditData
    from auditor.models.audited_model import AuditedModel


Vectors = npt.NDArray[np.float32]
# Correlation of two fingerprints from which on two files are near duplicates. Waveforms of different recordings hardly
# correlate at all, while pictures of one kind, such as faces cut out alike, do.
NEAR = {"image": 0.99, "audio": 0.5}
_FINGERPRINT_SIDE = 24
_SAMPLES, _SOUND_STEP = 65_536, 16
_FILES_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Twins:
    """For each of n files the first of m others with equal content, and the most similar one: -1 if none.

    ``exact`` (n,), ``near`` (n,): positions among the others; a file with an exact twin has that one as near too.
    """

    exact: IntArray
    near: IntArray


def digests(X: Rows) -> list[str]:
    """SHA-256 of every row's decoded content."""
    rows = np.asarray(X)
    return [hashlib.sha256(np.ascontiguousarray(row).tobytes()).hexdigest() for row in rows]


def fingerprints(X: Rows) -> Vectors:
    """(n, d) coarse features of image or sound rows: centred, of length 1; 0 if there is no content.

    Of images (n, height, width, channels): grey, averaged to 24 x 24. Of sound (n, samples): the beginning of the
    waveform, averaged over 16 samples each.
    """
    rows = np.asarray(X)
    parts = [_coarse(rows[i : i + _FILES_AT_ONCE]) for i in range(0, len(rows), _FILES_AT_ONCE)]
    if not parts:
        return np.empty((0, 1), np.float32)
    flat = np.concatenate(parts)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(np.divide(flat, length, out=np.zeros_like(flat), where=length > 1e-6), np.float32)


def mirrored(vectors: Vectors) -> Vectors:
    """Fingerprints of the same images, mirrored left to right."""
    return vectors.reshape(len(vectors), _FINGERPRINT_SIDE, _FINGERPRINT_SIDE)[:, :, ::-1].reshape(len(vectors), -1)


def _coarse(rows: npt.NDArray[Any]) -> Vectors:
    if rows.ndim == 4:
        import torch
        from torch.nn.functional import adaptive_avg_pool2d

        grey = torch.from_numpy(rows.astype(np.float32).mean(axis=3) / np.float32(255.0))
        return adaptive_avg_pool2d(grey[:, None], (_FINGERPRINT_SIDE, _FINGERPRINT_SIDE)).flatten(1).numpy()
    step = min(_SOUND_STEP, rows.shape[1])
    sound = rows[:, : min(_SAMPLES, rows.shape[1]) // step * step].astype(np.float32) / np.float32(32768.0)
    return np.asarray(sound.reshape(len(sound), -1, step).mean(axis=2), np.float32)


def twins(
    fingerprints: tuple[Sequence[str], Vectors],
    others: tuple[Sequence[str], Vectors],
    *,
    least: float,
    eligible: BoolArray | None = None,
) -> Twins:
    """Twins of n files among m others, each given by digests and fingerprints.

    ``least``: the correlation from which on two are near. ``eligible`` (n, m): pairs that may be twins; all where it is
    left out.
    """
    (digest, vectors), (other_digest, other_vectors) = fingerprints, others
    n, m = len(digest), len(other_digest)
    exact, near = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    where: dict[str, list[int]] = {}
    for j, value in enumerate(other_digest):
        where.setdefault(value, []).append(j)
    for i, value in enumerate(digest):
        exact[i] = next((j for j in where.get(value, ()) if eligible is None or eligible[i, j]), -1)
    for start in range(0, n if m else 0, _FILES_AT_ONCE):
        alike = vectors[start : start + _FILES_AT_ONCE] @ other_vectors.T
        if eligible is not None:
            alike = np.where(eligible[start : start + _FILES_AT_ONCE], alike, -1.0)
        best = alike.argmax(axis=1)
        found = alike[np.arange(len(best)), best] >= least
        near[start : start + len(best)] = np.where(found, best, -1)
    return Twins(exact, np.where(exact >= 0, exact, near))


_MOST_NAMED = 3
_ROWS_AT_ONCE = 64
# Files by which the embedder itself is tried.
_MOST_TRIED = 100
_RECOGNISED, _CONFUSED = 0.9, 0.5
_NO_TRAIN = "Needs the files the detector was trained on: add --train FOLDER."
_NOT_COMPARED = (
    "identities were not compared: name a column of them with --set source_leakage.identity=COLUMN, or what tells "
    "faces or voices with --embedder"
)


class SourceLeakage(BaseProbe):
    """Copies and shared identities between training and evaluation files, and files in both classes.

    Shares of the evaluation files, all of which are compared with all others, so they are known without sampling error:
    ``exact_duplicate_share``, ``near_duplicate_share``, ``other_class_duplicate_share``, ``contradictory_share``,
    ``shared_identity_share`` and ``alike_identity_share``.

    - ``near_duplicate_share``: Like: a correlation of at least 0.99 of their coarse pictures (24 x 24, grey), mirrored
      or not, or of 0.5 of their coarse waveforms. It finds copies that were compressed, resized, blurred, made noisier
      or flipped; neither crops and turned pictures nor sound that begins elsewhere.

    Identities are known where ``identity`` names a column, or an embedder tells faces or voices; else they are not
    compared, and the report says so. A share s of copies can move the accuracy, or by one class
    the AUC, by no more than s of that class.

    identity: the column of the sensitive features that names who, or which source, a file is of. embedder, and
    same_identity: see :func:`~probes.deepfake.source_leakage.shared_people`.

    Raises NotApplicableError for other models and data, or for a column that is not there. Without training files only
    ``contradictory_share`` is measured, and which files the detector's own card says that it was trained on.

    Sources: Barz and Denzler, J. Imaging 6 (2020), on near duplicates between training and test sets; Kapoor and
    Narayanan, Patterns 4 (2023), on leakage.
    """

    name = "source_leakage"
    pillar = "deepfake"
    goal = "Was the detector graded on files, people or sources that it was trained on?"
    citation = "Kapoor and Narayanan, Patterns 2023; Barz and Denzler, J. Imaging 2020"
    methods = ("compared",)
    needs = (Need.CLASSIFIER, Need.DATA)
    questions = (AuditQuestion("graded_on_known"),)
    exact = dict.fromkeys(
        (
            "exact_duplicate_share",
            "near_duplicate_share",
            "other_class_duplicate_share",
            "contradictory_share",
            "shared_identity_share",
            "alike_identity_share",
        ),  # fmt: skip
        "It is about the files at hand, every one of which is compared, and about no others.",
    )
    untrusted_options = allow_untrusted("identity")
    metrics = define_metrics(
        """
        exact_duplicate_share: share of evaluation files decoded to the very content of a training file, by SHA-256; [0,
          1], ideal 0; so many files were graded that the detector had seen; Kapoor and Narayanan, Patterns 4 (2023)
        near_duplicate_share: share of evaluation files that are copies of, or like, a training file of the same class;
          [0, 1], ideal 0; so many files were graded that the detector had all but seen; Barz and Denzler, J. Imaging 6
          (2020)
        other_class_duplicate_share: share of evaluation files that are copies of, or like, a training file of the other
          class; [0, 1], ideal 0; so many files were made of files that the detector was trained on, or those of them,
          so that they are not of another source; Barz and Denzler, J. Imaging 6 (2020)
        contradictory_share: share of evaluation files with the very content of a file of the other class, in training
          or evaluation; [0, 1], ideal 0; so many files are labelled both real and synthetic; Kapoor and Narayanan,
          Patterns 4 (2023)
        shared_identity_share: share of evaluation files of an identity, speaker or source that training files have too;
          [0, 1], ideal 0; of so many files the detector may know who, and not what; Kapoor and Narayanan, Patterns 4
          (2023)
        alike_identity_share: share of evaluation files of somebody who a training file is of, as embedder sees it; [0,
          1], ideal 0; of so many files the detector may know who, and not what; Kapoor and Narayanan, Patterns 4 (2023)
        """
    )

    def __init__(
        self, *, identity: str | None = None, embedder: str | None = None, same_identity: float | None = None
    ) -> None:
        if same_identity is not None and not -1.0 < same_identity <= 1.0:
            raise ValueError(f"same_identity is a cosine, above -1 and at most 1, not {same_identity:g}")
        self.identity = identity
        self.embedder = embedder
        self.same_identity = same_identity

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the evaluation files; see the class for their definitions."""
        rows, members = data.evaluation, data.members
        fake_index(model, rows)
        own = digests(rows.X), fingerprints(rows.X)
        others = None if members is None else (digests(members.X), fingerprints(members.X))
        found: list[Measurement] = []
        learnt = _learnt(model, rows)
        if members is None or others is None:
            found += _by_card(rows, learnt)
        else:
            found += _copies(rows, own, members, others, learnt)
            if self.identity is None and self.embedder is None:
                # The shares of copies say what they are not about.
                found = [replace(m, detail=f"{m.detail}; {_NOT_COMPARED}") for m in found]
        found.append(_contradictory(rows, own[0], members, [] if others is None else others[0]))
        if self.identity is not None:
            found.append(self._identities(rows, members))
        if self.embedder is not None:
            found.append(self._people(self.embedder, rows, members))
        return found

    def _people(self, embedder: str, rows: AuditData, members: AuditData | None) -> Measurement:
        metric = "alike_identity_share"
        if members is None:
            return _leakage_measurement(metric, Undefined(reason=_NO_TRAIN, inapplicable=True), len(rows))
        seen = shared_people(rows.X, members.X, embedder, self.same_identity)
        if seen.undefined:
            return _leakage_measurement(metric, Undefined(reason=seen.undefined), len(rows), seen.detail)
        return replace(_share(metric, seen.twin, _namer(rows, members), seen.detail), weak=seen.weak)

    def _identities(self, rows: AuditData, members: AuditData | None) -> Measurement:
        if rows.sensitive_features is None or self.identity not in rows.sensitive_features.columns:
            raise NotApplicableError(
                f"Needs the column {self.identity!r} that names identities: add --sensitive {self.identity}, and for a "
                "folder --sensitive-file FILE --join-on COLUMN."
            )
        metric = "shared_identity_share"
        if members is None or members.sensitive_features is None:
            return _leakage_measurement(metric, Undefined(reason=_NO_TRAIN, inapplicable=True), len(rows))
        from auditor.data.group_counts import MISSING

        known = set(members.sensitive_features[self.identity].dropna().astype(str)) - {MISSING}
        if not known:
            reason = f"no training file has an identity: the column {self.identity!r} is empty there"
            return _leakage_measurement(metric, Undefined(reason=reason, inapplicable=True), len(rows))
        column = rows.sensitive_features[self.identity]
        names = column.astype("string").fillna(MISSING)
        named = (names != MISSING).to_numpy(bool)
        shared = names.isin(known).to_numpy(bool)
        who = sorted(set(names[shared].astype(str)))
        detail = f"{len(who):,} shared: {', '.join(who[:_MOST_NAMED])}" if who else ""
        estimate: AnyEstimate = Undefined(reason="no evaluation file has an identity")
        if named.any():
            estimate = Exact(known=float(shared.sum() / named.sum()))
        return _leakage_measurement(metric, estimate, int(named.sum()), detail)


def _learnt(model: AuditedModel, rows: AuditData) -> tuple[BoolArray, BoolArray]:
    """(n,) each, by the detector's own card: the files that it was trained on, and those that are like one of them."""
    from auditor.detection.fingerprints import fingerprints_of, match_fingerprints
    from auditor.models.detector import Detector

    if not isinstance(model, Detector) or rows.files is None or not model.card.trained_on:
        return np.zeros(len(rows), bool), np.zeros(len(rows), bool)
    card, known = model.card, frozenset(model.card.trained_on)
    contents = (content(rows, i) for i in range(len(rows)))
    seen = [
        (hashlib.sha256(own).hexdigest()[:DIGITS] in known, fingerprints_of(own, "", card.medium)) for own in contents
    ]
    same = np.asarray([found for found, _ in seen], bool)
    return same, same | match_fingerprints([prints for _, prints in seen], card.fingerprints, card.medium)


def _by_card(rows: AuditData, learnt: tuple[BoolArray, BoolArray]) -> list[Measurement]:
    """Shares of the evaluation files by the card alone: that there are copies, never that there are none."""
    metrics = ("exact_duplicate_share", "near_duplicate_share", "other_class_duplicate_share")
    nothing = [_leakage_measurement(m, Undefined(reason=_NO_TRAIN, inapplicable=True), len(rows)) for m in metrics]
    if not learnt[1].any():
        return nothing
    which = [np.where(these, 0, -1).astype(np.int64) for these in learnt]
    pairs = zip(metrics, which, strict=False)
    said = [_share(m, twin, _namer(rows, None), f"at least. {_NO_TRAIN}") for m, twin in pairs]
    return [*(replace(m, weak=_NO_TRAIN) for m in said), nothing[2]]


def _copies(
    rows: AuditData,
    fingerprints: tuple[Sequence[str], Vectors],
    members: AuditData,
    others: tuple[Sequence[str], Vectors],
    learnt: tuple[BoolArray, BoolArray],
) -> list[Measurement]:
    """Shares of the evaluation files that are copies of, or like, a training file, of the same class or the other.

    ``learnt``: files that the detector's card knows, whatever was said to be its training files.
    """
    exact = twins(fingerprints, others, least=1.1).exact
    exact = np.where((exact < 0) & learnt[0], len(members), exact)
    same = _same_class(rows, members)
    found = [_share("exact_duplicate_share", exact, _namer(rows, members))]
    pairs = [None] if same is None else [same, ~same & _labelled(rows)[:, None] & _labelled(members)]
    image = rows.modality == "image"
    least = NEAR["image" if image else "audio"]
    metrics = ("near_duplicate_share", "other_class_duplicate_share")
    for metric, eligible in zip(metrics, pairs, strict=False):
        near = twins(fingerprints, others, least=least, eligible=eligible).near
        if metric == "near_duplicate_share":
            # A file with an exact twin in the other class alone is still one that the detector has seen.
            near = np.where(exact >= 0, exact, near)
            near = np.where((near < 0) & learnt[1], len(members), near)
        detail = f"correlation of at least {least:g} of what they look or sound like, coarsely"
        if image:
            turned = twins((fingerprints[0], mirrored(fingerprints[1])), others, least=least, eligible=eligible).near
            flipped = (near < 0) & (turned >= 0)
            near = np.where(flipped, turned, near)
            detail += f", {int(flipped.sum()):,} of them mirrored" if flipped.any() else ""
        found.append(_share(metric, near, _namer(rows, members), detail))
    if same is None:
        reason = "the labels of evaluation or training files are not known"
        found.append(_leakage_measurement(metrics[1], Undefined(reason=reason, inapplicable=True), len(rows)))
    return found


def _same_class(rows: AuditData, members: AuditData) -> BoolArray | None:
    """(n, m) whether an evaluation and a training file have the same label; None where labels are not known."""
    if rows.y_true is None or members.y_true is None:
        return None
    return np.asarray(rows.y_true[:, None] == members.y_true[None, :], bool)


def _labelled(data: AuditData) -> BoolArray:
    return np.ones(len(data), bool) if data.y_true is None else np.asarray(data.y_true >= 0, bool)


def _namer(rows: AuditData, members: AuditData | None) -> Callable[[int, int], str]:
    def name(i: int, j: int) -> str:
        if members is None or j == len(members):
            return f"{_file_label(rows, i)}, by the detector's own card"
        return f"{_file_label(rows, i)} = {_file_label(members, j)} in training"

    return name


def _file_label(rows: AuditData, i: int) -> str:
    if rows.files is None:
        return f"row {i}"
    path = Path(str(rows.files[i]))
    return f"{path.parent.name}/{path.name}"


def _share(metric: str, twin: IntArray, name: Callable[[int, int], str], detail: str = "") -> Measurement:
    n, found = len(twin), np.flatnonzero(twin >= 0)
    examples = "; ".join(name(int(i), int(twin[i])) for i in found[:_MOST_NAMED])
    estimate: AnyEstimate = Exact(known=len(found) / n) if n else Undefined(reason="there are no evaluation files")
    said = [f"{len(found):,} of {n:,} files", detail, f"for example {examples}" if examples else ""]
    return _leakage_measurement(metric, estimate, n, "; ".join(part for part in said if part))


def _contradictory(
    rows: AuditData, digests: Sequence[str], members: AuditData | None, others: Sequence[str]
) -> Measurement:
    metric = "contradictory_share"
    if rows.y_true is None or not (rows.y_true >= 0).any():
        return _leakage_measurement(metric, Undefined(reason="there are no labelled files"), 0)
    labels: dict[str, set[int]] = {}
    parts = [(rows, digests)]
    if members is not None and members.y_true is not None:
        parts.append((members, others))
    for data, values in parts:
        assert data.y_true is not None
        for value, label in zip(values, data.y_true.tolist(), strict=True):
            if label >= 0:
                labels.setdefault(value, set()).add(label)
    known = np.flatnonzero(rows.y_true >= 0).tolist()
    both = [i for i in known if len(labels[digests[i]]) > 1]
    detail = f"{len(both):,} of {len(known):,} files"
    if both:
        detail += f"; for example {', '.join(_file_label(rows, i) for i in both[:_MOST_NAMED])}"
    return _leakage_measurement(metric, Exact(known=len(both) / len(known)), len(known), detail)


def _leakage_measurement(metric: str, estimate: AnyEstimate, n: int, detail: str = "") -> Measurement:
    return Measurement(metric=metric, method="compared", estimate=estimate, n_samples=n, ideal=0.0, detail=detail)


@dataclass(frozen=True)
class Likeness:
    """Identities shared by evaluation and training files, by an embedder, and the embedder's quality.

    ``twin`` (n,): the training file most like each in who it is of, -1 for none. ``weak``: why finding nothing says
    little, or "". ``undefined``: why nothing can be said at all, or "".
    """

    twin: IntArray
    detail: str
    weak: str = ""
    undefined: str = ""


def shared_people(rows: Rows, others: Rows, embedder: str, least: float | None) -> Likeness:
    """The ones of n files that share a person with one of m other files: cosine similarity at least ``least``.

    ``embedder``: ``package.module:function`` of the user's own, given rows of images (n, height, width, channels) uint8
    or sound (n, samples) int16, that returns vectors (n, d); or an encoder of images as detectors take it. ``least``:
    the cosine from which two vectors are of one person, by the embedder's own account; None means the function's
    attribute ``same_identity``. The embedder is tried on the other files: it is to recognise each of them mirrored and
    cropped, or by its second half where it is sound, and not to take half of all pairs for one person. Raises
    NotApplicableError where the cosine is not known, DataError for what are no vectors.
    """
    embed, known = _embedder(embedder)
    at = known if least is None else least
    if at is None:
        raise NotApplicableError(
            "Needs the cosine from which two vectors of the embedder are of one person, as those who made it say: add "
            "--set source_leakage.same_identity=0.5, or whatever it is."
        )
    mine, theirs = _vectors(embed, np.asarray(rows)), _vectors(embed, np.asarray(others))
    alike = mine @ theirs.T
    best = alike.argmax(axis=1)
    twin = np.where(alike[np.arange(len(best)), best] >= at, best, -1).astype(np.int64)
    tried = np.asarray(others)[:_MOST_TRIED]
    again = _vectors(embed, _otherwise(tried))
    recognised = float((np.einsum("nd,nd->n", theirs[: len(tried)], again) >= at).mean())
    pairs = (theirs[: len(tried)] @ theirs[: len(tried)].T)[np.triu_indices(len(tried), 1)]
    confused = float((pairs >= at).mean()) if pairs.size else 0.0
    how = "mirrored and cropped" if np.asarray(others).ndim == 4 else "by their second half"
    said = f"cosine of at least {at:g} by {embedder}, which recognises {recognised:.0%} of training files {how}"
    if confused > _CONFUSED:
        why = f"{embedder} takes {confused:.0%} of all pairs of training files for one person at a cosine of {at:g}"
        return Likeness(twin, said, undefined=why)
    weak = ""
    if recognised < _RECOGNISED:
        weak = f"{said}: who it does not recognise there it will not recognise elsewhere."
    return Likeness(twin, said, weak=weak)


def _embedder(spec: str) -> tuple[Callable[[npt.NDArray[Any]], Any], float | None]:
    if ":" in spec:
        from auditor.loading.user_code import import_object

        function = import_object(spec, None, "--embedder")
        known = getattr(function, "same_identity", None)
        return function, None if known is None else float(known)
    from auditor.loading.auxiliary_models import read_encoder

    file = read_encoder(spec)

    def encode(rows: npt.NDArray[Any]) -> FloatArray:
        import torch

        from auditor.data.images_and_video import fitted_picture
        from auditor.data.preprocessing import ImagePreprocessing

        if rows.ndim != 4:
            raise DataError("An encoder's file is of images: name a function of your own for sound.")
        wanted = file.preprocessing
        assert isinstance(wanted, ImagePreprocessing)
        fitted = wanted.encode(np.stack([fitted_picture(row, wanted) for row in rows]))
        with torch.inference_mode():
            return np.asarray(file.encoder(torch.from_numpy(fitted)).numpy(), np.float64)

    return encode, None


def _vectors(embed: Callable[[npt.NDArray[Any]], Any], rows: npt.NDArray[Any]) -> Vectors:
    """(n, d) of length 1."""
    parts = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        some = rows[start : start + _ROWS_AT_ONCE]
        try:
            found = np.asarray(embed(some), np.float64)
        except DataError:
            raise
        except Exception as error:  # the user's function may raise anything
            raise DataError(f"--embedder raised {type(error).__name__}: {first_line(error)}.") from error
        if found.ndim != 2 or len(found) != len(some) or not np.isfinite(found).all():
            raise DataError(
                f"--embedder gave {found.shape} for {len(some)} files: it is to give one vector of finite numbers each."
            )
        parts.append(found)
    whole = np.concatenate(parts)
    length = np.linalg.norm(whole, axis=1, keepdims=True)
    return np.asarray(np.divide(whole, length, out=np.zeros_like(whole), where=length > 1e-12), np.float32)


def _otherwise(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same people otherwise: pictures mirrored and less a sixteenth, of sound its second half alone."""
    if rows.ndim == 4:
        # Mirrored alone, whatever sums up all pixels would know them again.
        by = max(1, rows.shape[1] // 16)
        return np.pad(rows[:, by:, ::-1][:, :, by:], ((0, 0), (0, by), (0, by), (0, 0)), mode="edge")
    half = rows.shape[1] // 2
    return np.stack([np.resize(row[half:], row.size) for row in rows])
