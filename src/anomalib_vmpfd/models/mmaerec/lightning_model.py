# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""MMAERec as a model of anomalib.

Example:
    >>> from anomalib.engine import Engine
    >>> from anomalib_vmpfd import Mmaerec, MVTec
    >>> Engine().train(model=Mmaerec(), datamodule=MVTec(category="screw"))  # doctest: +SKIP

Paper:
    Yang et al., "Industrial surface anomaly detection based on reconstruction with multiple memory enhancement modules
    and image edge", Computer Engineering and Applications, 2024, https://doi.org/10.3778/j.issn.1002-8331.2406-0293

See Also:
    :class:`anomalib_vmpfd.models.mmaerec.torch_model.MmaerecModel`
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from anomalib.data import Batch, InferenceBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from torch import Tensor

from anomalib_vmpfd.engine.arguments import build_part
from anomalib_vmpfd.engine.feature_cache import CachedFeatures, training_cache
from anomalib_vmpfd.engine.learnt_data import LearntImages
from anomalib_vmpfd.engine.module import CalibratedMixin
from anomalib_vmpfd.engine.post_processor import Threshold
from anomalib_vmpfd.engine.pre_processor import own_or_given
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor

from .torch_model import Features, MmaerecModel

DEFAULT_IMAGE_SIZE = (256, 256)
BUNDLED_EXTRACTOR = "timm/tf_efficientnet_lite2"
BUNDLED_LAYERS = ("blocks.0", "blocks.1", "blocks.2", "blocks.4")  # strides 2 to 16
MILESTONES = (0.5, 0.8)  # epochs 300 and 480 of the paper's 600
DECAY = 0.2
START_IMAGES = 30  # whose cells the memories start from
LOCATION_IMAGES = 50  # whose errors tell what is usual at a location


class Mmaerec(CalibratedMixin, AnomalibModule):
    """Reconstruction with multiple memory enhancement modules and image edges (MMAERec).

    The defaults train on a CPU; ``configs/mmaerec_paper.yaml`` is the paper. Everything that the model learns about
    scales and thresholds comes from held-out normal training images: it needs no validation set and no anomalies.

    Args:
        image_size (tuple[int, int] | None): Height and width in pixels that images are resized to, multiples of 16.
            Defaults to ``None``: as many pixels as 256 x 256, in the shape of the training images; a checkpoint keeps
            it.
        extractor (str | None): Frozen network whose features the memories recall, ``"timm/<backbone>"``;
            ``"timm/tf_efficientnet_lite2"`` is bundled. Defaults to ``None``: no memories (table 5), which measured
            best.
        extractor_args (dict[str, Any] | None): ``layers``, stages of strides 2, 4, 8 and so on with a memory each
            (table 7), and ``weights``: ``"bundled"``, ``"official"`` or the path of a file, as
            :class:`PatchDescriptor` has them. Defaults to ``None``: the four bundled stages.
        num_items (int | None): Items ``N`` of every memory (figure 8). Defaults to ``None``: 30.
        shrinkage (float | None): Threshold ``lambda`` of equation 2 in units of ``1 / N``. Defaults to ``None``: 1.
        edges (bool): Whether the image's edges take part (table 5). Defaults to ``True``.
        attention (str): Over both kinds of features: ``"coordinate"``, ``"cbam"``, ``"se"`` or ``"none"`` (table 6).
            Defaults to ``"coordinate"``.
        base_width (int): Channels of the U-Net at stride 2; they double with the stride. Defaults to ``16``; the paper
            has 128.
        l2 (float): Weight of the squared error in the loss, equation 6; 0 leaves it out (table 8). Defaults to ``1``.
        theta (float): Weight of ``1 - SSIM``. Defaults to ``1``.
        alpha (float | None): Weight of the entropy of the memories' weights. Defaults to ``None``: 2e-4.
        mu (float): Weight of the colour difference in the map, equation 14. Defaults to ``1e-3``.
        map_quantiles (tuple[float, float]): Quantiles of normals that become 0 and 1 of the map in pictures.
            Defaults to ``(0.9, 0.995)``.
        held_out (float): Share of the normal training images that calibrate instead of train. Defaults to ``0.1``.
        threshold (str): ``"normals"``: thresholds at the false-positive rates below, from normals; ``"f1"``:
            anomalib's threshold of the best F1 score on the validation set. Defaults to ``"normals"``.
        image_fpr (float): False-positive rate for images. Defaults to ``0.05``.
        mask_fpr (float): Share of normal images with any pixel in their mask. Defaults to ``0.1``.
        lr (float): Learning rate of Adam, times 0.2 after half and again after four fifths of the training.
            Defaults to ``5e-3``.
        epochs (int): Length of the recipe, for trainings without ``max_epochs``. Defaults to ``40``.
        cache_mb (float): Memory in megabytes for features of images that are not augmented. Defaults to ``2048``.
        seed (int): Seeds weights, order of the images and the held-out images. Defaults to ``0``.
        roi (str | None): Picture whose pixels are above 0 inside the region of interest, in the shape of the images:
            nothing outside is seen. Defaults to ``None``: everywhere.
        window (tuple[float, float] | str | None): Grey values of 16-bit images that become 0 and 1, as
            ``(1000, 20000)``, or their percentiles in the training images, as ``"1%,99%"``. Defaults to ``None``:
            images have 8 bits.
        pre_processor (PreProcessor | bool): Pre-processor; ``True`` resizes to ``image_size``.
        post_processor (PostProcessor | bool): Post-processor; ``True`` is a :class:`RankPreservingPostProcessor`.
        evaluator (Evaluator | bool): Evaluator; ``True`` is anomalib's default.
        visualizer (Visualizer | bool): Visualizer; ``True`` is a :class:`HeatmapVisualizer`.

    Raises:
        ValueError: If an argument is unknown, does not fit, or nothing reads it.

    Example:
        >>> from anomalib_vmpfd import Mmaerec
        >>> model = Mmaerec(image_size=(256, 256), num_items=50)
    """

    panel_titles: ClassVar = {
        "edges": "Edges",
        "structure": "Structure",
        "colour": "Colour",
        "total": "Structure and colour",
    }
    panel_kinds: ClassVar = {"edges": "image"}

    def __init__(
        self,
        image_size: tuple[int, int] | None = None,
        extractor: str | None = None,
        extractor_args: dict[str, Any] | None = None,
        num_items: int | None = None,
        shrinkage: float | None = None,
        edges: bool = True,
        attention: str = "coordinate",
        base_width: int = 16,
        l2: float = 1.0,
        theta: float = 1.0,
        alpha: float | None = None,
        mu: float = 1e-3,
        map_quantiles: tuple[float, float] = (0.9, 0.995),
        held_out: float = 0.1,
        threshold: Threshold = "normals",
        image_fpr: float = 0.05,
        mask_fpr: float = 0.1,
        lr: float = 5e-3,
        epochs: int = 40,
        cache_mb: float = 2048,
        seed: int = 0,
        roi: str | None = None,
        window: tuple[float, float] | str | None = None,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        chooses_image_size = image_size is None and pre_processor is True
        height, width = image_size or DEFAULT_IMAGE_SIZE
        pre_processor = own_or_given(self.configure_pre_processor, pre_processor, (height, width), roi, window)
        if post_processor is True:
            post_processor = self.configure_post_processor(threshold, image_fpr, mask_fpr)
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        # construction draws from a generator of its own and leaves the user's alone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = MmaerecModel(
                (height, width),
                _extractor(extractor, extractor_args, (height, width)),
                edges=edges,
                attention=attention,
                base_width=base_width,
                l2=l2,
                theta=theta,
                mu=mu,
                **_of_memories(extractor, num_items=num_items, shrinkage=shrinkage, alpha=alpha),
            )
        self.chooses_image_size = chooses_image_size
        self.image_size = (height, width)
        self.map_quantiles = map_quantiles
        self.held_out = held_out
        self.lr = lr
        self.epochs = epochs
        self.cache_mb = cache_mb
        self.seed = seed
        self.roi = roi
        self.window = window
        self.features: CachedFeatures | None = None
        self._learnt: LearntImages | None = None

    def configure_optimizers(self) -> dict[str, Any]:
        """Adam, its rate times 0.2 at both milestones (section 3.3)."""
        steps = self.trainer.estimated_stepping_batches
        optimizer = torch.optim.Adam((each for each in self.parameters() if each.requires_grad), lr=self.lr)
        milestones = [int(share * steps) for share in MILESTONES]
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=DECAY)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def load_pretrained(self) -> None:
        """Load the extractor's weights."""
        if self.model.extractor is not None:
            self.model.extractor.load_weights()

    def on_train_start(self) -> None:
        """Start with an empty cache: other weights or another image size give other features."""
        if self.model.extractor is not None:
            self.features = training_cache(self.trainer, self.model.extractor.describe, self.cache_mb)
        super().on_train_start()

    def fit_normals(self, images: LearntImages) -> None:
        """Learn mean and standard deviation of the extractor's channels; the memories start at cells of the images."""
        extractor, features = self.model.extractor, self.features
        if extractor is None or features is None:
            return
        extractor.fit_statistics(features(batch.image, batch.image_path) for batch, _ in images)
        some = images.evenly(START_IMAGES)
        queries = [extractor.normalize(features(batch.image, batch.image_path)) for batch, _ in some]
        for memory, level in zip(self.model.memories, zip(*queries, strict=True), strict=True):
            memory.start_from(torch.cat(level))

    def score_learnt(self, images: LearntImages, *, thresholds: bool) -> None:
        """Choose the learnt images whose errors tell what is usual at a location; none where none are held out."""
        self._learnt = None if thresholds else images.evenly(LOCATION_IMAGES)

    def loss_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted terms of equation 6."""
        return self.model(batch.image, self.describe(batch))

    def observe(self, batch: Batch) -> Tensor:
        """Raw scores of every pixel."""
        return self.model.score(batch.image, self.describe(batch))

    def calibrate(self, observed: Iterable[Tensor]) -> Iterable[InferenceBatch]:
        """Set the scales of map and image score from held-out normals, and from errors of learnt ones."""
        new = torch.cat(list(observed))
        learnt = None if self._learnt is None else torch.cat([self.observe(batch) for batch, _ in self._learnt])
        return self.model.calibrate(new, self.map_quantiles, learnt)

    def describe(self, batch: Batch) -> Features | None:
        """The extractor's features of a batch, from the cache where it has them; ``None`` without memories."""
        return None if self.features is None else self.features(batch.image, batch.image_path)


def _extractor(name: str | None, given: dict[str, Any] | None, image_size: tuple[int, int]) -> PatchDescriptor | None:
    """The extractor that its arguments describe, with a level for each of its stages."""
    if name is None:
        if given:
            raise ValueError(_without_memories("extractor_args"))
        return None
    layers = (given or {}).get("layers") or (BUNDLED_LAYERS if name == BUNDLED_EXTRACTOR else ())
    if not layers or not name.startswith("timm/"):
        msg = (
            f"extractor={name!r} must be 'timm/<backbone>' with extractor_args.layers, its stages of strides 2, 4, 8 "
            "and so on as TimmFeatureExtractor names them."
        )
        raise ValueError(msg)
    arguments = {**(given or {}), "layers": [[each] for each in layers]}
    return build_part("extractor", name, {name: PatchDescriptor}, arguments, name, image_size)


def _of_memories(extractor: str | None, **given: float | None) -> dict[str, Any]:
    """Arguments of the memories that were given; none may be where there are no memories."""
    arguments = {name: value for name, value in given.items() if value is not None}
    if extractor is None and arguments:
        raise ValueError(_without_memories(", ".join(arguments)))
    return arguments


def _without_memories(names: str) -> str:
    return (
        f"Without an extractor there are no memories, and {names} would have no effect; leave it out, or give "
        f"extractor, {BUNDLED_EXTRACTOR!r} for the bundled one."
    )
