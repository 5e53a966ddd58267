"""Whether a file is of the kind that a detector was made for."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.data.preprocessing import ImagePreprocessing


def fit_notes(sizes: Sequence[tuple[int, int]], wanted: ImagePreprocessing, what: str) -> list[str]:
    """What a detector leaves out of pictures of these sizes (width, height), or adds to them; ``what``: "Of it"."""
    height, width = wanted.size
    if wanted.faces:
        return [f"{what} only the largest face was judged."]
    if wanted.fit == "stretch":
        return []
    notes = []
    for w, h in dict.fromkeys(sizes):
        if wanted.fit == "cover":
            scale = max(width / w, height / h)
            whole = (max(width, round(w * scale)), max(height, round(h * scale)))
            if whole != (width, height):
                notes.append(
                    f"{what} only the middle was judged: {width} x {height} of the {whole[0]} x {whole[1]} pixels to "
                    f"which its {w} x {h} were brought."
                )
            continue
        if w > width or h > height:
            notes.append(
                f"{what} only the middle was judged: {min(width, w)} x {min(height, h)} of its {w} x {h} pixels."
            )
        if w < width or h < height:
            notes.append(
                f"Its {w} x {h} pixels were mirrored at the edges up to the {width} x {height} that the detector takes."
            )
    return notes
