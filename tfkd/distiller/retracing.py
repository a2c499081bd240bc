"""Steps that are traced once, and retraced after an assignment to a value that the trace holds."""

from collections.abc import Callable
from typing import Any

import tf_keras as keras

from tfkd.objectives import Objective


class FollowsChanges(keras.Model):
  """A model with `student` and `objectives`, whose traced steps follow assignments to the objectives.

  After an assignment to its own attributes, a subclass calls `count_change`.
  """

  student: keras.Model
  objectives: list[Objective]

  def count_change(self) -> None:
    """Makes the next step retrace."""
    self.__dict__["_changes"] = vars(self).get("_changes", 0) + 1

  def make_train_function(self, force: bool = False) -> Callable[..., Any]:
    # A step that makes variables is traced twice, so the optimizer's are made before. Keras requests the function in
    # every `train_on_batch`.
    is_new = self.train_function is None or force
    has_build = isinstance(self.optimizer, keras.optimizers.Optimizer)  # Legacy optimizers have no `build`.
    if is_new and has_build and all(_has_its_variables(part) for part in (self.student, *self.objectives)):
      self.optimizer.build(self.trainable_variables)
    if is_new:
      self.train_function = self._following_changes(super().make_train_function)
    return self.train_function

  def make_test_function(self, force: bool = False) -> Callable[..., Any]:
    if self.test_function is None or force:
      self.test_function = self._following_changes(super().make_test_function)
    return self.test_function

  def _following_changes(self, make: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps Keras' step function, and rebuilds it after a change."""
    self._follow_list()
    function, seen = make(force=True), self._seen_changes()

    def run(iterator):
      nonlocal function, seen
      self._follow_list()
      if seen != self._seen_changes():
        replaced = self.train_function, self.test_function
        function = make(force=True)
        self.train_function, self.test_function = replaced
      outputs = function(iterator)
      seen = self._seen_changes()  # Tracing itself assigns attributes, because it builds layers.
      return outputs

    return run

  def _follow_list(self) -> None:
    """Assigns the list of objectives again if objectives were added to it or removed from it."""
    listed = [id(objective) for objective in self.objectives]
    if vars(self).get("_listed", listed) != listed:
      self.objectives = list(self.objectives)
    self.__dict__["_listed"] = listed

  def _seen_changes(self) -> tuple[int, ...]:
    return (vars(self).get("_changes", 0), *(objective.changes for objective in self.objectives))


def _has_its_variables(layer: keras.layers.Layer) -> bool:
  """Whether no later call makes variables."""
  is_built = layer.built or type(layer).build is Objective.build
  return is_built and all(part.built for part in layer.submodules if isinstance(part, keras.layers.Layer))
