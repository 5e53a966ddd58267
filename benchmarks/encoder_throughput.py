"""Images a second through a detector on a frozen encoder, on one thread: decoded, brought to size, judged.

The encoder is a vision transformer of CLIP's size B/32 (4.4 billion multiplications an image) with weights at random,
exported to ONNX and quantised on the fly to 8 bits; a path as argument names another ONNX file. 32 JPEG files of 559 x
559, no two alike, 4 at a time, answered with verdicts: probability and p-values. ``ratio`` is images a second of
processor time, with its bar; the peer, in turns, is the bare run of the file by onnxruntime on the decoded pictures.
Needs onnx, onnxruntime and transformers.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from auditor.data.images_and_video import decode_as
from auditor.loading.auxiliary_models import read_encoder
from auditor.models.detector import DeepfakeDetector
from auditor.models.detector_card import DetectorCard
from auditor.models.networks.encoders import EncoderProbe
from benchmarks.common import emit
from benchmarks.detector_throughput import DISTINCT, make_files
from benchmarks.detector_throughput import FILES as MADE

FILES, BATCH, BAR, ROUNDS = 32, 4, 40.0, 4


def make_encoder(folder: Path) -> str:
    """An ONNX file of a vision transformer, quantised on the fly."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    class Embedding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = CLIPVisionModelWithProjection(CLIPVisionConfig(attn_implementation="eager")).eval()

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.network(pixel_values=pixel_values).image_embeds
            return found

    torch.manual_seed(0)
    whole, small = folder / "whole.onnx", folder / "encoder.onnx"
    torch.onnx.export(
        Embedding(),
        (torch.zeros(1, 3, 224, 224),),
        str(whole),
        input_names=["pixel_values"],
        output_names=["image_embeds"],
        dynamic_axes={"pixel_values": {0: "batch"}, "image_embeds": {0: "batch"}},
        dynamo=False,
    )
    quantize_dynamic(whole, small, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QUInt8)
    return str(small)


def bare(content: bytes) -> Callable[[Any], object]:
    """The file as it is, run by onnxruntime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda picture: session.run(None, {name: picture})


def main() -> None:
    """Runs the comparison and prints it."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as where:
        encoder = read_encoder(sys.argv[1] if len(sys.argv) > 1 else make_encoder(Path(where)))
        files = [file.read_bytes() for file in make_files(Path(where))[:: MADE // DISTINCT][:FILES]]
        probe = EncoderProbe(encoder.form, 0, encoder.n_features).eval()
        probe.use(encoder.encoder)
        card = DetectorCard(medium="image", fake=1, real_scores=(0.5,) * 19, fake_scores=(0.5,) * 19)
        detector = DeepfakeDetector(
            probe, card=card, classes=("real", "fake"), preprocessing=encoder.preprocessing, batch_rows=BATCH
        )
        run = bare(encoder.content)
        spent = {"decoding": [], "verdicts": [], "bare": []}  # type: dict[str, list[float]]
        for _ in range(ROUNDS):
            at = time.process_time()
            X = np.stack([decode_as(content, "a.jpg", encoder.preprocessing) for content in files])
            spent["decoding"].append(time.process_time() - at)
            at = time.process_time()
            detector.verdicts(X)
            spent["verdicts"].append(time.process_time() - at)
            inputs = detector.encode(X).numpy()
            at = time.process_time()
            for one in inputs:
                run(one[None])
            spent["bare"].append(time.process_time() - at)
        decoding, ours, alone = (min(times) for times in spent.values())
    emit(
        "encoder_throughput",
        ours=decoding + ours,
        peer=decoding + alone,
        ratio=FILES / (decoding + ours),
        bar=BAR,
        threads=1,
        images_per_cpu_second=round(FILES / (decoding + ours), 1),
        images_per_cpu_second_bare=round(FILES / alone, 1),
        milliseconds_of_decoding=round(1e3 * decoding / FILES, 1),
    )


if __name__ == "__main__":
    main()
