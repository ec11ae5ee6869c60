# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""PRN as a model of anomalib.

Example:
    >>> from anomalib.engine import Engine
    >>> from anomalib_vmpfd import FewDefects, Prn
    >>> data = FewDefects(  # doctest: +SKIP
    ...     name="my_parts",
    ...     root="datasets/my_parts",
    ...     normal_dir="train/good",
    ...     normal_test_dir="test/good",
    ...     abnormal_dir="test/defect",
    ...     mask_dir="ground_truth/defect",
    ...     known_defects=10,
    ... )
    >>> Engine().train(model=Prn(), datamodule=data)  # doctest: +SKIP

Paper:
    Zhang et al., "Prototypical Residual Networks for Anomaly Detection and Localization", CVPR 2023,
    https://arxiv.org/abs/2212.02031

See Also:
    :class:`anomalib_vmpfd.models.prn.torch_model.PrnModel`
"""

import math
from collections.abc import Iterable
from typing import Any, ClassVar, get_args

import torch
from anomalib.data import Batch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from torch import Tensor

from anomalib_vmpfd.engine.arguments import build_part, check_choice
from anomalib_vmpfd.engine.feature_cache import CachedFeatures, training_cache
from anomalib_vmpfd.engine.learnt_data import LearntImages
from anomalib_vmpfd.engine.module import CalibratedMixin
from anomalib_vmpfd.engine.normal_images import batches_an_epoch
from anomalib_vmpfd.engine.optim import LrSchedule, adamw
from anomalib_vmpfd.engine.post_processor import Threshold
from anomalib_vmpfd.engine.pre_processor import own_or_given
from anomalib_vmpfd.nn.patch_descriptor import PatchDescriptor
from anomalib_vmpfd.nn.precision import full_float32

from .known_defects import known_defects
from .synthesis import Defect, Synthesis, TargetArea
from .torch_model import PrnModel

DEFAULT_IMAGE_SIZE = (256, 256)
DEFAULT_CHANNELS = (16, 32, 64)
MAX_CLUSTERED = 1000  # feature maps for k-means, in memory at once
LAYERS = {
    "timm/tf_efficientnet_lite2": [["blocks.1"], ["blocks.2"], ["blocks.4"]],
    "timm/resnet18": [["layer1"], ["layer2"], ["layer3"]],
}


class Prn(CalibratedMixin, AnomalibModule):
    """Prototypical residual network (PRN), which learns from normal images and from a few known defects.

    The defaults are small enough to train on a CPU; ``configs/prn_paper.yaml`` is the paper. Known defects are the
    training images that are labelled anomalous, as :class:`FewDefects` gives them, each with a mask; without any the
    model learns from simulated anomalies. Thresholds come from normal images alone.

    Args:
        image_size (tuple[int, int] | None): Height and width in pixels that images are resized to, multiples of 16.
            Defaults to ``None``: as many pixels as 256 x 256, in the shape of the training images; a checkpoint keeps
            it.
        descriptor (str): Frozen feature extractor: ``"timm/<backbone>"``, the paper's is ``"timm/resnet18"``.
            Defaults to ``"timm/tf_efficientnet_lite2"``, bundled.
        descriptor_args (dict[str, Any] | None): ``weights`` of :class:`PatchDescriptor`, and ``layers``: a list with
            one stage for each of the three scales, known for the two above. Defaults to ``None``.
        prototypes (float): Number of prototypes by that of the normal images, table 6. Defaults to ``0.1``.
        channels (tuple[int, int, int] | None): Channels ``c_j`` of the trained network at each scale; ``None`` is as
            many as the extractor has, the paper's. Defaults to ``(16, 32, 64)``.
        depth (int): Multi-size self-attentions one behind the other, ``N``; the paper has 3. Defaults to ``1``.
        textures (str | None): Folder with pictures of foreign textures, as the paper's DTD; ``None`` generates some.
            Defaults to ``None``.
        target_area (str): ``"part"`` makes anomalies on the part, where it is told from a background of one colour;
            ``"image"`` anywhere. Defaults to ``"part"``.
        unchanged (float): Share of the anomalies from known defects that keep their look; the paper changes it in all.
            Defaults to ``0.5``.
        lambda_focal (float): Weight of the focal loss, equation 5. Defaults to ``5.0``.
        held_out (float): Share of the normal training images that set thresholds instead of being learnt. Defaults to
            ``0.1``.
        threshold (str): ``"normals"``: thresholds at the false-positive rates below, from normals; ``"f1"``:
            anomalib's threshold of the best F1 score on the validation set. Defaults to ``"normals"``.
        image_fpr (float): False-positive rate for images. Defaults to ``0.05``.
        mask_fpr (float): Share of normal images with any pixel in their mask. Defaults to ``0.1``.
        lr (float): Learning rate of AdamW. Defaults to ``1e-3``.
        lr_schedule (str): ``"cosine"`` to zero over the training or ``"constant"``. Defaults to ``"cosine"``.
        weight_decay (float): Weight decay. Defaults to ``1e-5``.
        steps (int): Length of the recipe in steps, rounded up to whole epochs, for trainings without ``max_epochs``.
            Defaults to ``300``.
        epochs (int | None): Length of the recipe in epochs, in place of ``steps``. Defaults to ``None``.
        cache_mb (float): Memory in megabytes for features of images that are not augmented. Defaults to ``2048``.
        seed (int): Seeds weights, prototypes, anomalies, order of the images and the held-out images. Defaults to
            ``0``.
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
        ValueError: If an argument is unknown or does not fit another.

    Example:
        >>> from anomalib_vmpfd import Prn
        >>> model = Prn(image_size=(256, 256))
    """

    learns_defects = True
    panel_titles: ClassVar = {"residual": "Residual by scale"}
    panel_kinds: ClassVar = {"residual": "image"}

    def __init__(
        self,
        image_size: tuple[int, int] | None = None,
        descriptor: str = "timm/tf_efficientnet_lite2",
        descriptor_args: dict[str, Any] | None = None,
        prototypes: float = 0.1,
        channels: tuple[int, int, int] | None = DEFAULT_CHANNELS,
        depth: int = 1,
        textures: str | None = None,
        target_area: TargetArea = "part",
        unchanged: float = 0.5,
        lambda_focal: float = 5.0,
        held_out: float = 0.1,
        threshold: Threshold = "normals",
        image_fpr: float = 0.05,
        mask_fpr: float = 0.1,
        lr: float = 1e-3,
        lr_schedule: LrSchedule = "cosine",
        weight_decay: float = 1e-5,
        steps: int = 300,
        epochs: int | None = None,
        cache_mb: float = 2048,
        seed: int = 0,
        roi: str | None = None,
        window: tuple[float, float] | str | None = None,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        if not 0 < prototypes <= 1:
            msg = f"prototypes={prototypes} is their share of the normal images, above 0 and up to 1."
            raise ValueError(msg)
        if not 0 <= unchanged <= 1:
            msg = f"unchanged={unchanged} is a share of the anomalies from known defects, from 0 to 1."
            raise ValueError(msg)
        check_choice("target_area", target_area, get_args(TargetArea))
        chooses_image_size = image_size is None and pre_processor is True
        height, width = image_size or DEFAULT_IMAGE_SIZE
        pre_processor = own_or_given(self.configure_pre_processor, pre_processor, (height, width), roi, window)
        if post_processor is True:
            post_processor = self.configure_post_processor(threshold, image_fpr, mask_fpr)
        super().__init__(pre_processor, post_processor, evaluator, visualizer)
        layers = {"layers": LAYERS[descriptor]} if descriptor in LAYERS else {}
        # construction draws from a generator of its own and leaves the user's alone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            extractor = build_part(
                "descriptor",
                descriptor,
                {descriptor: PatchDescriptor},
                {**layers, **(descriptor_args or {})},
                descriptor,
                (height, width),
            )
            self.model = PrnModel(extractor, (height, width), channels, depth, lambda_focal)
        self.chooses_image_size = chooses_image_size
        self.image_size = (height, width)
        self.prototypes = prototypes
        self.textures = textures
        self.target_area = target_area
        self.unchanged = unchanged
        self.held_out = held_out
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.weight_decay = weight_decay
        self.steps = steps
        self.epochs = epochs
        self.cache_mb = cache_mb
        self.seed = seed
        self.roi = roi
        self.window = window
        self.features: CachedFeatures
        self.synthesis: Synthesis
        self._defects: list[Defect] = []
        self._steps_an_epoch = 1

    @property
    def recipe_epochs(self) -> int:
        """Length of the recipe in whole epochs."""
        return self.epochs or math.ceil(self.steps / self._steps_an_epoch)

    def configure_optimizers(self) -> dict[str, Any] | None:
        """AdamW and the schedule."""
        steps = self.trainer.estimated_stepping_batches if self.lr_schedule == "cosine" else 0
        return adamw(self.model, self.lr, self.weight_decay, self.lr_schedule, steps)

    def setup(self, stage: str) -> None:
        """Count the steps of an epoch."""
        if stage == "fit":
            # before any image is held out, as a resumed training asks again when some are
            self._steps_an_epoch = batches_an_epoch(self.trainer.fit_loop._data_source.dataloader())  # noqa: SLF001
        super().setup(stage)

    def load_pretrained(self) -> None:
        """Load the weights of the feature extractor."""
        self.model.descriptor.load_weights()

    def on_train_start(self) -> None:
        """Start with an empty cache: other weights or another image size give other features."""
        self.synthesis = Synthesis(self.textures, self.target_area, self.unchanged)
        self.features = training_cache(self.trainer, self.model.descriptor.describe, self.cache_mb)
        super().on_train_start()

    def take_defects(self, defects: Iterable[Batch]) -> None:
        """Keep the known defects and their masks."""
        self._defects = known_defects(defects)

    def fit_normals(self, images: LearntImages) -> None:
        """Learn the statistics of the features and the prototypes of every scale."""
        descriptor = self.model.descriptor
        # in half precision, as the cache; features of all images at once are what k-means needs
        described = [
            [each.half().cpu() for each in self.features(batch.image, batch.image_path)]
            for batch, _ in images.evenly(MAX_CLUSTERED)
        ]
        descriptor.fit_statistics([each.to(self.device) for each in batch] for batch in described)
        count = max(1, round(self.prototypes * len(images)))
        for level, scale, maps in zip(
            descriptor.levels, self.model.prototypes, zip(*described, strict=True), strict=True
        ):
            normalized = torch.cat([level(each.to(self.device)).cpu() for each in maps])
            scale.fit(normalized, min(count, len(normalized)), self.seed)

    def loss_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Terms of equation 5 of normal images and of as many anomalous ones that are made of them."""
        normal = batch.image
        anomalous, masks = self.synthesis(normal, self._defects, self.seed + self.current_epoch)
        # features that are kept were extracted in full precision, and none must tell anomalies by their rounding
        with full_float32(self.device.type):
            described = zip(self.features(normal, batch.image_path), self.features(anomalous, None), strict=True)
        return self.model(
            torch.cat([normal, anomalous]),
            torch.cat([torch.zeros_like(masks), masks]),
            [torch.cat(pair) for pair in described],
        )
