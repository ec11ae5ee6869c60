# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""``MVTec``, the short name of anomalib's MVTec AD datamodule."""

from anomalib.data import MVTecAD


class MVTec(MVTecAD):
    """MVTec AD under the name that anomalib's command line had up to version 2.0: ``--data MVTec``.

    Arguments, folder layout and download are those of :class:`anomalib.data.MVTecAD`. The class's name is also the
    name of the folder for results: ``results/VmpfdAd/MVTec/<category>/``, where a run with ``--data MVTecAD`` has
    ``results/VmpfdAd/MVTecAD/<category>/``.

    Example:
        >>> from anomalib_vmpfd import MVTec
        >>> datamodule = MVTec(root="./datasets/MVTecAD", category="screw")
        >>> datamodule.name
        'MVTec'
    """
