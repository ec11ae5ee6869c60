# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""VMPFD-AD as a model of anomalib.

Example:
    >>> from anomalib.engine import Engine
    >>> from anomalib_vmpfd import MVTec, VmpfdAd
    >>> Engine().train(model=VmpfdAd(), datamodule=MVTec(category="screw"))  # doctest: +SKIP

Paper:
    Liu and Zhuang, "Industrial anomaly detection by combining visual Mamba and patch feature distribution", Journal of
    Image and Graphics 30(10), 2025, https://doi.org/10.11834/jig.240594

See Also:
    :class:`anomalib_vmpfd.models.vmpfd_ad.torch_model.VmpfdAdModel`
"""

import logging
import math
from collections.abc import Iterable
from typing import Any

import torch
from anomalib.data import Batch, InferenceBatch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from torch import Tensor

from anomalib_vmpfd.engine.feature_cache import CachedFeatures, training_cache
from anomalib_vmpfd.engine.learnt_data import LearntImages
from anomalib_vmpfd.engine.module import CalibratedMixin
from anomalib_vmpfd.engine.optim import LrSchedule, adamw, is_trained
from anomalib_vmpfd.engine.post_processor import Threshold
from anomalib_vmpfd.engine.pre_processor import own_or_given

from .build import DEFAULT_MAP_WEIGHTS, build_model, check_contamination
from .learnt_features import LearntFeatures
from .torch_model import ImageScore, RawScores, VmpfdAdModel

logger = logging.getLogger(__name__)

DEFAULT_IMAGE_SIZE = (256, 256)
CONTAMINATION_ROUNDS = 3


class VmpfdAd(CalibratedMixin, AnomalibModule):
    """Visual Mamba and patch feature distribution (VMPFD-AD).

    The defaults are what measured best on development sets; they train nothing and hold nothing out.
    ``configs/vmpfd_ad_paper.yaml`` is the paper. Everything that the model learns about scales and thresholds comes
    from normal training images: it needs no validation set and no anomalies.

    Each part is chosen by name and takes arguments of its own, those of the class that is named below; an argument that
    it does not have is refused.

    Args:
        image_size (tuple[int, int] | None): Height and width in pixels that images are resized to, multiples of the
            encoder's ``patch_size``. Defaults to ``None``: as many pixels as 256 x 256, in the shape of the training
            images; a checkpoint keeps it.
        descriptor (str): Frozen patch descriptor: ``"pdn_small"``, ``"pdn_medium"`` or ``"timm/<backbone>"``.
            Defaults to ``"timm/tf_efficientnet_lite2"``.
        descriptor_args (dict[str, Any] | None): ``layers``, ``grid`` and ``weights`` of :class:`PatchDescriptor`.
            Defaults to ``None``.
        encoder (str): ``"vim"`` (:class:`VimTokenEncoder`) or ``"cnn"`` (:class:`CnnTokenEncoder`, table 5).
            Defaults to ``"vim"``.
        encoder_args (dict[str, Any] | None): ``patch_size``, ``dim``, and of the ViM ``depth`` and
            ``divide_directions``. Defaults to ``None``.
        density (str | None): The local branch: ``"prototypes"`` (:class:`PrototypeDensity`), ``"predicted"``
            (:class:`PredictedMixture`, equations 1 to 3) or ``None`` (table 6). Defaults to ``"prototypes"``.
        density_args (dict[str, Any] | None): Arguments of that class. Defaults to ``None``.
        reconstruction (str | None): The global branch: ``"components"`` (:class:`ComponentReconstruction`),
            ``"descriptors"`` (:class:`DescriptorReconstruction`, through the encoder), ``"pixels"``
            (:class:`PixelReconstruction`, the paper's) or ``None`` (table 6). Defaults to ``"components"``.
        reconstruction_args (dict[str, Any] | None): Arguments of that class. Defaults to ``None``.
        map_weights (tuple[float, float]): Weights of the local and the global map. Defaults to ``(0.7, 0.3)``.
        image_score (str): ``"branches"``, the sum of the standardised maxima of all raw maps, or ``"map"``, the maximum
            of the fused map (equation 21). Defaults to ``"branches"``.
        map_quantiles (tuple[float, float]): Quantiles that become 0 and 1 of each map, equations 15 to 20.
            Defaults to ``(0.9, 0.995)``.
        held_out (float | None): Share of the normal training images that calibrate instead of train. Defaults to
            ``None``: 0 where every branch can leave single images out, else 0.1.
        contamination (float): Share of the training images to leave out, those that score highest by what was learnt
            from the others: for training data that may hold defects. They are named in the log. Defaults to ``0``.
        threshold (str): ``"normals"``: thresholds at the false-positive rates below, from normals; ``"f1"``:
            anomalib's threshold of the best F1 score on the validation set. Defaults to ``"normals"``.
        image_fpr (float): False-positive rate for images. Defaults to ``0.05``.
        mask_fpr (float): Share of normal images with any pixel in their mask. Defaults to ``0.1``.
        lr (float): Learning rate of AdamW. Defaults to ``1e-3``.
        lr_schedule (str): ``"cosine"`` to zero over the training or ``"constant"``. Defaults to ``"cosine"``.
        weight_decay (float): Weight decay. Defaults to ``1e-4``.
        epochs (int): Length of the recipe, for trainings without ``max_epochs``; 1 where nothing is trained.
            Defaults to ``3``.
        cache_mb (float): Memory in megabytes for descriptors of images that are not augmented. Defaults to ``2048``.
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
        ValueError: If an argument is unknown, contradicts another, or nothing reads it.

    Example:
        >>> from anomalib_vmpfd import VmpfdAd
        >>> model = VmpfdAd(image_size=(256, 256), density_args={"num_components": 4096})
    """

    def __init__(
        self,
        image_size: tuple[int, int] | None = None,
        descriptor: str = "timm/tf_efficientnet_lite2",
        descriptor_args: dict[str, Any] | None = None,
        encoder: str = "vim",
        encoder_args: dict[str, Any] | None = None,
        density: str | None = "prototypes",
        density_args: dict[str, Any] | None = None,
        reconstruction: str | None = "components",
        reconstruction_args: dict[str, Any] | None = None,
        map_weights: tuple[float, float] = DEFAULT_MAP_WEIGHTS,
        image_score: ImageScore = "branches",
        map_quantiles: tuple[float, float] = (0.9, 0.995),
        held_out: float | None = None,
        contamination: float = 0.0,
        threshold: Threshold = "normals",
        image_fpr: float = 0.05,
        mask_fpr: float = 0.1,
        lr: float = 1e-3,
        lr_schedule: LrSchedule = "cosine",
        weight_decay: float = 1e-4,
        epochs: int = 3,
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
            self.model: VmpfdAdModel = build_model(
                (height, width),
                descriptor,
                descriptor_args,
                encoder,
                encoder_args,
                density,
                density_args,
                reconstruction,
                reconstruction_args,
                map_weights,
                image_score,
            )
        self.chooses_image_size = chooses_image_size
        self.image_size = (height, width)
        self.map_quantiles = map_quantiles
        self.held_out = (0.0 if self.model.leaves_one_out else 0.1) if held_out is None else held_out
        check_contamination(contamination, self.model.leaves_one_out and not self.held_out)
        self.contamination = contamination
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.weight_decay = weight_decay
        self.epochs = epochs if is_trained(self.model) else 1
        self.cache_mb = cache_mb
        self.seed = seed
        self.roi = roi
        self.window = window
        self.descriptors: CachedFeatures | None = None  # during a training
        self._left_out: RawScores = {}

    def configure_optimizers(self) -> dict[str, Any] | None:
        """AdamW without decay of the state-space parameters, and the schedule; none where nothing is trained."""
        steps = self.trainer.estimated_stepping_batches if self.lr_schedule == "cosine" else 0
        return adamw(self.model, self.lr, self.weight_decay, self.lr_schedule, steps)

    @property
    def licences(self) -> dict[str, str]:
        """Licence of the descriptor's weights, where anything reads it."""
        return super().licences if self.model.needs_descriptors else {}

    def load_pretrained(self) -> None:
        """Load the descriptor's weights, where anything reads it."""
        if self.model.needs_descriptors:
            self.model.descriptor.load_weights()

    def on_train_start(self) -> None:
        """Start with an empty cache: other weights or another image size give other descriptors."""
        self.descriptors = training_cache(self.trainer, self.model.descriptor.describe, self.cache_mb)
        super().on_train_start()

    def fit_normals(self, images: LearntImages) -> None:
        """Learn the descriptor's statistics, then what each branch learns without gradients."""
        if self.model.needs_descriptors:
            self.model.descriptor.fit_statistics(self.describe(batch) for batch, _ in images)
        features = self._features(images)
        for branch in self.model.branches.values():
            branch.fit(features)

    def score_learnt(self, images: LearntImages, *, thresholds: bool) -> None:
        """Scores of learnt images as if they were new, from the branches that can leave an image out."""
        self._left_out = {}
        if self.contamination:
            images = self._without_contamination(images)
        if thresholds and len(images) == 1 and self.model.leaves_one_out:
            self._left_out = self._mirrored(images)
        elif thresholds and len(images) > 1:
            features = self._features(images)
            able = {name: branch for name, branch in self.model.branches.items() if branch.leaves_one_out}
            self._left_out = {name: branch.score_left_out(features) for name, branch in able.items()}

    def loss_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted terms of equation 8."""
        return self.model(batch.image, self.describe(batch))

    def observe(self, batch: Batch) -> RawScores:
        """Raw scores of every branch."""
        return self.model.score(batch.image, self.describe(batch))

    def calibrate(self, observed: Iterable[RawScores]) -> Iterable[InferenceBatch]:
        """Set the scales of maps and scores from normals, equations 15, 16, 18 and 19."""
        if self._left_out.keys() == self.model.branches.keys():
            return self.model.calibrate(self._left_out, self.map_quantiles)
        # no image is judged by its own prototypes
        return self.model.calibrate({**_concatenated(observed), **self._left_out}, self.map_quantiles)

    @torch.no_grad()
    def _mirrored(self, images: LearntImages) -> RawScores:
        """Raw scores of the mirror images of the only one, which score about as new normals do."""
        if self.roi is not None:
            msg = (
                "A region of interest needs at least two normal training images: the mirror images of one, which would "
                "stand in for new ones, show other places inside the region. Give more images, or leave roi out."
            )
            raise ValueError(msg)
        logger.warning(
            "There is one normal training image: its three mirror images stand in for new ones, and the thresholds are "
            "a guess. Give at least two normals, better ten."
        )
        image = next(iter(images))[0].image
        return self.model.score(torch.cat([image.flip(dims) for dims in ((3,), (2,), (2, 3))]))

    @torch.no_grad()
    def _without_contamination(self, images: LearntImages) -> LearntImages:
        """Learn anew without the images that score highest by what was learnt from the others.

        In rounds: defects that resemble each other find each other normal, until the first of them are gone.
        """
        count = math.ceil(self.contamination * len(images))
        if count == len(images):
            msg = f"contamination={self.contamination} would leave out the only training image; give 0, or more images."
            raise ValueError(msg)
        kept = images
        left_out: list[int] = []
        for rounds in range(min(CONTAMINATION_ROUNDS, count), 0, -1):
            features = self._features(kept)
            scores = [
                branch.calibrate(branch.score_left_out(features), self.map_quantiles)
                for branch in self.model.branches.values()
            ]
            part = math.ceil((count - len(left_out)) / rounds)
            doubtful = kept.numbers[torch.stack(scores).sum(0).cpu().argsort(descending=True)[:part]]
            left_out += doubtful.tolist()
            kept = kept.only(kept.numbers[~torch.isin(kept.numbers, doubtful)])
            self.fit_normals(kept)
        self._normals.leave_out(left_out)
        return kept

    def _features(self, images: LearntImages) -> LearntFeatures:
        return LearntFeatures(self.model, self.descriptors if self.model.needs_descriptors else None, images)

    def describe(self, batch: Batch) -> tuple[Tensor, ...] | None:
        """Descriptors of a batch, through the cache; ``None`` outside of a training, or where nothing reads them."""
        if self.descriptors is None or not self.model.needs_descriptors:
            return None
        return self.descriptors(batch.image, batch.image_path)


def _concatenated(batches: Iterable[RawScores]) -> RawScores:
    """Raw scores of several batches as those of one."""
    seen = list(batches)
    return {name: tuple(map(torch.cat, zip(*(batch[name] for batch in seen), strict=True))) for name in seen[0]}
