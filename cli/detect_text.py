"""Text of ``auditor detect``: answers, what they rest on, what detectors are known to do, and what to do next."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from cli.detect_calibrate import Calibrated, left_out_by_all

if TYPE_CHECKING:
    from auditor.detection.detection_record import FileResult, FileVerdict
    from auditor.detection.provenance.provenance_record import Credentials, FileProvenance, Statement
    from auditor.evidence.detection_evidence import AskedDetector
    from auditor.models.detector_card import KnownRate

_MOST_SHOWN = 6
_COLUMNS = (
    "file", "medium", "answer", "probability", "p_real", "p_fake", "q_value", "credentials", "claims", "metadata",
    "reason", "notes",
)  # fmt: skip
_COLOURS = {
    "fake": "FAIL",
    "declared synthetic": "FAIL",
    "no known trace": "INCONCLUSIVE",
    "cannot say": "INCONCLUSIVE",
    "unread": "NOT_RUN",
    "": "NOT_JUDGED",
}
# What is shown of a detector's known rates; --json has all of them.
_SHOWN = {"auc": "AUC", "equal_error_rate": "equal error rate", "tpr_at_fpr": "TPR at 1 % FPR"}
UNMEASURED = (
    "not measured on another collection: of files that came another way than those it was made with, far more real "
    "ones may be called fake (detect calibrate, or --known-real DIR)"
)


def print_results(
    results: Sequence[tuple[str, FileResult]],
    detectors: Sequence[AskedDetector],
    code: int,
    known_real: Sequence[Calibrated],
) -> None:
    from auditor.report.record.number_text import visible
    from cli.terminal import labelled

    looked_at = sys.stdout.isatty()
    for path, result in results if looked_at else ():
        _print_file(path, result, detectors)
    if not looked_at:
        _print_table(results)
    # In a pipe the table stands alone, and how to read it goes to whoever looks on.
    for line in [
        *(f"left out  {line}, of the files known to be real" for line in left_out_by_all(known_real)),
        *(f"channel   {each.few}" for each in known_real if each.few),
        *(_explained(detectors) if detectors else ()),
        *(line for each in detectors for line in _of_batch(each)),
        *(() if detectors else without_detector([result for _, result in results])),
    ]:
        typer.echo(labelled(visible(line)), err=not looked_at)
    typer.echo(_ending(results, code, any_detector=bool(detectors)), err=not looked_at)


def _print_table(results: Sequence[tuple[str, FileResult]]) -> None:
    from auditor.report.record.number_text import visible
    from cli.terminal import print_table

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}"

    rows = []
    for path, result in results:
        verdict, provenance = result.verdict, result.provenance
        rows.append(
            (
                path,
                result.medium or "",
                result.answer,
                *(
                    cell(getattr(verdict, name) if verdict else None)
                    for name in ("probability", "p_real", "p_fake", "q_value")
                ),
                provenance.credentials.standing if provenance.credentials else provenance.credentials_unread,
                "; ".join(_claims(provenance)),
                "; ".join(map(_statement_text, provenance.statements)) or provenance.statements_unread,
                result.error or (verdict.reason if verdict else ""),
                " ".join(result.notes),
            )
        )
    print_table(_COLUMNS, [[visible(text) for text in row] for row in rows])


def _print_file(path: str, result: FileResult, detectors: Sequence[AskedDetector]) -> None:
    from auditor.report.record.number_text import visible
    from cli.terminal import coloured, paragraph

    answer, verdict = result.answer, result.verdict
    head = coloured(f"{answer.upper() or 'NOT ASKED':<18}", _COLOURS[answer])
    kind = ", ".join(filter(None, (result.form, result.medium)))
    guess = ""
    if verdict is not None and verdict.probability is not None:
        between = f" [{verdict.low:.2f}, {verdict.high:.2f}]" if verdict.low is not None else ""
        guess = f"  probability of synthetic {verdict.probability:.2f}{between}"
    typer.echo(f"{head} {visible(path)}{f'  ({kind})' if kind else ''}{guess}")
    for line in _file_lines(result, detectors):
        typer.echo(paragraph(visible(line), 12))
    typer.echo("")


def _file_lines(result: FileResult, detectors: Sequence[AskedDetector]) -> Iterator[str]:
    from auditor.models.detector_card import LOOKS_AT

    verdict = result.verdict
    yield from filter(None, (result.error, verdict.reason if verdict is not None else "", *result.notes))
    if verdict is not None and (said := list(_numbers(verdict, detectors[0] if len(detectors) == 1 else None))):
        yield "; ".join(said)
    for part in result.parts:
        grounds = "".join(f"{p_values}. " for p_values in _p_values(part.verdict))
        yield f"{LOOKS_AT[part.medium]:<10}{part.verdict.answer}: {grounds}{part.verdict.reason}"
    if not result.error or result.medium is not None:
        yield from _provenance_lines(result.provenance)


def _p_values(verdict: FileVerdict) -> Iterator[str]:
    if verdict.p_real is not None and verdict.p_fake is not None:
        yield f"p-values: real {verdict.p_real:.3f}, fake {verdict.p_fake:.3f}"


def _numbers(verdict: FileVerdict, detector: AskedDetector | None) -> Iterator[str]:
    """The numbers of a verdict; ``detector``: the only one that was asked."""
    from auditor.detection.detector_calibration import predictive_value

    yield from _p_values(verdict)
    if verdict.q_value is not None:
        yield f"q-value {verdict.q_value:.3f}"
    if detector is None:
        return
    worth = predictive_value(detector.known.card, detector.prevalence or 0.0)
    if worth is not None and verdict.answer == "fake":
        yield f"{1.0 - worth.value:.0%} of such answers are wrong where {worth.prevalence:.3g} of files are fake"


def _provenance_lines(provenance: FileProvenance) -> Iterator[str]:
    signed, statements = provenance.credentials, provenance.statements
    if signed is not None:
        yield f"signed    {_signed(signed)}"
        yield from (f"claims    {claim}" for claim in _claims(provenance))
        yield from (f"failed    {failure}" for failure in signed.failures)
    elif provenance.credentials_unread:
        yield f"signed    {provenance.credentials_unread}"
    yield from (f"says      {_statement_text(statement)}" for statement in statements[:_MOST_SHOWN])
    if len(statements) > _MOST_SHOWN:
        yield f"says      and {len(statements) - _MOST_SHOWN} more: see --json"
    if provenance.statements_unread:
        yield f"says      {provenance.statements_unread}"
    if not (signed or statements or provenance.credentials_unread or provenance.statements_unread):
        yield "says      nothing of its making"


def _signed(signed: Credentials) -> str:
    of = f" of {signed.issuer}" if signed.issuer else ""
    by = f"{signed.signer or 'an unnamed certificate'}{of}"
    when = f" on {signed.signed_at}" if signed.signed_at else ""
    said = f"C2PA, {signed.standing}: by {by}{when}"
    if signed.standing == "intact, signer unknown":
        why = "no authority named by --trust-anchors vouches for it" if signed.anchored else "no --trust-anchors"
        said += f", as its own certificate says and anybody's can ({why})"
    return f"{said}; time stamp: {signed.time_stamp}"


_NOT_VOUCHED = {"trusted": "", "not valid": "NOT VALID: "}


def _claims(provenance: FileProvenance) -> list[str]:
    """What signed credentials claim of how the file was made, marked where nobody known stands behind it."""
    signed = provenance.credentials
    if signed is None:
        return []
    found = [
        f"{action.action}"
        + (f" with {action.software}" if action.software else "")
        + (f", {action.digital_source_type}: {action.origin}" if action.digital_source_type else "")
        for action in signed.actions[:_MOST_SHOWN]
    ]
    found += [f"written by {signed.claim_generator}"] if signed.claim_generator else []
    return [_NOT_VOUCHED.get(signed.standing, "SIGNER UNKNOWN: ") + claim for claim in found]


def _statement_text(statement: Statement) -> str:
    from auditor.report.record.number_text import shortened

    value = shortened(" ".join(statement.value.split()), 80)
    meant = statement.points_to or (f"that is, {statement.origin}" if statement.origin else "")
    return f"{statement.where} {statement.name} = {value}" + (f" ({meant})" if meant else "")


def _explained(detectors: Sequence[AskedDetector]) -> Iterator[str]:
    """What each detector is, how often it is known to err, and how an answer is to be read."""
    from auditor.detection.detector_calibration import channel_lines, predictive_value
    from auditor.evidence.detection_evidence import READING
    from auditor.models.detector_card import IS_FOR

    for each in detectors:
        known, card = each.known, each.known.card
        kinds = f", trained on {', '.join(card.kinds[:8])}" if card.kinds else ""
        more = f" and {len(card.kinds) - 8} more" if len(card.kinds) > 8 else ""
        yield (
            f"detector  {each.path} for {IS_FOR[known.medium]}{kinds}{more}; calibrated on {known.n_real:,} real and "
            f"{known.n_fake:,} synthetic files, either ruled out at an error rate of {card.error_rate:g}"
        )
        for line in rate_lines(card.known_rates):
            yield f"known     {line}"
        for line in channel_lines(card):
            yield f"channel   {line}"
        if (worth := predictive_value(card, each.prevalence or 0.0)) is not None:
            yield (
                f"worth     where {worth.prevalence:.3g} of files are synthetic (--prevalence), {1 - worth.value:.0%}"
                f" of the answers fake are wrong (95 % interval [{1 - worth.high:.0%}, {1 - worth.low:.0%}])"
            )
        if card.unproven:
            yield f"silent    {card.unproven}"
    yield f"reading   {READING}"


def _of_batch(detector: AskedDetector) -> Iterator[str]:
    """What is selected of the files asked together."""
    batch = detector.batch
    if batch is None or batch.n < 2 or not batch.n_fake:
        return
    of_these = f": of these at most {batch.level:.0%} are real on average, whatever the share of fakes"
    yield (
        f"together  {batch.n_selected:,} of {batch.n:,} are selected (q-value up to {batch.level:g})"
        f"{of_these if batch.n_selected else ', as where few are fake'}; {batch.n_fake:,} are answered fake, each by "
        "itself"
    )


def rate_lines(rates: Sequence[KnownRate]) -> Iterator[str]:
    """Known error rates of a detector: on training kinds, on other kinds, and on the worst of those."""
    for unseen, words in ((False, "on new files of kinds it knows"), (True, "over kinds left out of training")):
        if line := _pooled_line(rates, unseen=unseen):
            yield f"{words}: {line}"
    by_kind = [rate for rate in rates if rate.kind is not None and rate.unseen and rate.metric == "equal_error_rate"]
    if by_kind:
        worst = max(by_kind, key=lambda rate: rate.value)
        yield f"worst of {len(by_kind)} kinds left out: {worst.kind}, equal error rate {with_interval(worst)}"
    if not rates:
        yield "nothing: no error rate was measured when it was made"


def _pooled_line(rates: Sequence[KnownRate], *, unseen: bool) -> str:
    """The rates over all kinds together, seen in training or not; empty where none was measured."""
    pooled = {rate.metric: rate for rate in rates if rate.kind is None and rate.unseen is unseen}
    parts = [f"{name} {with_interval(pooled[metric])}" for metric, name in _SHOWN.items() if metric in pooled]
    return ", ".join(parts)


def with_interval(rate: KnownRate) -> str:
    """The value to two digits and its interval."""
    between = "" if rate.low is None or rate.high is None else f" [{rate.low:.2f}, {rate.high:.2f}]"
    return f"{rate.value:.2f}{between}"


def _ending(results: Sequence[tuple[str, FileResult]], code: int, *, any_detector: bool) -> str:
    counts = {answer: sum(result.answer == answer for _, result in results) for answer in _COLOURS}
    if not any_detector and not counts["declared synthetic"]:
        unread = f", {counts['unread']} of them unread" if counts["unread"] else ""
        these = "this file" if len(results) == 1 else f"these {len(results)} files{unread}"
        return f"exit {code}: no detector was named (--detector): read were only statements of origin, of {these}"
    said = ", ".join(f"{n} {answer or 'not asked'}" for answer, n in counts.items() if n)
    return f"exit {code}: {said}" + ("; what is not found fake is not thereby real" if code else "")


_MADE_OF = {"image": "pictures", "audio": "recordings", "video": "pictures and recordings"}


def without_detector(results: Sequence[FileResult]) -> Iterator[str]:
    """Four lines, to which the exit code is the fifth."""
    read = [result for result in results if not result.error]
    signed = sum(result.provenance.credentials is not None for result in read)
    unsigned = sum(bool(result.provenance.statements) and result.provenance.credentials is None for result in read)
    silent = len(results) - signed - unsigned
    yield (
        f"can       say what files claim of their own making: of {len(results):,}, {signed:,} by Content Credentials, "
        f"{unsigned:,} by unsigned metadata, {silent:,} not at all. Anybody can write metadata, and strip "
        "either; a signature says who signed, and for that --trust-anchors."
    )
    yield (
        "cannot    say whether one is synthetic: nothing looked at what is shown or heard, and a file that claims "
        "nothing is neither real nor fake for it."
    )
    yield (
        "next      ask for each file as it left the camera or the editor, and from whom it came: sites and messengers "
        "strip what a file says of itself."
    )
    media = {result.medium for result in read if result.medium is not None}
    of = _MADE_OF["video"] if len(media) != 1 or "video" in media else _MADE_OF[media.pop()]
    two = ", one of pictures and one of sound" if of == _MADE_OF["video"] else ""
    yield (
        f"next      gather {of} that came the same way, in folders real (19 or more) and fake, and make a "
        f"detector{two}: auditor detect train DIR, or of any classifier auditor detect calibrate MODEL --data DIR. "
        "Then add --detector."
    )
