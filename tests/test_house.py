"""Who imports whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEAVES = {"errors", "durable"}

# What each room may import from jaxgen, beside itself and the leaves.
MAY_IMPORT = {
    "ops": set(),
    "layers": {"ops", "parallel"},
    "losses": set(),
    "models": {"layers", "losses", "parallel", "training"},
    "parallel": set(),
    "training": {"parallel"},
    "data": set(),
    "checkpoint": set(),
    "torch_weights": set(),
    "pictures": set(),
    "progress": set(),
    "config": set(),
    "precision": {"layers", "training"},
    "stored": {"checkpoint", "config", "precision", "training"},
    "log": set(),
    "replay": {"training"},
    "selfcheck": {"layers", "ops"},
    "run": {
        "checkpoint",
        "config",
        "log",
        "pictures",
        "precision",
        "progress",
        "replay",
        "selfcheck",
        "stored",
        "torch_weights",
        "training",
    },
    "command": {"config", "run", "stored"},
}


def rooms() -> list[str]:
    inside = [
        path.stem for path in (ROOT / "jaxgen").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    return sorted(set(inside) - {"__init__"} - LEAVES)


def files(room: str) -> list[Path]:
    folder = ROOT / "jaxgen" / room
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


def used_rooms(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("jaxgen.")}


def outside(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def test_every_room_has_its_rule():
    assert set(rooms()) == MAY_IMPORT.keys()


@pytest.mark.parametrize("room", rooms())
def test_a_room_imports_only_what_it_may(room):
    for path in files(room):
        assert used_rooms(path) <= MAY_IMPORT[room] | {room} | LEAVES, path


@pytest.mark.parametrize("leaf", sorted(LEAVES))
def test_a_leaf_imports_nothing_of_the_house(leaf):
    assert used_rooms(ROOT / "jaxgen" / f"{leaf}.py") == set()


def test_models_know_nothing_of_each_other():
    for path in files("models"):
        assert not {name for name in imported(path) if name.startswith("jaxgen.models")}, path


def test_flax_stays_in_layers_models_and_the_weights():
    for room in rooms():
        for path in files(room):
            assert "flax" not in outside(path) or room in {"layers", "models", "torch_weights"}, path


def test_pytorch_is_imported_only_to_read_its_files():
    everywhere = [*ROOT.glob("jaxgen/**/*.py"), *ROOT.glob("experiments/*.py")]
    assert {path.name for path in everywhere if "torch" in outside(path)} <= {"torch_weights.py"}


def test_the_library_knows_nothing_of_the_experiments():
    for path in ROOT.glob("jaxgen/**/*.py"):
        assert not outside(path) & {"experiments", "tests"}, path


def test_heavy_packages_are_imported_where_they_are_used():
    """`--help` answers at once."""
    heavy = {"orbax", "matplotlib", "sklearn", "tensorflow_datasets", "pooch", "tyro", "torch", "tqdm", "safetensors"}
    for path in [*ROOT.glob("jaxgen/**/*.py"), *ROOT.glob("experiments/*.py")]:
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
        assert not {name.split(".")[0] for name in names} & heavy, path
