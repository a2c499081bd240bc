"""A character language model distilled: the next character of the texts of Python's own help, `pydoc_data.topics`.

  python -m experiments.tasks.characters --preset=quick
  python -m experiments.tasks.characters --preset=full

Every Python contains the texts, about 80 topics of the language reference with 370,000 different characters in all;
other versions have other texts, so the script prints their sizes and digest. Whole topics are held out for the test.
The teacher reads all other texts, the students a quarter of them, by all methods.
"""

import functools
import hashlib
import platform
from collections.abc import Mapping, Sequence
from pydoc_data import topics

import numpy as np
import tf_keras as keras
from absl import logging
from tf_keras import layers

from experiments import _run
from experiments.tasks import comparison
from experiments.tasks.comparison import Method
from tfkd.objectives import SoftTargets
from tfkd.sweeps import FLOAT, ArrayData

ALPHABET = "\n abcdefghijklmnopqrstuvwxyz.,:;()'\"*_-=#"
"""Characters of the model. Texts are read in lower case; digits and all others are '#'."""
LENGTH = 64
"""Characters of a window."""
PART = 4
"""Students read one of this number of windows of the training set; the teacher reads all of them."""
_UNKNOWN = ALPHABET.index("#")


def is_held_out(topic: str) -> bool:
  """Whether a topic belongs to the test set: one of eight, by the SHA-256 of its name."""
  return hashlib.sha256(topic.encode()).digest()[0] < 32


def texts(by_topic: Mapping[str, str] = topics.topics) -> tuple[list[str], list[str]]:
  """Returns the texts of the topics of the training and of the test set, sorted by the topics' names.

  Topics repeat each other: "compound" contains "for", "if" and "while". Each paragraph is kept once, and those of the
  test set are no part of the training set; otherwise nine of ten lines of the test would have been trained.
  """
  seen, kept = set(), ([], [])
  for topic in sorted(by_topic, key=lambda name: (not is_held_out(name), name)):
    paragraphs = {" ".join(paragraph.split()): paragraph for paragraph in by_topic[topic].split("\n\n")}
    kept[is_held_out(topic)].append("\n\n".join(text for key, text in paragraphs.items() if key not in seen))
    seen.update(paragraphs)
  return kept


def encode(text: str) -> np.ndarray:
  """Returns the positions in `ALPHABET`, int32 [characters], of a text in lower case."""
  positions = {character: index for index, character in enumerate(ALPHABET)}
  return np.array([positions.get(character, _UNKNOWN) for character in text.lower()], "int32")


def windows(parts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  """Cuts texts into windows that do not overlap; the rest at the end of a text is dropped.

  Returns:
    (inputs, labels), int32 [windows, LENGTH]: characters, and the character after each of them.
  """
  encoded = [encode(text) for text in parts]
  counts = [max(len(indices) - 1, 0) // LENGTH for indices in encoded]
  inputs, labels = (
    np.concatenate([indices[start : start + n * LENGTH] for indices, n in zip(encoded, counts, strict=True)])
    for start in (0, 1)
  )
  return inputs.reshape(-1, LENGTH), labels.reshape(-1, LENGTH)


def recurrent(num_outputs: int, input_shape: tuple[int, ...], *, units: int, dropout: float = 0.0) -> keras.Model:
  """Embedding, one GRU, and a dense layer that gives the logits of the next character at each position."""
  characters = keras.Input(input_shape, dtype="int32", name="characters")
  x = layers.Embedding(num_outputs, min(units, 64), name="embedding")(characters)
  x = layers.GRU(units, return_sequences=True, name="states")(x)
  x = layers.Dropout(dropout)(x) if dropout else x
  return keras.Model(characters, layers.Dense(num_outputs, name="logits")(x))


def data() -> ArrayData:
  """Makes the windows of this Python's texts."""
  train, test = texts()
  digest = hashlib.sha256("\0".join([*train, *test]).encode()).hexdigest()[:12]
  logging.info(
    "Python %s: %d characters for training, %d for the test, SHA-256 %s...",
    platform.python_version(), sum(map(len, train)), sum(map(len, test)), digest,
  )  # fmt: skip
  inputs, labels = windows(train)
  return ArrayData(
    (inputs, labels),
    windows(test),
    tuple(ALPHABET),
    task="per-element classes",
    name=f"pydoc_topics_of_python_{platform.python_version()}",
    splits={"part": (inputs[::PART], labels[::PART])},
  )


TASK = comparison.Task(
  "characters",
  data=data,
  teacher=functools.partial(recurrent, units=256, dropout=0.3),
  student=functools.partial(recurrent, units=64),
  methods={
    comparison.LABELS: Method(split="part", epoch_share=PART),
    "soft targets": Method((SoftTargets(1.0),), split="part", epoch_share=PART),
    "Jensen-Shannon": Method((SoftTargets(1.0, form="jsd", weight=4.0),), split="part", epoch_share=PART),
  },
  scheme=FLOAT,  # Recurrent layers cannot be quantized.
  columns=("loss", "accuracy"),
)
# Sizes, weights and temperatures were chosen on topics of the training set, see README.md.
_SHARED = {"batch_size": 64, "learning_rate": 5e-3, "teacher_learning_rate": 3e-3}
EXPERIMENT = comparison.experiment(
  TASK,
  {
    "quick": {**_SHARED, "epochs": 2, "teacher_epochs": 2, "seeds": ["0"]},
    "full": {**_SHARED, "epochs": 6, "teacher_epochs": 20, "seeds": ["0", "1", "2"]},
  },
)

if __name__ == "__main__":
  _run.main(EXPERIMENT)
