"""Classes and a number from the columns of a drawn table: boosted trees teach a small network on unlabelled rows.

  python -m experiments.tasks.table --preset=quick
  python -m experiments.tasks.table --preset=full

Each row has eight numerical and four categorical columns, one of four classes and an amount. Classes and amounts are
sums of random decision trees of the columns, with noise, so that boosted trees learn them from a few thousand rows
better than a network does. Columns are drawn, not real data: the table shows a method, not a benchmark.
The trees are scikit-learn's, `pip install -e '.[tasks]'`.
"""

import functools
import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import logging
from tf_keras import layers

from experiments import _run
from experiments.tasks import comparison
from experiments.tasks.comparison import Method
from tfkd.features import ModelOutputs
from tfkd.objectives import MatchOutputs, SoftTargets
from tfkd.storage.digests import sha256_of_arrays
from tfkd.sweeps import ArrayData

CLASSES = ("basic", "standard", "plus", "premium")
CATEGORIES = (3, 4, 6, 8)
"""Number of values of each categorical column."""
ROWS = {"train": 4_000, "unlabelled": 16_000, "test": 10_000}
"""Number of rows of each split. Only the first has labels that teacher or students are trained on."""
NUMBERS = 8
"""Number of numerical columns."""
WRONG_LABELS = 0.15
"""Share of the rows whose class is drawn at random."""
NOISE = 0.3
"""Standard deviation of the noise of the amount, relative to that of the amount without noise."""


class Table(NamedTuple):
  """Rows of the table."""

  columns: np.ndarray
  """float32 [rows, 29]: standard normal numbers, correlated, then each category as one-hot values."""
  classes: np.ndarray
  """int32 [rows]."""
  amounts: np.ndarray
  """float32 [rows, 1], with mean 0 and standard deviation 1 up to sampling."""


def draw(rows: int, seed: int = 0) -> Table:
  """Draws a table.

  Args:
    rows: number of rows.
    seed: of the rows and of the rules; the first rows of a longer table are others.
  """
  rng = np.random.default_rng(seed)
  mixing = np.eye(NUMBERS) + 0.3 * rng.normal(size=(NUMBERS, NUMBERS))
  numbers = rng.normal(size=(rows, NUMBERS)) @ (mixing / np.linalg.norm(mixing, axis=0))
  categories = [rng.integers(0, count, rows) for count in CATEGORIES]
  # A tree compares a category by a random order of its values, so it divides them into two random sets.
  ordered = [rng.permutation(count)[column] for count, column in zip(CATEGORIES, categories, strict=True)]
  columns = np.column_stack([numbers, *ordered])
  scores = np.stack([_trees(rng, columns) for _ in CLASSES], axis=1)
  classes = np.where(rng.random(rows) < WRONG_LABELS, rng.integers(0, len(CLASSES), rows), scores.argmax(axis=1))
  amounts = _trees(rng, columns)
  amounts = (amounts - amounts.mean()) / amounts.std() + NOISE * rng.normal(size=rows)
  one_hot = [np.eye(count)[column] for count, column in zip(CATEGORIES, categories, strict=True)]
  inputs = np.concatenate([numbers, *one_hot], axis=1).astype("float32")
  return Table(inputs, classes.astype("int32"), (amounts / amounts.std()).astype("float32")[:, None])


def _trees(rng: np.random.Generator, columns: np.ndarray, count: int = 6, depth: int = 3) -> np.ndarray:
  """Evaluates the sum of random trees, float64 [rows]; all nodes of one level of a tree ask the same question."""
  total = np.zeros(len(columns))
  for _ in range(count):
    leaf = np.zeros(len(columns), int)
    for column in rng.choice(columns.shape[1], depth, replace=False):
      values = columns[:, column]
      leaf = 2 * leaf + (values > np.quantile(values, rng.uniform(0.2, 0.8)))
    total += rng.normal(size=2**depth)[leaf]
  return total


@functools.cache
def data() -> ArrayData:
  """Draws the splits. Amounts are in units of their standard deviation over all rows."""
  table = draw(sum(ROWS.values()))
  ends = np.cumsum(list(ROWS.values()))
  train, unlabelled, test = (Table(*parts) for parts in zip(*(np.split(x, ends[:-1]) for x in table), strict=True))
  return ArrayData(
    *((part.columns, {"class": part.classes, "amount": part.amounts}) for part in (train, test)),
    {"class": CLASSES, "amount": ("amount",)},
    task={"class": "classes", "amount": "regression"},
    name="drawn_table",
    splits={"unlabelled": (unlabelled.columns, None)},
  )


class BoostedTrees:
  """A teacher of scikit-learn's gradient-boosted trees: one ensemble for the classes, one for the amount.

  Args:
    columns: float32 [rows, columns].
    classes: int [rows].
    amounts: float [rows, 1].
    iterations: number of trees, of each class and of the amount.
  """

  def __init__(self, columns: np.ndarray, classes: np.ndarray, amounts: np.ndarray, iterations: int = 100):
    import sklearn
    from sklearn import ensemble
    from threadpoolctl import threadpool_limits

    options = {"max_iter": iterations, "learning_rate": 0.06, "random_state": 0}
    # Several threads wait for each other wherever other processes use the cores: a fit of seconds takes a minute.
    self._one_thread = functools.partial(threadpool_limits, 1)
    with self._one_thread():
      self._classifier = ensemble.HistGradientBoostingClassifier(**options).fit(columns, classes)
      self._regressor = ensemble.HistGradientBoostingRegressor(**options).fit(columns, amounts[:, 0])
    digest = sha256_of_arrays([columns, classes, amounts])
    self._description = {"weights": digest, "trees": options, "scikit-learn": sklearn.__version__}

  def __call__(self, inputs: tf.Tensor, features: Sequence[str] = ()) -> ModelOutputs:
    """Returns log-probabilities of the classes [batch, classes] and amounts [batch, 1]."""
    log_probabilities, amounts = tf.numpy_function(self._predict, [inputs], (tf.float32, tf.float32), stateful=False)
    log_probabilities = tf.ensure_shape(log_probabilities, [None, len(self._classifier.classes_)])
    return ModelOutputs({"class": log_probabilities, "amount": tf.ensure_shape(amounts, [None, 1])})

  def describe(self) -> dict[str, Any]:
    """The digest of the training data, the options and the version, which decide the trees."""
    return self._description

  def _predict(self, columns):
    with self._one_thread():
      log_probabilities = np.log(np.maximum(self._classifier.predict_proba(columns), 1e-7))
      amounts = self._regressor.predict(columns)
    return log_probabilities.astype("float32"), amounts.astype("float32")[:, None]


def has_trees() -> bool:
  """Whether scikit-learn is installed."""
  return importlib.util.find_spec("sklearn") is not None


@functools.cache
def _trees_of_data() -> BoostedTrees:
  columns, labels = data().train[:2]
  return BoostedTrees(columns, labels["class"], labels["amount"])


def teacher(num_outputs: dict[str, int], input_shape: tuple[int, ...]) -> Any:
  """Returns boosted trees, trained on the labelled rows; a wide network where scikit-learn is missing."""
  if has_trees():
    return _trees_of_data()
  logging.warning("scikit-learn is not installed (the extra 'tasks'): the teacher is a wide network, not trees.")
  return network(num_outputs, input_shape, units=256)


def network(num_outputs: dict[str, int], input_shape: tuple[int, ...], *, units: int = 64) -> keras.Model:
  """Two hidden layers that both outputs share."""
  columns = keras.Input(input_shape, name="columns")
  x = columns
  for _ in range(2):
    x = layers.ReLU()(layers.Dense(units)(x))
  return keras.Model(columns, {name: layers.Dense(size, name=name)(x) for name, size in num_outputs.items()})


_TEACHER = (SoftTargets(1.0, output="class"), MatchOutputs("mse", output="amount"))
TASK = comparison.Task(
  "table",
  data=data,
  teacher=teacher,
  student=network,
  methods={
    comparison.LABELS: Method(),
    "teacher on labelled rows": Method(_TEACHER),
    # The same number of steps: four times the rows, a quarter of the epochs.
    "teacher on unlabelled rows": Method(
      _TEACHER, 0.0, split="unlabelled", epoch_share=ROWS["train"] / ROWS["unlabelled"]
    ),
  },
  scheme="w8a8",
  columns=("class_accuracy", "amount_root_mean_squared_error"),
  has_trained_teacher=has_trees,
)
# Chosen on tables of seeds 100 to 103: the weight decay at which labels alone do best, since they overfit without it.
_SHARED = {"batch_size": 125, "learning_rate": 5e-3, "weight_decay": 0.3, "teacher_epochs": 20}
EXPERIMENT = comparison.experiment(
  TASK,
  {
    "quick": {**_SHARED, "epochs": 60, "qat_epochs": 8, "seeds": ["0"]},
    "full": {**_SHARED, "epochs": 100, "qat_epochs": 16, "seeds": ["0", "1", "2"]},
  },
)

if __name__ == "__main__":
  _run.main(EXPERIMENT)
