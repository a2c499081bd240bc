"""Configuration of a sweep: how all of its models are trained, and how each student differs."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import tf_keras as keras

from tfkd.sweeps.networks import Network, name_of

FLOAT = "float"


class SweepConfig(NamedTuple):
  """Everything that decides the results of a sweep, except its students and its data."""

  dataset: str | None = None
  """Name of a data set of `tfkd.data`; None if `Sweep` is given the data."""
  data_dir: str | None = None
  """Directory of the named data set; see `tfkd.data.load_arrays`."""
  limit_train: int | None = None
  """Number of training examples of the named data set, drawn at random; None uses all."""
  image_size: int | None = None
  """Option of the named data set; see `tfkd.data.info`."""
  on_bad_image: str | None = None
  """Option of the named data set; see `tfkd.data.info`."""
  teacher: Network = "svhn_cnn"
  """Name of a network, see `tfkd.models.build`, or a function of (num_outputs, input_shape) that builds one.

  num_outputs is the length of the output's last axis, as the number of classes, or a dict of these by output. With
  `teacher_epochs=0` the teacher's function may also return any other teacher of `tfkd.Distiller`, such as
  `tfkd.teachers.tflite(path)` or a function of a batch.
  """
  teacher_checkpoint: str | None = None
  """Weights of the teacher in place of training, see `tfkd.models.load_torch_weights`."""
  teacher_head_only: bool = False
  """Train only the last layer, a new one in place of the checkpoint's, or that of the model that the teacher's function
  returns; see `tfkd.training.fit_head`."""
  student: Network = "svhn_cnn"
  """As for teacher."""
  student_checkpoint: str | None = None
  """Weights of all but the last layer, for students with start="checkpoint"."""
  epochs: int = 4
  teacher_epochs: int = 5
  batch_size: int = 128
  """Examples per step, over all replicas."""
  optimizer: str = "adam"
  """A key of `tfkd.training.OPTIMIZERS`."""
  learning_rate: float = 3e-3
  """Peak learning rate of the students."""
  teacher_learning_rate: float = 2e-3
  schedule: str = "cosine"
  """A key of `tfkd.training.SCHEDULES`."""
  warm_up: float = 0.05
  """Share of the steps over which the learning rate rises."""
  weight_decay: float = 0.0
  """Decoupled: each step subtracts learning rate * weight_decay * kernel."""
  augment: bool = False
  """Apply the random augmentation of the data set."""
  views: int | None = None
  """Number of fixed augmentations per example, whose teacher outputs are cached; None draws new ones in every epoch."""
  label_smoothing: float = 0.0
  mixup: float = 0.0
  """Alpha of mixup; 0 disables it."""
  ema: float = 0.0
  """Momentum of the moving average of the weights, which is kept at the end; 0 disables averaging."""
  mixed_precision: str = "none"
  """"none", "float16" or "bfloat16": arithmetic of float models. Quantization-aware students compute in float32."""
  scale_learning_rate: bool = False
  """Multiply learning rates by batch_size / 128, see `tfkd.training.scaled_learning_rate`."""
  strategy: str = "auto"
  """See `tfkd.training.make_strategy`."""
  checkpoint_minutes: float | None = 5.0
  """Time between checkpoints of a fit. Several workers use checkpoint_steps alone, by default one epoch."""
  checkpoint_steps: int | None = None
  """Steps between checkpoints of a fit; None disables it."""


class StudentSpec(NamedTuple):
  """One student, and the row of the results that it gets."""

  experiment: str
  """Name of a group of students, in tables and file names."""
  method: str
  """Name of the training method, in tables and file names."""
  scheme: str = FLOAT
  """Quantization scheme, or `FLOAT`."""
  seed: int = 0
  """Decides initial weights, order of examples and augmentation."""
  objectives: tuple = ()
  hard_loss_weight: float = 1.0
  temperature: float | None = None
  """Only recorded in the row; each objective has its own temperature."""
  choices: Mapping[str, Any] = MappingProxyType({})
  """Further numbers or words that tell this student from others of its method."""
  start: "str | StudentSpec" = "scratch"
  """Initial weights: "scratch"; "teacher" for those of the teacher; "checkpoint" for those of the configuration's
  student_checkpoint; or another student, float and of the same network, that is trained earlier."""
  adapt: Callable[[keras.Model, keras.Model], keras.Model] | None = None
  """Function from (teacher, student) to the model to train, for objectives that need another student."""
  network: Network | None = None
  """Network in place of the configuration's student."""
  epochs: int | None = None
  """Number of epochs in place of the configuration's."""
  split: str = "train"
  """Split of `ArrayData` to train on. One without labels needs hard_loss_weight=0."""
  export: bool | None = None
  """Whether the student gets a file; None exports quantized students only."""

  @property
  def key(self) -> dict[str, Any]:
    """The fields that identify the row of this student."""
    names = ("experiment", "method", "scheme", "temperature", "seed")
    own = {"network": None if self.network is None else name_of(self.network), "epochs": self.epochs}
    own["split"] = None if self.split == "train" else self.split
    choices = dict(self.choices) | {name: value for name, value in own.items() if value is not None}
    return {"role": "student"} | {name: getattr(self, name) for name in names} | {"choices": choices}

  @property
  def name(self) -> str:
    """The key as a file name."""
    temperature = {"T": self.temperature} if self.temperature is not None else {}
    words = [self.experiment, self.method, self.scheme]
    for name, value in (temperature | self.key["choices"]).items():
      words.append(f"{name}{value:g}" if isinstance(value, float) else f"{name}{value}")
    return "-".join(re.sub(r"[^\w.]+", "_", word) for word in [*words, f"seed{self.seed}"])
