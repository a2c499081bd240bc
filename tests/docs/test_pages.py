"""Checks README and documentation: code blocks run, and commands, flags and links exist."""

import ast
import functools
import importlib.util
import re
from pathlib import Path

import pytest
import tf_keras as keras

from tfkd import objectives
from tfkd.data import house_numbers

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted(
  [README, ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("experiments/**/*.md")]
  + [*ROOT.glob("tests/**/*.md")]
)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMANDS = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
# Flags of other programs, which commands of the pages also use.
OTHER_FLAGS = {"strict", "logdir", "nodes", "ntasks-per-node", "gpus-per-node", "requeue", "signal", "help"}


def _name(page):
  return str(page.relative_to(ROOT))


def _programs():
  """(id, code) of everything that runs on its own: each block of README, and each other page as a whole."""
  for page in PAGES:
    blocks = PYTHON.findall(page.read_text())
    if page == README:
      yield from ((f"{_name(page)}:{number}", block) for number, block in enumerate(blocks))
    elif blocks:
      yield _name(page), "\n".join(blocks)


@pytest.mark.end_to_end
@pytest.mark.parametrize("code", [pytest.param(code, id=name) for name, code in _programs()])
def test_python_blocks_run(code, tmp_path, monkeypatch):
  monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
  monkeypatch.setattr(house_numbers, "SIZES", {"train": 256, "test": 128})
  monkeypatch.chdir(tmp_path)
  # With few steps on few examples, most of the time would be spent on tracing.
  monkeypatch.setattr(keras.Model, "run_eagerly", True)
  short = re.sub(r"\bepochs=\d+", "epochs=1", re.sub(r"\blimit=\d+", "limit=128", code))
  exec(compile(short, "page", "exec"), {"__name__": "page"})  # noqa: S102


@functools.cache
def _flags(module):
  """Names of the flags that a module and the modules of this repository that it imports define."""
  found, waiting, seen = {"help"}, [module], set()
  while waiting:
    name = waiting.pop()
    path = ROOT / f"{name.replace('.', '/')}.py"
    path = path if path.exists() else ROOT / name.replace(".", "/") / "__init__.py"
    if name in seen or not path.exists():
      continue
    seen.add(name)
    if path.name == "__init__.py":
      waiting.append(f"{name}.__main__")
    text = path.read_text()
    found |= set(re.findall(r"""DEFINE_\w+\(\s*"(\w+)\"""", text)) | set(re.findall(r'add_argument\("--(\w+)"', text))
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.ImportFrom) and node.module.startswith(("experiments", "tests.reliability")):
        waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
  return found


def _commands(page):
  """(module, flags) of every `python -m` of a page: in blocks with continued lines, and in inline code."""
  text = page.read_text().replace("\\\n", " ")
  for line in re.findall(r"python -m [^`#\n]+", text):
    words = line.split()[2:]
    if words[0].startswith(("pytest",)):
      continue
    if words[0] == "experiments.benchmarks":  # The first argument names a module.
      words[0] += f".{words.pop(1) if len(words) > 1 and not words[1].startswith('-') else 'suite'}"
    split = words.index("--") if "--" in words else len(words)
    yield words[0], words[1:split]
    if split < len(words):  # The launcher: -- <module> <its flags>.
      yield words[split + 1], words[split + 2 :]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_commands_name_modules_and_their_flags(page):
  for module, arguments in _commands(page):
    if "<" in module or "..." in module:
      continue
    assert importlib.util.find_spec(module), module
    for flag in re.findall(r"--(?:no)?(\w[\w-]*)", " ".join(arguments)):
      assert flag in _flags(module), f"{module} has no flag --{flag}"


def _all_flags():
  scripts = [path for top in ("experiments", "tfkd", "tests/reliability") for path in ROOT.glob(f"{top}/**/*.py")]
  return set().union(*(_flags(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in scripts))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_mentioned_flags_exist(page):
  mentioned = set(re.findall(r"(?<![\w-])--([a-z][\w-]*)", page.read_text()))
  assert mentioned - OTHER_FLAGS <= _all_flags()


def test_every_shared_flag_is_documented():
  text = (ROOT / "experiments/README.md").read_text()
  assert {flag for flag in _flags("experiments.run_flags") if f"`--{flag}" not in text} == set()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_to_files(page):
  for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
    # MkDocs makes docs/reference from the docstrings.
    if not target.startswith("http") and "reference/" not in target:
      assert (page.parent / target).exists(), target


def test_readme_is_short_and_contains_the_commands_that_ci_runs():
  text = README.read_text()
  assert len(text.splitlines()) <= 160
  assert re.search(r"<!-- main command -->\n```bash\n.*python -m experiments.*\n```", text)
  assert re.search(r"<!-- test command -->\n```bash\n.*pytest.*\n```", text)


@pytest.mark.parametrize("page", [README, ROOT / "docs/guides/choosing.md"], ids=_name)
def test_the_tables_of_methods_are_complete(page):
  classes = [value for value in vars(objectives).values() if isinstance(value, type)]
  # Keras' registered name has a package; base classes are not registered.
  registered = {cls.__name__ for cls in classes if keras.saving.get_registered_name(cls) != cls.__name__}
  assert len(registered) > 25
  assert registered <= set(re.findall(r"`(\w+)`", page.read_text()))


def test_the_description_of_the_package_has_no_relative_links():
  source = (ROOT / "setup.py").read_text().partition("setup(\n")[0]
  names = {"__file__": str(ROOT / "setup.py")}
  exec(compile(source, "setup.py", "exec"), names)  # noqa: S102
  text = names["long_description"]()
  assert "# tfkd" in text and "arxiv.org" in text
  assert "![" not in text
  assert all(target.startswith("http") for target in re.findall(r"\]\(([^)]+)\)", text))


def test_equations_and_links_of_the_site():
  pytest.importorskip("mkdocs")
  loaded = []
  for name in ("repository_pages", "docstring_equations"):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    loaded.append(importlib.util.module_from_spec(spec))
    spec.loader.exec_module(loaded[-1])
  pages, docstrings = loaded
  assert "soft_target_kl" in pages.public_names("losses")
  assert pages.site_link("../../experiments/README.md", "guides/a.md", True) == "../experiments/README.md"
  assert pages.site_link("b.md", "guides/a.md", True) == "b.md"
  assert pages.site_link("../../docs/guides/a.md", "experiments/svhn/README.md", False) == "../../guides/a.md"
  assert docstrings.indent_equations("A.\n\n  x = y\n  z\n\nArgs:\n  x: one.\n\nB.") == (
    "A.\n\n    x = y\n    z\n\nArgs:\n  x: one.\n\nB."
  )
