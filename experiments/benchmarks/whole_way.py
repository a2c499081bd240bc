"""Measures the time from a trained teacher to a distilled int8 file, in several frameworks.

All ways distill from the same teacher, begin with the same weights of the student, train for the same number of epochs
on the same images, with the same loss and the same learning rate in each epoch:

  tfkd, online   float distillation for half of the epochs, then quantization-aware distillation, then `to_tflite`
  tfkd, cached   likewise, with the teacher's outputs computed once; their computation is included in the time
  Keras 3        `keras.distillation.Distiller` for all epochs, then post-training quantization
  PyTorch        a plain training loop for all epochs, without a file; if torch is installed
"""

import importlib.util
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import tf_keras as keras

from experiments.benchmarks.other_frameworks import to_keras3, to_torch
from experiments.benchmarks.variants import KERAS, TEMPERATURE, TORCH, keras3_distiller, torch_training_step
from tfkd import Distiller, data, deploy, models, quantization
from tfkd.data import house_numbers
from tfkd.objectives import SoftTargets
from tfkd.ops.timing import median_ratio
from tfkd.reporting import format_mean_std, markdown_table
from tfkd.teachers import cache

SCHEME = "w8a8"
ONLINE, CACHED = "tfkd, online", "tfkd, cached"
_LEARNING_RATE = 0.05
_TEACHER_LEARNING_RATE = 0.05


class Setting(NamedTuple):
  """Networks and sizes."""

  teacher: str
  student: str
  epochs: int
  """Epochs of the student in all stages together, at least 2."""
  teacher_epochs: int
  train_images: int
  test_images: int
  batch_size: int
  rounds: int
  """Number of runs of each way; the ways take turns."""


class Task(NamedTuple):
  """A trained teacher and the data of one run."""

  teacher: keras.Model
  images: np.ndarray
  """uint8 [n, height, width, channels]."""
  labels: np.ndarray
  epochs: int
  batch_size: int
  seed: int
  """Seed of the order of the images."""


def stages(way: str, epochs: int) -> tuple[int, int]:
  """Returns the epochs of a way's float stage and of its quantization-aware stage; their sum is `epochs`."""
  return (epochs - epochs // 2, epochs // 2) if way in (ONLINE, CACHED) else (epochs, 0)


def learning_rate(epoch: int, epochs: int) -> float:
  """Returns the learning rate of an epoch: a cosine over all stages."""
  return _LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * epoch / epochs))


def measure(setting: Setting) -> dict[str, Any]:
  """Trains the teacher, and then measures all ways in turns.

  Before the first round each way makes two epochs of one batch, so that imports, the start of the converter's process
  and other costs that a process has once are not measured. Tracing and compilation are measured.

  Args:
    setting: networks and sizes.

  Returns:
    dict: "setting"; "teacher_accuracy" in [0, 1]; "ways", from way to one dict per round of "training" and "export"
    seconds, "network_accuracy" of the trained student, and "file_accuracy" and "bytes" of the file, None without one.
  """
  train = house_numbers.draw(setting.train_images, 0)
  test = house_numbers.draw(setting.test_images, 1)
  teacher = _trained_teacher(setting, *train)
  found: dict[str, list[dict[str, Any]]] = {way: [] for way in _ways()}
  with tempfile.TemporaryDirectory() as directory:
    first = slice(setting.batch_size)
    for way in found:
      _run(way, setting, Task(teacher, train[0][first], train[1][first], 2, setting.batch_size, 0), None, directory)
    for number in range(setting.rounds):
      task = Task(teacher, *train, setting.epochs, setting.batch_size, number)
      for way in list(found)[:: (-1) ** number]:  # The order alternates, so that no way is always the first.
        found[way].append(_run(way, setting, task, test, directory))
  return {"setting": setting, "teacher_accuracy": _keras_accuracy(teacher, *test), "ways": found}


def describe(measured: Mapping[str, Any]) -> str:
  """Returns the table of a result of `measure` with the sentences that explain it."""
  setting, ways = measured["setting"], measured["ways"]
  totals = {way: [run["training"] + run["export"] for run in runs] for way, runs in ways.items()}
  table = []
  for way, runs in ways.items():
    accuracies, sizes = [run["file_accuracy"] for run in runs], [run["bytes"] for run in runs]
    has_file = sizes[0] is not None
    table.append([
      way,
      "{} + {}".format(*stages(way, setting.epochs)),
      f"{statistics.median(totals[way]):.1f}",
      f"{statistics.median(run['export'] for run in runs):.1f}" if has_file else "–",
      f"{median_ratio(totals[way], totals[ONLINE]):.2f}",
      format_mean_std([run["network_accuracy"] for run in runs], 100),
      format_mean_std(accuracies, 100) if has_file else "no file",
      f"{statistics.median_low(sizes):,}" if has_file else "no file",
    ])  # fmt: skip
  header = ["way", f"epochs, float + {SCHEME}", "seconds", "of which export", f"seconds / {ONLINE}"]
  header += ["network's accuracy, %", "file's accuracy, %", "bytes of the file"]
  text = (
    f"From a trained {setting.teacher} ({100 * measured['teacher_accuracy']:.2f} %) to an int8 file of "
    f"{setting.student}: {setting.epochs} epochs of {setting.train_images:,} house_numbers images in every way. "
    f"Seconds are medians over the rounds ({setting.rounds}); accuracies, on all {setting.test_images:,} test images, "
    f"are means ± std over the rounds. The ways of tfkd train a float student first, and then with {SCHEME} "
    "quantization. Keras 3's student is quantized after the training, by the same converter process, with four batches "
    "for the ranges.\n\n"
  )
  return text + markdown_table(header, table) + _torch_note(ways)


def _torch_note(ways: Mapping[str, Any]) -> str:
  if TORCH not in ways:
    return "\nPyTorch is not installed.\n"
  exporters = [name for name in ("litert_torch", "ai_edge_torch") if importlib.util.find_spec(name)]
  reason = f"the benchmark does not use {exporters[0]}" if exporters else "no exporter to TFLite is installed"
  return f"\nThe seconds of PyTorch are of the training alone: {reason}.\n"


def _ways() -> dict[str, Callable[[Task, keras.Model], Any]]:
  ways = {ONLINE: _train_online, CACHED: _train_cached, KERAS: _train_keras3}
  return ways | ({TORCH: _train_torch} if importlib.util.find_spec("torch") else {})


def _run(way, setting: Setting, task: Task, test, directory: str) -> dict[str, Any]:
  """Runs a way; measures accuracies if there are test images and labels."""
  keras.utils.set_random_seed(task.seed)
  student = models.build(setting.student)
  prepare = {KERAS: to_keras3, TORCH: to_torch}.get(way, lambda model: model)
  # The networks of other frameworks are made before the time begins.
  task, student = task._replace(teacher=prepare(task.teacher)), prepare(student)
  start = time.perf_counter()
  student = _ways()[way](task, student)
  trained = time.perf_counter()
  path = None if way == TORCH else os.path.join(directory, "student.tflite")
  if path:
    deploy.to_tflite(student, path, representative_data=_batches(task) if way == KERAS else None)
  exported = time.perf_counter()
  run = {"training": trained - start, "export": exported - trained}
  if test is None:
    return run
  accuracy = _torch_accuracy if way == TORCH else _keras_accuracy
  run["network_accuracy"] = accuracy(student, *test)
  file = deploy.evaluate(path, data.batches(*test, min(256, len(test[1])), scale_pixels=True)) if path else {}
  return run | {"file_accuracy": file.get("accuracy"), "bytes": file.get("bytes")}


def _batches(task: Task, further: tuple[Any, ...] = ()):
  inputs = (task.images, *further) if further else task.images
  return data.batches(inputs, task.labels, task.batch_size, scale_pixels=True, shuffle_seed=task.seed)


def _train_online(task: Task, student: keras.Model) -> keras.Model:
  return _train_stages(ONLINE, task, student, task.teacher, _batches(task))


def _train_cached(task: Task, student: keras.Model) -> keras.Model:
  with tempfile.TemporaryDirectory() as directory:
    in_order = data.batches(task.images, task.labels, task.batch_size, scale_pixels=True)
    cached = cache(task.teacher, in_order, os.path.join(directory, "cache"))
    return _train_stages(CACHED, task, student, cached, _batches(task, (cached.outputs,)))


def _train_stages(way, task, student, teacher, batches) -> keras.Model:
  float_epochs, _ = stages(way, task.epochs)
  _distill(task, student, teacher, batches, 0, float_epochs)
  student = quantization.quantize(student, SCHEME, calibration_data=_batches(task))
  _distill(task, student, teacher, batches, float_epochs, task.epochs)
  return student


def _distill(task, student, teacher, batches, first_epoch: int, epochs: int) -> None:
  distiller = Distiller(teacher, student, [SoftTargets(TEMPERATURE, weight=0.5, form="kl")], hard_loss_weight=0.5)
  distiller.compile(_optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
  schedule = keras.callbacks.LearningRateScheduler(lambda epoch: learning_rate(epoch, task.epochs))
  distiller.fit(batches, initial_epoch=first_epoch, epochs=epochs, callbacks=[schedule], verbose=0)


def _train_keras3(task: Task, student: Any) -> Any:
  import keras as keras3

  distiller = keras3_distiller(task.teacher, student)
  schedule = keras3.callbacks.LearningRateScheduler(lambda epoch: learning_rate(epoch, task.epochs))
  distiller.fit(_batches(task), epochs=task.epochs, callbacks=[schedule], verbose=0)
  return student


def _train_torch(task: Task, student: Any) -> Any:
  import torch

  step, optimizer = torch_training_step(task.teacher, student)
  images, labels = torch.tensor(task.images), torch.tensor(task.labels, dtype=torch.int64)
  torch.manual_seed(task.seed)
  for epoch in range(task.epochs):
    optimizer.param_groups[0]["lr"] = learning_rate(epoch, task.epochs)
    for chosen in torch.randperm(len(labels)).split(task.batch_size):
      step(_torch_pixels(images[chosen]), labels[chosen])
  return student


def _trained_teacher(setting: Setting, images: np.ndarray, labels: np.ndarray) -> keras.Model:
  keras.utils.set_random_seed(0)
  teacher = models.build(setting.teacher)
  batches = data.batches(images, labels, setting.batch_size, scale_pixels=True, shuffle_seed=0)
  steps = setting.teacher_epochs * len(batches)
  rate = keras.optimizers.schedules.CosineDecay(_TEACHER_LEARNING_RATE, steps)
  loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
  teacher.compile(keras.optimizers.SGD(rate, momentum=0.9), loss)
  teacher.fit(batches, epochs=setting.teacher_epochs, verbose=0)
  return teacher


def _optimizer() -> keras.optimizers.Optimizer:
  return keras.optimizers.SGD(_LEARNING_RATE, momentum=0.9)


def _keras_accuracy(model: Any, images: np.ndarray, labels: np.ndarray) -> float:
  inputs = data.batches(images, None, min(256, len(images)), scale_pixels=True)
  return float(np.mean(model.predict(inputs, verbose=0).argmax(axis=1) == labels))


def _torch_accuracy(model: Any, images: np.ndarray, labels: np.ndarray) -> float:
  import torch

  model.eval()
  with torch.no_grad():
    chosen = [model(_torch_pixels(part)).argmax(dim=1) for part in torch.tensor(images).split(256)]
  return float(np.mean(torch.cat(chosen).numpy() == labels))


def _torch_pixels(images: Any) -> Any:
  return (images.float() / 255).permute(0, 3, 1, 2).contiguous()
