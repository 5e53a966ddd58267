"""Images a second through a detector on one thread: 1,000 JPEG files decoded, and frequency features.

The files are 559 x 559, made on the fly in a temporary folder; the detector is an untrained ``frequency_detector``
of the middle 256 x 256 pixels at their own resolution, as a trained one looks at. Files are decoded whole: JPEG's
decoding at a fraction of the size (``draft``) and any resizing would take away the frequencies that are measured.
``ratio`` is images a second, with its bar; the peer's time is that of decoding alone. Files are decoded
and forgotten in batches of 4, so memory does not grow with their number: the peak is printed.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from auditor.data.images_and_video import decode_as
from auditor.data.preprocessing import ImagePreprocessing
from auditor.models.networks.detector_networks import FrequencyDetector
from auditor.models.torch_context import without_gradients
from benchmarks.common import emit

FILES, SIDE, LOOK, BATCH, BAR, DISTINCT, ROUNDS = 1_000, 559, 256, 4, 100.0, 40, 3


def make_files(folder: Path) -> list[Path]:
    """JPEG files of quality 90 with the spectrum of photographs, amplitude 1 / frequency, and a little noise."""
    import PIL.Image

    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.fftfreq(SIDE))) + 1.0 / SIDE
    files = []
    for i in range(DISTINCT):
        shapes = np.fft.ifft2(np.fft.fft2(rng.normal(size=(3, SIDE, SIDE))) / frequency).real
        shapes = 128.0 + 50.0 * shapes / shapes.std() + rng.normal(0.0, 2.0, shapes.shape)
        picture = PIL.Image.fromarray(np.clip(shapes, 0, 255).astype(np.uint8).transpose(1, 2, 0))
        first = folder / f"{i:04d}_0.jpg"
        picture.save(first, quality=90)
        files.append(first)
        for k in range(1, FILES // DISTINCT):
            files.append(folder / f"{i:04d}_{k}.jpg")
            files[-1].write_bytes(first.read_bytes())
    return files


def main() -> None:
    """Runs the comparison and prints it."""
    torch.set_num_threads(1)
    preprocessing = ImagePreprocessing(size=(LOOK, LOOK), fit="crop")
    network = FrequencyDetector(LOOK).eval()
    with tempfile.TemporaryDirectory() as where:
        files = make_files(Path(where))

        def decode(batch: list[Path]) -> np.ndarray:
            return np.stack([decode_as(file.read_bytes(), file.name, preprocessing) for file in batch])

        def whole() -> float:
            started = time.perf_counter()
            decoding = 0.0
            for start in range(0, len(files), BATCH):
                at = time.perf_counter()
                pixels = decode(files[start : start + BATCH])
                decoding += time.perf_counter() - at
                with without_gradients():
                    network(torch.from_numpy(preprocessing.encode(pixels)))
            parts.append(decoding)
            return time.perf_counter() - started

        parts: list[float] = []
        whole()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cpu = time.process_time()
        taken = sorted(whole() for _ in range(ROUNDS))[ROUNDS // 2]
        cpu = (time.process_time() - cpu) / ROUNDS
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    emit(
        "detector_throughput",
        ours=taken,
        peer=sorted(parts)[len(parts) // 2],
        ratio=len(files) / taken,
        bar=BAR,
        threads=1,
        images=len(files),
        images_per_cpu_second=round(len(files) / cpu, 1),
        megabytes_at_peak=after // 1024,
        megabytes_grown_after_the_first_thousand=(after - before) // 1024,
    )


if __name__ == "__main__":
    main()
