"""Trains, quantizes and measures networks, each in a process of its own."""

import concurrent.futures.process
import itertools
import math
import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras
from absl import logging

import tfkd
from experiments.networks import rows
from experiments.networks.architectures import (
  ALONE,
  CLASSES,
  NETWORKS,
  TRANSFER,
  base_of,
  build,
  copy_weights,
  estimate_statistics,
)
from experiments.networks.rows import PTQ, Key
from tfkd import data, deploy, quantization
from tfkd.deploy._interpreter import interpreter
from tfkd.ops.timing import in_new_process
from tfkd.storage.files import atomic_path

_HEAD_RATE, _QAT_RATE = 1e-2, 1e-4
_IMAGES = 128  # For statistics of batch normalization and for ranges of features.
_MOVED = 0.01  # Share of the input's values that the control moves.


class Setting(NamedTuple):
  """Sizes of the run."""

  size: int
  limit_train: int
  test_images: int
  batch_size: int
  steps: int
  qat_steps: int


class Task(NamedTuple):
  """A model trained in float, and its data."""

  model: Any
  train: tuple[np.ndarray, np.ndarray]
  test: tf.data.Dataset
  setting: Setting
  stem: str
  """Path of the files, to which scheme and suffix are added."""

  def path(self, scheme: str) -> str:
    """Returns the path of the file of a scheme."""
    return f"{self.stem}-{scheme}.tflite"


def run(workdir: str, keys: Sequence[Key], setting: Setting) -> None:
  """Adds the rows that a work directory lacks.

  Args:
    workdir: directory of rows, float weights and files.
    keys: the rows.
    setting: sizes.
  """
  for (library, _), group in itertools.groupby(keys, lambda key: key[:2]):
    found = rows.results(workdir, library)
    missing = [key for key in group if not found.find(**key._asdict())]
    while missing:
      try:
        in_new_process(measure, workdir, missing, setting)
        error = "ended without a row"
      except concurrent.futures.process.BrokenProcessPool as broken:
        error = f"the process ended: {broken}"
      missing = [key for key in missing if not found.find(**key._asdict())]
      if missing:
        found.add({**missing.pop(0)._asdict(), "stage": "process", "error": error})


def measure(workdir: str, keys: Sequence[Key], setting: Setting) -> None:
  """Adds rows of one network; for those that fail or have too many steps also one of post-training quantization.

  Args:
    workdir: see `run`.
    keys: rows of one library and network.
    setting: sizes.
  """
  _, _, share, least_size = NETWORKS[keys[0].network]
  setting = setting._replace(
    size=max(setting.size, least_size),
    steps=math.ceil(share * setting.steps),
    qat_steps=math.ceil(share * setting.qat_steps),
  )
  logging.set_verbosity(logging.INFO)
  for mode, group in itertools.groupby(keys, lambda key: key.mode):
    first, *_ = group = list(group)
    results, task, found = rows.results(workdir, first.library), None, {}
    try:
      task = _task(workdir, first.library, first.network, mode, setting)
      found = _float_row(task)
      task = task._replace(model=_converted(task, found))
    except Exception as error:  # Any failure is a row.
      found |= {"stage": "float" if task is None else "from_keras3", **_described(error)}
    for key in group:
      row = found | ({} if "error" in found else _quantized(task, key.scheme))
      results.add({**key._asdict(), **row})
      logging.info(
        "%s: %s", " ".join(key), {k: v for k, v in row.items() if k != "error"} | {"error": row.get("error")}
      )
    keys_of_mode = {"library": first.library, "network": first.network, "mode": mode}
    is_good = all(map(rows.reaches_goal, results.find(**keys_of_mode)))
    if task is not None and not is_good and not results.find(**keys_of_mode, scheme=PTQ):
      results.add({**keys_of_mode, "scheme": PTQ, **_after_training(task)})


def _task(workdir: str, library: str, network: str, mode: str, setting: Setting) -> Task:
  """Returns the trained float network and its data."""
  takes_pixels = NETWORKS[network].takes_pixels or mode == TRANSFER
  train = _images("train", setting.limit_train, setting.size, takes_pixels)
  test = _images("test", setting.test_images, setting.size, takes_pixels)
  model = _trained(workdir, network, mode, train, setting)
  if library != "tf_keras":
    source, model = model, build(library, network, mode, setting.size)
    copy_weights(source, model)
    if not np.allclose(*(m.predict(train[0][:8], verbose=0) for m in (source, model)), rtol=1e-2, atol=1e-2):
      raise ValueError(f"{network} of {library} has other logits than that of tf_keras with the same weights.")
  os.makedirs(os.path.join(workdir, library), exist_ok=True)
  batches = tf.data.Dataset.from_tensor_slices(test).batch(setting.batch_size)
  return Task(model, train, batches, setting, os.path.join(workdir, library, f"{network}-{mode}"))


def _trained(workdir: str, network: str, mode: str, train: tuple[np.ndarray, np.ndarray], setting: Setting) -> Any:
  """Returns a network of `tf_keras` with trained weights, from the work directory if they are there."""
  tf_keras.utils.set_random_seed(0)
  model = build("tf_keras", network, mode, setting.size)
  path = os.path.join(workdir, "float", f"{network}-{mode}.h5")
  if os.path.exists(path):
    model.load_weights(path)
    return model
  if mode == ALONE:
    fit(model, train, setting.steps, setting.batch_size, NETWORKS[network].learning_rate)
    estimate_statistics(model, train[0][:_IMAGES])
  else:
    # The base has seen the images in the scale of the network.
    scaled = train[0] if NETWORKS[network].takes_pixels else train[0] / 127.5 - 1
    base = base_of(model)
    copy_weights(_trained(workdir, network, ALONE, (scaled, train[1]), setting), base)
    base.trainable = False
    fit(model, train, setting.qat_steps, setting.batch_size, _HEAD_RATE)
    base.trainable = True
  os.makedirs(os.path.dirname(path), exist_ok=True)
  with atomic_path(path) as temporary:
    model.save_weights(temporary, save_format="h5")
  return model


def _images(split: str, count: int, size: int, takes_pixels: bool) -> tuple[np.ndarray, np.ndarray]:
  """Returns float images [count, size, size, 3] and labels [count] of house_numbers, tinted by class.

  The colors make the task so easy that networks learn it in a few dozen steps.
  """
  images, labels = data.load_arrays("house_numbers", split, limit=count)
  hues = tf.image.hsv_to_rgb(np.stack([labels / CLASSES, np.ones(count), np.ones(count)], axis=-1)).numpy()
  images = (tf.image.resize(images, (size, size)).numpy() + 255 * hues[:, None, None]).astype(np.float32) / 2
  return images if takes_pixels else images / 127.5 - 1, labels


def fit(model: Any, train: tuple[np.ndarray, np.ndarray], steps: int, batch_size: int, rate: float) -> None:
  """Trains a model for a number of steps with Adam and a cosine schedule.

  Args:
    model: from images to logits.
    train: images and labels, which are repeated as often as necessary.
    steps: number of steps.
    batch_size: number of images of a step.
    rate: peak of the learning rate.
  """
  batches = tf.data.Dataset.from_tensor_slices(train).shuffle(len(train[0]), seed=0).repeat().batch(batch_size)
  loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
  model.compile(tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.CosineDecay(rate, steps)), loss)
  model.fit(batches, steps_per_epoch=steps, verbose=0)


def _float_row(task: Task) -> dict[str, Any]:
  """Returns the accuracies of the float network in inference mode."""
  test = [np.concatenate(column) for column in zip(*task.test.as_numpy_iterator(), strict=True)]
  sample = tuple(column[:_IMAGES] for column in task.train)
  shares = [float(np.mean(task.model.predict(x, batch_size=task.setting.batch_size, verbose=0).argmax(-1) == y))
            for x, y in (sample, test)]  # fmt: skip
  parameters = sum(int(np.prod(weight.shape)) for weight in task.model.weights)
  return {"parameters": parameters, "float_train_accuracy": shares[0], "float_accuracy": shares[1]}


def _converted(task: Task, found: dict[str, Any]) -> tf_keras.Model:
  """Returns the model in `tf_keras`; adds the largest difference of the logits from those of Keras 3."""
  if isinstance(task.model, tf_keras.Model):
    return task.model
  converted = tfkd.from_keras3(task.model)
  images, _ = next(task.test.as_numpy_iterator())
  expected = task.model.predict(images, verbose=0)
  found["conversion_difference"] = float(np.abs(converted.predict(images, verbose=0) - expected).max())
  return converted


def _quantized(task: Task, scheme: str) -> dict[str, Any]:
  """Quantizes, trains, exports and measures a model; an error ends the row and is its last entry."""
  row, stage, start = {}, "quantize", time.perf_counter()
  try:
    student = quantization.quantize(task.model, scheme, calibration_data=task.train[0][:_IMAGES])
    row["quantize_seconds"] = time.perf_counter() - start
    stage = "training"
    fit(student, task.train, task.setting.qat_steps, task.setting.batch_size, _QAT_RATE)
    stage, start = "export", time.perf_counter()
    row["is_integer"] = _export(student, task.path(scheme))
    row["export_seconds"] = time.perf_counter() - start
    stage = "evaluation"
    return row | _compared(task, scheme, student) | {"control": _control(task, scheme, student)}
  except Exception as error:  # Any failure is a row.
    return row | {"stage": stage, **_described(error)}


def _after_training(task: Task) -> dict[str, Any]:
  """Measures the file of post-training quantization against the float model."""
  try:
    is_integer = _export(task.model, task.path(PTQ), representative_data=task.train[0][:_IMAGES])
    return {"is_integer": is_integer, **_compared(task, PTQ, task.model)}
  except Exception as error:  # Any failure is a row.
    return {"stage": "PTQ", **_described(error)}


def _export(model: Any, path: str, **options: Any) -> bool:
  """Writes a file, and returns whether it computes with integers only."""
  try:
    deploy.to_tflite(model, path, task="classes", **options)
  except ValueError as error:
    if "allow_float" not in str(error):
      raise
    deploy.to_tflite(model, path, task="classes", allow_float=True, **options)
    return False
  return True


def _compared(task: Task, scheme: str, model: Any) -> dict[str, Any]:
  """Compares a file with the model it was made of."""
  row = deploy.evaluate(task.path(scheme), task.test, model)
  step = interpreter(task.path(scheme)).get_output_details()[0]["quantization"][0]
  names = ("accuracy", "student_accuracy", "agreement", "worst_steps", "bytes", "images")
  return {name: row[name] for name in names} | {"mean_steps": row["mean_difference"] / step if step else None}


def _control(task: Task, scheme: str, student: tf_keras.Model) -> float:
  """Measures how much a student's logits move if a few input values move by one step of the input's grid.

  Returns:
    The largest difference in steps of the output's grid: how far a network amplifies a difference in rounding.
  """
  opened = interpreter(task.path(scheme))
  (first, _), (last, _) = (
    details[0]["quantization"] for details in (opened.get_input_details(), opened.get_output_details())
  )
  images = np.concatenate([batch for batch, _ in task.test.as_numpy_iterator()])
  moved = images + first * (np.random.default_rng(0).random(images.shape) < _MOVED).astype(np.float32)
  outputs = [student.predict(x, batch_size=task.setting.batch_size, verbose=0) for x in (images, moved)]
  return float(np.abs(np.subtract(*outputs)).max() / last)


def _described(error: Exception) -> dict[str, str]:
  return {"error": f"{type(error).__name__}: {error}"[:2000]}
