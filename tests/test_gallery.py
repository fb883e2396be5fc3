"""The programs of the gallery run; each ends in assertions about its result."""

import re
import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.unoptimized

ROOT = Path(__file__).parent.parent
PROGRAMS = sorted((ROOT / "docs" / "gallery").glob("*.py"))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_program_runs(program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(program), run_name="__main__")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_program_is_short_and_checks_its_result(program):
    text = program.read_text()
    assert len(text.splitlines()) < 60
    assert re.search(r"^\s*(assert |np\.testing\.assert_)", text, re.MULTILINE)


def test_page_shows_every_program():
    page = (ROOT / "docs" / "gallery.md").read_text()
    shown = re.findall(r'^--8<-- "docs/gallery/(\w+)\.py"$', page, re.MULTILINE)
    assert sorted(shown) == [program.stem for program in PROGRAMS]
