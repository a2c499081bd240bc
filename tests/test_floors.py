"""Checks the layers of the package: each package imports only from the layers below it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From the bottom up. Packages of one layer do not import each other.
LAYERS = (
  ("tfkd.ops", "tfkd.storage", "tfkd.preprocessing"),
  ("tfkd.keras3",),
  ("tfkd.losses",),
  ("tfkd.features", "tfkd.quantization", "tfkd.models", "tfkd.data"),
  ("tfkd.objectives", "tfkd.teachers", "tfkd.deploy"),
  ("tfkd.distiller",),
  ("tfkd",),  # The public names of `tfkd/__init__.py`; the packages above are imported on demand.
  ("tfkd.training",),
  ("tfkd.reporting",),
  ("tfkd.sweeps",),
  ("experiments",),
)
LEVELS = {package: level for level, packages in enumerate(LAYERS) for package in packages}
SOURCES = sorted([*ROOT.glob("tfkd/**/*.py"), *ROOT.glob("experiments/**/*.py")])
TREES = {path.relative_to(ROOT): ast.parse(path.read_text()) for path in SOURCES}

# Files that read Keras 3 models, as teachers or in comparisons, and one that undoes what tfmot's import changes.
KERAS_3_FILES = {
  "tfkd/features/taps.py",
  "tfkd/keras3/library.py",
  "tfkd/keras3/own_layers.py",
  "tfkd/teachers/sources.py",
  "tfkd/quantization/_tfmot.py",
  "experiments/benchmarks/other_frameworks.py",
  "experiments/benchmarks/variants.py",
  "experiments/benchmarks/whole_way.py",
}
# Command lines of the library itself.
LIBRARY_COMMANDS = {"tfkd/deploy/__main__.py", "tfkd/training/launch.py"}


def _module(path):
  parts = path.with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _package(module):
  """The most specific entry of LEVELS that contains the module, or None."""
  return max((name for name in LEVELS if f"{module}.".startswith(f"{name}.")), key=len, default=None)


def _imports(path):
  for node in ast.walk(TREES[path]):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      # `from tfkd import data` imports tfkd.data.
      for alias in node.names:
        full = f"{node.module}.{alias.name}"
        yield full if full in LEVELS else node.module


def _strings(path):
  for node in ast.walk(TREES[path]):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
      yield node.lineno, node.value


def test_every_module_belongs_to_a_layer():
  assert not [str(path) for path in TREES if not _package(_module(path))], "add the package to LAYERS"
  directories = {f"tfkd.{path.parts[1]}" for path in TREES if len(path.parts) > 2 and path.parts[0] == "tfkd"}
  assert directories == {name for name in LEVELS if name.startswith("tfkd.")}


def test_imports_lead_to_lower_layers():
  wrong = [
    f"{path} (layer {LEVELS[here]}) imports {name} (layer {LEVELS[there]})"
    for path in TREES
    for here in [_package(_module(path))]
    for name in _imports(path)
    for there in [_package(name)]
    if there not in (None, here) and LEVELS[there] >= LEVELS[here]
  ]
  assert not wrong, "\n".join(wrong)


def test_keras_is_tf_keras():
  for path in TREES:
    if str(path) not in KERAS_3_FILES:
      wrong = [name for name in _imports(path) if re.match(r"(tensorflow\.)?keras(\.|$)", name)]
      assert not wrong, f"{path} imports {wrong}"
      assert "tf.keras" not in (ROOT / path).read_text().replace("`tf.keras`", ""), path


def test_the_library_names_no_script_and_no_flag():
  """Messages and docstrings of the library name arguments; scripts translate them into flags."""
  script, flag = r"\bexperiments\b", r"(?<![\w-])--[a-z][a-z_]+"

  def pattern(path, text):
    # The library's own commands have flags.
    return script if str(path) in LIBRARY_COMMANDS or "tfkd.training.launch" in text else f"{script}|{flag}"

  wrong = [
    f"{path}:{line} names {found.group()}"
    for path in TREES
    if path.parts[0] == "tfkd"
    for line, text in _strings(path)
    for found in [re.search(pattern(path, text), text)]
    if found
  ]
  assert not wrong, "\n".join(wrong)


def test_modules_have_specific_names():
  assert not {path.stem for path in TREES} & {"utils", "util", "helpers", "helper", "common", "misc"}


def test_tests_mirror_the_packages():
  packages = {path.parts[1] for path in TREES if len(path.parts) > 2 and path.parts[0] == "tfkd"}
  directories = {path.parent.name for path in ROOT.glob("tests/*/__init__.py")}
  assert directories - {"experiments", "reliability", "docs"} <= packages
