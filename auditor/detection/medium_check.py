"""Check that a file is of the medium and kind that a detector was made for."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.data.preprocessing import ImagePreprocessing


def fit_notes(sizes: Sequence[tuple[int, int]], preprocessing: ImagePreprocessing, subject: str) -> list[str]:
    """The parts that a detector crops from or pads to images of these sizes (width, height); ``subject``: "Of it"."""
    height, width = preprocessing.size
    if preprocessing.faces:
        return [f"{subject} only the largest face was judged."]
    if preprocessing.fit == "stretch":
        return []
    notes = []
    for w, h in dict.fromkeys(sizes):
        if preprocessing.fit == "cover":
            scale = max(width / w, height / h)
            whole = (max(width, round(w * scale)), max(height, round(h * scale)))
            if whole != (width, height):
                notes.append(
                    f"{subject} only the middle was judged: {width} x {height} of the {whole[0]} x {whole[1]} pixels "
                    f"to "
                    f"which its {w} x {h} were brought."
                )
            continue
        if w > width or h > height:
            notes.append(
                f"{subject} only the middle was judged: {min(width, w)} x {min(height, h)} of its {w} x {h} pixels."
            )
        if w < width or h < height:
            notes.append(
                f"Its {w} x {h} pixels were mirrored at the edges up to the {width} x {height} that the detector takes."
            )
    return notes
