"""The README: it stays short, and what it names exists. Its snippets are run with those of the documentation."""

import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def test_is_short():
    assert len(TEXT.splitlines()) <= 90
    assert len(TEXT.split()) <= 1000


def test_python_comes_early():
    assert TEXT.count("\n", 0, TEXT.index("```python")) + 1 <= 60


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_link_leads_somewhere(target):
    assert (ROOT / target).exists()


def test_table_names_every_experiment():
    modules = sorted(path.stem for path in (ROOT / "experiments").glob("*.py") if not path.stem.startswith("_"))
    assert sorted(re.findall(r"^\| \[`(\w+)`\]", TEXT, re.MULTILINE)) == modules


def test_names_of_the_library_exist():
    everywhere = [TEXT, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))]
    names = sorted({name for text in everywhere for name in re.findall(r"`(jaxgen\.[a-z_]\w*(?:\.\w+)*)[`(]", text)})
    assert len(names) > 3
    for name in names:
        pkgutil.resolve_name(name)


def test_ci_finds_the_test_command():
    command = re.search(r"<!-- test command -->\n```bash\n(.*)\n```\n<!-- end -->", TEXT)
    assert command
    assert " -m pytest" in command[1]
