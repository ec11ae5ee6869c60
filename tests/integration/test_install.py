# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""Installed as users install it, with the real anomalib: few processes, for each of them imports anomalib."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

import anomalib_vmpfd

AUTOLOAD = ["anomalib_vmpfd_autoload.pth", "anomalib_vmpfd_autoload.start"]


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    outcome = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome


@pytest.fixture(scope="module")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", *options, repository)
    return next(folder.glob("*.whl"))


class Environment:
    """Throw-away environment with the wheel, and the packages of this one behind it."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        venv.create(folder, with_pip=False)
        self.python = folder / "bin" / "python"
        self.packages = next(folder.glob("lib/python*/site-packages"))
        self.empty = self.files()
        self.pip("install", "--no-deps", wheel)
        # A plain path, not a site folder: the .pth files of this environment do not run in the other one.
        self.behind = self.packages / "behind.pth"
        self.behind.write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")

    def files(self) -> set[str]:
        root = self.python.parents[1]
        return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.suffix != ".pyc"}

    def pip(self, *arguments: str | Path) -> None:
        run(sys.executable, "-m", "pip", "--python", self.python, "--quiet", *arguments)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment"), wheel)


def test_wheel_is_whole(wheel: Path, repository: Path) -> None:
    """Every file of the package, the autoload pair beside it, and nothing else; small enough for any index."""
    names = [n for n in ZipFile(wheel).namelist() if ".dist-info/" not in n]
    tracked = run("git", "-C", repository, "ls-files", "src").stdout.split()
    assert not {t.removeprefix("src/") for t in tracked} - set(names)
    assert sorted(n for n in names if not n.startswith("anomalib_vmpfd/")) == AUTOLOAD
    assert wheel.stat().st_size < 12e6


def test_names_resolve_everywhere(environment: Environment, tmp_path: Path) -> None:
    """In `get_model`, `list_models`, `get_datamodule`, in a spawned process and under `python -I`."""
    script = tmp_path / "names.py"
    script.write_text(
        """
from anomalib.data import get_datamodule
from anomalib.models import get_model, list_models
import anomalib_vmpfd, sys
assert sys.flags.isolated and anomalib_vmpfd.__file__.startswith(sys.prefix), anomalib_vmpfd.__file__
assert "vmpfd_ad" in list_models() and "VmpfdAd" in list_models(case="pascal")
configs = [{"class_path": path} for path in ("VmpfdAd", "anomalib.models.VmpfdAd", "anomalib.models.image.VmpfdAd")]
for name in ("VmpfdAd", "vmpfd_ad", *configs):
    assert type(get_model(name)) is anomalib_vmpfd.VmpfdAd, name
data = get_datamodule({"data": {"class_path": "MVTec", "init_args": {"category": "screw"}}})
assert type(data) is anomalib_vmpfd.MVTec and data.category == "screw"
""",
        encoding="utf-8",
    )
    run(environment.python, "-I", script)


def test_stock_script() -> None:
    """`anomalib train --model VmpfdAd --data MVTec`, as this environment has the package (editable or not)."""
    arguments = ("--model", "VmpfdAd", "--data", "MVTec", "--data.category", "screw", "--print_config")
    printed = run(Path(sys.executable).parent / "anomalib", "train", *arguments).stdout
    assert "class_path: anomalib_vmpfd.VmpfdAd" in printed
    assert "class_path: anomalib_vmpfd.MVTec" in printed
    assert "category: screw" in printed


def test_wrapper_script_works_where_the_hook_is_off(environment: Environment) -> None:
    script = environment.python.parent / "anomalib-vmpfd"
    arguments = ("--model", "VmpfdAd", "--data", "SampleParts", "--print_config")
    printed = run(script, "train", *arguments, ANOMALIB_VMPFD_AUTOLOAD="0").stdout
    assert "class_path: anomalib_vmpfd.VmpfdAd" in printed
    assert "class_path: anomalib_vmpfd.SampleParts" in printed


def test_start_of_the_interpreter_stays_light(environment: Environment) -> None:
    """The hook imports the standard library and two small modules of the package."""
    code = "import sys; print([m for m in sys.modules if 'anomalib' in m], {'torch', 'numpy'} & set(sys.modules))"
    printed = run(environment.python, "-c", code).stdout.strip()
    assert printed == "['anomalib_vmpfd', 'anomalib_vmpfd._autoload'] set()"


def test_broken_plugin_leaves_anomalib_working_and_uninstalls_cleanly(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path, wheel)
    model = environment.packages / "anomalib_vmpfd" / "models" / "vmpfd_ad" / "lightning_model.py"
    text = model.read_text(encoding="utf-8")
    model.write_text("from lightning import nothing_of_this_name\n", encoding="utf-8")
    code = "from anomalib.models import list_models; m = list_models(); print('padim' in m, 'vmpfd_ad' in m)"
    outcome = run(environment.python, "-c", code)
    assert outcome.stdout.strip() == "True False"
    assert "RuntimeWarning: anomalib-vmpfd could not register" in outcome.stderr
    assert "nothing_of_this_name" in outcome.stderr

    model.write_text(text, encoding="utf-8")
    environment.behind.unlink()
    environment.pip("uninstall", "--yes", "anomalib-vmpfd")
    assert environment.files() == environment.empty


OTHER_ANOMALIB = """
from pathlib import Path
_real = Path({purelib!r}) / "anomalib"
__path__ = [str(_real)]
exec(compile((_real / "__init__.py").read_text(), str(_real / "__init__.py"), "exec"))
__version__ = {version!r}
"""


@pytest.mark.parametrize("version", ["2.6.1", "2.8.0"])
def test_an_anomalib_that_is_not_supported_works_without_the_plugin(wheel: Path, tmp_path: Path, version: str) -> None:
    """The real anomalib under another version: one warning with the cure, and every model but the plugin's."""
    environment = Environment(tmp_path, wheel)
    package = environment.packages / "anomalib"
    package.mkdir()
    text = OTHER_ANOMALIB.format(purelib=sysconfig.get_path("purelib"), version=version)
    (package / "__init__.py").write_text(text, encoding="utf-8")
    code = "from anomalib.models import list_models; m = list_models(); print('padim' in m, 'vmpfd_ad' in m)"
    outcome = run(environment.python, "-c", code)
    assert outcome.stdout.strip() == "True False"
    assert outcome.stderr.count("RuntimeWarning: anomalib-vmpfd could not register") == 1
    assert f"but {version} is installed; run `pip install 'anomalib<2.8,>=2.7'`" in outcome.stderr


def test_programs_without_anomalib_notice_nothing(wheel: Path, tmp_path: Path) -> None:
    environment = Environment(tmp_path, wheel)
    environment.behind.unlink()
    code = """
import json, sqlite3, email, asyncio, importlib.util
assert importlib.util.find_spec("anomalib") is None
try:
    import anomalib.models
except ModuleNotFoundError as error:
    print(error.name)
"""
    outcome = run(environment.python, "-W", "error", "-c", code)
    assert (outcome.stdout.strip(), outcome.stderr) == ("anomalib", "")


def test_version() -> None:
    from importlib.metadata import version

    assert version("anomalib-vmpfd") == anomalib_vmpfd.__version__
