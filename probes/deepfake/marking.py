"""Marking: machine-readable marks in a generator's files, and their survival in distribution."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import DataError, MissingExtraError, OtherKindError, UsageError, first_line
from auditor.core.files import printable_name
from auditor.core.rows import BoolArray
from auditor.data.images_and_video import need_pillow
from auditor.detection.file_kinds import FileKind, Medium, kind_of
from auditor.detection.fingerprints import MOST_NEAR, fingerprints_of, repeated
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.models.detector_card import Medium as DetectorMedium
from auditor.run.probe import BaseProbe, allow_untrusted
from auditor.statistics.estimate import Undefined
from auditor.statistics.estimate_kinds import AnyEstimate
from auditor.statistics.intervals import clopper_pearson
from auditor.statistics.rates import Proportion
from probes.deepfake.degradations import rungs_of, versions
from probes.deepfake.detector_files import content, make_measurement
from probes.probe_inputs import whole_number

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.detection.provenance.provenance_record import Credentials
    from auditor.models.audited_model import AuditedModel

_N_SAMPLES = 60
# Of unmarked files, what a decoder may find at most, at 95 %, for what it finds to count as a mark.
_MOST_FALSE = 0.05
_SHOWN_BY: Mapping[Medium, DetectorMedium] = {"image": "image", "audio": "speech"}
_NO_ANCHORS = (
    "Which authorities to trust was not said, and without one anybody's certificate is as good: add "
    "--set marking.trust_anchors=FILE with their certificates (PEM)."
)
_WRONG = "false_detection_rate"
_CHANGED = "unmarked files that were changed alike"
_NO_UNMARKED = "Needs files that carry no mark: a sub-folder named real beside one named fake that holds the outputs."


@dataclass(frozen=True)
class Decoder:
    """A decoder of the user's by its name: :meth:`find` says whether a file's content has the mark."""

    name: str
    function: Callable[[bytes], Any]

    def find(self, content: bytes) -> bool:
        """Its answer; DataError where it raises, or answers neither True nor False."""
        try:
            answer = self.function(content)
        except Exception as error:  # the user's function may raise anything
            raise DataError(f"--decoder {self.name} raised {type(error).__name__}: {first_line(error)}.") from error
        if not isinstance(answer, bool | np.bool_):
            raise DataError(
                f"--decoder {self.name} answered a {type(answer).__name__}: it is to answer True or False, by a "
                "threshold that was chosen before."
            )
        return bool(answer)


def decoder_of(name: str) -> Decoder:
    """The decoder ``package.module:function``; UsageError for another name."""
    from auditor.loading.user_code import import_object

    if ":" not in name:
        raise UsageError(f"--decoder {printable_name(name)!r} must be a function: package.module:function.")
    return Decoder(name, import_object(name, None, "--decoder"))


@dataclass(frozen=True, eq=False)
class _Files:
    """Different files of one sort: their contents, names and kinds, how many copies were left out, how many files
    are alike another, such as the same saved again, and of how many that cannot be told.
    """

    contents: list[bytes]
    names: list[str]
    kinds: list[FileKind]
    copies: int
    near: int
    untold: int

    def weak(self, noun: str) -> str:
        """Why these files, called ``noun``, are fewer than they seem, in a sentence; "" where they are not."""
        n = len(self.names)
        if self.near > MOST_NEAR * n:
            return f"{self.near:,} of {n:,} {noun} are near copies of another, or share one layout: leave one of each."
        if self.near + self.untold > MOST_NEAR * n:
            also = f", and {self.near:,} are" if self.near else ""
            return (
                f"Of {self.untold:,} of {n:,} {noun} it cannot be told whether they are near copies of another (video, "
                f"silent sound, plain or damaged pictures){also}: such copies would say nothing new."
            )
        return ""


class Marking(BaseProbe):
    """Marks in a generator's outputs: signed manifests, watermarks, their survival, and false detections.

    Over the different files that a generator made, of which exact copies count once; a mark is a trusted manifest that
    declares generation by AI, or what a named decoder finds: ``trusted_manifest_share``, ``intact_manifest_share``,
    ``timestamped_manifest_share``, ``found_share``, ``marked_share``, ``found_share_under_*``, ``surviving_share``,
    ``false_detection_rate`` and ``false_detection_rate_under_*``.

    Changes, and which of them are everyday ones: those of ``detector_robustness``, for images and sound; files are then
    saved without loss and without metadata, as programs do that know nothing of C2PA, so that a manifest is gone. Video
    is not changed. No PASS rests on files of which more than one in twenty are near copies of another, or share one
    layout, or may without its being seen: video, silent sound, pictures of one colour or ramp. One that a decoder has a
    part in needs it to be shown, by files without a mark, that it finds one in at most 5 % of such files (exact, at 95
    %): 59 of them at least, of every format that outputs have, and of what is found after changes 59 that were changed
    alike.

    trust_anchors: certificates of the authorities to trust, PEM or a C2PA trust list. decoder: functions
    ``package.module:name`` that are given a file's content and answer True or False. n_samples: outputs, and unmarked
    files, that are changed.

    Raises OtherKindError unless what is audited is a folder of outputs.

    Sources: C2PA, Technical Specification 2.2, 2025; Fernandez et al., ICCV 2023.
    """

    name = "marking"
    pillar = "deepfake"
    goal = "Are a generator's outputs marked as synthetic, and does the mark survive?"
    citation = "C2PA, Technical Specification 2.2, 2025; Fernandez et al., ICCV 2023"
    methods = ("c2pa", "decoder", "any")
    needs = ()
    questions = (AuditQuestion("marked"),)
    untrusted_options = allow_untrusted("n_samples", reads=("trust_anchors",))
    metrics = define_metrics(
        """
        trusted_manifest_share: share of outputs with a C2PA manifest that is intact, whose signer an authority named in
          trust_anchors vouches for, and that declares generation by AI; [0, 1], ideal 1; so many outputs say by a
          signature that they are synthetic; C2PA, Technical Specification 2.2
        intact_manifest_share: the same whoever signed; [0, 1], no ideal; so many carry such a manifest, which anybody
          can make and put on any file; C2PA, Technical Specification 2.2
        timestamped_manifest_share: share of outputs with such a trusted manifest whose time is vouched for as well; [0,
          1], ideal 1; of so many the signature can be checked after its certificate has ended; C2PA, Technical
          Specification 2.2
        found_share: share of outputs in which the mark mark is found; [0, 1], ideal 1; so many can be detected by this
          mark alone; Fernandez et al., ICCV 2023
        marked_share: share of outputs in which any of the marks is found; [0, 1], ideal 1; so many are marked in a way
          that machines read; Regulation (EU) 2024/1689, Art. 50(2)
        found_share_under_*: share of sampled outputs in which the mark, or any of them, is found after that change; [0,
          1], ideal 1; so many can still be detected after it; Fernandez et al., ICCV 2023
        surviving_share: share of sampled outputs in which some mark is found after each of the everyday changes; [0,
          1], ideal 1; so many stay marked whatever of these a file meets on its way; Fernandez et al., ICCV 2023
        false_detection_rate: share of unmarked files in which the mark, or any of them, is found; [0, 1], ideal 0; of
          so many files it would be said wrongly that they are synthetic; Fernandez et al., ICCV 2023
        false_detection_rate_under_*: the same of sampled unmarked files after that change; [0, 1], ideal 0; of so many
          an ordinary change makes a marked file; Fernandez et al., ICCV 2023
        """
    )

    def __init__(
        self, *, trust_anchors: str | None = None, decoder: Sequence[str] = (), n_samples: int = _N_SAMPLES
    ) -> None:
        whole_number("n_samples", n_samples, 1)
        self.trust_anchors = trust_anchors
        self.decoder = (decoder,) if isinstance(decoder, str) else tuple(dict.fromkeys(decoder))
        self.n_samples = n_samples

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Measurements on the files of the folder; see the class for their definitions."""
        from auditor.detection.provenance.read_provenance import read_anchors
        from auditor.models.recorded_model import RecordedGenerator

        if not isinstance(model, RecordedGenerator):
            raise OtherKindError("Asks about files that a generator made: auditor scan --predictions FOLDER.")
        anchors = None if self.trust_anchors is None else read_anchors(Path(self.trust_anchors))
        decoders = [decoder_of(named) for named in self.decoder]
        is_made = np.ones(len(data), bool) if data.y_true is None else data.y_true == 1
        made, unmarked = (_different(data, np.flatnonzero(these).tolist()) for these in (is_made, ~is_made))
        few, few_unmarked = made.weak("outputs"), unmarked.weak("unmarked files")
        _check_disjoint(made, unmarked)
        try:
            credentials = [_manifest(c, k, anchors) for c, k in zip(made.contents, made.kinds, strict=True)]
            why = _NO_ANCHORS if anchors is None else ""
        except MissingExtraError as error:
            credentials, why = [None] * len(made.contents), str(error)
        found = [replace(m, weak=few) for m in _manifests(credentials, made, why, has_decoders=bool(decoders))]
        if why and not decoders:
            nothing = Undefined(reason=f"There is no mark that could be looked for. {why}", inapplicable=True)
            names = ("marked_share", "surviving_share")
            return [*(make_measurement(m, nothing, len(made.names), 1.0, method="any") for m in names), *found]
        marks = _Marks(decoders, "" if anchors is None or why else anchors)
        seen, wrong = marks.table(made), marks.table(unmarked)
        weak = marks.unproven(wrong) or marks.of_other_forms(made, unmarked, wrong)
        told = [
            *_as_they_are(marks, seen, wrong, made, weak),
            *found,
            *self._measure_changed(marks, made, unmarked, weak, rng),
        ]
        by_unmarked = few_unmarked if decoders else ""
        return [
            replace(m, weak=m.weak or (few_unmarked if m.metric.startswith(_WRONG) else few or by_unmarked))
            for m in told
        ]

    def _measure_changed(
        self, marks: _Marks, outputs: _Files, unmarked: _Files, weak: str, rng: np.random.Generator
    ) -> list[Measurement]:
        """What is found after every change, in outputs and in unmarked files, and after all everyday ones.

        What is found in changed outputs is held against what is found in unmarked files so changed, of the same medium.
        """
        found: list[Measurement] = []
        survives: list[bool] = []
        said: list[str] = []
        for medium in _SHOWN_BY:
            seen, undecoded = self._sampled(marks, outputs, medium, rng)
            wrong, lost = self._sampled(marks, unmarked, medium, rng)
            # An unmarked file that shows nothing is none in which no mark was found.
            wrong = wrong[: len(wrong) - lost]
            if len(seen):
                after, words = _everyday(seen, medium)
                survives += after
                said += [words]
                said += [f"{undecoded:,} could not be decoded and count as not found"] if undecoded else []
                as_much = np.asarray(_everyday(wrong, medium)[0] if len(wrong) else [], bool)[:, None]
                weak = weak or marks.unproven(as_much, _CHANGED)
            found += _rungs(marks, seen, medium, "found_share", 1.0, against=wrong)
            found += _rungs(marks, wrong, medium, _WRONG, 0.0)
        video = sum(kind.medium not in _SHOWN_BY for kind in outputs.kinds)
        said += [f"{video:,} videos are not changed, and not among these"] if video else []
        none = Undefined(reason="there are no images and no sound among the outputs", inapplicable=True)
        estimate: AnyEstimate = _share(np.asarray(survives, bool)) if survives else none
        more = {"detail": "; ".join(said), "weak": weak}
        return [make_measurement("surviving_share", estimate, len(survives), 1.0, method="any", **more), *found]

    def _sampled(self, marks: _Marks, files: _Files, medium: Medium, rng: np.random.Generator) -> tuple[BoolArray, int]:
        """(n, rungs, marks) as :func:`_after_changes` has it, of so many files of one medium as are changed."""
        which = [i for i, kind in enumerate(files.kinds) if kind.medium == medium]
        if len(which) > self.n_samples:
            which = sorted(rng.choice(which, self.n_samples, replace=False).tolist())
        if not which:
            return np.zeros((0, len(rungs_of(medium)), len(marks.names)), bool), 0
        return _after_changes(marks, files, which, medium, rng)


@dataclass(frozen=True, eq=False)
class _Marks:
    """The marks that are looked for: manifests where ``anchors`` are given, and what each decoder finds."""

    decoders: Sequence[Decoder]
    anchors: str

    @property
    def names(self) -> list[str]:
        """What each mark is called, in the order of :meth:`marks_in`."""
        return [*(["c2pa"] if self.anchors else []), *(d.name for d in self.decoders)]

    def marks_in(self, data: bytes, kind: FileKind) -> list[bool]:
        """Which of the marks a file's content carries."""
        manifest = [_declares(_manifest(data, kind, self.anchors))] if self.anchors else []
        return [*manifest, *(d.find(data) for d in self.decoders)]

    def table(self, files: _Files) -> BoolArray:
        """(n, marks) which marks the files carry."""
        rows = [self.marks_in(c, k) for c, k in zip(files.contents, files.kinds, strict=True)]
        return np.asarray(rows, bool).reshape(len(rows), len(self.names))

    def unproven(self, wrong: BoolArray, files: str = "unmarked files") -> str:
        """Why what the decoders find is not known to be a mark, in a sentence; "" where it is.

        wrong: (n, marks), or (n, 1) of any of them, what is found in unmarked files; ``files``: what those are called.
        """
        if not self.decoders:
            return ""
        if not len(wrong):
            return f"A decoder that finds a mark in every file would get the same. {_NO_UNMARKED}"
        own = wrong[:, -len(self.decoders) :]
        counts = own.sum(axis=0)
        n, worst = len(wrong), int(counts.max())
        if clopper_pearson(worst, n=n, alpha=0.05)[1] <= _MOST_FALSE:
            return ""
        names = [d.name for d in self.decoders] if own.shape[1] == len(self.decoders) else ["One of the decoders"]
        return (
            f"{names[int(counts.argmax())]} finds a mark in {worst:,} of {n:,} {files}, which does "
            f"not show that it finds one in at most {_MOST_FALSE:.0%} of such files: what it finds may be no mark."
        )

    def of_other_forms(self, outputs: _Files, unmarked: _Files, wrong: BoolArray) -> str:
        """Why a decoder may have told formats apart and no mark, in a sentence; "" where it has not.

        Of every format that more than one in twenty of the outputs have, unmarked files have to show it.
        """
        if not self.decoders:
            return ""
        forms = [kind.form for kind in outputs.kinds]
        for form in sorted({one for one in forms if forms.count(one) > _MOST_FALSE * len(forms)}):
            alike = wrong[[kind.form == form for kind in unmarked.kinds]]
            if not len(alike):
                return f"No unmarked file is {form}: a decoder that finds a mark in every such file would get the same."
            if why := self.unproven(alike, f"unmarked files that are {form}, as outputs are"):
                return why
        return ""


def _different(data: AuditData, indices: Sequence[int]) -> _Files:
    found: dict[str, tuple[bytes, str, FileKind]] = {}
    for i in indices:
        own = content(data, i)
        found.setdefault(hashlib.sha256(own).hexdigest(), (own, Path(str(data.X[i])).name, kind_of(own)))
    parts = list(found.values())
    near, untold = 0, len(parts)
    for medium, of in _SHOWN_BY.items():
        prints = [fingerprints_of(own, name, of) for own, name, kind in parts if kind.medium == medium]
        near += repeated(prints, of)
        untold -= sum(map(bool, prints))
    return _Files(
        [p[0] for p in parts], [p[1] for p in parts], [p[2] for p in parts], len(indices) - len(parts), near, untold
    )


def _check_disjoint(outputs: _Files, unmarked: _Files) -> None:
    both = set(outputs.contents) & set(unmarked.contents)
    if both:
        name = outputs.names[outputs.contents.index(next(iter(both)))]
        raise DataError(
            f"{len(both):,} files lie both among the outputs and among the unmarked ones, such as "
            f"{printable_name(name)!r}: a "
            "file is one or the other."
        )


def _manifest(data: bytes, kind: FileKind, anchors: str | None) -> Credentials | None:
    from auditor.detection.provenance.read_provenance import UnreadableCredentialsError, read_credentials

    try:
        return read_credentials(data, kind.form, anchors)
    except UnreadableCredentialsError:
        return None


def _declares(credentials: Credentials | None) -> bool:
    return credentials is not None and credentials.standing == "trusted" and credentials.declares_generation


def _manifests(
    credentials: Sequence[Credentials | None], outputs: _Files, reason: str, *, has_decoders: bool
) -> list[Measurement]:
    """Shares of the outputs by what their manifests are worth.

    ``reason``: why none can be trusted, or "". ``has_decoders``: whether other marks are looked for.
    """
    n = len(credentials)
    known = [c for c in credentials if c is not None]
    trusted = [c for c in known if c.standing == "trusted"]
    silent = sum(not c.declares_generation for c in trusted)
    said = [f"{len(known):,} of {n:,} files have a manifest"]
    said += [f"{sum(c.standing == state for c in known):,} {state}" for state in _STANDINGS]
    said += [f"{silent:,} of the trusted declare no generation by AI"] if silent else []
    said += [f"{outputs.copies:,} exact copies count once"] if outputs.copies else []
    whole = [c is not None and c.standing in _STANDINGS[:2] and c.declares_generation for c in credentials]
    stamped = [c is not None and _declares(c) and c.time_stamp == "trusted" for c in credentials]
    unknown = Undefined(reason=reason, inapplicable=True)
    no_reader = bool(reason) and reason != _NO_ANCHORS
    intact = unknown if no_reader else _share(np.asarray(whole))
    make = partial(make_measurement, n_samples=n, method="c2pa")
    if reason and has_decoders:
        # Decoders were named and no authorities: manifests are no mark that was asked for.
        return [make("intact_manifest_share", intact, ideal=None, detail="; ".join([*said, reason]))]
    shares = {"trusted_manifest_share": [_declares(c) for c in credentials], "timestamped_manifest_share": stamped}
    detail = "; ".join(said)
    return [
        *(make(m, unknown if reason else _share(np.asarray(f)), ideal=1.0, detail=detail) for m, f in shares.items()),
        make("intact_manifest_share", intact, ideal=None, detail=detail),
    ]


_STANDINGS = ("trusted", "intact, signer unknown", "not valid")


def _as_they_are(
    marks: _Marks, detections: BoolArray, wrong: BoolArray, outputs: _Files, weak: str
) -> list[Measurement]:
    """What is found in the outputs and in the unmarked files, both (n, marks), by any mark and by each."""
    said = [f"by any of {', '.join(marks.names)}"]
    said += [f"{outputs.copies:,} exact copies count once"] if outputs.copies else []
    said += [f"{outputs.near:,} are near copies of another, or share its layout"] if outputs.near else []
    detail = "; ".join(said)
    found = [_count("marked_share", _any_mark(detections), 1.0, method="any", detail=detail, weak=weak)]
    found += [
        _count("found_share", detections[:, k], 1.0, method="decoder", at={"mark": name}, weak=weak)
        for k, name in enumerate(marks.names)
        if name != "c2pa"  # of manifests, trusted_manifest_share says it
    ]
    if not len(wrong):
        nothing = Undefined(reason=_NO_UNMARKED, inapplicable=True)
        return [*found, make_measurement(_WRONG, nothing, 0, 0.0, method="any")]
    found.append(_count(_WRONG, _any_mark(wrong), 0.0, method="any"))
    for k, name in enumerate(marks.names):
        method = "c2pa" if name == "c2pa" else "decoder"
        found.append(_count(_WRONG, wrong[:, k], 0.0, method=method, at={"mark": name}, part=True))
    return found


def _after_changes(
    marks: _Marks, files: _Files, indices: Sequence[int], medium: Medium, rng: np.random.Generator
) -> tuple[BoolArray, int]:
    """(n, rungs, marks) which marks are found after every change, and how many files could not be decoded.

    Those stand last, as files in which nothing is found.
    """
    if medium == "image":
        need_pillow()
    kind = FileKind(medium, "PNG" if medium == "image" else "WAV")
    seen, undecoded, shape = [], 0, (len(rungs_of(medium)), len(marks.names))
    for i in indices:
        try:
            changed = versions(files.contents[i], files.names[i], medium, int(rng.integers(2**31)), rungs_of(medium))
        except DataError:
            undecoded += 1
            continue
        seen.append(np.asarray([marks.marks_in(version, kind) for version in changed], bool).reshape(shape))
    seen += [np.zeros(shape, bool)] * undecoded
    return np.stack(seen), undecoded


def _everyday(detections: BoolArray, medium: Medium) -> tuple[list[bool], str]:
    """Of each file whether some mark is found after every everyday change, and after which change the fewest are."""
    rungs = rungs_of(medium)
    everyday = [k for k, (ladder, level) in enumerate(rungs) if level in ladder.everyday]
    any_mark = np.asarray(detections[:, everyday].any(axis=2), bool)
    counts = any_mark.sum(axis=0)
    ladder, level = rungs[everyday[int(counts.argmin())]]
    words = f"fewest after {ladder.name} {level:g}: {int(counts.min()):,} of {len(detections):,}"
    return [bool(row.all()) for row in any_mark], words


def _rungs(
    marks: _Marks, detections: BoolArray, medium: Medium, metric: str, ideal: float, *, against: BoolArray | None = None
) -> list[Measurement]:
    """What is found after every change by any mark, and of several decoders by each.

    ``against``: (n, rungs, marks) the same of unmarked files, where what is found is to be a mark.
    """
    found = []
    # A manifest is gone, so that of one decoder the share of any mark says it.
    own = [j for j, mark in enumerate(marks.names) if mark != "c2pa"] if len(marks.decoders) > 1 else []
    for k, (ladder, level) in enumerate(rungs_of(medium) if len(detections) else []):
        at: dict[str, str | float] = {"medium": medium, ladder.coordinate: float(level)}
        name = f"{metric}_under_{ladder.name}"
        weak = "" if against is None else marks.unproven(against[:, k], _CHANGED)
        found.append(_count(name, _any_mark(detections[:, k]), ideal, method="any", at=at, weak=weak))
        for j in own:
            where: dict[str, Any] = {"at": at | {"mark": marks.names[j]}, "part": True, "weak": weak}
            found.append(_count(name, detections[:, k, j], ideal, method="decoder", **where))
    return found


def _any_mark(detections: BoolArray) -> BoolArray:
    """(n,) whether any of the marks (n, marks) is there."""
    return np.asarray(detections.any(axis=1), bool)


def _count(metric: str, flags: BoolArray, ideal: float, **where: Any) -> Measurement:
    return make_measurement(metric, _share(flags), len(flags), ideal, **where)


def _share(flags: BoolArray) -> AnyEstimate:
    if not len(flags):
        return Undefined(reason="there are no outputs", inapplicable=True)
    return Proportion(successes=int(flags.sum()), n=int(flags.size))
