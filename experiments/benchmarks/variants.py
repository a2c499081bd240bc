"""Steps to time: functions that train the student, or run the teacher, on the next batch."""

import importlib.util
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from experiments.benchmarks.other_frameworks import to_keras3, to_torch
from tfkd import Distiller, data, models, quantization
from tfkd.objectives import Hint, SoftTargets
from tfkd.sweeps import FLOAT
from tfkd.teachers import Frozen, cache

PAIRS = {
  "svhn_cnn to svhn_cnn": ("svhn_cnn", "svhn_cnn", ("relu0", "relu2", "relu4", "relu6"), (FLOAT, "w8a8", "w2a1")),
  "resnet20 to resnet8": ("resnet20", "resnet8", ("relu1", "layer1", "layer2", "layer3"), (FLOAT, "w8a8")),
}
"""From a name to teacher, student, hint layers of both, and schemes of the student."""
TEACHER, LABELS, ONLINE, HINTS, CACHED = "teacher forward", "labels", "online", "online, 4 hints", "cached"
KERAS, KERAS_FEATURE, TORCH = "Keras 3", "Keras 3, 1 feature", "PyTorch"
FURTHER_SCHEMES = ("w4a8", "w4a4-lsq")
"""Schemes that are timed with labels alone."""
_IMAGES = 1024
TEMPERATURE = 4.0


def names(pair: str) -> list[tuple[str, str]]:
  """Lists the variants of a pair as (kind, scheme of the student); the teacher has the scheme "float"."""
  own = [(kind, scheme) for scheme in PAIRS[pair][3] for kind in (LABELS, ONLINE, HINTS, CACHED)]
  others = [KERAS, KERAS_FEATURE] + [TORCH] * (importlib.util.find_spec("torch") is not None)
  own += [(LABELS, scheme) for scheme in FURTHER_SCHEMES]
  return [(TEACHER, FLOAT), *own, *((kind, FLOAT) for kind in others)]


def step(pair: str, kind: str, scheme: str, batch_size: int) -> Callable[[], Any]:
  """Returns a function without arguments that makes one step of a variant.

  All variants train with SGD and momentum on the same random images, on labels and soft targets with equal weights.

  Args:
    pair: a key of `PAIRS`.
    kind, scheme: a variant of `names(pair)`.
    batch_size: images per step.
  """
  teacher_name, student_name, layers, _ = PAIRS[pair]
  keras.utils.set_random_seed(0)
  teacher, student = models.build(teacher_name), models.build(student_name)
  rng = np.random.default_rng(0)
  images, labels = rng.integers(0, 256, (_IMAGES, 32, 32, 3)).astype(np.uint8), rng.integers(0, 10, _IMAGES)

  def forever(inputs):
    return iter(data.batches(inputs, labels, batch_size, scale_pixels=True, shuffle_seed=0).repeat().prefetch(2))

  if kind == TEACHER:
    frozen, batches = Frozen(teacher), forever(images)
    return tf.function(lambda: frozen(next(batches)[0]))
  if kind == TORCH:
    return _torch_step(to_torch(teacher), to_torch(student), images, labels, batch_size)
  if kind in (KERAS, KERAS_FEATURE):
    return _keras3_step(to_keras3(teacher), to_keras3(student), layers[-1:] * (kind == KERAS_FEATURE), forever(images))
  if scheme != FLOAT:
    student = quantization.quantize(
      student, scheme, calibration_data=data.batches(images, labels, batch_size, scale_pixels=True)
    )
  inputs, objectives = images, [SoftTargets(TEMPERATURE, weight=0.5)]
  if kind == HINTS:
    objectives.append(Hint(list(layers), list(layers), weight=0.1))
  elif kind == CACHED:
    folder = tempfile.mkdtemp()  # Needed until the process ends.
    teacher = cache(teacher, data.batches(images, labels, batch_size, scale_pixels=True), os.path.join(folder, "cache"))
    inputs = (images, teacher.outputs)
  # Distillation is compared with Keras' own `fit` of the student.
  model = student if kind == LABELS else Distiller(teacher, student, objectives, hard_loss_weight=0.5)
  model.compile(
    keras.optimizers.SGD(0.01, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"]
  )
  function, batches = model.make_train_function(), forever(inputs)
  return lambda: function(batches)


def _keras3_step(teacher, student, layers, batches):
  distiller = keras3_distiller(teacher, student, layers)
  distiller.make_train_function()
  return lambda: distiller.train_function(batches)


def keras3_distiller(teacher: Any, student: Any, layers: Sequence[str] = ()) -> Any:
  """Returns a compiled `keras.distillation.Distiller` of soft targets, and of the features of layers.

  Args:
    teacher, student: models of Keras 3.
    layers: names of layers of both.
  """
  import keras as keras3
  from keras.distillation import Distiller as Keras3Distiller
  from keras.distillation import FeatureDistillation, LogitsDistillation

  # Its default loss compares raw logits; with this one it softens them.
  losses = [LogitsDistillation(temperature=TEMPERATURE, loss=keras3.losses.KLDivergence())]
  losses += [FeatureDistillation("mse", layer, layer) for layer in layers]
  distiller = Keras3Distiller(teacher, student, losses, student_loss_weight=0.5)
  distiller.compile(
    keras3.optimizers.SGD(0.01, momentum=0.9),
    keras3.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
    jit_compile=False,
  )
  return distiller


def _torch_step(teacher, student, images, labels, batch_size):
  import torch

  train, _ = torch_training_step(teacher, student)
  batches = _torch_batches(torch.tensor(images), torch.tensor(labels), batch_size)
  return lambda: train(*next(batches))


def torch_training_step(teacher: Any, student: Any) -> tuple[Callable[[Any, Any], None], Any]:
  """Returns a function that trains a student on one batch of images and labels, and its optimizer.

  Args:
    teacher, student: `torch.nn.Module`s from images to logits.
  """
  import torch

  teacher.eval()
  student.train()
  optimizer = torch.optim.SGD(student.parameters(), 0.01, momentum=0.9)

  def train(x, y):
    with torch.no_grad():
      soft = torch.softmax(teacher(x) / TEMPERATURE, dim=1)
    logits = student(x)
    hard_loss = torch.nn.functional.cross_entropy(logits, y)
    soft_loss = TEMPERATURE**2 * torch.nn.functional.cross_entropy(logits / TEMPERATURE, soft)
    optimizer.zero_grad()
    (0.5 * hard_loss + 0.5 * soft_loss).backward()
    optimizer.step()

  return train, optimizer


def _torch_batches(images, labels, batch_size):
  """Yields full batches without end, in a new order in every epoch."""
  import torch

  while True:
    for chosen in torch.randperm(len(labels)).split(batch_size):
      if len(chosen) == batch_size:
        yield (images[chosen].float() / 255).permute(0, 3, 1, 2).contiguous(), labels[chosen]
