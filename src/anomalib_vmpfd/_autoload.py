# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Registration of the plugin as soon as ``anomalib.models`` is imported.

anomalib finds models among the classes already imported and has no plugin mechanism. ``install`` is therefore called
at the start of the interpreter by ``anomalib_vmpfd_autoload.pth`` (Python 3.15 and later: the ``.start`` file of the
same name, PEP 829). It puts one finder on ``sys.meta_path``, which waits for the import of ``anomalib.models``,
registers the plugin right after it and removes itself. Nothing else is imported, and a program that does not use
anomalib never notices. ``ANOMALIB_VMPFD_AUTOLOAD=0`` switches it off.

Standard library only: every start of the interpreter pays for what this module imports.
"""

import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_TARGET = "anomalib.models"
_OWN = "anomalib_vmpfd."


def install() -> None:
    """Register now if ``anomalib.models`` is imported already, else as soon as it is."""
    if os.environ.get("ANOMALIB_VMPFD_AUTOLOAD", "1").strip().lower() in {"0", "false", "no", "off"}:
        return
    if _TARGET in sys.modules:
        _register()
    elif _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def _register() -> None:
    try:
        from anomalib_vmpfd.registration import register

        register()
    except Exception as error:  # noqa: BLE001 - whatever is wrong here must not break anomalib
        msg = (
            f"anomalib-vmpfd could not register its models, and anomalib works without them: "
            f"{type(error).__name__}: {error}. Set ANOMALIB_VMPFD_AUTOLOAD=0 to switch the plugin off."
        )
        try:
            warnings.warn(msg, RuntimeWarning, stacklevel=2)
        except RuntimeWarning:  # warnings are errors here
            sys.stderr.write(f"RuntimeWarning: {msg}\n")


class _Loader:
    """Loads with the module's own loader, and registers after the outermost of the watched imports.

    The plugin's own modules are watched too: where one of them is what imports ``anomalib.models``, it is only half
    initialised at that moment, and so the registration waits until it is complete.
    """

    depth = 0

    def __init__(self, loader: Any) -> None:  # noqa: ANN401
        self._loader = loader

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._loader, name)

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        return self._loader.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        # From here on the module looks as if the hook had never been there.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        _Loader.depth += 1
        try:
            self._loader.exec_module(module)
        finally:
            _Loader.depth -= 1
        if _Loader.depth == 0 and _TARGET in sys.modules and _Finder in sys.meta_path:
            sys.meta_path.remove(_Finder)
            _register()


class _Finder:
    """Wraps the loader of ``anomalib.models`` and of the plugin's own modules until the registration is done."""

    @classmethod
    def find_spec(
        cls,
        fullname: str,
        path: "Sequence[str] | None" = None,
        target: "ModuleType | None" = None,
    ) -> "ModuleSpec | None":
        if fullname != _TARGET and not fullname.startswith(_OWN):
            return None
        for finder in sys.meta_path[sys.meta_path.index(cls) + 1 :]:
            spec = finder.find_spec(fullname, path, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
                return spec
        return None
