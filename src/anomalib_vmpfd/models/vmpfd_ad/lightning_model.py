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

from pathlib import Path
from typing import Any, Literal

import torch
from anomalib import LearningType
from anomalib.data import Batch
from anomalib.metrics import Evaluator
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from anomalib.visualization import Visualizer
from lightning import seed_everything
from lightning.pytorch import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor
from torchvision.transforms.v2 import Compose, Resize

from anomalib_vmpfd.components.checkpoint_io import keep_checkpoints_whole, readable
from anomalib_vmpfd.components.image_errors import ImageErrors
from anomalib_vmpfd.components.normal_images import NormalImages
from anomalib_vmpfd.components.post_processor import RankPreservingPostProcessor
from anomalib_vmpfd.components.pre_processor import AntialiasedPreProcessor
from anomalib_vmpfd.components.recipe import apply_recipe_length
from anomalib_vmpfd.components.vision_mamba import weight_decay_groups
from anomalib_vmpfd.engine.fit_summary import log_fit_summary
from anomalib_vmpfd.plotting import HeatmapVisualizer

from .torch_model import VmpfdAdModel

# learnt images that show how far normals stray around a prototype; more of them change little
SPREAD_IMAGES = 100


class VmpfdAd(AnomalibModule):
    """Visual Mamba and patch feature distribution (VMPFD-AD).

    The defaults are what measures best, ``configs/vmpfd_ad_paper.yaml`` is the paper. Everything that the model learns
    about scales and thresholds comes from normal training images: it needs no validation set and no anomalies.

    Args:
        image_size (tuple[int, int]): Height and width in pixels that images are resized to, multiples of
            ``patch_size``. Defaults to ``(256, 256)``.
        descriptor (str): Patch descriptor: ``"pdn_small"``, ``"pdn_medium"`` or ``"timm/<backbone>"``.
            Defaults to ``"timm/tf_efficientnet_lite2"``.
        descriptor_layers (list[str] | list[int] | None): Stages of a timm descriptor, stacked on one grid. Defaults to
            ``None``: ``["blocks.2", "blocks.4"]`` for tf_efficientnet_lite2, to be given for other backbones.
        pdn_weights (str): Weights of a PDN: ``"bundled"``, ``"official"`` (downloaded once) or a path.
            Defaults to ``"bundled"``.
        backbone_weights (str): Weights of a timm descriptor: ``"bundled"`` (tf_efficientnet_lite2), ``"official"``
            (timm's download) or a path. Defaults to ``"bundled"``.
        grid (int | None): Cells of the local map along the shorter side. Defaults to ``None``: the grid of the
            descriptor's finest stage, 32 x 32 of 8 pixels each.
        scales (tuple[int, ...]): Cells along the side of a square that prototypes stand for, a set of prototypes each.
            Defaults to ``(1, 2)``.
        encoder (str): ``"vim"`` or ``"cnn"`` (table 5). Defaults to ``"vim"``.
        reconstruct (str): What the encoder reads and gives back: ``"descriptors"`` or the paper's ``"pixels"``.
            Defaults to ``"descriptors"``.
        patch_size (int): Side of the encoder's patches in pixels, one token each. Defaults to ``32``.
        dim (int): Width of the encoder. Defaults to ``128``.
        depth (int): Number of ViM blocks (figure 2). Defaults to ``2``.
        divide_directions (bool): Average the two scans of a block instead of adding them. Defaults to ``False``.
        code (int): Length of the code of a whole image that descriptors are reconstructed from. Defaults to ``64``.
        branches (str): ``"both"``, ``"density"`` or ``"reconstruction"`` (table 6). Defaults to ``"both"``.
        features (str): Features of a predicted mixture: ``"fused"``, ``"descriptor"`` or ``"encoder"`` (table 7).
            Defaults to ``"fused"``.
        target (str): Of a predicted mixture: ``"descriptor"`` for the density of the frozen descriptor, ``"self"`` for
            the paper's p(T | T).
            Defaults to ``"descriptor"``.
        bottleneck (int): Channels of the code that conditions the density. Defaults to ``8``.
        mixture (str): ``"prototypes"`` for Gaussians around normal descriptors, ``"predicted"`` for equations 1 to 3.
            Defaults to ``"prototypes"``.
        num_components (int | None): Number K of Gaussians. Defaults to ``None``: 8,192 prototypes or 10 predicted
            ones.
        covariance (str): ``"diagonal"`` or ``"full"``. Defaults to ``"diagonal"``.
        beta (float): Factor inside the softplus of sigma, equation 3. Defaults to ``1.0``.
        sigma_floor (float): Lower bound of sigma. Defaults to ``0.05``.
        train_cells (int | None): Random cells of an image that a step learns from; ``None`` for all.
            Defaults to ``32``.
        lambda_mse (float): Weight of the squared error, equation 8. Defaults to ``5.0``.
        map_weights (tuple[float, float]): Weights of the local and the global map. Defaults to ``(0.5, 0.5)``.
        smoothing (float): Standard deviation in pixels of the Gaussian over the maps. Defaults to ``0.0``.
        map_quantiles (tuple[float, float]): Quantiles that become 0 and 1 of each map, equations 15 to 20.
            Defaults to ``(0.9, 0.995)``.
        cell_calibration (bool): Judge every cell by what is usual on normals: its distance to a prototype by that of
            other cells near there, the error of a token by its place. Defaults to ``True``.
        held_out (float): Share of the normal training images that calibrate instead of train. Defaults to ``0.1``.
        threshold (str): ``"normals"``: thresholds at the false-positive rates below, from held-out normals; ``"f1"``:
            anomalib's threshold of the best F1 score on the validation set. Defaults to ``"normals"``.
        image_fpr (float): False-positive rate for images. Defaults to ``0.02``.
        pixel_fpr (float): False-positive rate for pixels. Defaults to ``0.005``.
        lr (float): Learning rate of AdamW. Defaults to ``1e-3``.
        lr_schedule (str): ``"cosine"`` to zero over the training or ``"constant"``. Defaults to ``"cosine"``.
        weight_decay (float): Weight decay. Defaults to ``1e-4``.
        epochs (int): Length of the recipe, for trainings without ``max_epochs``. Defaults to ``3``.
        cache_mb (float): Memory in megabytes for descriptors of images that are not augmented. Defaults to ``2048``.
        seed (int): Seeds weights, order of the images and the held-out images. Defaults to ``0``.
        pre_processor (PreProcessor | bool): Pre-processor; ``True`` resizes to ``image_size``.
        post_processor (PostProcessor | bool): Post-processor; ``True`` is a :class:`RankPreservingPostProcessor`.
        evaluator (Evaluator | bool): Evaluator; ``True`` is anomalib's default.
        visualizer (Visualizer | bool): Visualizer; ``True`` is a :class:`HeatmapVisualizer`.

    Example:
        >>> from anomalib_vmpfd import VmpfdAd
        >>> model = VmpfdAd(image_size=(256, 256), pdn_weights="bundled")
    """

    def __init__(
        self,
        image_size: tuple[int, int] = (256, 256),
        descriptor: str = "timm/tf_efficientnet_lite2",
        descriptor_layers: list[str] | list[int] | None = None,
        pdn_weights: str = "bundled",
        backbone_weights: str = "bundled",
        grid: int | None = None,
        scales: tuple[int, ...] = (1, 2),
        encoder: Literal["vim", "cnn"] = "vim",
        reconstruct: Literal["descriptors", "pixels"] = "descriptors",
        patch_size: int = 32,
        dim: int = 128,
        depth: int = 2,
        divide_directions: bool = False,
        code: int = 64,
        branches: Literal["both", "density", "reconstruction"] = "both",
        features: Literal["fused", "descriptor", "encoder"] = "fused",
        target: Literal["descriptor", "self"] = "descriptor",
        bottleneck: int = 8,
        mixture: Literal["prototypes", "predicted"] = "prototypes",
        num_components: int | None = None,
        covariance: Literal["diagonal", "full"] = "diagonal",
        beta: float = 1.0,
        sigma_floor: float = 0.05,
        train_cells: int | None = 32,
        lambda_mse: float = 5.0,
        map_weights: tuple[float, float] = (0.5, 0.5),
        smoothing: float = 0.0,
        map_quantiles: tuple[float, float] = (0.9, 0.995),
        cell_calibration: bool = True,
        held_out: float = 0.1,
        threshold: Literal["normals", "f1"] = "normals",
        image_fpr: float = 0.02,
        pixel_fpr: float = 0.005,
        lr: float = 1e-3,
        lr_schedule: Literal["cosine", "constant"] = "cosine",
        weight_decay: float = 1e-4,
        epochs: int = 3,
        cache_mb: float = 2048,
        seed: int = 0,
        pre_processor: PreProcessor | bool = True,
        post_processor: PostProcessor | bool = True,
        evaluator: Evaluator | bool = True,
        visualizer: Visualizer | bool = True,
    ) -> None:
        if pre_processor is True:
            pre_processor = self.configure_pre_processor(image_size)
        if post_processor is True:
            post_processor = RankPreservingPostProcessor(threshold, image_fpr, pixel_fpr)
        super().__init__(pre_processor, post_processor, evaluator, visualizer)

        # construction draws from a generator of its own and leaves the user's alone
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model: VmpfdAdModel = VmpfdAdModel(
                image_size=(image_size[0], image_size[1]),
                descriptor=descriptor,
                descriptor_layers=descriptor_layers,
                grid=grid,
                scales=scales,
                encoder=encoder,
                reconstruct=reconstruct,
                patch_size=patch_size,
                dim=dim,
                depth=depth,
                divide_directions=divide_directions,
                code=code,
                branches=branches,
                features=features,
                target=target,
                bottleneck=bottleneck,
                mixture=mixture,
                num_components=num_components,
                covariance=covariance,
                beta=beta,
                sigma_floor=sigma_floor,
                train_cells=train_cells,
                lambda_mse=lambda_mse,
                map_weights=map_weights,
                smoothing=smoothing,
            )
        self.weights = backbone_weights if descriptor.startswith("timm/") else pdn_weights
        self.map_quantiles = map_quantiles
        self.cell_calibration = cell_calibration
        self.held_out = held_out
        self.lr = lr
        self.lr_schedule = lr_schedule
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.cache_mb = cache_mb
        self.seed = seed

        self._started = False
        self._calibrated_step = -1
        self._normals: NormalImages
        self._learnt_scores: tuple[Tensor, ...] = ()

    @classmethod
    def configure_pre_processor(cls, image_size: tuple[int, int] | None = None) -> PreProcessor:
        """Resize only: both branches take images in [0, 1] and normalise them as their networks need.

        Args:
            image_size (tuple[int, int] | None): Height and width in pixels. Defaults to ``(256, 256)``.

        Returns:
            PreProcessor: Pre-processor with one resize.
        """
        return AntialiasedPreProcessor(Compose([Resize(tuple(image_size or (256, 256)), antialias=True)]))

    @classmethod
    def configure_visualizer(cls) -> HeatmapVisualizer:
        """Pictures of what every branch saw."""
        return HeatmapVisualizer()

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No sanity check: its two batches would calibrate an untrained model."""
        return {"num_sanity_val_steps": 0}

    @property
    def learning_type(self) -> LearningType:
        """The model learns from normal images alone."""
        return LearningType.ONE_CLASS

    def configure_optimizers(self) -> dict[str, Any] | None:
        """AdamW without decay of the state-space parameters, and the schedule; none where nothing is trained."""
        if not any(p.requires_grad for p in self.parameters()):
            return None
        optimizer = torch.optim.AdamW(weight_decay_groups(self.model, self.weight_decay), lr=self.lr)
        if self.lr_schedule == "constant":
            return {"optimizer": optimizer}
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def configure_callbacks(self) -> list[Callback]:
        """Add the callback that names images which cannot be read."""
        return [*super().configure_callbacks(), ImageErrors()]

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: str | Path, **kwargs) -> "VmpfdAd":
        """Load a checkpoint without running code from it; a damaged one is named."""
        with readable(checkpoint_path):
            return super().load_from_checkpoint(checkpoint_path, **kwargs)

    def setup(self, stage: str) -> None:
        """Check the size of the images and apply the recipe's length."""
        keep_checkpoints_whole(self.trainer)
        size = self.input_size
        if size is not None and tuple(size) != self.model.image_size:
            msg = (
                f"The pre-processor makes images of {size[0]}x{size[1]} pixels, but the model was built for "
                f"{self.model.image_size[0]}x{self.model.image_size[1]}; give VmpfdAd(image_size={tuple(size)})."
            )
            raise ValueError(msg)
        if stage == "fit":
            apply_recipe_length(self.trainer, self.epochs)

    def on_fit_start(self) -> None:
        """Load the descriptor's weights, unless a checkpoint brought them."""
        seed_everything(self.seed, workers=True, verbose=False)
        if self.model.needs_descriptors and not self.model.descriptor.is_fitted:
            self.model.descriptor.load_weights(self.weights)

    def on_train_start(self) -> None:
        """Hold out normal images and learn the descriptor's statistics from the others."""
        self._started = False
        self._calibrated_step = -1
        self._learnt_scores = ()
        self._normals = NormalImages(
            self.trainer,
            self.model.descriptor,
            self.model.image_size,
            self.held_out,
            self.seed,
            self.cache_mb,
        )
        if self.model.needs_descriptors and not self.model.descriptor.is_fitted:
            learnt = self._normals.learnt
            batches = self._normals.batches(learnt, "Describing normal images", self.device)
            described = (self._normals.describe(batch.image, batch.image_path) for batch in batches)
            self.model.fit_normals(described, len(learnt))
        wanted = self.cell_calibration or not self._normals.holds_out
        if self.model.prototypes and wanted and len(self._normals.learnt) > 1:
            self._learnt_scores = self._observe_learnt()
        self._share_state()

    def on_train_epoch_start(self) -> None:
        """Seed each epoch by its number, so that a resumed training sees the images in the same order."""
        seed_everything(self.seed + self.current_epoch, workers=True, verbose=False)
        if not self._started:
            # Lightning drew the order of a run's first epoch before any hook could seed it
            self._started = True
            iter(self.trainer.fit_loop._data_fetcher)  # noqa: SLF001

    def training_step(self, batch: Batch, *args, **kwargs) -> dict[str, Tensor]:
        """Compute the loss of equation 8 on the images of the batch that are not held out.

        Args:
            batch (Batch): Images in [0, 1] of shape ``(B, 3, H, W)``.
            *args: Unused.
            **kwargs: Unused.

        Returns:
            dict[str, Tensor]: ``loss``, a scalar.

        Raises:
            ValueError: If the loss is not finite; names the images.
        """
        del args, kwargs
        keep = [i for i, path in enumerate(batch.image_path) if not self._normals.is_held_out(path)]
        # processes average their gradients as if each had the same number of images
        mean = self.trainer.strategy.reduce(torch.tensor(float(len(keep)), device=self.device), reduce_op="mean")
        if not keep:
            # every process of a distributed training has to take part in the step
            return {"loss": sum(0.0 * p.sum() for p in self.parameters() if p.requires_grad)}
        images, paths = batch.image[keep], [batch.image_path[i] for i in keep]
        described = self._normals.describe(images, paths) if self.model.needs_descriptors else None
        with torch.random.fork_rng(devices=[]):
            # the sample of cells belongs to the step, however the training came to it
            torch.manual_seed(self.seed + self.global_step)
            terms = self.model(images, described)
        if not terms:
            # prototypes alone: the epochs pass, nothing is left to learn
            return {"loss": torch.zeros((), device=self.device, requires_grad=True)}
        loss = self.model.loss(terms)
        if not torch.isfinite(loss):
            parts = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
            msg = (
                f"The loss is not finite at step {self.global_step} ({parts}). The last checkpoint is unharmed. Check "
                f"these images, or lower lr ({self.lr}): {', '.join(paths)}"
            )
            raise ValueError(msg)
        for name, value in {**terms, "loss": loss}.items():
            self.log(f"train_{name}", value.detach(), on_epoch=True, prog_bar=True, batch_size=len(keep))
        return {"loss": loss * len(keep) / mean}

    def on_train_epoch_end(self) -> None:
        """Calibrate, so that every checkpoint is whole."""
        self._calibrate()

    def on_validation_start(self) -> None:
        """Calibrate before a validation inside a training: its checkpoint is saved before the epoch's end."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._calibrate()

    def validation_step(self, batch: Batch, *args, **kwargs) -> STEP_OUTPUT:
        """Add scores and maps to the batch.

        A validation inside a training looks at nothing when thresholds come from normals and the evaluator has no
        metrics for it; then it costs nothing either.

        Args:
            batch (Batch): Images in [0, 1] of shape ``(B, 3, H, W)``.
            *args: Unused.
            **kwargs: Unused.

        Returns:
            STEP_OUTPUT: The batch.
        """
        del args, kwargs
        thresholds_known = getattr(self.post_processor, "threshold", None) == "normals"
        watched = self.evaluator is not None and len(self.evaluator.val_metrics) > 0
        if self.trainer.state.fn == TrainerFn.FITTING and thresholds_known and not watched:
            return batch
        return batch.update(**self.model(batch.image)._asdict())

    def on_fit_end(self) -> None:
        """Say what was learnt, where it is and what to type next."""
        log_fit_summary(self)

    @torch.no_grad()
    def explain(self, images: Tensor) -> dict[str, Tensor]:
        """What each branch saw in images of any size, see :meth:`VmpfdAdModel.explain`.

        Args:
            images (Tensor): Images in [0, 1] of shape ``(B, 3, H, W)`` or ``(3, H, W)``.

        Returns:
            dict[str, Tensor]: ``lam``, ``gam``, ``tam``, ``reconstruction`` and ``score``.
        """
        was_training = self.model.training
        self.model.eval()
        images = images.to(self.device)
        images = images if images.ndim == 4 else images[None]
        seen = self.model.explain(self.pre_processor(images) if self.pre_processor else images)
        self.model.train(was_training)
        return seen

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Set quantiles and thresholds from the held-out normals (equations 15, 16, 18 and 19)."""
        if self._calibrated_step == self.global_step:
            return
        self._calibrated_step = self.global_step
        self._share_state()
        was_training = self.model.training
        self.model.eval()
        normals = self._normals
        seen = []
        for batch in normals.batches(normals.calibration, "Calibrating on normal images", self.device):
            known = normals.describe(batch.image, batch.image_path) if self.model.needs_descriptors else None
            seen.append(self.model.observe(batch.image, known))
        if self._learnt_scores and not normals.holds_out:
            # nothing is held out: at least no image is judged by its own prototypes
            seen = [(self._learnt_scores, None if seen[0][1] is None else torch.cat([error for _, error in seen]))]
        predictions = self.model.calibrate(seen, self.map_quantiles, self.cell_calibration)
        if isinstance(self.post_processor, RankPreservingPostProcessor):
            self.post_processor.calibrate(predictions.pred_score, predictions.anomaly_map)
        self.model.train(was_training)

    def _observe_learnt(self) -> tuple[Tensor, ...]:
        """Scores of learnt images as if they were new; of all of them where thresholds come from them."""
        normals = self._normals
        count = len(normals.learnt)
        judged = min(SPREAD_IMAGES, count) if normals.holds_out else count
        numbers = torch.linspace(0, count - 1, judged).long()
        batches = normals.batches([normals.learnt[n] for n in numbers], "Judging learnt images", self.device)
        described = (
            (normals.describe(batch.image, batch.image_path), drawn)
            for batch, drawn in zip(batches, numbers.split(normals.batch_size), strict=True)
        )
        return self.model.observe_learnt(described, self.cell_calibration)

    def to_onnx(
        self,
        export_root: Path | str,
        model_file_name: str = "model",
        input_size: tuple[int, int] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> Path:
        """Export to ONNX as anomalib does, in the operator set that the model needs.

        Args:
            export_root (Path | str): Folder of the export.
            model_file_name (str): Name of the file without its suffix.
            input_size (tuple[int, int] | None): Fixed height and width of the images; ``None`` takes any.
            **kwargs (Any): Further arguments of ``torch.onnx.export``.

        Returns:
            Path: The file.
        """
        # torch writes no older one, and anomalib's request for 14 would end in a page of failed conversions
        return super().to_onnx(export_root, model_file_name, input_size, **({"opset_version": 18} | kwargs))

    def _share_state(self) -> None:
        """Give all processes of a distributed training what the first one knows: they fit and calibrate alike."""
        if self.trainer.world_size > 1:
            for value in self.state_dict().values():
                torch.distributed.broadcast(value, src=0)
