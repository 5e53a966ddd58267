"""The largest face in an image, found by OpenCV's Haar cascade (optional dependency)."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from auditor.core.errors import DataError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

# What belongs to a head beside the face that the cascade frames, in widths of it on each side.
MARGIN = 0.3
_LARGEST = 1024


def crop_to_face(picture: Image, name: str) -> Image:
    """The largest frontal face of an RGB picture and ``MARGIN`` of its width around it, at its own resolution.

    Raises DataError where no face is found, MissingExtraError without OpenCV. Source of the detector: Viola and Jones,
    Rapid object detection using a boosted cascade of simple features, CVPR 2001.
    """
    cascade = _cascade()
    # The cascade takes time with every pixel, and needs few of them.
    scale = max(1.0, max(picture.size) / _LARGEST)
    small = picture.convert("L").resize((round(picture.width / scale), round(picture.height / scale)))
    found = cascade.detectMultiScale(np.asarray(small), scaleFactor=1.1, minNeighbors=5, minSize=(24, 24))
    if not len(found):
        raise DataError(f"No face was found in the image {name!r}: leave it out, or train without --faces.")
    left, top, width, height = (scale * float(v) for v in max(found, key=lambda box: int(box[2]) * int(box[3])))
    room = MARGIN * width
    return picture.crop(
        (
            max(0, round(left - room)),
            max(0, round(top - room)),
            min(picture.width, round(left + width + room)),
            min(picture.height, round(top + height + room)),
        )
    )


@cache
def _cascade() -> Any:
    try:
        import cv2
    except ImportError:
        cv2 = None
    # OpenCV 5 has no cascades any more.
    if not hasattr(cv2, "CascadeClassifier"):
        raise MissingExtraError("Finding faces needs OpenCV 4: pip install 'opencv-python-headless<5'.")
    return cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_frontalface_default.xml")
