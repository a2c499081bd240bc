"""Students that have learned other photographs before, for networks without published weights."""

import os

import numpy as np
import tf_keras as keras
from absl import flags

from experiments import run_flags
from tfkd import data, models, quantization
from tfkd.data.images import read_image
from tfkd.sweeps import ArrayData, Sweep

flags.DEFINE_string(
  "pretraining_data",
  None,
  "Directory or archive of photographs `<class>/<name>.jpg` that pretrained students learn first, where "
  "--student_checkpoint is not given. By default there are no pretrained students.",
)
flags.DEFINE_integer("pretraining_epochs", 10, "Epochs on these photographs.", lower_bound=1)

_TEST_EVERY = 20
_SIDE = 32


def train(directory: str) -> None:
  """Trains the network of --student on --pretraining_data, unless the directory has it."""
  _sweep(directory).train_teacher()


def student(directory: str, num_classes: int, input_shape: tuple[int, ...]) -> keras.Model:
  """Builds the network of --student; all layers but the last have the weights that `train` wrote into a directory."""
  learned = quantization.load(os.path.join(directory, "teacher", "model.keras"))
  model = models.build(flags.FLAGS.student, num_classes, input_shape)
  for layer, other in zip(model.layers[:-1], learned.layers[:-1], strict=True):
    layer.set_weights(other.get_weights())
  return model


def _sweep(directory: str) -> Sweep:
  """Returns a sweep without students, whose teacher is the network."""
  given = run_flags.training()
  config = given._replace(
    dataset=None,
    data_dir=None,
    limit_train=None,
    teacher=given.student,
    teacher_epochs=flags.FLAGS.pretraining_epochs,
    teacher_learning_rate=given.learning_rate,
    teacher_checkpoint=None,
    teacher_head_only=False,
    views=None,
  )
  return Sweep(directory, config, _photographs(flags.FLAGS.pretraining_data), overwrite=flags.FLAGS.overwrite)


def _photographs(path: str) -> ArrayData:
  """Reads photographs by class; every twentieth in the order of their names is for the accuracy in the log."""
  # Archives have no reliable order.
  files = sorted((name.replace("\\", "/"), content) for name, content in data.read_files(path, "images"))
  images = np.stack([read_image(name, _SIDE, _SIDE, content=content) for name, content in files])
  names = [name.split("/")[-2] for name, _ in files]
  classes = sorted(set(names))
  labels = np.array([classes.index(name) for name in names], np.int32)
  is_test = np.arange(len(files)) % _TEST_EVERY == 0
  cifar10 = data.info("cifar10")
  return ArrayData(
    (images[~is_test], labels[~is_test]),
    (images[is_test], labels[is_test]),
    classes,
    name="photographs",
    scale_pixels=True,
    preprocessing=cifar10.preprocessing,
    augment=cifar10.augment,
  )
