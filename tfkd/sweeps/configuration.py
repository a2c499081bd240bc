"""What a sweep is asked for: how all of its models train, and what sets each student apart."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

FLOAT = "float"


class SweepConfig(NamedTuple):
  """What decides the results of a sweep, beside its students."""

  dataset: str
  data_dir: str | None = None
  limit_train: int | None = None
  image_size: int | None = None
  """See `tfkd.data.info`, as for on_bad_image."""
  on_bad_image: str | None = None
  teacher: str = "svhn_cnn"
  """A network's name, see `tfkd.models.build`."""
  teacher_checkpoint: str | None = None
  """Weights of the teacher instead of training, see `tfkd.models.load_torch_weights`."""
  teacher_head_only: bool = False
  """The checkpoint's last layer is replaced, and alone trained; see `tfkd.training.fit_head`."""
  student: str = "svhn_cnn"
  student_checkpoint: str | None = None
  """Weights of all but the last layer, for students that start from "checkpoint"."""
  epochs: int = 4
  teacher_epochs: int = 5
  batch_size: int = 128
  optimizer: str = "adam"
  """A key of `tfkd.training.optimizers.OPTIMIZERS`."""
  learning_rate: float = 3e-3
  """The highest of the student's."""
  teacher_learning_rate: float = 2e-3
  schedule: str = "cosine"
  """A key of `tfkd.training.optimizers.SCHEDULES`."""
  warm_up: float = 0.05
  """Share of the steps in which the learning rate rises."""
  weight_decay: float = 0.0
  """Decoupled: each step takes learning rate * weight_decay of a kernel from it."""
  augment: bool = False
  """The random changes of the data set's recipe, see `tfkd.data.load`."""
  views: int | None = None
  """So many changes of each image, whose answers by the teacher are computed once; None for new ones in every epoch."""
  label_smoothing: float = 0.0
  mixup: float = 0.0
  """Alpha of mixup; 0 for none."""
  ema: float = 0.0
  """Share of the old value in the moving average of weights that is kept at the end; 0 for the weights themselves."""
  mixed_precision: str = "none"
  """"none", "float16" or "bfloat16": arithmetic of float models. Quantization-aware students compute in float32."""
  scale_learning_rate: bool = False
  """Multiply learning rates by batch_size / 128 (Goyal et al. 2017, arXiv:1706.02677)."""
  strategy: str = "auto"
  """See `tfkd.training.make_strategy`."""
  checkpoint_minutes: float | None = 5.0
  """Time between checkpoints inside a fit. Several workers go by checkpoint_steps alone, by default an epoch."""
  checkpoint_steps: int | None = None


class StudentSpec(NamedTuple):
  """One row of the results."""

  experiment: str
  """Name of a group of students in tables and file names."""
  method: str
  """What the student learns from, in a word or two, for tables."""
  scheme: str
  """Quantization scheme, or `FLOAT`."""
  seed: int
  objectives: tuple = ()
  hard_loss_weight: float = 1.0
  temperature: float | None = None
  choices: Mapping = MappingProxyType({})
  """Further numbers or words that set this student apart from others of its method."""
  start: "str | StudentSpec" = "scratch"
  """"scratch"; "teacher": begin with the teacher's weights; "checkpoint": with those of the training's file; or with
  those of another student, a float one of the same network that was trained before."""
  adapt: Callable | None = None
  """Makes the model to train of (teacher, student), where an objective asks for a student of its own."""
  network: str | None = None
  """In place of the training's student."""
  epochs: int | None = None
  """In place of the training's."""

  @property
  def key(self):
    """The fields that name the row."""
    names = ("experiment", "method", "scheme", "temperature", "seed")
    own = {"network": self.network, "epochs": self.epochs}
    choices = dict(self.choices) | {name: value for name, value in own.items() if value is not None}
    return {"role": "student"} | {name: getattr(self, name) for name in names} | {"choices": choices}

  @property
  def name(self):
    """The key as a file name."""
    choices = {"T": self.temperature} if self.temperature is not None else {}
    words = [self.experiment, self.method, self.scheme]
    words += [f"{name}{value:g}" if isinstance(value, float) else f"{name}{value}" for name, value in
              (choices | self.key["choices"]).items()]  # fmt: skip
    return "-".join(re.sub(r"[^\w.]+", "_", word) for word in [*words, f"seed{self.seed}"])
