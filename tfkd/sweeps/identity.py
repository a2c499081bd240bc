"""The values that tie a work directory to a configuration, to data and to networks."""

from typing import Any

import tf_keras as keras

from tfkd.storage.digests import sha256_of_arrays, sha256_of_file
from tfkd.sweeps.configuration import SweepConfig
from tfkd.sweeps.datasets import ArrayData, PipelineData
from tfkd.sweeps.networks import build, name_of, structure_digest
from tfkd.teachers.frozen import as_teacher

# Fields that do not decide results: paths, whose contents are compared instead, devices, and times of checkpoints.
_IGNORED = (
  "data_dir",
  "on_bad_image",
  "teacher_checkpoint",
  "student_checkpoint",
  "strategy",
  "checkpoint_minutes",
  "checkpoint_steps",
)


def identity(config: SweepConfig, source: ArrayData | PipelineData) -> dict[str, Any]:
  """Returns JSON values that differ if a sweep would have other results.

  A network that is given as a function counts as its qualified name and a digest of the layers that it builds; with
  `teacher_epochs=0` the weights of the teacher count, too. A teacher that is no Keras model counts as its `describe()`.

  Args:
    config: of the sweep. Checkpoints are identified by their SHA-256, not by their paths.
    source: data set, which counts by its `identity()`.
  """
  values = {name: value for name, value in config._asdict().items() if name not in _IGNORED} | source.identity()
  for role in ("teacher", "student"):
    network = getattr(config, role)
    if not isinstance(network, str):
      values[role] = name_of(network)
      model = build(network, source.outputs, source.input_shape)
      if not isinstance(model, keras.Model):
        if role == "student" or config.teacher_epochs or config.teacher_checkpoint:
          expected = "a tf_keras model" if role == "student" else "a tf_keras model, or set teacher_epochs=0"
          raise ValueError(f"{role} {name_of(network)} returned a {type(model).__name__}; expected {expected}.")
        values[f"{role}_description"] = as_teacher(model).describe()
        continue
      values[f"{role}_layers_sha256"] = structure_digest(model)
      if role == "teacher" and not config.teacher_epochs:
        values["teacher_weights_sha256"] = sha256_of_arrays(model.get_weights())
  for name in ("teacher_checkpoint", "student_checkpoint"):
    if path := getattr(config, name):
      values[f"{name}_sha256"] = sha256_of_file(path)
  return values


def defaults() -> dict[str, Any]:
  """Returns values of fields that the `config.json` of an earlier version may lack."""
  return {name: value for name, value in SweepConfig._field_defaults.items() if name not in _IGNORED}
