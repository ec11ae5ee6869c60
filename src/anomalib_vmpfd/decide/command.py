# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""A function as a command of ``anomalib-vmpfd``, whose errors are one line."""

import sys
from collections.abc import Callable
from typing import Any

from jsonargparse import auto_cli

FAILED = 2


def run_command(name: str, function: Callable[..., Any], argv: list[str], conclude: Callable[[Any], int]) -> int:
    """Call a function with arguments of the command line.

    Args:
        name (str): Name of the command.
        function (Callable[..., Any]): Its arguments become options.
        argv (list[str]): Arguments after the name.
        conclude (Callable[[Any], int]): Shows what the function gives, and says the exit status.

    Returns:
        int: The exit status; 2 after one line of what is wrong.
    """
    try:
        found = auto_cli(function, args=argv, prog=f"anomalib-vmpfd {name}", as_positional=False)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"anomalib-vmpfd {name}: {error}\n")
        return FAILED
    return conclude(found)
