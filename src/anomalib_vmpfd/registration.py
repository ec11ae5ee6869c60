# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The plugin's names in anomalib: ``VmpfdAd`` and ``MVTec``."""

import logging
from collections.abc import Iterator

from packaging.specifiers import SpecifierSet

logger = logging.getLogger(__name__)

SUPPORTED_ANOMALIB = SpecifierSet(">=2.7,<2.8")


def register() -> None:
    """Make ``VmpfdAd`` and ``MVTec`` known to anomalib by their short names.

    Importing the classes is enough for anomalib's command line, ``get_model(str)`` and ``list_models``, which look
    among the subclasses; ``get_model(dict)``, ``get_datamodule`` and ``anomalib benchmark`` look for attributes of
    ``anomalib.models`` and ``anomalib.data``. A class of the same name that anomalib or the user brings is left alone:
    two of one name would be ambiguous on the command line. Calling it twice does no harm.

    Raises:
        ImportError: If the installed anomalib is not one of the supported versions.
    """
    import anomalib

    if not SUPPORTED_ANOMALIB.contains(anomalib.__version__, prereleases=True):
        msg = (
            f"this version supports anomalib {SUPPORTED_ANOMALIB}, but {anomalib.__version__} is installed; "
            f"run `pip install 'anomalib{SUPPORTED_ANOMALIB}'` or a version of anomalib-vmpfd that fits"
        )
        raise ImportError(msg)

    import anomalib.data
    import anomalib.models
    from anomalib.data import AnomalibDataModule
    from anomalib.models import AnomalibModule

    if not _taken(AnomalibModule, "VmpfdAd"):
        from anomalib_vmpfd.models.vmpfd_ad.lightning_model import VmpfdAd

        for namespace in (anomalib.models, anomalib.models.image):
            if not hasattr(namespace, "VmpfdAd"):
                namespace.VmpfdAd = VmpfdAd
    if not _taken(AnomalibDataModule, "MVTec"):
        from anomalib_vmpfd.data.mvtec import MVTec

        if not hasattr(anomalib.data, "MVTec"):
            anomalib.data.MVTec = MVTec


def _taken(base: type, name: str) -> bool:
    """Whether a class of that name that is not the plugin's exists below ``base``."""
    other = next(
        (c for c in _subclasses(base) if c.__name__ == name and not c.__module__.startswith(__package__)), None
    )
    if other is not None:
        logger.info(f"{name} is {other.__module__}.{name}; the plugin's class of that name is not registered.")
    return other is not None


def _subclasses(base: type) -> Iterator[type]:
    for subclass in base.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
