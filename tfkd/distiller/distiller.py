"""The Distiller: a Keras model that trains a student against labels and a frozen teacher."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from tfkd.distiller import model_checks
from tfkd.distiller.agreement import agreements, kinds_of, names_of
from tfkd.distiller.compilation import check_class_weight, check_is_scalar, check_metrics, has_sums, refuse_keras3
from tfkd.distiller.numerics import assert_all_finite
from tfkd.distiller.passes import ForwardPasses
from tfkd.distiller.retracing import FollowsChanges
from tfkd.distiller.teachers import as_teachers
from tfkd.distiller.terms import terms_of
from tfkd.distiller.zeros import KeptZeros
from tfkd.features import ModelOutputs
from tfkd.keras3 import as_tf_keras
from tfkd.objectives import Batch, Objective
from tfkd.objectives.base import as_number, deserialized
from tfkd.ops.element_weights import by_output, without_masks
from tfkd.ops.probabilities import endings
from tfkd.ops.reduction import num_examples, num_replicas, share_of_global_batch, sum_in_order
from tfkd.teachers import Teacher


@keras.utils.register_keras_serializable(package="tfkd")
class Distiller(FollowsChanges):
  """Trains a student on a hard loss (labels) and any number of objectives (what to imitate of the teacher).

    total = hard_loss_weight * hard + sum_i objective_i.weight * objective_i + the student's own losses

  Used through `compile`, `fit`, `evaluate` and `predict`, like any Keras model. The hard loss is the one given to
  `compile`, or the result of an overridden `compute_loss`; it is computed on the student's outputs, which must be
  logits. Teacher and student run once per step. Every term is averaged over the GLOBAL batch, so that one replica and
  many take the same step; the student's regularizers and `add_loss` count in full.

  `sample_weight` (of examples, tokens, pixels, anchors; of all outputs or some), `class_weight` and Keras masks weigh
  each element in every term, as Keras weighs its own losses: a weighted sum divided by the number of elements, or with
  a mask by the number of valid ones. Elements of weight zero change nothing. An objective on features takes the weights
  of the output that its `output` names; by default, each example's mean over the outputs' weights if these differ.
  A relational objective compares the examples of one replica's batch: zero-weight examples are dropped and the loss is
  scaled by the mean weight (not under `jit_compile`, which needs static shapes).

  `agreement` is measured for each output that is class scores (an objective on class distributions reads it, or its
  hard loss is a categorical cross-entropy), over the elements that are neither masked nor of weight zero; with several
  outputs as `<output>_agreement`. A metric that was not measured is not in the logs. `evaluate` reports the same terms
  in inference mode and changes no variable; `predict` is the student's.

  Objectives, their hyper-parameters, `hard_loss_weight` and the teacher may be assigned between steps. Checkpoints and
  `save` hold student, objectives and optimizer, never the teacher: after loading, set `distiller.teacher` again.

  Args:
    teacher: model or function from a batch of inputs to logits, or a `tfkd.teachers.Teacher`; None if every objective
      reads the labels. If a model ends in softmax, the logits before it are used. It is neither trained nor updated,
      and its `trainable` flag stays as it is. Or a dict of several teachers by name, each of which runs once per step:
      an objective reads the one that its option `teacher` names, and `agreement` the first.
    student: `tf_keras` model to train, quantized or not. One of Keras 3 is converted by `tfkd.from_keras3`: the weights
      of `distiller.student` are trained, and `tfkd.to_keras3(distiller.student)` returns them to Keras 3.
    objectives: `tfkd.objectives.Objective`, or a list of them with different names.
    hard_loss_weight: factor of the compiled loss, >= 0, or a scalar `tf.Variable`. With the number 0 labels are not
      needed.
    keep_zeros: whether `fit` keeps the zeros that pruned kernels of a float student have when it starts; quantized
      students follow `tfkd.quantization.quantize`, and layers in wrappers of tfmot's pruning their schedule.

  Raises:
    TypeError: the student is not a model, or an objective is not an `Objective`.
    ValueError: a weight is out of range, two objectives share a name, teacher and student have different inputs,
      resolutions or numbers of classes, the student ends in softmax, an objective names no teacher of several, or its
      layers are missing or do not fit.
  """

  def __init__(
    self,
    teacher: Teacher | keras.Model | Callable[..., Any] | Mapping[str, Any] | None = None,
    student: keras.Model | None = None,
    objectives: Objective | Sequence[Objective] = (),
    hard_loss_weight: float | tf.Variable = 1.0,
    *,
    keep_zeros: bool = True,
    **kwargs: Any,
  ):
    super().__init__(**kwargs)
    student = as_tf_keras(student, "student")
    model_checks.check_student(student)
    model_checks.check_hard_loss_weight(hard_loss_weight)
    self.student = student
    self.objectives = model_checks.checked_objectives(objectives)
    self.hard_loss_weight = hard_loss_weight
    self.keep_zeros = keep_zeros
    self._zeros = KeptZeros(student)
    self.output_names = getattr(student, "output_names", None)
    self._set_teacher(teacher)
    # A built student is sufficient: summary, saving and resuming need no prior call.
    self.built = student.built
    if getattr(student, "_nested_inputs", None) is not None:
      self._set_save_spec(student._nested_inputs)
    self._is_made = True

  def __setattr__(self, name: str, value: Any) -> None:
    is_made = vars(self).get("_is_made", False)
    if is_made and name == "student":
      raise ValueError("the student of a Distiller cannot be replaced: make another Distiller.")
    if is_made and name == "hard_loss_weight":
      model_checks.check_hard_loss_weight(value)
    if is_made and name in ("teacher", "objectives"):
      self._replace(name, value)
      return
    super().__setattr__(name, value)
    if is_made and name == "hard_loss_weight":
      self.count_change()

  def _replace(self, name: str, value: Any) -> None:
    """Replaces the teacher or the objectives, or keeps both if the new ones do not fit."""
    teacher, objectives = self.teacher, self.objectives
    try:
      if name == "objectives":
        super().__setattr__(name, model_checks.checked_objectives(value))
      # Not as a property's setter: Keras would hide its errors.
      self._set_teacher(value if name == "teacher" else teacher)
    except Exception:
      super().__setattr__("objectives", objectives)
      self._set_teacher(teacher)
      raise

  @property
  def teacher(self) -> Teacher | Mapping[str | None, Teacher] | None:
    """The frozen teacher, or several by name; assign a model, function, teacher or dict to replace it."""
    return self._teachers.get(None) if None in self._teachers or not self._teachers else self._teachers

  def _set_teacher(self, teacher: Any) -> None:
    teachers = as_teachers(teacher)
    model_checks.check_models(teachers, self.student, self.objectives)
    self._passes = ForwardPasses(teachers, self.student, self.objectives)
    self._teachers = teachers
    self._passes.build(self.objectives)
    structure = model_checks.structure_of(self.student)
    self._agreements = names_of(structure, self.output_names) if structure is not None else {None: "agreement"}
    names = ["loss", "hard_loss", *(objective.name for objective in self.objectives), *self._agreements.values()]
    known = getattr(self, "_means", {})
    self._means = {name: known.get(name) or keras.metrics.Mean(name=name) for name in names}
    self._unmeasured = tuple(self._agreements.values())
    self.count_change()

  def compile(self, *args: Any, **kwargs: Any) -> None:
    given = inspect.signature(super().compile).bind(*args, **kwargs).arguments
    refuse_keras3(**{k: v for k, v in given.items() if k in ("optimizer", "loss", "metrics", "weighted_metrics")})
    super().compile(*args, **kwargs)
    structure = model_checks.structure_of(self.student)
    if structure is not None:
      check_metrics([given.get("metrics"), given.get("weighted_metrics")], endings(self.student))
      model_checks.check_losses(self.student, structure, self.objectives, self.compiled_loss)

  def compile_from_config(self, config: dict[str, Any]) -> None:
    if type(self).compile is not Distiller.compile:
      super().compile_from_config(config)  # Keras asks the user to call a subclass' own `compile`.
      return
    self.compile(**keras.saving.deserialize_keras_object(config))
    if isinstance(self.optimizer, keras.optimizers.Optimizer) and self.built:
      self.optimizer.build(self.trainable_variables)

  def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
    given = inspect.signature(super().fit).bind(*args, **kwargs).arguments
    refuse_keras3(callbacks=given.get("callbacks"))
    if given.get("class_weight") is not None:
      check_class_weight(given.get("x"), given.get("y"), model_checks.structure_of(self.student))
    self._read_zeros()
    history = super().fit(*args, **kwargs)
    self._zeros.finish()
    return history

  def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
    if not self._zeros.are_read:
      self._read_zeros()
    return super().train_on_batch(*args, **kwargs)

  def _read_zeros(self) -> None:
    if self._zeros.read(self.keep_zeros):
      self.count_change()

  def evaluate(self, *args: Any, **kwargs: Any) -> Any:
    refuse_keras3(callbacks=inspect.signature(super().evaluate).bind(*args, **kwargs).arguments.get("callbacks"))
    return super().evaluate(*args, **kwargs)

  def call(self, inputs: Any, training: bool | None = None) -> Any:
    return self.student(inputs, training=training)

  @property
  def metrics(self) -> list[keras.metrics.Metric]:
    # The first metric of the compiled losses is their sum, which is `hard_loss` here.
    compiled = self.compiled_loss.metrics[1:] + self.compiled_metrics.metrics if self._is_compiled else []
    return list(self._means.values()) + compiled

  def train_step(self, data: Any) -> dict[str, tf.Tensor]:
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    teacher = self._passes.run_teacher(x)
    with tf.GradientTape() as tape:
      student = self._run_student(x, training=True)
      batch = self._batch(teacher, student, y, sample_weight, training=True)
      terms, compared = self._terms(x, batch)
      # A NaN in the loss does not show where it came from.
      named = ("inputs", self._passes.student_inputs(x)), ("labels", y), ("teacher outputs", compared)
      checks = [check for name, structure in named for check in assert_all_finite(structure, name)]
      checks += self._assert_logits(batch)
      # Gradients are summed over replicas, and each replica's terms are means over its own examples.
      own_loss = self._own_loss()
      with tf.control_dependencies(checks):  # Through this number all gradients depend on the checks.
        share = tf.identity(share_of_global_batch(x))
      loss = terms["loss"] * share + own_loss / num_replicas()
    self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
    self._zeros.restore()
    terms["loss"] += own_loss
    return self._update(terms, x, batch)

  def test_step(self, data: Any) -> dict[str, tf.Tensor]:
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    teacher, student = self._passes.run_teacher(x), self._run_student(x, training=False)
    batch = self._batch(teacher, student, y, sample_weight, training=False)
    terms, _ = self._terms(x, batch)
    self._assert_logits(batch)
    terms["loss"] += self._own_loss()
    return self._update(terms, x, batch)

  def compute_loss(self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> tf.Tensor:
    """The hard loss, a mean over the replica's examples. An override replaces it; objectives are added to it.

    Args:
      x, y, sample_weight: as given to `fit`; weights by output.
      y_pred: the student's outputs, float32.

    Returns:
      Scalar.
    """
    if has_sums(self.compiled_loss, y_pred):
      if num_replicas() > 1:
        raise ValueError("the loss has reduction SUM, which differs between replicas: compile with the default one.")
    else:
      y_pred, sample_weight = without_masks(y_pred, sample_weight)
    # Keras divides its compiled loss by the number of replicas.
    return tf.cast(self.compiled_loss(y, y_pred, sample_weight), tf.float32) * num_replicas()

  def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any) -> dict[str, tf.Tensor]:
    if y is not None:
      self.compiled_metrics.update_state(y, y_pred, sample_weight)
    return self.get_metrics_result()

  def get_metrics_result(self) -> dict[str, tf.Tensor]:
    results = super().get_metrics_result()
    return {name: value for name, value in results.items() if name not in self._unmeasured}

  def _run_student(self, x: Any, training: bool) -> ModelOutputs:
    inputs = self._passes.student_inputs(x)
    if self._saved_model_inputs_spec is None:
      self._set_save_spec(inputs)
    outputs = self._passes.run_student(inputs, training)
    self.built = self.student.built
    return outputs

  def _batch(self, teacher: Any, student: ModelOutputs, y: Any, weights: Any, training: bool) -> Batch:
    step = self.optimizer.iterations if self._is_compiled else tf.constant(0, tf.int64)
    return Batch(teacher, student, y, by_output(weights, student.outputs, self.compiled_loss), step, training)

  def _terms(self, x: Any, batch: Batch) -> tuple[dict[str, tf.Tensor], Any]:
    """Means over this replica's examples: each term by its name, and their weighted sum under "loss".

    Returns:
      Pair of this dict, and of the teacher's outputs and features, with zeros for elements of weight zero.
    """
    model_checks.check_losses(self.student, batch.student.outputs, self.objectives, self._compiled_losses())
    hard_loss = self._hard_loss(x, batch)
    terms, compared = terms_of(self.objectives, batch)
    weighted = [objective.weight_at(batch.step) * terms[objective.name] for objective in self.objectives]
    hard = {} if hard_loss is None else {"hard_loss": hard_loss}
    total = sum_in_order([self.hard_loss_weight * hard.get("hard_loss", tf.constant(0.0)), *weighted])
    return {"loss": total, **hard, **terms}, compared

  def _hard_loss(self, x: Any, batch: Batch) -> tf.Tensor | None:
    """Mean over this replica's examples; None without labels or loss, which only a weight of 0 allows."""
    is_overridden = type(self).compute_loss is not Distiller.compute_loss
    if not is_overridden and (batch.labels is None or self.compiled_loss._user_losses is None):
      if isinstance(self.hard_loss_weight, tf.Variable) or self.hard_loss_weight:
        found = "the data has no labels" if batch.labels is None else "compile() got no loss"
        raise ValueError(f"hard_loss_weight is {self.hard_loss_weight}, but {found}: set it to 0 to train without.")
      return None
    loss = self.compute_loss(x=x, y=batch.labels, y_pred=batch.student.outputs, sample_weight=batch.sample_weight)
    check_is_scalar(loss)
    return tf.cast(loss, tf.float32)

  def _own_loss(self) -> tf.Tensor | float:
    """The student's regularizers and `add_loss`, and those of connectors: a sum, not a mean over examples."""
    return sum_in_order([tf.cast(loss, tf.float32) for loss in self.losses]) if self.losses else 0.0

  def _update(self, terms: dict[str, tf.Tensor], x: Any, batch: Batch) -> dict[str, tf.Tensor]:
    for name, value in terms.items():
      self._means[name].update_state(value, sample_weight=num_examples(x))
    outputs = batch.student.outputs
    names = names_of(outputs, self.output_names)
    measured = agreements(batch, kinds_of(outputs, self.objectives, self._compiled_losses()))
    measured = {names[key]: found for key, found in measured.items() if names[key] in self._means}
    for name, found in measured.items():
      self._means[name].update_state(*found)
    compiled = self.metrics[len(self._means) :] if batch.labels is None else []
    self._unmeasured = (*(self._means.keys() - terms.keys() - measured.keys()), *(metric.name for metric in compiled))
    return self.compute_metrics(x, batch.labels, outputs, batch.sample_weight)

  def _assert_logits(self, batch: Batch) -> list[tf.Tensor]:
    return model_checks.assert_read_logits(
      self._teachers, self.student, batch, self.objectives, self._compiled_losses()
    )

  def _compiled_losses(self) -> Any:
    return self.compiled_loss if self._is_compiled else None

  def get_config(self) -> dict[str, Any]:
    return {
      **super().get_config(),
      "student": keras.saving.serialize_keras_object(self.student),
      "objectives": [keras.saving.serialize_keras_object(o) for o in self.objectives],
      "hard_loss_weight": as_number(self.hard_loss_weight),
      "keep_zeros": self.keep_zeros,
    }

  @classmethod
  def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> "Distiller":
    return cls(**{key: deserialized(value, custom_objects) for key, value in config.items()})
