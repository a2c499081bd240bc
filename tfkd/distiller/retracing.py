"""Steps that are traced once, and again where something that a trace holds was assigned."""

import tf_keras as keras

from tfkd.objectives import Objective


class FollowsChanges(keras.Model):
  """A model with `student` and `objectives`, whose traced steps follow what is assigned to the objectives.

  `count_change` says that an attribute of the model itself was assigned.
  """

  def count_change(self):
    """Has the next step traced again."""
    vars(self)["_changes"] = vars(self).get("_changes", 0) + 1

  def make_train_function(self, force=False):
    # TensorFlow traces a step twice in which variables are made: those of the optimizer are made before. Keras asks for
    # the function in every `train_on_batch`.
    is_new = self.train_function is None or force
    has_build = isinstance(self.optimizer, keras.optimizers.Optimizer)  # Legacy ones have none.
    if is_new and has_build and all(_has_its_variables(part) for part in (self.student, *self.objectives)):
      self.optimizer.build(self.trainable_variables)
    if is_new:
      self.train_function = self._following_changes(super().make_train_function)
    return self.train_function

  def make_test_function(self, force=False):
    if self.test_function is None or force:
      self.test_function = self._following_changes(super().make_test_function)
    return self.test_function

  def _following_changes(self, make):
    """Keras' function of a step, traced again once something that a trace holds was assigned."""
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
      seen = self._seen_changes()  # Tracing itself assigns, as it builds layers.
      return outputs

    return run

  def _follow_list(self):
    """Assigns the list of objectives again where objectives were put into it or taken out of it."""
    listed = [id(objective) for objective in self.objectives]
    if vars(self).get("_listed", listed) != listed:
      self.objectives = list(self.objectives)
    vars(self)["_listed"] = listed

  def _seen_changes(self):
    return (vars(self).get("_changes", 0), *(objective.changes for objective in self.objectives))


def _has_its_variables(layer):
  """Whether no call will make more of them."""
  is_built = layer.built or type(layer).build is Objective.build
  return is_built and all(part.built for part in layer.submodules if isinstance(part, keras.layers.Layer))
