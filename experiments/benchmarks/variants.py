"""The steps that are timed: each a function that trains once, or runs the teacher once, on the next batch."""

import importlib.util
import os
import tempfile

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
"""Name: teacher, student, layers of hints in both, and schemes of the student."""
TEACHER, LABELS, ONLINE, HINTS, CACHED = "teacher forward", "labels", "online", "online, 4 hints", "cached"
KERAS, KERAS_FEATURE, TORCH = "Keras 3", "Keras 3, 1 feature", "PyTorch"
_IMAGES = 1024
_T = 4.0


def names(pair):
  """List of (what, scheme) that a pair has, the teacher's scheme being float."""
  own = [(what, scheme) for scheme in PAIRS[pair][3] for what in (LABELS, ONLINE, HINTS, CACHED)]
  others = [KERAS, KERAS_FEATURE] + [TORCH] * (importlib.util.find_spec("torch") is not None)
  return [(TEACHER, FLOAT), *own, *((what, FLOAT) for what in others)]


def step(pair, what, scheme, batch_size):
  """A function without arguments that does one step of a variant.

  All train with SGD and momentum on the same drawn images, on labels and soft targets at T = 4, half and half.

  Args:
    pair: a key of `PAIRS`.
    what, scheme: of `names(pair)`.
    batch_size: images of a step.
  """
  teacher_name, student_name, layers, _ = PAIRS[pair]
  keras.utils.set_random_seed(0)
  teacher, student = models.build(teacher_name), models.build(student_name)
  rng = np.random.default_rng(0)
  images, labels = rng.integers(0, 256, (_IMAGES, 32, 32, 3)).astype(np.uint8), rng.integers(0, 10, _IMAGES)

  def forever(inputs):
    return iter(data.batches(inputs, labels, batch_size, scale_pixels=True, shuffle_seed=0).repeat().prefetch(2))

  if what == TEACHER:
    frozen, batches = Frozen(teacher), forever(images)
    return tf.function(lambda: frozen(next(batches)[0]))
  if what == TORCH:
    return _torch_step(to_torch(teacher), to_torch(student), images, labels, batch_size)
  if what in (KERAS, KERAS_FEATURE):
    return _keras3_step(to_keras3(teacher), to_keras3(student), layers[-1:] * (what == KERAS_FEATURE), forever(images))
  if scheme != FLOAT:
    student = quantization.quantize(
      student, scheme, calibration_data=data.batches(images, labels, batch_size, scale_pixels=True)
    )
  inputs, objectives = images, [SoftTargets(_T, weight=0.5)]
  if what == HINTS:
    objectives.append(Hint(list(layers), list(layers), weight=0.1))
  elif what == CACHED:
    folder = tempfile.mkdtemp()  # For as long as the process lives.
    teacher = cache(teacher, data.batches(images, labels, batch_size, scale_pixels=True), os.path.join(folder, "cache"))
    inputs = (images, teacher.outputs)
  # Keras' own `fit` of the student is what distillation is compared with.
  model = student if what == LABELS else Distiller(teacher, student, objectives, hard_loss_weight=0.5)
  model.compile(
    keras.optimizers.SGD(0.01, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"]
  )
  function, batches = model.make_train_function(), forever(inputs)
  return lambda: function(batches)


def _keras3_step(teacher, student, layers, batches):
  import keras as keras3
  from keras.distillation import Distiller as TheirDistiller
  from keras.distillation import FeatureDistillation, LogitsDistillation

  # Its default loss takes the divergence of raw logits; this one softens them.
  losses = [LogitsDistillation(temperature=_T, loss=keras3.losses.KLDivergence())]
  losses += [FeatureDistillation("mse", layer, layer) for layer in layers]
  distiller = TheirDistiller(teacher, student, losses, student_loss_weight=0.5)
  distiller.compile(
    keras3.optimizers.SGD(0.01, momentum=0.9), keras3.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"], jit_compile=False,
  )  # fmt: skip
  distiller.make_train_function()
  return lambda: distiller.train_function(batches)


def _torch_step(teacher, student, images, labels, batch_size):
  import torch

  teacher.eval()
  student.train()
  optimizer = torch.optim.SGD(student.parameters(), 0.01, momentum=0.9)
  batches = _torch_batches(torch.tensor(images), torch.tensor(labels), batch_size)

  def run():
    x, y = next(batches)
    with torch.no_grad():
      soft = torch.softmax(teacher(x) / _T, dim=1)
    logits = student(x)
    hard_loss = torch.nn.functional.cross_entropy(logits, y)
    soft_loss = _T**2 * torch.nn.functional.cross_entropy(logits / _T, soft)
    optimizer.zero_grad()
    (0.5 * hard_loss + 0.5 * soft_loss).backward()
    optimizer.step()

  return run


def _torch_batches(images, labels, batch_size):
  """Yields whole batches for ever, in another order in every epoch."""
  import torch

  while True:
    for chosen in torch.randperm(len(labels)).split(batch_size):
      if len(chosen) == batch_size:
        yield (images[chosen].float() / 255).permute(0, 3, 1, 2).contiguous(), labels[chosen]
