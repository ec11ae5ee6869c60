# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Training of one-class models, as a mixin before anomalib's module.

Example:
    >>> from anomalib.models.components import AnomalibModule
    >>> class MyModel(CalibratedMixin, AnomalibModule):
    ...     def __init__(self, seed: int = 0) -> None:
    ...         super().__init__()
    ...         self.seed = seed
"""

import logging
from collections import deque
from collections.abc import Iterable
from typing import Any

import torch
from anomalib import LearningType
from anomalib.data import Batch, InferenceBatch
from lightning import seed_everything
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.utils.data import DataLoader

from anomalib_vmpfd.nn.precision import full_convolutions

from .fit_summary import log_fit_summary
from .image_range import check_images_in_unit_range
from .image_shape import size_of_shape
from .interface import InterfaceMixin
from .learnt_data import LearntImages, read, train_on
from .normal_images import NormalImages, image_ratio
from .optim import is_trained
from .outliers import warn_of_outliers
from .post_processor import RankPreservingPostProcessor
from .pre_processor import AntialiasedPreProcessor
from .rebuild import adopt
from .recipe import apply_recipe_length, wants_recipe_length
from .region_of_interest import calibrate_inside
from .unseeded_split import warn_of_unseeded_split
from .without_gradients import take_model_without_gradients

logger = logging.getLogger(__name__)

DRIFT_IMAGES = 100  # enough for a mean and a standard deviation


class CalibratedMixin(InterfaceMixin):
    """Training of a one-class model that takes scales and thresholds from normal training images alone.

    It holds normal images out, seeds every step, shares what is learnt between the processes of a distributed training,
    refuses losses that are not finite and images outside [0, 1], ends a training after the model's own recipe, writes
    checkpoints atomically, and rebuilds a model from its checkpoint. anomalib lists direct subclasses of its module
    only, hence a mixin, as anomalib's ``MemoryBankMixin``.

    A model sets ``self.model`` and, where they differ from the class's, the attributes below, and implements what it
    needs of the methods up to :meth:`calibrate`.

    Attributes:
        held_out (float): Share of the normal training images that calibrate instead of train.
        seed (int): Seeds weights, order of the images and the held-out images.
        epochs (int | None): Length of the recipe, for trainings without ``max_epochs``; see :attr:`recipe_epochs`.
        chooses_image_size (bool): Whether ``image_size``, an argument of the model, is to be taken from the training
            images.
        learns_defects (bool): Whether training images that are labelled anomalous go to :meth:`take_defects`; other
            models leave them out. They are never held out, calibrated on or given to :meth:`fit_normals`.
        is_fitted (Tensor): Whether weights are loaded and :meth:`fit_normals` is done; a checkpoint brings it along.
    """

    held_out: float = 0.1
    seed: int = 0
    epochs: int | None = 1
    chooses_image_size: bool = False
    learns_defects: bool = False
    is_fitted: Tensor

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(*args, **kwargs)
        self.register_buffer("is_fitted", torch.tensor(False))  # noqa: FBT003
        self._normals: NormalImages
        self._recipe_applies = False
        self._chose_image_size = False
        self._started = False
        self._calibrated_step = -1
        self._normal_scores: Tensor | None = None

    def load_pretrained(self) -> None:
        """Load pre-trained weights; called at the start of a training unless a checkpoint brought them."""

    def fit_normals(self, images: LearntImages) -> None:
        """Learn what needs no gradient; called once, before the first step.

        Args:
            images (LearntImages): The images to learn from.
        """

    def score_learnt(self, images: LearntImages, *, thresholds: bool) -> None:
        """Score learnt images by what was learnt from the others; called before the first step of every fit.

        Args:
            images (LearntImages): The images that were learnt from.
            thresholds (bool): Whether thresholds will be taken from these images, as nothing is held out.
        """

    def take_defects(self, defects: Iterable[Batch]) -> None:
        """Take the known defects, with their masks; called before the first step of every fit if ``learns_defects``."""

    def loss_terms(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted terms of the loss, scalars by name, of a batch to learn from; nothing where nothing is trained."""
        raise NotImplementedError

    def observe(self, batch: Batch) -> Any:  # noqa: ANN401
        """What :meth:`calibrate` wants to know of a batch of normals; by default predictions."""
        return self.model(batch.image)

    def calibrate(self, observed: Iterable[Any]) -> Iterable[InferenceBatch]:  # noqa: PLR6301
        """Learn the usual scores of normals.

        Args:
            observed (Iterable[Any]): What :meth:`observe` gives, batch by batch, while it is asked for: images that
                were held out or, where too few are there, all that were learnt.

        Returns:
            Iterable[InferenceBatch]: Predictions of normals as those of new images, from which thresholds are taken.
        """
        return observed

    @property
    def recipe_epochs(self) -> int:
        """Length of the recipe, known at the start of a training, as it may be one of steps."""
        return self.epochs or 1

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """No sanity check: its two batches would calibrate an untrained model."""
        return {"num_sanity_val_steps": 0}

    @property
    def learning_type(self) -> LearningType:
        """The model learns from normal images alone."""
        return LearningType.ONE_CLASS

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Train for the recipe's length of the model that the checkpoint is of, and with its image size."""
        if self._chose_image_size:
            self.hparams["image_size"] = None
        super().on_load_checkpoint(checkpoint)
        if self._recipe_applies:
            apply_recipe_length(self.trainer, self.recipe_epochs)

    def setup(self, stage: str) -> None:
        """Prepare the length and the data of a training."""
        super().setup(stage)
        if stage != "fit":
            return
        self._recipe_applies = wants_recipe_length(self.trainer)
        if self._recipe_applies:
            apply_recipe_length(self.trainer, self.recipe_epochs)
        if self.chooses_image_size:
            self._choose_image_size()
        warn_of_unseeded_split(getattr(self.trainer, "datamodule", None))
        take_model_without_gradients(self.trainer, self)
        train_on(self.trainer, self._learnt_only)

    def _choose_image_size(self) -> None:
        """As many pixels as 256 x 256, in the shape of the training images."""
        loader = self.trainer.fit_loop._data_source.dataloader()  # noqa: SLF001
        size = size_of_shape(image_ratio(loader), 256 * 256)
        self._chose_image_size = True
        if size == tuple(self.input_size or ()):
            self.hparams["image_size"] = size
            return
        logger.info(f"image_size was not given: {size[0]} x {size[1]} pixels keep the shape of the training images.")
        adopt(self, {"image_size": size})
        # also where an earlier fit of this model has learnt another shape
        self.is_fitted.fill_(False)  # noqa: FBT003
        self.pre_processor.load_checkpoint_config(self.configure_pre_processor(size).checkpoint_config())
        self.refresh_data()

    def _learnt_only(self, loader: DataLoader) -> DataLoader:
        self._normals = NormalImages(loader, self.held_out, self.seed, learns_defects=self.learns_defects)
        if self.trainer.is_global_zero and self.input_size is not None:
            self._normals.warn_if_squeezed(tuple(self.input_size))
        return self._normals.training_loader()

    def on_fit_start(self) -> None:
        """Load pre-trained weights, unless a checkpoint brought them."""
        seed_everything(self.seed, workers=True, verbose=False)
        if not self.is_fitted:
            self.load_pretrained()

    def on_train_start(self) -> None:
        """Learn from normal images what needs no gradient."""
        self._started, self._calibrated_step = False, -1
        if isinstance(self.pre_processor, AntialiasedPreProcessor):
            self.pre_processor.look_at(self._normals.paths, self.input_size)
        if self.learns_defects:
            self.take_defects(read(self._normals, self._normals.defects, "Reading known defects", *self._reading))
        learnt = LearntImages(self._normals, torch.arange(len(self._normals.learnt)), *self._reading)
        if not self.is_fitted:
            self.fit_normals(learnt)
            self.is_fitted.fill_(True)  # noqa: FBT003
        self.score_learnt(learnt, thresholds=not self._normals.holds_out)
        self.drift.fit(batch.image for batch, _ in learnt.evenly(DRIFT_IMAGES))
        self._share_state()

    def on_train_epoch_start(self) -> None:
        """Seed each epoch by its number, so that a resumed training sees the images in the same order."""
        seed_everything(self.seed + self.current_epoch, workers=True, verbose=False)
        if not self._started:
            # Lightning drew the order of a run's first epoch before any hook could seed it
            self._started = True
            iter(self.trainer.fit_loop._data_fetcher)  # noqa: SLF001

    def training_step(self, batch: Batch, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # noqa: ANN401
        """Compute the loss.

        Args:
            batch (Batch): Images in [0, 1] of shape ``(B, 3, H, W)``; none of them is held out.
            *args (Any): Unused.
            **kwargs (Any): Unused.

        Returns:
            dict[str, Tensor]: ``loss``, a scalar.

        Raises:
            ValueError: If the loss is not finite; names the images.
        """
        del args, kwargs
        check_images_in_unit_range(batch.image)
        with torch.random.fork_rng(devices=[]):
            # random draws belong to the step, however the training came to it
            torch.manual_seed(self.seed + self.global_step)
            terms = self.loss_terms(batch) if is_trained(self) else {}
        if not terms:
            # the epochs pass, nothing is left to learn
            return {"loss": torch.zeros((), device=self.device, requires_grad=True)}
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            parts = ", ".join(f"{name} {value.item():.4g}" for name, value in terms.items())
            msg = (
                f"The loss is not finite at step {self.global_step} ({parts}). The last checkpoint is unharmed. Check "
                f"these images, or lower lr ({self.hparams.get('lr')}): {', '.join(batch.image_path or ['no paths'])}"
            )
            raise ValueError(msg)
        for name, value in {**terms, "loss": loss}.items():
            self.log(f"train_{name}", value.detach(), on_epoch=True, prog_bar=True, batch_size=len(batch.image))
        return {"loss": loss}

    def on_train_epoch_end(self) -> None:
        """Calibrate, so that every checkpoint is complete."""
        self._calibrate()

    def on_validation_start(self) -> None:
        """Calibrate before a validation inside a training: its checkpoint is saved before the epoch's end."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._calibrate()

    def on_fit_end(self) -> None:
        """Say what was learnt, from which doubtful images, where it is and what to type next."""
        scores, normals = self._normal_scores, self._normals
        # not those of these images where a model judged others in place of too few
        known = normals.calibration if scores is not None and len(scores) == len(normals.calibration) else []
        if self.trainer.is_global_zero and known and (paths := normals.paths):
            warn_of_outliers(scores, [paths[index] for index in known])
        log_fit_summary(self, len(known))

    @property
    def _reading(self) -> tuple[tuple[int, int] | None, nn.Module | None, torch.device, bool]:
        size = self.input_size
        return None if size is None else tuple(size), self.pre_processor, self.device, self.trainer.is_global_zero

    @torch.no_grad()
    @full_convolutions()
    def _calibrate(self) -> None:
        """Set scales and thresholds from the held-out normals."""
        if self._calibrated_step == self.global_step:
            return
        self._calibrated_step = self.global_step
        self._share_state()
        was_training = self.model.training
        self.model.eval()
        calibrate_inside(self.model, getattr(self.pre_processor, "region", None))
        normals = read(self._normals, self._normals.calibration, "Calibrating on normal images", *self._reading)
        seen = self.calibrate(self.observe(batch) for batch in normals)
        predictions = (each._replace(anomaly_map=self.inside(each.anomaly_map)) for each in seen)
        if isinstance(self.post_processor, RankPreservingPostProcessor):
            self._normal_scores = self.post_processor.calibrate(predictions)
        else:
            # calibration is lazy
            deque(predictions, maxlen=0)
        self.model.train(was_training)

    def _share_state(self) -> None:
        """Give all processes of a distributed training what the first one knows: they fit and calibrate alike."""
        if self.trainer.world_size > 1:
            for value in self.state_dict().values():
                torch.distributed.broadcast(value, src=0)
