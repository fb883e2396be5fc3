"""The README: its snippets run as printed, and what it names is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("snippet", re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL))
def test_a_snippet_runs_as_printed(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})


def test_there_is_a_snippet():
    assert "```python" in TEXT


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_a_link_leads_somewhere(target):
    assert (ROOT / target).exists()


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m (experiments\.\w+)", TEXT))))
def test_a_command_is_there(module):
    path = ROOT / module.replace(".", "/")
    assert path.with_suffix(".py").exists() or (path / "__main__.py").exists()


def test_what_it_names_is_there_once_jaxgen_is_imported():
    names = sorted(set(re.findall(r"`(jaxgen\.[\w.]+\w)", TEXT)))
    assert len(names) > 3
    subprocess.run([sys.executable, "-c", f"import jaxgen; {'; '.join(names)}"], cwd=ROOT, check=True)


def test_ci_finds_the_test_command():
    found = re.search(r"<!-- test command -->\n```bash\n(.*)\n```\n<!-- end -->", TEXT)
    assert found
    assert found[1].endswith("-m pytest")
