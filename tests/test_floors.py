"""The floors of the package: each imports only from floors below it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# From the bottom: packages on one line do not import each other.
LAYERS = (
  ("tfkd.ops", "tfkd.storage", "tfkd.preprocessing"),
  ("tfkd.losses",),
  ("tfkd.features", "tfkd.quantization", "tfkd.models", "tfkd.data"),
  ("tfkd.objectives", "tfkd.teachers", "tfkd.deploy"),
  ("tfkd.distiller",),
  ("tfkd",),  # The package's own names: the core, and the rest on demand.
  ("tfkd.training",),
  ("tfkd.reporting",),
  ("tfkd.sweeps",),
  ("experiments",),
)
FLOORS = {package: number for number, packages in enumerate(LAYERS) for package in packages}
SOURCES = sorted([*ROOT.glob("tfkd/**/*.py"), *ROOT.glob("experiments/**/*.py")])


def _room(module):
  """The longest entry of FLOORS that the module lies in."""
  rooms = [room for room in FLOORS if module == room or module.startswith(room + ".")]
  return max(rooms, key=len) if rooms else None


def _module(path):
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      # `from tfkd import data` imports tfkd.data.
      for alias in node.names:
        full = f"{node.module}.{alias.name}"
        yield full if full in FLOORS else node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_downward(path):
  here = _room(_module(path))
  assert here, f"{path} lies in no room: add it to FLOORS"
  for name in _imports(path):
    there = _room(name)
    if there and there != here:
      assert FLOORS[there] < FLOORS[here], (
        f"{_module(path)} (floor {FLOORS[here]}) imports {name} (floor {FLOORS[there]})"
      )


# Where Keras 3 models are read, as teachers, and measured beside ours.
READERS_OF_KERAS_3 = {
  ROOT / "tfkd/features/taps.py",
  ROOT / "tfkd/teachers/sources.py",
  ROOT / "experiments/benchmarks/other_frameworks.py",
  ROOT / "experiments/benchmarks/variants.py",
}


KEEPS_TF_KERAS = ROOT / "tfkd/quantization/_tfmot.py"
OTHERS = sorted({*SOURCES} - READERS_OF_KERAS_3 - {KEEPS_TF_KERAS})


@pytest.mark.parametrize("path", OTHERS, ids=lambda p: str(p.relative_to(ROOT)))
def test_keras_is_tf_keras(path):
  for name in _imports(path):
    assert name != "keras" and not name.startswith(("keras.", "tensorflow.keras")), f"{path} imports {name}"
  assert "tf.keras" not in path.read_text().replace("`tf.keras`", ""), path


def test_no_room_without_a_name():
  names = {path.stem for path in SOURCES}
  assert not names & {"utils", "util", "helpers", "helper", "common", "misc"}
