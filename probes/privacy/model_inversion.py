"""Model inversion: similarity of images reconstructed from the model alone to images of their class."""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from auditor.core.errors import NotApplicableError, OtherKindError
from auditor.core.rows import FloatArray
from auditor.judging.figure_types import Figure
from auditor.judging.measurement import AuditQuestion, Measurement, define_metrics
from auditor.run.probe import BaseProbe, Need, allow_untrusted
from auditor.statistics.estimate import Undefined
from auditor.statistics.rates import Proportion
from auditor.statistics.values import BoundedMean, bounded_mean
from probes.probe_inputs import differentiable, differentiating, whole_number

if TYPE_CHECKING:
    from auditor.data.audit_data import AuditData
    from auditor.data.preprocessing import ImagePreprocessing
    from auditor.models.audited_model import AuditedModel
    from auditor.models.torch_model import DifferentiableModel

METHOD = "gradient_inversion"
FEWEST_IMAGES = 5


class ModelInversion(BaseProbe):
    """The common content of a class's images that gradient ascent on the model can reconstruct.

    From grey and a little noise, an image is changed by Adam to raise ``log p(class)`` less ``smoothness`` times its
    total variation, pixels kept in [0, 1]. It is compared with the mean image of the class less the mean of all
    classes' means, over the training rows where they are given, else the evaluation rows: ``inversion_similarity`` and
    ``inversion_retrieval_rate``.

    Bounds of a mean over classes, of which there are few. Method ``random_image``: the same of noise that never saw the
    model, the baseline.

    Where a class is one person, this is that person's face; where it is a kind of things, any good classifier gives
    something of it away, and it is no leak about anybody. An image as such, such as one training row, is not sought.

    n_steps: steps of Adam; smoothness: weight of the total variation, per pixel. Classes with fewer than 5 images take
    no part. Raises NotApplicableError for a model that takes no images or cannot be differentiated.

    Source: Fredrikson, Jha and Ristenpart, CCS 2015; Mahendran and Vedaldi, CVPR 2015 (total variation).
    """

    name = "model_inversion"
    pillar = "privacy"
    goal = "Can the images of a class be drawn from the model alone?"
    citation = "Fredrikson et al., CCS 2015"
    methods = (METHOD, "random_image")
    needs = (Need.CLASSIFIER, Need.DATA, Need.LABELS)
    questions = (AuditQuestion("drawn"),)
    ideal_when_same = {
        "inversion_similarity": "scores",
        "inversion_retrieval_rate": "scores",
    }
    untrusted_options = allow_untrusted("n_steps", "smoothness")
    metrics = define_metrics(
        """
        inversion_similarity: mean over classes of the Pearson correlation of the image drawn from the model with the
          class's mean image; [-1, 1], ideal 0; near 1 what the images of a class have in common can be drawn from the
          model; Fredrikson, Jha and Ristenpart, CCS 2015
        inversion_retrieval_rate: share of classes whose drawn image is more like its own class than any other; [0, 1],
          ideal 1 / classes; at 1 every drawn image names its class; Fredrikson, Jha and Ristenpart, CCS 2015
        """
    )

    def __init__(self, *, n_steps: int = 200, smoothness: float = 1.0) -> None:
        whole_number("n_steps", n_steps, 1)
        if not (isinstance(smoothness, (int, float)) and 0.0 <= smoothness < math.inf):
            raise ValueError(f"smoothness must be a number that is not negative, not {smoothness!r}")
        self.n_steps = n_steps
        self.smoothness = smoothness

    def measure(self, model: AuditedModel, data: AuditData, rng: np.random.Generator) -> list[Measurement]:
        """Similarity of inversions and of random images, and retrieval; see the class."""
        from auditor.data.preprocessing import ImagePreprocessing

        preprocessing = model.preprocessing
        network = differentiable(model)
        other = preprocessing is not None and not isinstance(preprocessing, ImagePreprocessing)
        if other or (data.modality != "image" and len(data)):
            raise OtherKindError("Needs a model of images: a table or a text cannot be looked at.")
        if network is None or not isinstance(preprocessing, ImagePreprocessing):
            raise NotApplicableError("Needs a model of images that can be differentiated: save it as a bundle.")
        rows = data.members if data.members is not None else data
        labels = np.asarray(rows.y_true)
        classes = [c for c in range(model.n_outputs) if (labels == c).sum() >= FEWEST_IMAGES]
        if len(classes) < 2:
            why = f"at least two classes with {FEWEST_IMAGES} images each are needed, to compare an image with"
            return [self._similarity_measurement(Undefined(reason=why), METHOD, 0, "")]
        images = np.asarray(rows.X)
        means = np.stack([images[labels == c].mean(axis=0) for c in classes]) / 255.0
        apart = means - means.mean(axis=0)
        start = np.clip(0.5 + 0.05 * rng.standard_normal(means.shape), 0.0, 1.0)
        drawn = self._inverted(network, preprocessing, start, classes)
        noise = rng.random(means.shape)
        like, by_chance = _correlations(drawn, apart), _correlations(noise, apart)
        own = np.diag(like)
        retrieved = int((like.argmax(axis=1) == np.arange(len(classes))).sum())
        where = "training" if data.members is not None else "evaluation"
        detail = (
            f"{len(classes)} classes, {self.n_steps} steps, smoothness {self.smoothness:g}, against the mean of the "
            f"{where} images of each class"
        )
        names = [model.classes[c] for c in classes]
        return [
            self._similarity_measurement(
                bounded_mean(own, low=-1.0, high=1.0),
                METHOD,
                len(classes),
                f"random images {np.diag(by_chance).mean():.3f}; most alike {names[int(own.argmax())]} "
                f"{own.max():.3f}; {detail}",
                self._figure(drawn, names, own),
            ),
            self._similarity_measurement(
                bounded_mean(np.diag(by_chance), low=-1.0, high=1.0), "random_image", len(classes), detail
            ),
            Measurement(
                metric="inversion_retrieval_rate",
                method=METHOD,
                estimate=Proportion(successes=retrieved, n=len(classes)),
                n_samples=len(classes),
                ideal=1.0 / len(classes),
                detail=f"{retrieved} of {len(classes)} classes, by chance {1.0 / len(classes):.2f}; {detail}",
            ),
        ]

    def _similarity_measurement(
        self, estimate: BoundedMean | Undefined, method: str, n: int, detail: str, figure: Figure | None = None
    ) -> Measurement:
        return Measurement(
            metric="inversion_similarity",
            method=method,
            estimate=estimate,
            n_samples=n,
            ideal=0.0,
            detail=detail,
            figure=figure,
        )

    def _inverted(
        self, model: DifferentiableModel, preprocessing: ImagePreprocessing, start: FloatArray, classes: list[int]
    ) -> FloatArray:
        """(k, height, width, channels) in [0, 1], one for each class."""
        import torch

        device = model.device
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=device)[:, None, None]
            for v in (preprocessing.mean, preprocessing.std)
        )
        image = torch.tensor(start.transpose(0, 3, 1, 2), dtype=torch.float32, device=device).requires_grad_()
        wanted = torch.tensor(classes, device=device)
        optimizer = torch.optim.Adam([image], lr=0.02)
        with differentiating(model):
            for _ in range(self.n_steps):
                score = torch.log_softmax(model.logits((image - mean) / std), dim=1)
                variation = (image.diff(dim=2).abs().mean(dim=(1, 2, 3))) + (
                    image.diff(dim=3).abs().mean(dim=(1, 2, 3))
                )
                loss = -score.gather(1, wanted[:, None]).sum() + self.smoothness * variation.sum()
                (image.grad,) = torch.autograd.grad(loss, [image])
                optimizer.step()
                with torch.no_grad():
                    image.clamp_(0.0, 1.0)
        return np.asarray(image.detach().cpu().numpy().transpose(0, 2, 3, 1), np.float64)

    def _figure(self, images: FloatArray, names: list[str], correlations: FloatArray) -> Figure | None:
        from auditor.judging.figure_types import MOST_HEATMAPS, MOST_PIXELS, Heatmap

        if max(images.shape[1:3]) > MOST_PIXELS:
            return None
        shown = sorted(range(len(names)), key=lambda i: -correlations[i])[:MOST_HEATMAPS]
        return Figure(
            id=f"{self.name}/drawn",
            probe=self.name,
            kind="heatmap",
            title="What was drawn from the model for each class",
            series=(),
            heatmaps=tuple(
                Heatmap(
                    attribution=_png(images[i].mean(axis=2)),
                    # The class's own mean image stays out of the report: it may be a face.
                    picture=_png(images[i][..., :3] if images.shape[3] >= 3 else images[i][..., 0]),
                    low=0.0,
                    high=1.0,
                    title=f"class {names[i]}"[:200],
                    detail=f"correlation with the class's mean image {correlations[i]:.2f}",
                )
                for i in shown
            ),
            alt="Images made from the model alone; correlation with the mean image of their class: "
            + ", ".join(f"{names[i]} {correlations[i]:.2f}" for i in shown),
            caption="The image that the model rates most like the class, and its brightness; no image of the data.",
        )


def _png(values: FloatArray) -> str:
    from auditor.judging import png

    pixels: npt.NDArray[np.uint8] = np.round(255.0 * np.clip(values, 0.0, 1.0)).astype(np.uint8)
    return base64.b64encode(png.encode(pixels)).decode("ascii")


def _correlations(images: FloatArray, patterns: FloatArray) -> FloatArray:
    """(k, k) Pearson correlations of k images with k patterns; 0 where one has no spread."""
    a, b = (x.reshape(len(x), -1) - x.reshape(len(x), -1).mean(axis=1, keepdims=True) for x in (images, patterns))
    size = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)[None, :]
    return np.asarray(np.clip(np.divide(a @ b.T, size, out=np.zeros_like(size), where=size > 0.0), -1.0, 1.0))
