"""What users receive: the contents of the wheel and of the sdist, and what the files beside the code say about it."""

import email
import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

import jaxgen

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAME = f"jaxgen-{jaxgen.__version__}"


def sources(folder):
    """The Python files of a folder, and what the page of a run is made from."""
    paths = [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).glob("report/assets/**/*.*")]
    return {path.relative_to(ROOT).as_posix() for path in paths}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")))
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    (path,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("sdist")))
    with tarfile.open(path) as archive:
        yield {name.removeprefix(f"{NAME}/") for name in archive.getnames()}


def test_wheel_holds_the_library_and_nothing_else(wheel):
    about = f"{NAME}.dist-info"
    licence_and_metadata = {
        f"{about}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }
    expected = sources("jaxgen") | {"jaxgen/py.typed"} | licence_and_metadata
    assert set(wheel.namelist()) == expected


def test_wheel_metadata_is_complete(wheel):
    metadata = email.message_from_bytes(wheel.read(f"{NAME}.dist-info/METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert set(metadata.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    assert metadata.get_payload().startswith("# jaxgen\n")


def test_sdist_holds_all_sources(sdist):
    assert sources("jaxgen") | sources("experiments") | sources("tests") <= sdist
    documentation = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*") if path.is_file()}
    assert documentation <= sdist
    alone = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md"}
    assert alone | {"pyproject.toml", "mkdocs.yml", "PKG-INFO", "jaxgen/py.typed"} <= sdist


def test_sdist_holds_nothing_that_a_tool_left_behind(sdist):
    top = {name.partition("/")[0] for name in sdist}
    files = {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md", ".gitignore"}
    assert top == files | {"pyproject.toml", "mkdocs.yml", "PKG-INFO", "jaxgen", "experiments", "tests", "docs"}
    assert not [name for name in sdist if re.search(r"__pycache__|\.pyc$|\.ipynb_checkpoints|^runs/", name)]


def test_versions_agree():
    """The changelog's newest release is what is cited; the code has its version, or that of a release to come."""
    released = re.search(r"^## \[(\d[\w.]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1] == released
    assert jaxgen.__version__ == released or jaxgen.__version__.endswith(".dev0")
