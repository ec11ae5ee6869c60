# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Every block of code in README and docs does what it says, read from the text itself.

Blocks of Python run file by file in one namespace, commands in the order of the text in one folder; the model's
defaults are made small for that, nothing else. Commands behind ``<!-- needs: data -->`` name data sets: anomalib parses
them, and those on MVTec AD's screw run where it is at hand, on a few of its images.
"""

import inspect
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from anomalib.cli.cli import AnomalibCLI

from anomalib_vmpfd import Prn, VmpfdAd, register
from anomalib_vmpfd.benchmark.cli import _parser
from anomalib_vmpfd.benchmark.suite import load_suite
from anomalib_vmpfd.cli import main

REPOSITORY = Path(__file__).parents[2]
# the quickstart trains what other pages use
DOCS = sorted((REPOSITORY / "docs").glob("*.md"), key=lambda path: (path.stem != "quickstart", path.stem))
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *DOCS]
SMALL = {
    VmpfdAd: {"image_size": (128, 128), "density_args": {"num_components": 64}, "epochs": 1},
    Prn: {"image_size": (64, 64), "channels": (4, 4, 8), "epochs": 1},
}
QUICK = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--trainer.logger", "false"]
FENCE = re.compile(r"(<!-- needs: data -->\s*)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of code."""

    page: str
    language: str
    code: str
    needs_data: bool


def blocks(language: str) -> Iterator[Block]:
    for page in PAGES:
        for marker, kind, code in FENCE.findall(page.read_text(encoding="utf-8")):
            if kind == language:
                yield Block(page.name, kind, code, bool(marker))


def commands() -> list[tuple[str, str, bool]]:
    """Page, command and whether it needs data; continued lines joined, comments dropped, each command once."""
    found = {}
    for block in blocks("bash"):
        for line in block.code.replace("\\\n", " ").splitlines():
            if command := line.split(" #")[0].strip():
                found.setdefault(command, (block.page, command, block.needs_data))
    return list(found.values())


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Models with small defaults; what a page gives explicitly stays."""
    with pytest.MonkeyPatch.context() as patch:
        for model, small in SMALL.items():
            parameters = list(inspect.signature(model.__init__).parameters.values())
            names = [p.name for p in parameters if p.default is not p.empty]
            defaults = tuple(small.get(n, d) for n, d in zip(names, model.__init__.__defaults__, strict=True))
            patch.setattr(model.__init__, "__defaults__", defaults)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, sample_root: Path) -> Path:
    """What a clone holds, the sample parts, and a user's folder as the pages describe it: where the commands run."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("configs", "tools", "notebooks"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copytree(sample_root, folder / "datasets" / "sample")
    washer = sample_root / "washer"
    for part in ("train/good", "test/good"):
        shutil.copytree(washer / part, folder / "my_parts" / part)
    for part in ("test", "ground_truth"):
        defects = folder / "my_parts" / part / "defect"
        defects.mkdir(parents=True)
        for path in [*(washer / part / "dent").iterdir(), *(washer / part / "scratch").iterdir()]:
            shutil.copy(path, defects / f"{path.parent.name}_{path.name}")
    return folder


def few_screws(root: Path, place: Path) -> None:
    """A few images of the real data set where the pages expect all of it."""
    source = root / "mvtec_ad" / "screw"
    if not source.is_dir():
        pytest.skip(f"no MVTec AD screw in {root}")
    target = place / "datasets" / "MVTecAD" / "screw"
    for folder, count in (
        ("train/good", 12),
        ("test/good", 2),
        ("test/scratch_head", 2),
        ("ground_truth/scratch_head", 2),
    ):
        (target / folder).mkdir(parents=True, exist_ok=True)
        for path in sorted((source / folder).iterdir())[:count]:
            shutil.copy(path, target / folder)


def anomalib(words: list[str], run: bool) -> None:
    subcommand, *arguments = words
    if any(word.endswith(".help") for word in arguments):
        with pytest.raises(SystemExit) as end:
            AnomalibCLI(args=words, run=False)
        assert end.value.code == 0
        return
    if subcommand in {"fit", "train", "test", "predict"} and run:
        arguments += QUICK
        if subcommand in {"fit", "train"}:
            arguments += ["--trainer.max_epochs", "1"]
        if subcommand != "predict":
            arguments += ["--data.num_workers", "0"]
    AnomalibCLI(args=[subcommand, *arguments], run=run)


def check(words: list[str], place: Path, run: bool) -> None:
    """Run a command, or check what can be checked of one that installs, clones or takes long."""
    words = [word for word in words if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    program, *arguments = words
    if program == "anomalib":
        anomalib(arguments, run)
    elif program == "anomalib-vmpfd" and arguments[0] == "benchmark":
        given = _parser().parse_args(arguments[1:])
        suite = load_suite(given.config)
        assert set(given.models or []) <= {model.label for model in suite.models}
        assert set(given.categories or []) <= {name for dataset in suite.datasets for name in dataset.categories}
    elif program == "anomalib-vmpfd" and arguments[0] == "inspect":
        gradio = pytest.importorskip("gradio", reason="gradio is not installed: pip install 'anomalib-vmpfd[app]'")
        with pytest.MonkeyPatch.context() as patch:
            # opened and closed again
            patch.setattr(gradio.Blocks, "block_thread", lambda page: page)
            assert main([*arguments, "--browser", "false"]) == 0
    elif program == "anomalib-vmpfd":
        assert main(arguments) == 0
    elif program == "make":
        subprocess.run(["make", "--dry-run", *arguments], cwd=REPOSITORY, check=True, capture_output=True)
    elif program == "pip":
        project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
        for names in re.findall(r"\.\[(.*?)\]", " ".join(arguments)):
            assert all(f"\n{name} = [" in project for name in names.split(","))
    elif program == "python":
        assert (place / arguments[0]).is_file()
    elif program == "jupyter":
        assert (place / arguments[-1]).is_file()
    elif program == ".venv/bin/python":
        assert (REPOSITORY / arguments[2]).exists()
    else:
        assert program in {"git", "cd", ".venv/bin/pre-commit"}, f"no test knows what {program} does"


@pytest.mark.parametrize(("page", "command", "needs_data"), commands(), ids=lambda value: str(value)[:60])
def test_command(page, command, needs_data, place, monkeypatch, request):
    del page
    register()
    monkeypatch.chdir(place)
    words = shlex.split(command.replace("<this repository>", "repository"))
    assert not re.search(r"<[^>]+>", " ".join(words)), "placeholders cannot be run; name a file that exists"
    if needs_data:
        check(words, place, run=False)
        if not re.search(r"--data\S* \S*screw", command):
            return
        few_screws(request.getfixturevalue("real_data"), place)
    check(words, place, run=True)


@pytest.mark.parametrize("page", dict.fromkeys(block.page for block in blocks("python")))
def test_python(page, sample_root, tmp_path, monkeypatch):
    register()
    monkeypatch.chdir(tmp_path)
    shutil.copytree(sample_root, tmp_path / "datasets" / "sample")
    namespace = {"__name__": "__main__"}
    for block in blocks("python"):
        if block.page == page and not block.needs_data:
            exec(compile(block.code, page, "exec"), namespace)


def test_site_builds_without_a_warning(tmp_path):
    """Links, anchors and references of all pages hold."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = load_config(str(REPOSITORY / "mkdocs.yml"), site_dir=str(tmp_path), strict=True)
    build(config)
    assert (tmp_path / "index.html").is_file()
