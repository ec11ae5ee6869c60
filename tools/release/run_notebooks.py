# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Run notebooks from a clean kernel in an empty folder and keep their outputs.

    python tools/release/run_notebooks.py notebooks/*.ipynb

What depends on the machine or the moment is left out of the files, so that a second run changes little.
"""

import argparse
import base64
import io
import os
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image


class Client(NotebookClient):
    """Runs notebooks without playing the browser: what a widget's function draws stays in the cell's outputs.

    nbclient's own stand-in for widgets waits for the timeout of the cell when a picture is drawn in one.
    """

    def handle_comm_msg(self, outs: list, msg: dict, cell_index: int) -> None:
        """Let messages of widgets pass."""


def run(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Execute a notebook with ``folder`` as its working directory.

    Args:
        notebook (nbformat.NotebookNode): Notebook; its outputs are replaced.
        folder (Path): Working directory of the kernel.

    Returns:
        nbformat.NotebookNode: The same notebook with new outputs.
    """
    resources = {"metadata": {"path": str(folder)}}
    Client(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    return notebook


def clean(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Leave out times, log lines, widget states and the path of the working directory, and make the pictures small."""
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        cell.metadata = {}
        # progress and log lines
        cell["outputs"] = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
        for output in cell["outputs"]:
            if "text" in output:
                output["text"] = output["text"].replace(f"{folder}{os.sep}", "").replace(str(folder), ".")
            data = output.get("data", {})
            data.pop("application/vnd.jupyter.widget-view+json", None)
            data.pop("image/jpeg", None)  # the same picture once more
            if "image/png" in data:
                data["image/png"] = _smaller(data["image/png"])
    return notebook


def _smaller(png: str) -> str:
    """The same picture in 256 colours: a repository keeps every version of it."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    buffer = io.BytesIO()
    # by coverage and not by area: else greys take the colours that a colour bar needs
    picture.quantize(256, Image.Quantize.MAXCOVERAGE).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def main() -> None:
    """Run all notebooks given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="+", type=Path)
    for path in parser.parse_args().notebooks:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary).resolve()
            notebook = clean(run(nbformat.read(path, as_version=4), folder), folder)
        nbformat.write(notebook, path)
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
