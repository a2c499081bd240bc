"""Classifies pictures with a TFLite file: `python -m tfkd.deploy student.tflite --images cat.jpg dog.png`.

Prints the file's metadata, and for each picture the most probable classes. The middle of a picture is resized to the
input of the file, and its pixels are scaled by the metadata's mean and std, (pixel / 255 - mean) / std. For files
without them, give --mean and --std.
"""

import os
import sys
from typing import Any

import numpy as np
from absl import app, flags

from tfkd.data.images import read_image
from tfkd.deploy._evaluate import interpreter, run
from tfkd.deploy.metadata import metadata_or_none, scaling_of

flags.DEFINE_list("images", [], "Pictures; further ones may follow, separated by spaces.")
flags.DEFINE_integer("top", 3, "How many classes of each picture to print.", lower_bound=1)
flags.DEFINE_integer("threads", None, "LiteRT threads; all cores by default.", lower_bound=1)
flags.DEFINE_list("mean", None, "Subtracted from pixel / 255: one number, or one for each channel. [the file's]")
flags.DEFINE_list("std", None, "Divided by then, likewise. [the file's]")


def main(argv):
  """Describes the file, then the pictures."""
  if len(argv) < 2:
    raise app.UsageError("expected a TFLite file: python -m tfkd.deploy student.tflite --images cat.jpg dog.png")
  path, *pictures = argv[1:]
  try:
    _describe(path, [*flags.FLAGS.images, *pictures])
  except (ValueError, OSError) as error:
    sys.exit(f"{error}")


def _describe(path, pictures):
  fields = metadata_or_none(path) or {}
  opened = interpreter(path, flags.FLAGS.threads)
  (given,), (taken,) = opened.get_input_details(), opened.get_output_details()
  shape = given["shape"].tolist()
  what = f"images of {shape[1]} x {shape[2]}" if len(shape) == 4 else f"inputs of shape {shape[1:]}"
  _say(f"{path}: {os.path.getsize(path):,} bytes, {what}, {given['dtype'].__name__} in, {taken['dtype'].__name__} out")
  for name, value in fields.items():
    if name not in ("labels", "weights_sha256"):
      _say(f"  {name}: {value}")
  scaling = _scaling(path, fields, shape[-1] if shape else None)
  if len(shape) == 4:
    words = "not known" if scaling is None else "(pixel / 255 - {}) / {}".format(*(part.tolist() for part in scaling))
    _say(f"  input scaling: {words}")
  if pictures:
    _check(path, given, taken, scaling, fields.get("labels"))
  is_probability = bool(pictures) and _gives_probabilities(path)
  for picture in pictures:
    mean, std = scaling  # pyright: ignore[reportGeneralTypeIssues]  (`_check` has refused None)
    image = (read_image(picture, *shape[1:3]).astype(np.float32) / 255 - mean) / std
    scores = run(opened, image[None])[0]
    probabilities = scores if is_probability else _softmax(scores)
    labels = fields.get("labels") or [f"class {number}" for number in range(len(probabilities))]
    best = np.argsort(-probabilities)[: flags.FLAGS.top]
    _say(f"{picture}: " + ", ".join(f"{labels[number]} {100 * probabilities[number]:.1f} %" for number in best))


def _scaling(path, fields, channels) -> Any:
  """Mean and std of the file or of the flags, or None.

  Raises:
    ValueError: they are no numbers, one is missing, or the flags contradict the file.
  """
  try:
    own = scaling_of(fields, channels)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error
  asked = {name: flags.FLAGS[name].value for name in ("mean", "std") if flags.FLAGS[name].value is not None}
  try:
    asked = scaling_of({name: [float(number) for number in numbers] for name, numbers in asked.items()}, channels)
  except ValueError as error:
    raise ValueError(f"--mean and --std: {error}") from error
  if own and asked and not all(np.allclose(a, b) for a, b in zip(own, asked, strict=True)):
    raise ValueError(
      f"{path} says mean {own[0].tolist()} and std {own[1].tolist()}, and the flags say mean {asked[0].tolist()} and "
      f"std {asked[1].tolist()}: leave --mean and --std out."
    )
  return own or asked


def _check(path, given, taken, scaling, labels):
  """Checks that pictures are what a file takes.

  Raises:
    ValueError: they are not.
  """
  shape, results = given["shape"].tolist(), taken["shape"].tolist()
  alternative = "run it on arrays with tfkd.deploy.logits"
  if len(shape) != 4:
    raise ValueError(f"{path} takes inputs of shape {shape}, which are no images: {alternative}.")
  if shape[3] != 3:
    raise ValueError(f"{path} takes images of {shape[3]} channels; pictures have 3: {alternative}.")
  if shape[0] != 1:
    raise ValueError(f"{path} takes {shape[0]} images at once; expected one: export it with a batch of one.")
  for end, details in (("input", given), ("output", taken)):
    if details["dtype"] != np.float32 and not details["quantization"][0]:
      raise ValueError(
        f"{path} has an {end} of {details['dtype'].__name__} without a scale: it is not known what it means."
      )
  if len(results) != 2 or results[1] < 2:
    raise ValueError(f"{path} gives results of shape {results}; expected [1, classes]: {alternative}.")
  if labels and len(labels) != results[1]:
    raise ValueError(f"{path} names {len(labels)} classes and gives {results[1]}: write its labels again.")
  if scaling is None:
    raise ValueError(
      f"{path} has no input scaling in its metadata: give --mean and --std of (pixel / 255 - mean) / std, or add them "
      "to the file with tfkd.deploy.write_metadata(path, mean=..., std=...)."
    )


def _gives_probabilities(path):
  """Whether a file ends in a softmax or a sigmoid."""
  from ai_edge_litert import schema_py_generated as schema

  with open(path, "rb") as file:
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(file.read(), 0))
  graph, operators = model.subgraphs[0], schema.BuiltinOperator
  made_by = {output: operation for operation in graph.operators for output in operation.outputs}
  tensor = graph.outputs[0]
  while tensor in made_by:
    kind = model.operatorCodes[made_by[tensor].opcodeIndex].builtinCode
    if kind in (operators.SOFTMAX, operators.LOGISTIC):
      return True
    if kind not in (operators.QUANTIZE, operators.DEQUANTIZE):
      break
    tensor = made_by[tensor].inputs[0]
  return False


def _softmax(logits):
  exponentials = np.exp(logits - logits.max())
  return exponentials / exponentials.sum()


def _say(line):
  print(line)  # noqa: T201  (the answer)


if __name__ == "__main__":
  app.run(main)
