"""Export of a trained student, with measurements of the file on the whole test set."""

import os
from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd import deploy, quantization
from tfkd.sweeps.configuration import StudentSpec, SweepConfig
from tfkd.sweeps.examples import Examples
from tfkd.sweeps.networks import name_of
from tfkd.sweeps.outputs import Outputs


def file_metadata(config: SweepConfig, examples: Examples, student: StudentSpec | None = None) -> dict[str, Any]:
  """Returns the metadata of a file, except classes and accuracy.

  Args:
    config, examples: of the sweep.
    student: the student; None for the teacher.
  """
  fields: dict[str, Any] = {"data": examples.name, **examples.metadata}
  if examples.preprocessing is not None:  # Other inputs than pixels have no scaling that a reader could apply.
    fields |= {"mean": examples.preprocessing.mean, "std": examples.preprocessing.std}
  if student is not None:
    network = config.student if student.network is None else student.network
    fields |= {"network": name_of(network), "method": student.method, "seed": student.seed}
    if student.objectives:
      fields["teacher"] = name_of(config.teacher)
      fields["objectives"] = [objective.name for objective in student.objectives]
    if student.temperature is not None:
      fields["temperature"] = student.temperature
  return fields


def export(
  model: keras.Model, stem: str, test: tf.data.Dataset, *, outputs: Outputs, fields: Mapping[str, Any]
) -> dict[str, Any]:
  """Writes the file of a student: TFLite if LiteRT computes in its number of bits, otherwise a pack.

  Args:
    model: the student, as a model of this process alone.
    stem: path without suffix.
    test: batches of (inputs, labels[, weights]) of the whole test set.
    outputs: of the networks.
    fields: metadata of the file, see `file_metadata`.

  Returns:
    Fields for the row of the results.
  """
  scheme = quantization.scheme_of(model)
  kind = "tflite" if scheme is None else scheme.export_kind
  return _EXPORTERS[kind](model, stem, test, outputs, fields)


def _tflite(model, stem, test, outputs, fields):
  path = f"{stem}.tflite"
  deploy.to_tflite(model, path, task=outputs.task, labels=outputs.names, metadata=fields)
  measured = deploy.evaluate(path, test)
  for name in ("bytes", "images"):
    del measured[name]
  shown = {name: round(value, 4) for name, value in measured.items() if not name.endswith("loss")}
  deploy.write_metadata(path, **shown)
  return {f"tflite_{name}": value for name, value in measured.items()} | {"tflite_bytes": os.path.getsize(path)}


def _pack(model, stem, test, outputs, fields):
  return {"packed_bytes": deploy.pack(model, f"{stem}.pack")}


_EXPORTERS = {"tflite": _tflite, "pack": _pack}  # By `Scheme.export_kind`.
