"""The import rules: which module or package of jaxgen may import which."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEAVES = {
    "errors",
    "durable",
    "compilation",
    "memory",
    "names",
    "ondisk",
    "processes",
    "signals",
}  # every module may import these

# The parts of jaxgen that each module or package may import, besides itself and the leaves.
MAY_IMPORT = {
    "ops": set(),
    "losses": set(),
    "protocols": set(),
    "conditioning": set(),
    "data": set(),
    "pictures": set(),
    "parallel": set(),
    "layers": {"ops", "parallel"},
    "staging": set(),
    "training": {"ops", "parallel", "staging"},
    "from_loss": {"layers", "parallel", "training"},
    "precision": {"layers", "training"},
    "recipes": {"parallel", "training"},
    "models": {"conditioning", "from_loss", "layers", "losses", "parallel", "protocols", "staging", "training"},
    "metrics": {"from_loss", "layers", "losses", "training"},
    "selfcheck": {"layers", "ops"},
    "torch_weights": {"layers", "models"},
    "runs": {
        "metrics",
        "parallel",
        "pictures",
        "precision",
        "recipes",
        "selfcheck",
        "staging",
        "torch_weights",
        "training",
    },
    "report": {"layers", "metrics", "models", "torch_weights"},
    "trained": {"runs", "torch_weights"},
    "export": {"layers", "metrics", "models"},
    "commands": {"data", "export", "metrics", "models", "pictures", "report", "runs", "torch_weights", "trained"},
    "__main__": {"commands", "runs"},
}


def modules() -> list[str]:
    inside = [
        path.stem for path in (ROOT / "jaxgen").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    return sorted(set(inside) - {"__init__"} - LEAVES)


def files(module: str) -> list[Path]:
    folder = ROOT / "jaxgen" / module
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imported(path: Path) -> set[str]:
    """The full names of all modules that a file imports, at any level."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def used_modules(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("jaxgen.")}


def imported_packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def test_every_module_has_a_rule():
    assert set(modules()) == MAY_IMPORT.keys()


@pytest.mark.parametrize("module", modules())
def test_modules_import_only_what_is_allowed(module):
    for path in files(module):
        assert used_modules(path) <= MAY_IMPORT[module] | {module} | LEAVES, path


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaves_import_only_leaves(leaf):
    assert used_modules(ROOT / "jaxgen" / f"{leaf}.py") <= LEAVES


def test_architecture_page_lists_these_rules():
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", page, re.MULTILINE)
    documented = {module: set(re.findall(r"`(\w+)`", allowed)) for module, allowed in rows}
    assert documented.pop("experiments") == set()
    assert documented == MAY_IMPORT
    (leaves,) = re.findall(r"^Anything may import (.*?)\.", page, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", leaves)) == LEAVES


def test_models_do_not_import_each_other():
    for path in files("models"):
        assert not {name for name in imported(path) if name.startswith("jaxgen.models")}, path


def test_flax_is_imported_in_layers_models_and_weights_only():
    for module in modules():
        for path in files(module):
            allowed = module in {
                "conditioning", "export", "from_loss", "layers", "metrics", "models", "torch_weights",
            }  # fmt: skip
            assert "flax" not in imported_packages(path) or allowed, path


def test_torch_is_imported_only_to_read_its_files():
    everywhere = [*ROOT.glob("jaxgen/**/*.py"), *ROOT.glob("experiments/*.py")]
    assert {path.name for path in everywhere if "torch" in imported_packages(path)} <= {"files.py"}


def test_library_does_not_import_experiments_or_tests():
    for path in ROOT.glob("jaxgen/**/*.py"):
        assert not imported_packages(path) & {"experiments", "tests"}, path


def test_slow_packages_are_imported_lazily():
    """So that `--help` is fast. The file of a command is imported only to parse its arguments, which takes tyro."""
    slow = {
        "filelock",
        "orbax",
        "matplotlib",
        "sklearn",
        "scipy",
        "tensorflow_datasets",
        "pooch",
        "tyro",
        "torch",
        "tqdm",
        "safetensors",
        "onnx",
        "tensorboardX",
    }
    for path in [*ROOT.glob("jaxgen/**/*.py"), *ROOT.glob("experiments/*.py")]:
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
        allowed = {"tyro"} if path.parent.name == "commands" else set()
        assert not {name.split(".")[0] for name in names} & (slow - allowed), path
