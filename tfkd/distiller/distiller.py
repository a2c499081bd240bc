"""The Distiller: a Keras model that trains a student against labels and a frozen teacher."""

import inspect

import tensorflow as tf
import tf_keras as keras

from tfkd.distiller.agreement import agreements, class_keys, names_of
from tfkd.distiller.compilation import check_class_weight, check_metrics, has_sums, refuse_keras3
from tfkd.distiller.model_checks import (
  build_objectives,
  check_hard_loss_weight,
  check_losses,
  check_models,
  check_student,
  checked_objectives,
  checks_of_read_logits,
  structure_of,
)
from tfkd.distiller.numerics import checks_of_finite
from tfkd.distiller.retracing import FollowsChanges
from tfkd.distiller.terms import term
from tfkd.features import ModelOutputs
from tfkd.features.taps import Reader
from tfkd.objectives import Batch
from tfkd.objectives.base import as_number, deserialized
from tfkd.ops.element_weights import by_output, mask_of, without_masks
from tfkd.ops.probabilities import endings
from tfkd.ops.reduction import num_examples, num_replicas, share_of_global_batch
from tfkd.teachers import Frozen

_PROTOCOL = ("reader", "tap_shapes", "student_inputs")


@keras.utils.register_keras_serializable(package="tfkd")
class Distiller(FollowsChanges):
  """Trains a student on a hard loss (labels) and any number of objectives (what to imitate of the teacher).

    total = hard_loss_weight * hard + sum_i objective_i.weight * objective_i + the student's own losses

  Used through `compile`, `fit`, `evaluate` and `predict`, as any Keras model. The hard loss is the one given to
  `compile`, or what an overridden `compute_loss` returns; it is taken on the student's outputs, which must be logits.
  One forward pass of teacher and student each per step. Every term is averaged over the GLOBAL batch, so that one
  replica and many take the same step; the student's regularizers and `add_loss` count in full.
  `sample_weight` (of examples, tokens, pixels, anchors; of all outputs or some), `class_weight` and Keras masks weigh
  each element in every term, as Keras weighs its own losses: a weighted sum divided by the number of elements, or with
  a mask by the number of valid ones. Elements of weight zero change nothing. A feature objective weighs by the output
  that its `output` names; without, by the mean of all outputs' weights of an example where these differ.
  A relational objective compares the examples of one replica's batch; those of weight zero are left out of it, and the
  mean of the weights multiplies it (not with `jit_compile`, which knows no batch of varying size).
  `agreement` is measured for each output that is class scores (an objective on class distributions reads it, or its
  hard loss is a categorical cross-entropy), over the elements that masks and weights of zero leave; with several
  outputs as `<output>_agreement`. What was not measured is not in the logs.
  `evaluate` reports the same terms in inference mode and changes no variable; `predict` is the student's.
  Objectives, their hyper-parameters, `hard_loss_weight` and the teacher may be assigned between steps.

  Checkpoints and `save` hold student, objectives and optimizer, never the teacher: after loading, set
  `distiller.teacher` again.

  Args:
    teacher: model or function from a batch of inputs to logits, or an object with the methods of
      `tfkd.teachers.Frozen`; None where every objective reads the labels. Of a model that ends in softmax the logits
      are taken. Neither trained nor updated, and its `trainable` flag is not touched.
    student: `tf_keras` model to train, quantized or not.
    objectives: `tfkd.objectives.Objective`, or a list of them with different names.
    hard_loss_weight: factor of the compiled loss, >= 0, or a scalar `tf.Variable` of it. At the number 0 labels are not
      needed.

  Raises:
    TypeError: the student is not a `tf_keras` model, or an objective is not an `Objective`.
    ValueError: a weight is out of range, two objectives share a name, teacher and student have different inputs,
      resolutions or numbers of classes, the student ends in softmax, or an objective's layers are missing or do not
      fit.
  """

  def __init__(self, teacher=None, student=None, objectives=(), hard_loss_weight=1.0, **kwargs):
    super().__init__(**kwargs)
    check_student(student)
    check_hard_loss_weight(hard_loss_weight)
    self.student = student
    self.objectives = checked_objectives(objectives)
    self.hard_loss_weight = hard_loss_weight
    self.output_names = getattr(student, "output_names", None)
    self._set_teacher(teacher)
    # A built student is all there is to build: summary, saving and resuming need no call first.
    self.built = student.built
    if getattr(student, "_nested_inputs", None) is not None:
      self._set_save_spec(student._nested_inputs)
    self._is_made = True

  def __setattr__(self, name, value):
    is_made = vars(self).get("_is_made", False)
    if is_made and name == "student":
      raise ValueError("the student of a Distiller cannot be replaced: make another Distiller.")
    if is_made and name == "hard_loss_weight":
      check_hard_loss_weight(value)
    if is_made and name in ("teacher", "objectives"):
      self._replace(name, value)
      return
    super().__setattr__(name, value)
    if is_made and name == "hard_loss_weight":
      self.count_change()

  def _replace(self, name, value):
    """Replaces the teacher or the objectives, or leaves both where the new ones do not fit."""
    teacher, objectives = self._teacher, self.objectives
    try:
      if name == "objectives":
        super().__setattr__(name, checked_objectives(value))
      # Not as a property's setter: Keras would hide what it raises.
      self._set_teacher(value if name == "teacher" else teacher)
    except Exception:
      super().__setattr__("objectives", objectives)
      self._set_teacher(teacher)
      raise

  @property
  def teacher(self):
    """The frozen teacher, a plain callable; assign a model or function to replace it."""
    return self._teacher

  def _set_teacher(self, teacher):
    if teacher is not None and not all(hasattr(teacher, name) for name in _PROTOCOL):
      teacher = Frozen(teacher)
    check_models(teacher, self.student, self.objectives)
    teacher_layers, student_layers = (_layers(self.objectives, side) for side in ("teacher_layers", "student_layers"))
    self._read_teacher = teacher.reader(teacher_layers) if teacher is not None and teacher_layers else None
    # A bound method: Keras would track a reader, and write the student twice.
    self._read_student = Reader(self.student, student_layers).__call__ if student_layers else None
    self._teacher = teacher
    build_objectives(teacher, self.student, self.objectives)
    structure = structure_of(self.student)
    self._agreements = names_of(structure, self.output_names) if structure is not None else {None: "agreement"}
    names = ["loss", "hard_loss", *(objective.name for objective in self.objectives), *self._agreements.values()]
    known = getattr(self, "_means", {})
    self._means = {name: known.get(name) or keras.metrics.Mean(name=name) for name in names}
    self._unmeasured = tuple(self._agreements.values())
    self.count_change()

  def compile(self, *args, **kwargs):
    given = inspect.signature(super().compile).bind(*args, **kwargs).arguments
    refuse_keras3(**{k: v for k, v in given.items() if k in ("optimizer", "loss", "metrics", "weighted_metrics")})
    super().compile(*args, **kwargs)
    structure = structure_of(self.student)
    if structure is not None:
      check_metrics([given.get("metrics"), given.get("weighted_metrics")], endings(self.student))
      check_losses(self.student, structure, self.objectives, self.compiled_loss)

  def compile_from_config(self, config):
    if type(self).compile is not Distiller.compile:
      super().compile_from_config(config)  # Keras says that a subclass' own `compile` has to be called.
      return
    self.compile(**keras.saving.deserialize_keras_object(config))
    if isinstance(self.optimizer, keras.optimizers.Optimizer) and self.built:
      self.optimizer.build(self.trainable_variables)

  def fit(self, *args, **kwargs):
    given = inspect.signature(super().fit).bind(*args, **kwargs).arguments
    refuse_keras3(callbacks=given.get("callbacks"))
    if given.get("class_weight") is not None:
      check_class_weight(given.get("x"), given.get("y"), structure_of(self.student))
    return super().fit(*args, **kwargs)

  def evaluate(self, *args, **kwargs):
    refuse_keras3(callbacks=inspect.signature(super().evaluate).bind(*args, **kwargs).arguments.get("callbacks"))
    return super().evaluate(*args, **kwargs)

  def call(self, inputs, training=None):
    return self.student(inputs, training=training)

  @property
  def metrics(self):
    compiled = []
    if self._is_compiled:
      # The first of the compiled losses' metrics is their sum, which is `hard_loss` here.
      compiled = self.compiled_loss.metrics[1:] + self.compiled_metrics.metrics
    return list(self._means.values()) + compiled

  def train_step(self, data):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    teacher = self._run_teacher(x)
    with tf.GradientTape() as tape:
      student = self._run_student(x, training=True)
      sample_weight = by_output(sample_weight, student.outputs, self.compiled_loss)
      terms, compared = self._terms(x, teacher, student, y, sample_weight, training=True)
      # A loss that is NaN does not say whose fault it is.
      named = ("inputs", self._student_inputs(x)), ("labels", y), ("answers of the teacher", compared)
      checks = [check for name, structure in named for check in checks_of_finite(structure, name)]
      checks += self._checks_of_logits(teacher, student)
      # Replicas' gradients are summed, and each one's terms are means over its own examples.
      own_loss = self._own_loss()
      with tf.control_dependencies(checks):  # And with this number, so do all gradients.
        share = tf.identity(share_of_global_batch(x))
      loss = terms["loss"] * share + own_loss / num_replicas()
    self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
    terms["loss"] += own_loss
    return self._update(terms, (teacher and teacher.outputs), student.outputs, x, y, sample_weight)

  def test_step(self, data):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    teacher, student = self._run_teacher(x), self._run_student(x, training=False)
    sample_weight = by_output(sample_weight, student.outputs, self.compiled_loss)
    terms, _ = self._terms(x, teacher, student, y, sample_weight, training=False)
    self._checks_of_logits(teacher, student)
    terms["loss"] += self._own_loss()
    return self._update(terms, (teacher and teacher.outputs), student.outputs, x, y, sample_weight)

  def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
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

  def compute_metrics(self, x, y, y_pred, sample_weight):
    if y is not None:
      self.compiled_metrics.update_state(y, y_pred, sample_weight)
    return self.get_metrics_result()

  def get_metrics_result(self):
    results = super().get_metrics_result()
    return {name: value for name, value in results.items() if name not in self._unmeasured}

  def _terms(self, x, teacher, student, y, sample_weight, training):
    """Means over this replica's examples: each term by its name, and under "loss" their weighted sum.

    Returns:
      Pair of this dict, and of the teacher's outputs and features whose elements count.
    """
    check_losses(self.student, student.outputs, self.objectives, self._compiled_losses())
    terms = {"hard_loss": self._hard_loss(x, student.outputs, y, sample_weight)}
    weighted = [self.hard_loss_weight * terms["hard_loss"]]
    step = self.optimizer.iterations if self._is_compiled else tf.constant(0, tf.int64)
    has_weights = sample_weight is not None or any(mask_of(t) is not None for t in tf.nest.flatten(student))
    batch = Batch(teacher, student, y, sample_weight, step, training)
    compared = []
    for objective in self.objectives:
      terms[objective.name], inputs = term(objective, batch)
      compared += [inputs[0]] if objective.reads_teacher else []
      weighted.append(objective.weight_at(step) * terms[objective.name])
    return {"loss": _sum(weighted), **terms}, compared if has_weights else teacher

  def _hard_loss(self, x, student_outputs, y, sample_weight):
    is_overridden = type(self).compute_loss is not Distiller.compute_loss
    if not is_overridden and (y is None or self.compiled_loss._user_losses is None):
      if isinstance(self.hard_loss_weight, tf.Variable) or self.hard_loss_weight:
        found = "the data has no labels" if y is None else "compile() got no loss"
        raise ValueError(f"hard_loss_weight is {self.hard_loss_weight}, but {found}: set it to 0 to train without.")
      return tf.constant(0.0)
    loss = tf.cast(self.compute_loss(x=x, y=y, y_pred=student_outputs, sample_weight=sample_weight), tf.float32)
    if loss.shape.rank != 0:
      raise ValueError(
        f"the hard loss has shape {loss.shape}, and one number is expected: compile with a loss whose reduction is not "
        "NONE, or return a mean over examples from `compute_loss`."
      )
    return loss

  def _own_loss(self):
    """The student's regularizers and `add_loss`, and those of connectors: a sum, not a mean over examples."""
    return _sum([tf.cast(loss, tf.float32) for loss in self.losses]) if self.losses else 0.0

  def _update(self, terms, teacher_outputs, student_outputs, x, y, sample_weight):
    for name, value in terms.items():
      self._means[name].update_state(value, sample_weight=num_examples(x))
    measured = {}
    if self._teacher is not None:
      keys = class_keys(student_outputs, self.objectives, self._compiled_losses())
      measured = agreements(teacher_outputs, student_outputs, sample_weight, keys)
    names = names_of(student_outputs, self.output_names)
    measured = {names[key]: found for key, found in measured.items() if names[key] in self._means}
    for name, found in measured.items():
      self._means[name].update_state(*found)
    self._unmeasured = tuple(name for name in self._agreements.values() if name not in measured)
    return self.compute_metrics(x, y, student_outputs, sample_weight)

  def _checks_of_logits(self, teacher, student):
    models, outputs = (self._teacher, self.student), ((teacher and teacher.outputs), student.outputs)
    return checks_of_read_logits(*models, *outputs, self.objectives, self._compiled_losses())

  def _compiled_losses(self):
    return self.compiled_loss if self._is_compiled else None

  def _run_teacher(self, x):
    """The teacher's outputs, and its tapped features by layer name."""
    if self._teacher is None:
      return None
    return ModelOutputs(*self._read_teacher(x)) if self._read_teacher else ModelOutputs(self._teacher(x), {})

  def _run_student(self, x, training):
    """The student's outputs, and its tapped features by layer name, as float32."""
    x = self._student_inputs(x)
    if self._saved_model_inputs_spec is None:
      self._set_save_spec(x)
    read = self._read_student
    outputs = read(x, training=training) if read else (self.student(x, training=training), {})
    self.built = self.student.built
    return ModelOutputs(*_as_float32(outputs))

  def _student_inputs(self, x):
    return x if self._teacher is None else self._teacher.student_inputs(x)

  def get_config(self):
    return {
      **super().get_config(),
      "student": keras.saving.serialize_keras_object(self.student),
      "objectives": [keras.saving.serialize_keras_object(o) for o in self.objectives],
      "hard_loss_weight": as_number(self.hard_loss_weight),
    }

  @classmethod
  def from_config(cls, config, custom_objects=None):
    return cls(**{key: deserialized(value, custom_objects) for key, value in config.items()})


def _sum(scalars):
  """Their sum in one order: TensorFlow's optimizer of graphs reorders what is added one by one, at every trace anew."""
  return tf.reduce_sum(tf.stack(scalars))


def _as_float32(outputs):
  return tf.nest.map_structure(_cast, outputs)


def _cast(tensor):
  cast = tf.cast(tensor, tf.float32)
  if mask_of(tensor) is not None:
    cast._keras_mask = mask_of(tensor)
  return cast


def _layers(objectives, attribute):
  """Names of all layers that objectives tap, each once."""
  return sorted({name for objective in objectives for name in getattr(objective, attribute)})
