# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The autoload hook and the registration, in real interpreters with a small package in anomalib's place.

The real anomalib takes ten seconds to import; ``tests/integration/test_install.py`` has the tests with it.
"""

import os
import pkgutil
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import anomalib_vmpfd

SOURCE = Path(anomalib_vmpfd.__file__).parent

ANOMALIB = {
    "anomalib/__init__.py": "__version__ = '2.7.3'",
    "anomalib/data.py": "class AnomalibDataModule: pass\nclass MVTecAD(AnomalibDataModule): pass",
    "anomalib/models/__init__.py": "from . import image\nclass AnomalibModule: pass\nclass Parts: pass\nloaded = True",
    "anomalib/models/image.py": "",
}
PLUGIN = {
    "anomalib_vmpfd/data/__init__.py": "",
    "anomalib_vmpfd/data/mvtec.py": "from anomalib.data import MVTecAD\nclass MVTec(MVTecAD): pass",
    "anomalib_vmpfd/data/sample_parts.py": "from anomalib.data import MVTecAD\nclass SampleParts(MVTecAD): pass",
    "anomalib_vmpfd/components.py": "from anomalib.models import Parts\nclass Descriptor(Parts): pass",
    "anomalib_vmpfd/models/__init__.py": "",
    "anomalib_vmpfd/models/vmpfd_ad/__init__.py": "from .lightning_model import VmpfdAd",
    "anomalib_vmpfd/models/vmpfd_ad/lightning_model.py": """
from anomalib_vmpfd.components import Descriptor
from anomalib.models import AnomalibModule
class VmpfdAd(AnomalibModule): pass
""",
}
# of the others, a class that does nothing
for _name, _module in anomalib_vmpfd.MODELS.items():
    _file = f"{_module.replace('.', '/')}.py"
    PLUGIN.setdefault(f"{Path(_file).parent.as_posix()}/__init__.py", f"from .lightning_model import {_name}")
    PLUGIN.setdefault(_file, f"from anomalib.models import AnomalibModule\nclass {_name}(AnomalibModule): pass")
for _name, _module in anomalib_vmpfd.DATAMODULES.items():
    _body = f"from anomalib.data import AnomalibDataModule\nclass {_name}(AnomalibDataModule): pass"
    PLUGIN.setdefault(f"{_module.replace('.', '/')}.py", _body)
REGISTERED = """
import sys, anomalib.data, anomalib.models, anomalib_vmpfd
assert anomalib.models.VmpfdAd is anomalib.models.image.VmpfdAd is anomalib_vmpfd.VmpfdAd
assert [c.__name__ for c in anomalib.models.AnomalibModule.__subclasses__()] == list(anomalib_vmpfd.MODELS)
assert anomalib.data.MVTec is anomalib_vmpfd.MVTec and anomalib.data.SampleParts is anomalib_vmpfd.SampleParts
assert not any("anomalib_vmpfd" in str(finder) for finder in sys.meta_path)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Folder with the plugin's own hook and registration, and small stand-ins for the rest."""
    for name, text in {**ANOMALIB, **PLUGIN}.items():
        write(tmp_path / name, text)
    for name in ("__init__.py", "_autoload.py", "registration.py"):
        shutil.copy(SOURCE / name, tmp_path / "anomalib_vmpfd" / name)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def python(site: Path, code: str, *options: str, **environment: str) -> str:
    """Run code after the hook's own line, as `site` would; returns what was written to stderr."""
    line = (Path(__file__).parents[2] / "startup" / "anomalib_vmpfd_autoload.pth").read_text(encoding="utf-8")
    outcome = subprocess.run(
        [sys.executable, *options, "-c", line + code],
        cwd=site,
        env={**os.environ, "PYTHONPATH": str(site), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stderr


@pytest.mark.parametrize(
    "first",
    [
        "import anomalib.models",
        "import anomalib.data",
        "from anomalib_vmpfd import VmpfdAd; import anomalib.models",
        "from anomalib_vmpfd import MVTec; import anomalib.models",
        "from anomalib_vmpfd.models.vmpfd_ad import VmpfdAd",
        # Imports anomalib.models from the middle of a module that the model needs.
        "from anomalib_vmpfd.components import Descriptor",
        "import importlib.util; assert importlib.util.find_spec('anomalib.models'); import anomalib.models",
    ],
)
def test_names_are_registered_whatever_is_imported_first(site: Path, first: str) -> None:
    assert python(site, f"{first}\n{REGISTERED}", "-W", "error") == ""


def test_the_hook_leaves_no_trace(site: Path) -> None:
    code = (
        """
import sys
assert "anomalib" not in sys.modules and "packaging" not in sys.modules
import anomalib.models, inspect, importlib
for name in ("anomalib.models", "anomalib_vmpfd.components"):
    module = sys.modules[name]
    assert type(module.__loader__).__name__ == type(module.__spec__.loader).__name__ == "SourceFileLoader"
assert "class AnomalibModule" in inspect.getsource(anomalib.models)
from anomalib_vmpfd._autoload import install
from anomalib_vmpfd import register
install(); register()
"""
        + REGISTERED
    )
    assert python(site, code) == ""


@pytest.mark.parametrize("value", ["0", "false", "OFF", " no "])
def test_switched_off(site: Path, value: str) -> None:
    """Nothing is registered by itself; asked for by hand, it still is."""
    code = "import anomalib.models as m; assert m.loaded and not hasattr(m, 'VmpfdAd')\n"
    code += f"import anomalib_vmpfd; anomalib_vmpfd.register()\n{REGISTERED}"
    assert python(site, code, ANOMALIB_VMPFD_AUTOLOAD=value) == ""


ALIVE = "import sys, anomalib.models as m; assert m.loaded and m.AnomalibModule.__subclasses__() == []"


@pytest.mark.parametrize("options", [(), ("-W", "error")])
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("models/vmpfd_ad/lightning_model.py", "1 / 0", "ZeroDivisionError: division by zero"),
        ("models/vmpfd_ad/lightning_model.py", "import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("registration.py", "def register(:", "SyntaxError"),
    ],
)
def test_an_error_in_the_plugin_is_a_warning(site: Path, name: str, text: str, said: str, options: tuple) -> None:
    write(site / "anomalib_vmpfd" / name, text)
    stderr = python(site, ALIVE, *options)
    assert "RuntimeWarning: anomalib-vmpfd could not register" in stderr
    assert said in stderr
    assert "ANOMALIB_VMPFD_AUTOLOAD=0" in stderr
    assert python(site, ALIVE, *options, ANOMALIB_VMPFD_AUTOLOAD="0") == ""


@pytest.mark.parametrize("version", ["2.6.9", "2.8.0", "3.0.0.dev1"])
def test_unsupported_anomalib(site: Path, version: str) -> None:
    write(site / "anomalib" / "__init__.py", f"__version__ = {version!r}")
    stderr = python(site, ALIVE)
    assert f"anomalib <2.8,>=2.7, but {version} is installed" in stderr
    assert "pip install 'anomalib<2.8,>=2.7'" in stderr


def test_supported_versions_are_those_of_the_package() -> None:
    from anomalib_vmpfd.registration import SUPPORTED_ANOMALIB

    requirements = map(Requirement, metadata.requires("anomalib-vmpfd") or [])
    assert SUPPORTED_ANOMALIB in [r.specifier for r in requirements if r.name == "anomalib"]


def test_anomalib_absent_or_broken(site: Path) -> None:
    """A program without anomalib notices nothing, and anomalib's own errors stay anomalib's."""
    write(site / "anomalib" / "models" / "__init__.py", "raise ValueError('anomalib is broken')")
    code = """
import sys
for attempt in range(2):
    try:
        import anomalib.models
    except ValueError as error:
        assert str(error) == "anomalib is broken"
    else:
        raise SystemExit("no error")
"""
    assert python(site, code) == ""
    shutil.rmtree(site / "anomalib")
    code = """
import sys
sys.path = [p for p in sys.path if "site-packages" not in p]
try:
    import anomalib.models
except ModuleNotFoundError as error:
    assert error.name == "anomalib"
"""
    assert python(site, code) == ""


def test_classes_of_the_same_name_are_left_alone(site: Path) -> None:
    """As soon as anomalib, or the user, has a VmpfdAd or an MVTec, a second one would make the name ambiguous."""
    write(
        site / "anomalib" / "models" / "__init__.py",
        f"{ANOMALIB['anomalib/models/__init__.py']}\nclass VmpfdAd(AnomalibModule): pass",
    )
    write(site / "anomalib" / "data.py", f"{ANOMALIB['anomalib/data.py']}\nclass MVTec(MVTecAD): pass")
    code = """
import anomalib.models as m, anomalib.data as d
of_that_name = [c.__module__ for c in m.AnomalibModule.__subclasses__() if c.__name__ == "VmpfdAd"]
assert of_that_name == ["anomalib.models"] == [m.VmpfdAd.__module__]
assert [c.__module__ for c in d.MVTecAD.__subclasses__()] == ["anomalib.data", "anomalib_vmpfd.data.sample_parts"]
"""
    assert python(site, code) == ""


def test_startup_files(repository: Path) -> None:
    """One line each: Python 3.15 resolves the entry point of the .start file, others run the line of the .pth file."""
    startup = repository / "startup"
    pth, start = ((startup / f"anomalib_vmpfd_autoload.{end}").read_text(encoding="utf-8") for end in ("pth", "start"))
    assert pth.count("\n") == start.count("\n") == 1
    assert pth.startswith("import ")
    assert pkgutil.resolve_name(start.strip()) is pkgutil.resolve_name("anomalib_vmpfd._autoload:install")
