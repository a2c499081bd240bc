"""Runs a TFLite file on pictures or sounds: `python -m tfkd.deploy student.tflite --images cat.jpg dog.png`.

Prints the file's metadata and, for each picture or sound, what suits the task of the metadata: the most probable
classes (also of files without a task), the labels over --threshold, the shares of the classes of a mask, which is
written to --output as a PNG file, or numbers.

The center of a picture is resized to the file's input, and its pixels are scaled by the metadata's mean and std,
(pixel / 255 - mean) / std. Files without them need --mean and --std; those that take uint8 pixels need none. Sounds are
WAV files of one channel in [-1, 1], for inputs [1, samples] or [1, samples, 1] and metadata with a "sample_rate" in Hz,
or --sample_rate.
"""

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import app, flags

from tfkd.data.images import read_image
from tfkd.data.sounds import read_sound
from tfkd.deploy import _show
from tfkd.deploy._interpreter import ending, interpreter, run
from tfkd.deploy._zeros import count_zeros
from tfkd.deploy.metadata import metadata_or_none, scaling_of
from tfkd.deploy.tasks import check_task, task_of_ending
from tfkd.preprocessing import Preprocessing

flags.DEFINE_list("images", [], "Pictures, separated by commas; more may follow, separated by spaces.")
flags.DEFINE_list("sounds", [], "WAV files, for models of waveforms; more may follow, separated by spaces.")
flags.DEFINE_integer("sample_rate", None, "Of the sounds, in Hz. [metadata of the file]", lower_bound=1)
flags.DEFINE_float("threshold", 0.5, "Least probability of labels.", lower_bound=0.0, upper_bound=1.0)
flags.DEFINE_string("output", ".", "Directory for masks.")
flags.DEFINE_integer("top", 3, "Number of classes to print for each picture.", lower_bound=1)
flags.DEFINE_integer("threads", None, "Number of LiteRT threads; all cores by default.", lower_bound=1)
flags.DEFINE_list("mean", None, "Subtracted from pixel / 255: one number, or one per channel. [metadata of the file]")
flags.DEFINE_list("std", None, "Divisor after that: one number, or one per channel. [metadata of the file]")


def main(argv: Sequence[str]) -> None:
  """Describes the file and runs it on the pictures or sounds."""
  if len(argv) < 2:
    raise app.UsageError("expected a TFLite file: python -m tfkd.deploy student.tflite --images cat.jpg dog.png")
  path, *files = argv[1:]
  try:
    _describe(path, [*flags.FLAGS.images, *flags.FLAGS.sounds, *files])
  except (ValueError, OSError) as error:
    sys.exit(f"{error}")


def _describe(path: str, files: Sequence[str]) -> None:
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
  if not files:
    return
  rate = _sample_rate(path, fields, shape)
  if rate:
    _check_types(path, given, taken)
    if scaling:
      raise ValueError(f"{path} has mean and std, which are for pictures; sounds are read in [-1, 1]: leave them out.")
    read = functools.partial(_sound, shape=shape, rate=rate)
  else:
    read = functools.partial(_picture, shape=shape, scaling=_checked_scaling(path, given, taken, scaling))
  show = _shown(path, fields, taken, files)
  for file in files:
    _print(f"{file}: {show(run(opened, read(file))[0], file)}")


def _picture(path: str, shape: Sequence[int], scaling: Preprocessing | None) -> np.ndarray:
  height, width = shape[1:3]
  pixels = read_image(path, height, width)[None]
  return pixels if scaling is None else scaling(tf.constant(pixels.astype(np.float32) / 255)).numpy()


def _sound(path: str, shape: Sequence[int], rate: int) -> np.ndarray:
  return read_sound(path, shape[1], rate).reshape(shape)


def _sample_rate(path: str, fields: Mapping[str, Any], shape: Sequence[int]) -> int | None:
  """Returns the samples per second of a file that takes waveforms, or None.

  Raises:
    ValueError: the input is no waveform, the rate is not known, or the flag contradicts the metadata.
  """
  stored, given = fields.get("sample_rate"), flags.FLAGS.sample_rate
  if stored and given and stored != given:
    raise ValueError(f"{path} has sample_rate {stored}; got --sample_rate {given}: leave --sample_rate out.")
  rate = stored or given
  if not rate and not flags.FLAGS.sounds:
    return None
  if len(shape) not in (2, 3) or shape[0] != 1 or shape[2:] not in ([], [1]):
    raise ValueError(f"{path} takes inputs of shape {shape}; sounds need [1, samples] or [1, samples, 1].")
  if not rate:
    raise ValueError(
      f"{path} has no sample_rate in its metadata: pass --sample_rate in Hz, or add it to the file with "
      "tfkd.deploy.write_metadata(path, sample_rate=...)."
    )
  return rate


def _shown(
  path: str, fields: Mapping[str, Any], taken: Mapping[str, Any], files: Sequence[str]
) -> Callable[[np.ndarray, str], str]:
  """Returns the function from outputs and the name of a picture or sound to a line.

  Raises:
    ValueError: the outputs or the labels do not fit the task.
  """
  results, labels, end = taken["shape"].tolist(), fields.get("labels"), ending(path, taken["index"])
  if fields.get("task"):
    check_task(fields["task"], results, "output")
  task = fields.get("task") or task_of_ending(end, results) or "classes"
  alternative = "run it on arrays with tfkd.deploy.logits"
  needed = {"multi-label": ("[1, labels]", 2), "per-element classes": ("[1, height, width, classes]", 4)}
  form, rank = needed.get(task, ("[1, classes]", 2))
  is_number = task == "regression"
  if not is_number and (len(results) != rank or results[-1] < 2 and task != "multi-label"):
    advice = "" if fields.get("task") else ", or write its task with tfkd.deploy.write_metadata(path, task=...)"
    raise ValueError(f"{path} has outputs of shape {results}; expected {form}: {alternative}{advice}.")
  if task == "per-element classes" and results[-1] > 256:
    raise ValueError(f"{path} has {results[-1]} classes; a mask has 256 at most: {alternative}.")
  count = int(np.prod(results)) if is_number else results[-1]
  if labels and len(labels) != count:
    raise ValueError(
      f"{path} has {len(labels)} labels and {count} outputs: write the labels with tfkd.deploy.write_metadata."
    )
  names = labels or [f"class {number}" for number in range(count)]
  if is_number:
    return lambda values, file: _show.numbers(values, labels)
  if task == "multi-label":
    return lambda scores, file: _show.over_threshold(scores, names, end, flags.FLAGS.threshold)
  if task == "per-element classes":
    masks = [_show.mask_path(flags.FLAGS.output, file) for file in files]
    twice = {mask for mask in masks if masks.count(mask) > 1}
    if twice:
      raise ValueError(f"several pictures would be written to {', '.join(sorted(twice))}: run them one by one.")
    return lambda scores, file: _show.mask(scores, names, _show.mask_path(flags.FLAGS.output, file))
  return lambda scores, file: _show.classes(scores, names, end, flags.FLAGS.top)


def _print_file(
  path: str,
  fields: Mapping[str, Any],
  given: Mapping[str, Any],
  taken: Mapping[str, Any],
  scaling: Preprocessing | None,
) -> None:
  """Prints size, input, output, metadata, zeros among the weights and input scaling of a file."""
  shape = given["shape"].tolist()
  inputs = f"images of {shape[1]} x {shape[2]}" if len(shape) == 4 else f"inputs of shape {shape[1:]}"
  types = f"{given['dtype'].__name__} in, {taken['dtype'].__name__} out"
  _print(f"{path}: {os.path.getsize(path):,} bytes, {inputs}, {types}")
  for name, value in fields.items():
    if name not in ("labels", "weights_sha256"):
      _print(f"  {name}: {value}")
  with open(path, "rb") as file:
    zeros, weights = count_zeros(file.read())
  if weights:
    _print(f"  zeros: {zeros:,} of {weights:,} weights ({zeros / weights:.0%})")
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
  path: str, given: Mapping[str, Any], taken: Mapping[str, Any], scaling: Preprocessing | None
) -> Preprocessing | None:
  """Returns the input scaling of a file that takes pictures, None for uint8 pixels as they are.

  Raises:
    ValueError: the file has other inputs, or no scaling is known.
  """
  shape = given["shape"].tolist()
  alternative = "run it on arrays with tfkd.deploy.logits"
  if len(shape) != 4:
    raise ValueError(f"{path} takes inputs of shape {shape}, which are not images: {alternative}.")
  if shape[3] != 3:
    raise ValueError(f"{path} takes images of {shape[3]} channels; pictures have 3: {alternative}.")
  if shape[0] != 1:
    raise ValueError(f"{path} takes {shape[0]} images at once; expected one: export it with a batch of one.")
  # Without a scale, or with scale 1, the integers are the values of the model.
  if given["dtype"] == np.uint8 and given["quantization"] in ((0.0, 0), (1.0, 0)):
    if scaling:
      raise ValueError(f"{path} takes uint8 pixels as they are, and has mean and std: leave them out.")
    return None
  _check_types(path, given, taken)
  if scaling is None:
    raise ValueError(
      f"{path} has no input scaling in its metadata: pass --mean and --std of (pixel / 255 - mean) / std, or add them "
      "to the file with tfkd.deploy.write_metadata(path, mean=..., std=...)."
    )
  return scaling


def _check_types(path: str, given: Mapping[str, Any], taken: Mapping[str, Any]) -> None:
  """Raises ValueError for inputs or outputs of integers without a scale."""
  for end, details in (("input", given), ("output", taken)):
    if details["dtype"] != np.float32 and not details["quantization"][0]:
      raise ValueError(
        f"{path} has an {end} of {details['dtype'].__name__} without a scale; expected float32 or quantized values."
      )


def _print(line: str) -> None:
  print(line)  # noqa: T201  (the result of the command)


if __name__ == "__main__":
  app.run(main)
