"""Compiling, fitting and recording of the models of a sweep."""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd.sweeps import networks, rows
from tfkd.sweeps.configuration import SweepConfig
from tfkd.sweeps.examples import Examples
from tfkd.sweeps.workspace import Workspace
from tfkd.teachers import CachedTeacher
from tfkd.training import (
  barrier,
  fit,
  is_multi_worker,
  is_parameter_server,
  make_optimizer,
  scaled_learning_rate,
)


class Trainer:
  """Trains the models of a sweep with one configuration, on one data set, into one workspace.

  Args:
    config, examples, workspace: of the sweep.
    strategy: `tf.distribute` strategy of all models.

  Raises:
    ValueError: the optimizer's options are out of range.
  """

  def __init__(self, config: SweepConfig, examples: Examples, workspace: Workspace, strategy: tf.distribute.Strategy):
    self.config = config
    self.examples = examples
    self.workspace = workspace
    self.strategy = strategy
    for epochs in (config.epochs, config.teacher_epochs):
      self.optimizer(epochs, 0.0)

  @property
  def needs_copies(self) -> bool:
    """Whether a single process must load saved copies of the strategy's models to run them."""
    # Variables of multi-worker models are read by all workers together; a parameter server holds them elsewhere.
    return is_multi_worker(self.strategy) or is_parameter_server(self.strategy)

  def steps(self, epochs: int, split: str = "train") -> int:
    """Returns the number of optimizer steps of a number of epochs of a split."""
    return epochs * -(-self.examples.num_examples(split) // self.config.batch_size)

  def build(self, network: networks.Network) -> Any:
    """Builds a network for the data set, see `networks.build`."""
    return networks.build(network, self.examples.outputs, self.examples.input_shape)

  @contextlib.contextmanager
  def scope(self, mixed_precision: str) -> Iterator[None]:
    """Enters the scope of the strategy, in which layers compute in "float16" or "bfloat16" unless it is "none"."""
    policy = keras.mixed_precision.global_policy()
    with self.strategy.scope():
      if mixed_precision != "none":
        keras.mixed_precision.set_global_policy(f"mixed_{mixed_precision}")
      try:
        yield
      finally:
        keras.mixed_precision.set_global_policy(policy)

  def optimizer(self, epochs: int, learning_rate: float, split: str = "train") -> keras.optimizers.Optimizer:
    """Makes the optimizer of one fit; for no epochs, one that is not used."""
    config = self.config
    if config.scale_learning_rate:
      learning_rate = scaled_learning_rate(learning_rate, config.batch_size)
    options: dict[str, Any] = {
      name: getattr(config, name) for name in ("schedule", "warm_up", "weight_decay", "ema") if epochs
    }
    return make_optimizer(config.optimizer, learning_rate, max(1, self.steps(epochs, split)), **options)

  def compile(self, model: keras.Model, epochs: int, learning_rate: float, split: str = "train") -> None:
    """Compiles a model or a distiller for the labels of the training batches.

    Args:
      model: the model.
      epochs: number of epochs of the fit.
      learning_rate: peak learning rate.
      split: the split to train on.
    """
    examples = self.examples
    metrics = examples.outputs.metrics(examples.has_distributions)
    model.compile(
      self.optimizer(epochs, learning_rate, split),
      loss=examples.outputs.losses(examples.has_distributions),
      # Keras' `metrics` ignore sample weights.
      **{"weighted_metrics" if examples.has_weights else "metrics": metrics},
    )

  def fit_options(self, name: str, split: str = "train") -> dict[str, Any]:
    """Returns the options of `tfkd.training.fit` for directories and intervals of a model."""
    config = self.config
    options: dict[str, Any] = {
      "log_dir": self.workspace.log_dir(name),
      "checkpoint_dir": self.workspace.checkpoint_dir(name),
    }
    if is_multi_worker(self.strategy):
      # Workers write checkpoints together, and their clocks differ.
      return options | {"checkpoint_steps": config.checkpoint_steps or self.steps(1, split)}
    return options | {"checkpoint_minutes": config.checkpoint_minutes, "checkpoint_steps": config.checkpoint_steps}

  def fit(
    self,
    model: keras.Model,
    name: str,
    seed: int,
    epochs: int,
    cached: Mapping[str, CachedTeacher] = MappingProxyType({}),
    split: str = "train",
  ) -> tuple[dict[str, list[float]], float]:
    """Fits a compiled model, or resumes the fit; see `tfkd.training.fit`.

    Args:
      model: model or distiller.
      name: of its logs and checkpoints.
      seed: of order and augmentation of the training examples.
      epochs: number of epochs.
      cached: teacher outputs to be joined to the inputs, of `split` and of "test"; empty if not cached.
      split: the split to train on.
    """
    outputs = cached[split].outputs if cached else None
    train = functools.partial(self.examples.train_batches, seed, outputs=outputs, split=split)
    test = self.examples.test_batches(cached["test"] if cached else None)
    return fit(model, train, test, epochs=epochs, steps_per_epoch=self.steps(1, split), **self.fit_options(name, split))

  def add(
    self,
    row: Mapping[str, Any],
    model: Any,
    history: Mapping[str, list[float]],
    seconds: float,
    split: str = "train",
  ) -> dict[str, Any]:
    """Completes a row, adds it to the results, and waits until all workers reach this point."""
    row = rows.complete(row, model, self.config, self.examples, history, seconds, split)
    self.workspace.add(row)
    barrier(self.strategy)
    return row
