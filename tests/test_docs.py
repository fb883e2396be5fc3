"""The documentation: its Python blocks run in order, its commands take the options shown, its links lead somewhere.

A page runs offline and quickly. Data sets that would be downloaded are replaced by a few hundred of scikit-learn's
digits, and a page that names one of them must say that it downloads it. One page imports torch, so this file is left
out where PyTorch is not installed (conftest.py).
"""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import nbclient
import nbformat
import pytest

import experiments.dcgan_digits  # noqa: F401  # a page imports it, which must not see the replaced `data.load`
import jaxgen
from jaxgen import commands, data

pytestmark = pytest.mark.unoptimized

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
}
NOTEBOOKS = sorted(DOCS.rglob("*.ipynb"))
DOWNLOADED = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
FENCE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"python -m ((?:experiments|tests)\.\w+)([^`\n#]*)")
USE = re.compile(rf"(jaxgen (?:{'|'.join(commands.names())})) ([^`\n#]*)")


def blocks(text: str) -> list[tuple[int, str]]:
    """The fenced Python blocks, each with the number of its first line."""
    return [(text.count("\n", 0, match.start(1)) + 1, match[1]) for match in FENCE.finditer(text)]


WITH_PYTHON = [name for name, text in PAGES.items() if blocks(text)]


@pytest.fixture
def without_downloads(monkeypatch):
    """`data.load` returns 300 digits, in the right shape, for the data sets that it would download."""
    load = data.load

    def load_stand_in(name, split="train", *, size=None, channels=None, **options):
        if name not in DOWNLOADED:
            return load(name, split, size=size, channels=channels, **options)
        height, width, depth = DOWNLOADED[name]
        digits = load("digits", split, size=size or (height, width), channels=channels or depth, **options)
        return digits._replace(images=digits.images[:300], labels=digits.labels[:300])

    monkeypatch.setattr(data, "load", load_stand_in)


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_page_runs(page, tmp_path, monkeypatch, without_downloads):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for line, block in blocks(PAGES[page]):
        exec(compile("\n" * (line - 1) + block, page, "exec"), namespace)


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_page_says_what_it_downloads(page):
    code = "".join(block for _, block in blocks(PAGES[page]))
    named = [name for name in DOWNLOADED if f'"{name}"' in code]
    assert not named or "download" in PAGES[page]


def test_every_recipe_and_guide_has_a_snippet():
    without = ("docs/api/", "docs/benchmarks/", "docs/architecture.md", "docs/changelog.md", "docs/guarantees.md")
    assert [page for page in PAGES if not page.startswith((*without, "docs/performance.md"))] == WITH_PYTHON


@cache
def options_of(module: str) -> set[str]:
    """The options that a command's `--help` lists."""
    done = subprocess.run(
        [sys.executable, "-m", *module.split(), "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(re.findall(r"--[a-z][a-z-]*", done.stdout))


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md"])
def test_commands_take_the_options_shown(page):
    text = PAGES.get(page) or (ROOT / page).read_text()
    for module, arguments in [*COMMAND.findall(text), *USE.findall(text)]:
        assert set(re.findall(r"--[a-z][a-z-]*", arguments)) <= options_of(module), f"python -m {module} {arguments}"


def test_options_mentioned_exist():
    experiments = [f"experiments.{path.stem}" for path in (ROOT / "experiments").glob("[!_]*.py")]
    common = set.intersection(*(options_of(module) for module in experiments))
    known = set.union(*(options_of(module) for module in [*experiments, "experiments.benchmark", "tests.torture"]))
    known |= set.union(*(options_of(f"jaxgen {name}") for name in commands.names()))
    for page, text in PAGES.items():
        assert set(re.findall(r"`(--[a-z][a-z-]*)[^`]*`", text)) <= known | {"--help"}, page
    in_table = re.findall(r"^\| `(--[a-z-]+)", PAGES["docs/index.md"], re.MULTILINE)
    assert in_table
    assert set(in_table) <= common


@pytest.mark.parametrize("page", [*PAGES, "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page):
    """Links between pages are also checked by the strict build, links to pictures and notebooks only here."""
    here = ROOT / page
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", PAGES.get(page) or here.read_text()):
        assert (here.parent / target).exists(), target


def test_navigation_lists_every_page():
    listed = re.findall(r"[\w/]+\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    included = [target for text in PAGES.values() for target in re.findall(r'^--8<-- "(.+\.md)"$', text, re.MULTILINE)]
    assert sorted([*(f"docs/{page}" for page in listed), *included]) == sorted([*PAGES, "CHANGELOG.md"][1:])


def test_api_reference_lists_every_exported_name():
    documented = re.findall(r"^::: jaxgen\.(\w+)", PAGES["docs/api/index.md"], re.MULTILINE)
    assert set(jaxgen.__all__) - {"__version__"} <= set(documented)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path, monkeypatch):
    """In a Jupyter kernel of its own, without the cell that installs jaxgen on Colab."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "colab" not in cell.metadata.get("tags", [])]
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs", "jax_num_cpu_devices"):
        monkeypatch.setenv(name.upper(), str(jax.config.values[name]))  # what the pages compiled is not compiled again
    client = nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert pictures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_installs_from_one_address(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    first, *others = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert first.metadata.get("tags") == ["colab"]
    assert first.source.startswith("REPOSITORY = ")
    assert not any("http" in cell.source for cell in others)
    assert not any(cell.get("outputs") for cell in notebook.cells)


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2
