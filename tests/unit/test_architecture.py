# Copyright (C) 2026 anomalib-vmpfd contributors
# SPDX-License-Identifier: Apache-2.0

"""The structure of the source: short files, no import cycles, imports that only go down, independent models."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "anomalib_vmpfd"
SOURCE = Path(__file__).parents[2] / "src" / PACKAGE
MAX_LINES = 300

# A module imports from its own layer's package and from lower layers; layers of one rank are independent of each other.
RANKS = {
    "files": 0,
    "version": 0,
    "processor": 0,
    "ops": 0,
    "weights": 0,
    "nn": 1,
    "anomaly": 2,
    "predictions": 2,
    "plotting": 3,
    "engine": 4,
    "data": 5,
    "models": 5,
    "registration": 6,
    "benchmark": 7,
    "decide": 7,
    "inspection": 8,
    "_autoload": 8,
    "cli": 8,
}


def module_name(path: Path, source: Path) -> str:
    """Dotted name of a file; that of a package is the name of its folder."""
    parts = path.relative_to(source.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_imports(source: Path = SOURCE) -> dict[str, set[str]]:
    """Modules of the package that each of its modules imports: at the top, in functions and for type checking."""
    files = {module_name(path, source): path for path in sorted(source.rglob("*.py"))}
    imports: dict[str, set[str]] = {}
    for name, path in files.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = package.rsplit(".", node.level - 1)[0]
                    base = f"{above}.{base}" if base else above
                # `from package import module` imports the module, `from module import name` the module that defines it
                found |= {each if (each := f"{base}.{alias.name}") in files else base for alias in node.names}
        imports[name] = {each for each in found if each.split(".")[0] == source.name} - {name}
    return imports


def layer(module: str) -> str:
    """First part of a module's name below the package; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def rank(module: str) -> int:
    return RANKS[layer(module)]


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """Imports of every module."""
    return read_imports()


def test_files_are_short():
    lines = {
        path.relative_to(SOURCE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in SOURCE.rglob("*.py")
    }
    long = {name: count for name, count in lines.items() if count > MAX_LINES}
    assert not long, f"split by subject: {long}"


def test_there_is_no_import_cycle(imports):
    # The package itself resolves its public names on first use, see test_the_package_itself_imports_nothing.
    graph = {module: targets - {PACKAGE} for module, targets in imports.items() if module != PACKAGE}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import cycle: {' -> '.join(reversed(error.args[1]))}")


def test_the_package_itself_imports_nothing():
    """Its names are for users: source files import the modules that they need, except for the registration."""
    body = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8")).body
    own = [node for node in body if isinstance(node, ast.ImportFrom) and (node.level or PACKAGE in (node.module or ""))]
    assert not own
    users = {module for module, targets in read_imports().items() if PACKAGE in targets}
    assert users <= {f"{PACKAGE}.registration"}


def test_every_package_has_a_layer(imports):
    unknown = {layer(module) for module in imports} - {"", *RANKS}
    assert not unknown, f"give these a rank in this test: {unknown}"


def test_imports_only_go_down(imports):
    wrong = [
        f"{module} imports {target}"
        for module, targets in imports.items()
        for target in targets
        if PACKAGE not in {module, target} and layer(module) != layer(target) and rank(module) <= rank(target)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_halves_of_the_benchmark_are_independent(imports):
    wrong = [
        f"{module} imports {target}"
        for module, targets in imports.items()
        for target in targets
        for half, other in (("run", "report"), ("report", "run"))
        if f"{module}.".startswith(f"{PACKAGE}.benchmark.{half}.")
        and f"{target}.".startswith(f"{PACKAGE}.benchmark.{other}.")
    ]
    assert not wrong, "\n".join(wrong)


def test_models_are_independent(imports):
    def model(module: str) -> str | None:
        parts = module.split(".")
        return parts[2] if parts[1:2] == ["models"] and len(parts) > 2 else None

    wrong = [
        f"{module} imports {target}"
        for module, targets in imports.items()
        for target in targets
        if model(module) and model(target) and model(module) != model(target)
    ]
    assert not wrong, "\n".join(wrong)


def test_every_kind_of_import_is_found(tmp_path):
    """The reader of imports itself, on one file a kind."""
    source = tmp_path / "shop"
    files = {
        "__init__.py": "",
        "goods/__init__.py": "from .apple import Apple",
        "goods/apple.py": "import os",
        "goods/pear.py": "from . import apple\nfrom ..till import pay",
        "till.py": "def pay():\n    import shop.goods.apple",
        "sign.py": "if TYPE_CHECKING:\n    from shop import till\n    from shop.goods import Apple",
    }
    for name, content in files.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    assert read_imports(source) == {
        "shop": set(),
        "shop.goods": {"shop.goods.apple"},
        "shop.goods.apple": set(),
        "shop.goods.pear": {"shop.goods.apple", "shop.till"},
        "shop.till": {"shop.goods.apple"},
        "shop.sign": {"shop.till", "shop.goods"},
    }
