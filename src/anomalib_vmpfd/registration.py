# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The plugin's names in anomalib: its models and datamodules."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from packaging.specifiers import SpecifierSet

import anomalib_vmpfd

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

_OWN = "anomalib_vmpfd."
SUPPORTED_ANOMALIB = SpecifierSet(">=2.7,<2.8")


def register() -> None:
    """Make the models and datamodules of this package known to anomalib by their short names.

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

    # `import anomalib.models` would ask `anomalib` for an attribute that the hook comes too early for.
    from anomalib import data, models

    listed: list[tuple[Any, str, tuple[Any, ...]]] = [
        (models.AnomalibModule, name, (models, models.image)) for name in anomalib_vmpfd.MODELS
    ]
    listed += [(data.AnomalibDataModule, name, (data,)) for name in anomalib_vmpfd.DATAMODULES]
    for base, name, namespaces in listed:
        other = next((c for c in _subclasses(base) if c.__name__ == name and not c.__module__.startswith(_OWN)), None)
        if other is not None:
            logger.info(f"{name} is {other.__module__}.{name}; the plugin's class of that name is not registered.")
            continue
        for namespace in namespaces:
            vars(namespace).setdefault(name, getattr(anomalib_vmpfd, name))


def model_class(name: str) -> Any:  # noqa: ANN401
    """Class of a model that is registered, of this package or of a user's own.

    Args:
        name (str): Its name, as a checkpoint has it.

    Raises:
        ValueError: If there is none.
    """
    register()
    from anomalib.models import AnomalibModule

    found = next((each for each in _subclasses(AnomalibModule) if each.__name__ == name), None)
    if found is None:
        msg = f"There is no model {name}; import the package that brings it."
        raise ValueError(msg)
    return found


def load_trained(path: "Path") -> Any:  # noqa: ANN401
    """The model of a checkpoint of this package, on the CPU, to be evaluated.

    Args:
        path (Path): The checkpoint.

    Raises:
        ValueError: If it is of no model of this package.
    """
    from anomalib_vmpfd.engine.rebuild import model_of

    name = model_of(path)
    if name is None:
        msg = f"{path} was not saved by a model of this package; give one that was."
        raise ValueError(msg)
    return model_class(name).load_from_checkpoint(path, map_location="cpu").eval()


def _subclasses(base: type) -> Iterator[type]:
    subclass: type
    for subclass in base.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
