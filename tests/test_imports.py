"""The import rules: which package of jaxgen may import which."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEAVES = {"errors", "durable", "compilation", "signals"}  # which anything may import

# What each module or package may import from jaxgen, beside itself and the leaves.
MAY_IMPORT = {
    "ops": set(),
    "losses": set(),
    "data": set(),
    "pictures": set(),
    "parallel": set(),
    "layers": {"ops", "parallel"},
    "training": {"parallel"},
    "from_loss": {"layers", "parallel", "training"},
    "precision": {"layers", "training"},
    "models": {"from_loss", "layers", "losses", "parallel", "training"},
    "selfcheck": {"layers", "ops"},
    "torch_weights": {"layers", "models"},
    "runs": {"pictures", "precision", "selfcheck", "torch_weights", "training"},
    "trained": {"runs", "torch_weights"},
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
    """Every module that a file imports anywhere, in full."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def used_modules(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("jaxgen.")}


def outside(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def test_every_module_has_a_rule():
    assert set(modules()) == MAY_IMPORT.keys()


@pytest.mark.parametrize("module", modules())
def test_modules_import_only_what_they_may(module):
    for path in files(module):
        assert used_modules(path) <= MAY_IMPORT[module] | {module} | LEAVES, path


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_leaves_import_only_leaves(leaf):
    assert used_modules(ROOT / "jaxgen" / f"{leaf}.py") <= LEAVES


def test_models_know_nothing_of_each_other():
    for path in files("models"):
        assert not {name for name in imported(path) if name.startswith("jaxgen.models")}, path


def test_flax_stays_in_layers_models_and_the_weights():
    for module in modules():
        for path in files(module):
            allowed = module in {"layers", "models", "from_loss", "torch_weights"}
            assert "flax" not in outside(path) or allowed, path


def test_pytorch_is_imported_only_to_read_its_files():
    everywhere = [*ROOT.glob("jaxgen/**/*.py"), *ROOT.glob("experiments/*.py")]
    assert {path.name for path in everywhere if "torch" in outside(path)} <= {"files.py"}


def test_the_library_knows_nothing_of_the_experiments():
    for path in ROOT.glob("jaxgen/**/*.py"):
        assert not outside(path) & {"experiments", "tests"}, path


def test_heavy_packages_are_imported_where_they_are_used():
    """`--help` answers at once."""
    heavy = {
        "filelock",
        "orbax",
        "matplotlib",
        "sklearn",
        "tensorflow_datasets",
        "pooch",
        "tyro",
        "torch",
        "tqdm",
        "safetensors",
    }
    for path in [*ROOT.glob("jaxgen/**/*.py"), *ROOT.glob("experiments/*.py")]:
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in names} & heavy, path
