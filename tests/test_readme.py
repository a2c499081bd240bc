"""The README is true: its Python runs, its commands and files exist."""

import importlib.util
import re
from pathlib import Path

import pytest

from tfkd.data import house_numbers

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *ROOT.glob("experiments/**/README.md"), *ROOT.glob("tests/**/README.md")]
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def test_its_python_runs_in_order(tmp_path, monkeypatch):
  monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
  monkeypatch.setattr(house_numbers, "SIZES", {"train": 256, "test": 128})
  monkeypatch.chdir(tmp_path)
  blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
  assert blocks
  names = {}
  for block in blocks:
    exec(block.replace("epochs=5", "epochs=1"), names)  # noqa: S102
  assert (tmp_path / "student.keras").exists() and (tmp_path / "student.tflite").exists()


@EACH_PAGE
def test_its_commands_name_modules(page):
  modules = set(re.findall(r"python -m ([\w.]+)", page.read_text()))
  assert modules
  for module in modules:
    assert importlib.util.find_spec(module), module


@EACH_PAGE
def test_its_links_lead_to_files(page):
  for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
    if not target.startswith("http"):
      assert (page.parent / target).exists(), target


def test_its_test_command_is_the_one_that_ci_runs():
  text = (ROOT / "README.md").read_text()
  assert re.search(r"<!-- test command -->\n```bash\n.*pytest.*\n```", text)
