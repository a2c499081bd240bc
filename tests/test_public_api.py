"""What `import tfkd` gives, and what it must not cost."""

import subprocess
import sys

import pytest

import tfkd


def test_importing_tfkd_loads_no_heavy_library():
  # scipy and PIL come with tf_keras.
  heavy = ("matplotlib", "ai_edge_litert", "tensorflow_model_optimization", "tqdm")
  code = f"import sys, tfkd; print(*[m for m in {heavy} if m in sys.modules])"
  result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert result.stdout.strip() == ""


@pytest.mark.parametrize("name", ["data", "deploy", "models", "quantization", "train", "losses", "objectives"])
def test_subpackages_are_attributes(name):
  assert getattr(tfkd, name).__name__ == f"tfkd.{name}"


def test_an_unknown_name_is_an_attribute_error():
  with pytest.raises(AttributeError, match="'destiller'"):
    tfkd.destiller  # noqa: B018


def test_every_public_function_has_a_docstring():
  for room in (tfkd.losses, tfkd.objectives, tfkd.quantization, tfkd.data, tfkd.deploy, tfkd.models, tfkd.teachers):
    for name, value in vars(room).items():
      if callable(value) and getattr(value, "__module__", "").startswith("tfkd"):
        assert value.__doc__, f"{room.__name__}.{name}"
