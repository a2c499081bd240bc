"""The files of students that experiments compare: written, and measured on the whole test set."""

import os
from typing import Any

import tf_keras as keras
from absl import flags

from experiments import quantized, run_flags  # noqa: F401  (defines --qat_epochs)
from tfkd import deploy, quantization
from tfkd.sweeps import FLOAT, StudentSpec, Sweep, file_metadata

flags.DEFINE_integer(
  "two_bit_epochs",
  None,
  "Epochs of quantization-aware students with two bits of a weight; by default those of --qat_epochs.",
  lower_bound=1,
)


def qat_epochs(scheme: str) -> int:
  """Returns the epochs of a quantized student after those of its float student."""
  has_two_bits = scheme.startswith("w2")
  return has_two_bits and flags.FLAGS.two_bit_epochs or flags.FLAGS.qat_epochs


def check_flags(*unused: str) -> None:
  """Checks that flags of a script with its own networks, data or schemes were not given.

  Args:
    unused: flags that have no effect, beside --scheme.

  Raises:
    ValueError: one of them was given.
  """
  given = flags.FLAGS
  for name in unused:
    if given[name].value is not None:
      raise ValueError(f"{name}={given[name].value} has no effect here: the script has its own.")
  if given.scheme != FLOAT:
    raise ValueError(f"scheme={given.scheme} has no effect here: the table has a fixed list of schemes.")


def measure(
  sweep: Sweep,
  model: keras.Model,
  student: StudentSpec | None,
  path: str,
  name: str,
  *,
  timed_with: str | None = None,
  representative_data: Any = None,
) -> dict[str, Any]:
  """Writes the TFLite file of a model and measures it; for fewer than eight feature bits also the packed file.

  Args:
    sweep: sweep of the script.
    model: the model.
    student: the student that it is made of; None for the teacher.
    path: of the TFLite file. The packed file has the suffix `.pack`.
    name: stored in the file.
    timed_with: file that this one is timed in turns with, see `tfkd.deploy.benchmark`; None does not time it.
    representative_data: see `tfkd.deploy.to_tflite`.

  Returns:
    Row of results: accuracy and agreement of the file, parameters, bytes, and latency. Accuracy and bytes of a packed
    file are those of the packed file.
  """
  outputs = sweep.examples.outputs
  deploy.to_tflite(
    model,
    path,
    task=outputs.task,
    labels=outputs.names,
    metadata=file_metadata(run_flags.training(), sweep.examples, student) | {"method": name},
    representative_data=representative_data,
  )
  row = deploy.evaluate(path, sweep.examples.batches("test"), model)
  deploy.write_metadata(path, accuracy=round(row["accuracy"], 4))
  if timed_with is not None:
    row |= deploy.benchmark(path, 1, timed_with)
  row |= {"parameters": quantization.sizes(model)["parameters"], "bytes": os.path.getsize(path)}
  scheme = quantization.scheme_of(model)
  if scheme is not None and scheme.export_kind == "pack":
    row |= _measure_pack(sweep, model, path.replace(".tflite", ".pack"))
  return row


def _measure_pack(sweep: Sweep, model: keras.Model, path: str) -> dict[str, Any]:
  """Measures the packed file of a student whose TFLite file is a float one that reproduces its arithmetic."""
  size = deploy.pack(model, path)
  restored = deploy.unpack(path)
  restored.compile(metrics=["accuracy"])
  accuracy = restored.evaluate(sweep.examples.batches("test"), verbose=0, return_dict=True)["accuracy"]
  return {"bytes": size, "accuracy": accuracy}
