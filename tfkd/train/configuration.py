"""What a sweep is asked for: how all of its models train, and what sets each student apart."""

import re
from collections.abc import Callable
from typing import NamedTuple

FLOAT = "float"


class Training(NamedTuple):
  """What decides the results of a sweep, beside its students."""

  dataset: str
  data_dir: str | None = None
  limit_train: int | None = None
  epochs: int = 4
  teacher_epochs: int = 5
  batch_size: int = 128
  learning_rate: float = 3e-3
  teacher_learning_rate: float = 2e-3
  soft_weight: float = 1.0
  """Weight of the soft loss where a question has a hard one beside it."""
  mixed_precision: str = "none"
  """"none", "float16" or "bfloat16": the teacher's arithmetic. Quantization-aware students compute in float32."""
  strategy: str = "auto"


class Student(NamedTuple):
  """One row of the results."""

  question: str
  method: str
  """What the student learns from, in a word or two, for tables."""
  scheme: str
  """Quantization scheme, or `FLOAT`."""
  seed: int
  objectives: tuple = ()
  hard_loss_weight: float = 1.0
  temperature: float | None = None
  start: str = "scratch"
  """"scratch", or "teacher": begin with the teacher's weights."""
  adapt: Callable | None = None
  """Makes the model to train of (teacher, student), where an objective asks for a student of its own."""

  @property
  def key(self):
    """The fields that name the row."""
    return {k: getattr(self, k) for k in ("question", "method", "scheme", "temperature", "seed")}

  @property
  def name(self):
    """The key as a file name."""
    temperature = "" if self.temperature is None else f"-T{self.temperature:g}"
    method = re.sub(r"\W+", "_", self.method)
    return f"{self.question}-{method}-{self.scheme}{temperature}-seed{self.seed}"
