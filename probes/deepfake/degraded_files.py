"""Degraded versions of a file, as files: inputs for watermark decoders."""

from __future__ import annotations

from io import BytesIO

import numpy as np

from auditor.detection.file_kinds import Medium
from probes.deepfake.picture_changes import PICTURE_LADDERS, Ladder, changed_picture
from probes.deepfake.row_files import no_larger, opened_picture, upright
from probes.deepfake.sound_changes import SOUND_LADDERS, changed_sound

_LADDERS: dict[Medium, tuple[Ladder, ...]] = {"image": PICTURE_LADDERS, "audio": SOUND_LADDERS}


def rungs_of(medium: Medium) -> list[tuple[Ladder, float]]:
    """Every change of a medium with every level; none for video, for which no change is implemented."""
    return [(ladder, level) for ladder in _LADDERS.get(medium, ()) for level in ladder.levels]


def versions(content: bytes, name: str, medium: Medium, seed: int) -> list[bytes]:
    """The file after each of :func:`rungs_of`, saved losslessly and without its metadata.

    All levels of a change share their random draws. Raises DataError for what cannot be decoded.
    """
    if medium == "image":
        picture = no_larger(upright(opened_picture(content, name), name), None)
        found = []
        for ladder, level in rungs_of(medium):
            out = BytesIO()
            changed_picture(picture, ladder.name, level, np.random.default_rng(seed)).save(out, "PNG")
            found.append(out.getvalue())
        return found
    from auditor.data.audio import decode, encode

    sound = decode(content, name)
    return [
        encode(
            changed_sound(sound.samples, sound.sampling_rate, ladder.name, level, np.random.default_rng(seed)),
            sound.sampling_rate,
            "wav",
        )
        for ladder, level in rungs_of(medium)
    ]
