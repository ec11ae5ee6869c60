# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Parts of a model chosen by name, each with arguments of its own as plain data."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

Part = TypeVar("Part")


def check_choice(argument: str, name: str, choices: Iterable[str]) -> None:
    """Refuse an unknown choice.

    Args:
        argument (str): Name of the argument, as ``"density"``.
        name (str): The choice.
        choices (Iterable[str]): What there is.

    Raises:
        ValueError: If it is none of them; names them.
    """
    if name not in choices:
        msg = f"Unknown {argument}={name!r}; choose one of {', '.join(map(repr, choices))}."
        raise ValueError(msg)


def build_part(
    argument: str,
    name: str,
    parts: Mapping[str, Callable[..., Part]],
    given: Mapping[str, Any] | None,
    *context: Any,  # noqa: ANN401
) -> Part:
    """Build the part of a model that an argument names, with the arguments that belong to it.

    Args:
        argument (str): Name of the argument, as ``"density"``; that of its arguments is ``"density_args"``.
        name (str): The choice.
        parts (Mapping[str, Callable[..., Part]]): Classes by name.
        given (Mapping[str, Any] | None): Arguments of the part by name; the others keep their defaults.
        *context (Any): What the model gives to each of these classes, its first positional arguments.

    Returns:
        Part: The part.

    Raises:
        ValueError: If there is no such part, or it has no such argument.

    Example:
        >>> build_part("shape", "ratio", {"ratio": lambda size, places=2: round(size, places)}, {"places": 1}, 0.25)
        0.2
    """
    check_choice(argument, name, parts)
    known = list(inspect.signature(parts[name]).parameters)[len(context) :]
    if unknown := [key for key in given or {} if key not in known]:
        msg = (
            f"{argument}_args has no {', '.join(map(repr, unknown))} where {argument}={name!r}; it takes "
            f"{', '.join(known)}."
        )
        raise ValueError(msg)
    return parts[name](*context, **(given or {}))
