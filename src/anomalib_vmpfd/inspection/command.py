# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""``anomalib-vmpfd inspect``: a page on this machine to look at judged parts."""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from anomalib_vmpfd.decide.command import run_command

from .folder import images_of
from .handlers import Handlers
from .judge import judge_of
from .local_only import middleware

HERE = "127.0.0.1"


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv (list[str]): Arguments after ``inspect``.

    Returns:
        int: 0 when the page was closed, 2 when it could not be opened.
    """
    return run_command("inspect", inspect, argv, lambda _: 0)


def inspect(
    ckpt_path: Path,
    data: Path | None = None,
    host: str = HERE,
    port: int | None = None,
    browser: bool = True,
    max_file_mb: int = 100,
) -> None:
    """Open a page to inspect parts with, until it is interrupted.

    Args:
        ckpt_path (Path): Checkpoint of a model of this package, or its ``.onnx`` or ``.xml`` export.
        data (Path | None): Folder with images to begin with. In the layout of anomalib's data sets, with good parts in
            ``good``, misses and false alarms are known.
        host (str): Address to listen at. All who reach it see the same images; by default only this machine does.
        port (int | None): Port. Defaults to ``None``: the first free one from 7860 on.
        browser (bool): Open the page in a browser.
        max_file_mb (int): Largest file that can be uploaded, in MB.

    Raises:
        ValueError: If Gradio is missing, or there is no model or no image.
    """
    with TemporaryDirectory(prefix="anomalib-vmpfd-inspect-") as folder:
        page = open_page(ckpt_path, Path(folder), data, host=host, port=port, browser=browser, max_file_mb=max_file_mb)
        sys.stdout.write(f"The page is at {page.local_url} until you press Ctrl+C.\n")
        try:
            page.block_thread()
        finally:
            page.close(verbose=False)


def open_page(
    ckpt_path: Path,
    folder: Path,
    data: Path | None = None,
    *,
    host: str = HERE,
    port: int | None = None,
    browser: bool = False,
    max_file_mb: int = 100,
) -> Any:  # noqa: ANN401
    """Start the server in this process, and return at once.

    Args:
        ckpt_path (Path): See :func:`inspect`, as for the others.
        folder (Path): Temporary folder for uploads and results.
        data (Path | None): Folder with images.
        host (str): Address.
        port (int | None): Port.
        browser (bool): Open a browser.
        max_file_mb (int): Largest file.

    Returns:
        Any: Gradio's page, with ``local_url`` and ``close()``.
    """
    # Gradio reads both when it is imported; nothing is to be sent, and uploads are to go with the page
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    try:
        from .page import STYLE, InspectPage, theme
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        msg = 'Gradio is missing, which makes the page; install it: pip install "anomalib-vmpfd[app]"'
        raise ValueError(msg) from error
    handlers = Handlers(judge_of(ckpt_path), folder)
    if data is not None:
        handlers.session.waiting.extend(images_of(data))
    page = InspectPage(handlers).blocks
    page.launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        share=False,
        ssr_mode=False,
        quiet=True,
        prevent_thread_lock=True,
        theme=theme(),
        css_paths=[STYLE],
        footer_links=[],
        max_file_size=f"{max_file_mb}mb",
        app_kwargs={"middleware": middleware(host)},
    )
    return page
