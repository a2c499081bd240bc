"""Classifies pictures with a TFLite file: `python -m tfkd.deploy student.tflite --images cat.jpg dog.png`.

Prints the file's metadata and the most probable classes of each picture. The center of a picture is resized to the
file's input, and its pixels are scaled by the metadata's mean and std, (pixel / 255 - mean) / std. Files without them
need --mean and --std.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import app, flags

from tfkd.data.images import read_image
from tfkd.deploy._interpreter import ending, interpreter, run
from tfkd.deploy.metadata import metadata_or_none, scaling_of
from tfkd.preprocessing import Preprocessing

flags.DEFINE_list("images", [], "Pictures, separated by commas; more may follow, separated by spaces.")
flags.DEFINE_integer("top", 3, "Number of classes to print for each picture.", lower_bound=1)
flags.DEFINE_integer("threads", None, "Number of LiteRT threads; all cores by default.", lower_bound=1)
flags.DEFINE_list("mean", None, "Subtracted from pixel / 255: one number, or one per channel. [metadata of the file]")
flags.DEFINE_list("std", None, "Divisor after that: one number, or one per channel. [metadata of the file]")


def main(argv: Sequence[str]) -> None:
  """Describes the file and classifies the pictures."""
  if len(argv) < 2:
    raise app.UsageError("expected a TFLite file: python -m tfkd.deploy student.tflite --images cat.jpg dog.png")
  path, *pictures = argv[1:]
  try:
    _describe(path, [*flags.FLAGS.images, *pictures])
  except (ValueError, OSError) as error:
    sys.exit(f"{error}")


def _describe(path: str, pictures: Sequence[str]) -> None:
  fields = metadata_or_none(path) or {}
  opened = interpreter(path, flags.FLAGS.threads)
  sides = opened.get_input_details(), opened.get_output_details()
  if [len(side) for side in sides] != [1, 1]:
    raise ValueError(
      f"{path} has {len(sides[0])} inputs and {len(sides[1])} outputs; expected one of each, images and logits: run it "
      "on arrays with tfkd.deploy.logits."
    )
  (given,), (taken,) = sides
  shape = given["shape"].tolist()
  scaling = _scaling(path, fields, shape[-1] if shape else None)
  _print_file(path, fields, given, taken, scaling)
  if not pictures:
    return
  preprocess = _checked_scaling(path, given, taken, scaling, fields.get("labels"))
  is_probability = ending(path, taken["index"]) is not None
  for picture in pictures:
    pixels = read_image(picture, *shape[1:3]).astype(np.float32)
    image = preprocess(tf.constant(pixels[None] / 255))
    scores = run(opened, image.numpy())[0]
    probabilities = scores if is_probability else _softmax(scores)
    labels = fields.get("labels") or [f"class {number}" for number in range(len(probabilities))]
    best = np.argsort(-probabilities)[: flags.FLAGS.top]
    _print(f"{picture}: " + ", ".join(f"{labels[number]} {100 * probabilities[number]:.1f} %" for number in best))


def _print_file(
  path: str,
  fields: Mapping[str, Any],
  given: Mapping[str, Any],
  taken: Mapping[str, Any],
  scaling: Preprocessing | None,
) -> None:
  """Prints size, input, output, metadata and input scaling of a file."""
  shape = given["shape"].tolist()
  inputs = f"images of {shape[1]} x {shape[2]}" if len(shape) == 4 else f"inputs of shape {shape[1:]}"
  types = f"{given['dtype'].__name__} in, {taken['dtype'].__name__} out"
  _print(f"{path}: {os.path.getsize(path):,} bytes, {inputs}, {types}")
  for name, value in fields.items():
    if name not in ("labels", "weights_sha256"):
      _print(f"  {name}: {value}")
  if len(shape) == 4:
    formula = f"(pixel / 255 - {scaling.mean}) / {scaling.std}" if scaling else "not known"
    _print(f"  input scaling: {formula}")


def _scaling(path: str, fields: Mapping[str, Any], channels: int | None) -> Preprocessing | None:
  """Returns the input scaling of the metadata or of the flags, or None.

  Raises:
    ValueError: mean and std are invalid, one is missing, or the flags contradict the metadata.
  """
  try:
    stored = scaling_of(fields, channels)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error
  values = {name: flags.FLAGS[name].value for name in ("mean", "std") if flags.FLAGS[name].value is not None}
  try:
    given = scaling_of({name: [float(number) for number in numbers] for name, numbers in values.items()}, channels)
  except ValueError as error:
    raise ValueError(f"--mean and --std: {error}") from error
  if stored and given and not (np.allclose(stored.mean, given.mean) and np.allclose(stored.std, given.std)):
    raise ValueError(
      f"{path} has mean {stored.mean} and std {stored.std}; got --mean {given.mean} and --std {given.std}: leave "
      "--mean and --std out."
    )
  return stored or given


def _checked_scaling(
  path: str,
  given: Mapping[str, Any],
  taken: Mapping[str, Any],
  scaling: Preprocessing | None,
  labels: Sequence[str] | None,
) -> Preprocessing:
  """Returns the input scaling of a file that classifies pictures.

  Raises:
    ValueError: the file has other inputs or outputs, or no scaling is known.
  """
  shape, results = given["shape"].tolist(), taken["shape"].tolist()
  alternative = "run it on arrays with tfkd.deploy.logits"
  if len(shape) != 4:
    raise ValueError(f"{path} takes inputs of shape {shape}, which are not images: {alternative}.")
  if shape[3] != 3:
    raise ValueError(f"{path} takes images of {shape[3]} channels; pictures have 3: {alternative}.")
  if shape[0] != 1:
    raise ValueError(f"{path} takes {shape[0]} images at once; expected one: export it with a batch of one.")
  for end, details in (("input", given), ("output", taken)):
    if details["dtype"] != np.float32 and not details["quantization"][0]:
      raise ValueError(
        f"{path} has an {end} of {details['dtype'].__name__} without a scale; expected float32 or quantized values."
      )
  if len(results) != 2 or results[1] < 2:
    raise ValueError(f"{path} has outputs of shape {results}; expected [1, classes]: {alternative}.")
  if labels and len(labels) != results[1]:
    raise ValueError(
      f"{path} has {len(labels)} labels and {results[1]} outputs: write the labels with tfkd.deploy.write_metadata."
    )
  if scaling is None:
    raise ValueError(
      f"{path} has no input scaling in its metadata: pass --mean and --std of (pixel / 255 - mean) / std, or add them "
      "to the file with tfkd.deploy.write_metadata(path, mean=..., std=...)."
    )
  return scaling


def _softmax(logits: np.ndarray) -> np.ndarray:
  exponentials = np.exp(logits - logits.max())
  return exponentials / exponentials.sum()


def _print(line: str) -> None:
  print(line)  # noqa: T201  (the result of the command)


if __name__ == "__main__":
  app.run(main)
