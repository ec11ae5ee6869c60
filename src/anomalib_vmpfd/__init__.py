# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Vision-Mamba anomaly detection as native models of anomalib.

The names below are resolved on first use, so that ``import anomalib_vmpfd`` imports neither torch nor anomalib: the
package is imported at every start of the interpreter by the autoload hook (see :mod:`anomalib_vmpfd._autoload`).

Example:
    >>> from anomalib.engine import Engine
    >>> from anomalib_vmpfd import MVTec, VmpfdAd
    >>> Engine().train(model=VmpfdAd(), datamodule=MVTec(category="screw"))  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anomalib_vmpfd.data.few_defects import FewDefects
    from anomalib_vmpfd.data.folder_by_name import FolderByName
    from anomalib_vmpfd.data.mvtec import MVTec
    from anomalib_vmpfd.data.sample_parts import SampleParts
    from anomalib_vmpfd.models.mmaerec.lightning_model import Mmaerec
    from anomalib_vmpfd.models.prn.lightning_model import Prn
    from anomalib_vmpfd.models.vmpfd_ad.lightning_model import VmpfdAd
    from anomalib_vmpfd.predictions.callback import PredictionFiles
    from anomalib_vmpfd.registration import register
    from anomalib_vmpfd.version import __version__ as __version__

__all__ = [
    "DATAMODULES",
    "MODELS",
    "FewDefects",
    "FolderByName",
    "MVTec",
    "Mmaerec",
    "PredictionFiles",
    "Prn",
    "SampleParts",
    "VmpfdAd",
    "register",
]

# the modules that define them; registration, command line and the contract tests take what is listed here
MODELS = {
    "VmpfdAd": "anomalib_vmpfd.models.vmpfd_ad.lightning_model",
    "Mmaerec": "anomalib_vmpfd.models.mmaerec.lightning_model",
    "Prn": "anomalib_vmpfd.models.prn.lightning_model",
}
DATAMODULES = {
    "MVTec": "anomalib_vmpfd.data.mvtec",
    "SampleParts": "anomalib_vmpfd.data.sample_parts",
    "FewDefects": "anomalib_vmpfd.data.few_defects",
    "FolderByName": "anomalib_vmpfd.data.folder_by_name",
}
_ORIGIN = {
    **MODELS,
    **DATAMODULES,
    "PredictionFiles": "anomalib_vmpfd.predictions.callback",
    "register": "anomalib_vmpfd.registration",
    "__version__": "anomalib_vmpfd.version",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """Import a public name from the module that defines it (PEP 562)."""
    if name not in _ORIGIN:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = globals()[name] = getattr(import_module(_ORIGIN[name]), name)
    return value


def __dir__() -> list[str]:
    """List the lazy names too."""
    return sorted({*globals(), *__all__})
