"""Provenance statements read from a file, as plain data under a closed schema; imports no reader."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from auditor.core.files import Closed
from auditor.core.number_types import Count

MOST_STATEMENTS = 60
MOST_ACTIONS = 50
LONGEST_VALUE = 500

Line = Annotated[str, Field(max_length=LONGEST_VALUE)]
Where = Literal["EXIF", "PNG text", "XMP", "IPTC", "comment", "container"]
# What a digital source type comes to: made by a trained model, partly so, recorded from life, or something else.
Origin = Literal["synthetic", "partly synthetic", "captured", "other"]
# What a signature is worth: an intact one by a signer for whom no authority vouches is one that anybody can make.
Standing = Literal["trusted", "intact, signer unknown", "not valid", "not known"]
# What vouches for the time of a signature, so that it holds after its certificate has ended.
TimeStamp = Literal["none", "trusted", "intact, authority unknown", "not valid"]

_ORIGINS: dict[str, Origin] = {
    "trainedAlgorithmicMedia": "synthetic",
    "compositeWithTrainedAlgorithmicMedia": "partly synthetic",
    "compositeSynthetic": "partly synthetic",
    "digitalCapture": "captured",
    "computationalCapture": "captured",
    "negativeFilm": "captured",
    "positiveFilm": "captured",
    "print": "captured",
}


def origin_of(digital_source_type: str) -> Origin:
    """The meaning of an IPTC term for a detector; the term may be a full URL or its last part.

    Source: IPTC NewsCodes, Digital Source Type, http://cv.iptc.org/newscodes/digitalsourcetype/.
    """
    return _ORIGINS.get(short_type(digital_source_type), "other")


def short_type(digital_source_type: str) -> str:
    """The last part of a term's address: ``trainedAlgorithmicMedia``."""
    return digital_source_type.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1]


class Statement(Closed):
    """An unsigned statement in a file: anyone may have written or removed it.

    ``value``: its first 500 characters. ``points_to``: what is known to write such a thing, in words; "" where nothing
    particular is. ``origin``: of a digital source type.
    """

    where: Where
    name: Annotated[str, Field(max_length=100)]
    value: Line
    points_to: Line = ""
    origin: Origin | None = None


class Action(Closed):
    """An action in signed credentials: ``action`` such as ``c2pa.created``, with the software used."""

    action: Line
    software: Line = ""
    digital_source_type: Line = ""
    origin: Origin | None = None


class Credentials(Closed):
    """The active manifest of a file's C2PA Content Credentials.

    ``state``: as the reader says it, ``Invalid``, ``Valid`` or ``Trusted``. ``standing``: what that comes to.
    ``not valid``: the file was changed since, or the manifest is not sound. ``intact, signer unknown``: unchanged since
    it was signed, by a certificate that leads to none of the authorities trusted here, so that the names and claims in
    it are anybody's. ``trusted``: it leads to one of them. ``anchored``: whether any such authority was named.
    ``time_stamp``: likewise of the authority that vouches for ``signed_at``. ``failures``: codes and explanations of
    the checks that failed, as the reader says them.
    """

    state: Line
    standing: Standing
    anchored: bool
    signer: Line = ""
    issuer: Line = ""
    signed_at: Line = ""
    time_stamp: TimeStamp = "none"
    claim_generator: Line = ""
    title: Line = ""
    actions: Annotated[tuple[Action, ...], Field(max_length=MOST_ACTIONS)] = ()
    failures: Annotated[tuple[Line, ...], Field(max_length=MOST_ACTIONS)] = ()
    n_ingredients: Count = 0

    @property
    def declares_generation(self) -> bool:
        """Whether the manifest declares that a trained model generated the file, at least partly."""
        return any(action.origin in ("synthetic", "partly synthetic") for action in self.actions)


class FileProvenance(Closed):
    """All provenance statements of a file: signed, unsigned and unreadable ones.

    ``credentials_unread`` and ``statements_unread``: why, "" where there is nothing to say. Nothing found is no
    evidence of anything: most programs and platforms take such data away.
    """

    credentials: Credentials | None = None
    credentials_unread: Line = ""
    statements: Annotated[tuple[Statement, ...], Field(max_length=MOST_STATEMENTS)] = ()
    statements_unread: Line = ""
