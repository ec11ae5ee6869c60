# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Atomic writing of files."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that a reader or a kill finds the old content or the new, never a part.

    Args:
        path (Path): The file.
        content (bytes | memoryview): Its content.

    Raises:
        OSError: If it cannot be written, for lack of space or of permission; names the file and the cure.
    """
    try:
        _write(path, content)
    except OSError as error:
        msg = (
            f"{path} could not be written ({error.strerror or error}); what it held before is unharmed. Free space, or "
            f"see to it that {path.parent} can be written to, and start again."
        )
        raise OSError(error.errno, msg) from error


def _write(path: Path, content: bytes | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # beside the target: from a temporary folder on another disk the last step would be a copy, which a kill can cut
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".part", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)  # temporary files are private, results are not
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
