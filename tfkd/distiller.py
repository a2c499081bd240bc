"""The Distiller: a Keras model that trains a student against labels and a frozen teacher."""

import inspect
import math

import tensorflow as tf
import tf_keras as keras

from tfkd.finite import checks_of_finite
from tfkd.objectives import Objective
from tfkd.objectives.base import as_number
from tfkd.reduction import mean_over_examples, num_examples, num_replicas, share_of_global_batch
from tfkd.taps import Reader
from tfkd.teachers import Frozen, Precomputed


@keras.utils.register_keras_serializable(package="tfkd")
class Distiller(keras.Model):
  """Trains a student on a hard loss (labels) and any number of objectives (what to imitate of the teacher).

    total = hard_loss_weight * hard + sum_i objective_i.weight * objective_i + the student's own losses

  Used through `compile`, `fit`, `evaluate` and `predict`, as any Keras model. The hard loss is the one given to
  `compile`; it is taken on the student's outputs, which must be logits. One forward pass of teacher and student each
  per step. Every term is averaged over the GLOBAL batch, so that one replica and many take the same step;
  `sample_weight` and `class_weight` reach every term, and the student's regularizers and `add_loss` count in full.
  A relational objective compares the examples of one replica's batch; those of weight zero are left out of it, and the
  mean of the weights multiplies it (not with `jit_compile`, which knows no batch of varying size).
  `evaluate` reports the same terms in inference mode and changes no variable; `predict` is the student's.

  Checkpoints and `save` hold student, objectives and optimizer, never the teacher: after loading, set
  `distiller.teacher` again.

  Args:
    teacher: model or function from a batch of inputs to logits (see `tfkd.teachers`); None where every objective reads
      the labels. Neither trained nor updated, and its `trainable` flag is not touched.
    student: `tf_keras` model to train, quantized or not.
    objectives: list of `tfkd.objectives.Objective`, with different names.
    hard_loss_weight: factor of the compiled loss, >= 0, or a scalar `tf.Variable` of it. At the number 0 labels are not
      needed.

  Raises:
    TypeError: the student is not a `tf_keras` model, or an objective is not an `Objective`.
    ValueError: a weight is out of range, two objectives share a name, teacher and student have different numbers of
      classes, or an objective's layers are missing or have shapes that do not fit.
  """

  def __init__(self, teacher=None, student=None, objectives=(), hard_loss_weight=1.0, **kwargs):
    super().__init__(**kwargs)
    if not isinstance(student, keras.Model):
      raise TypeError(
        f"student must be a tf_keras model; got {type(student).__module__}.{type(student).__name__}. Build it with "
        "`import tf_keras as keras`: quantization-aware training needs Keras 2."
      )
    if not (isinstance(hard_loss_weight, tf.Variable) or math.isfinite(hard_loss_weight) and hard_loss_weight >= 0):
      raise ValueError(f"hard_loss_weight must be a finite number >= 0; got {hard_loss_weight}.")
    self.student = student
    self.objectives = list(objectives)
    self.hard_loss_weight = hard_loss_weight
    self._check_objectives()
    student_layers = _layers(self.objectives, "student_layers")
    # A bound method: Keras would track a reader, and write the student twice.
    self._read_student = Reader(student, student_layers).__call__ if student_layers else None
    self.teacher = teacher
    self._means = {name: keras.metrics.Mean(name=name) for name in self._term_names()}
    # A built student is all there is to build: summary, saving and resuming need no call first.
    self.built = student.built

  @property
  def teacher(self):
    """The frozen teacher, a plain callable; assign a model or function to replace it."""
    return self._teacher

  @teacher.setter
  def teacher(self, teacher):
    if teacher is not None and not isinstance(teacher, (Frozen, Precomputed)):
      teacher = Frozen(teacher)
    self._teacher = teacher
    self._check_classes()
    teacher_layers = _layers(self.objectives, "teacher_layers")
    self._read_teacher = teacher.reader(teacher_layers) if teacher is not None and teacher_layers else None
    self._build_objectives()
    self.train_function = self.test_function = None  # Keras traces them again, with this teacher.

  def call(self, inputs, training=None):
    return self.student(inputs, training=training)

  @property
  def metrics(self):
    compiled = []
    if self._is_compiled:
      # The first of the compiled losses' metrics is their sum, which is `hard_loss` here.
      compiled = self.compiled_loss.metrics[1:] + self.compiled_metrics.metrics
    return list(self._means.values()) + compiled

  def make_train_function(self, force=False):
    # TensorFlow traces a step twice in which variables are made: those of the optimizer are made before. Keras asks for
    # the function in every `train_on_batch`.
    is_new = self.train_function is None or force
    has_build = isinstance(self.optimizer, keras.optimizers.Optimizer)  # Legacy ones have none.
    if is_new and has_build and all(_has_its_variables(part) for part in (self.student, *self.objectives)):
      self.optimizer.build(self.trainable_variables)
    return super().make_train_function(force)

  def train_step(self, data):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    teacher = self._run_teacher(x)
    # A loss that is NaN does not say whose fault it is.
    named = ("inputs", self._student_inputs(x)), ("labels", y), ("answers of the teacher", teacher)
    checks = [check for name, structure in named for check in checks_of_finite(structure, name)]
    with tf.GradientTape() as tape:
      student = self._run_student(x, training=True)
      terms = self._terms(teacher, student, y, sample_weight, training=True)
      # Replicas' gradients are summed, and each one's terms are means over its own examples.
      own_loss = self._own_loss()
      with tf.control_dependencies(checks):  # And with this number, so do all gradients.
        share = tf.identity(share_of_global_batch(x))
      loss = terms["loss"] * share + own_loss / num_replicas()
    self.optimizer.minimize(loss, self.trainable_variables, tape=tape)
    terms["loss"] += own_loss
    return self._update(terms, teacher[0], student[0], x, y, sample_weight)

  def test_step(self, data):
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    teacher, student = self._run_teacher(x), self._run_student(x, training=False)
    terms = self._terms(teacher, student, y, sample_weight, training=False)
    terms["loss"] += self._own_loss()
    return self._update(terms, teacher[0], student[0], x, y, sample_weight)

  def _terms(self, teacher, student, y, sample_weight, training):
    """Means over this replica's examples: each term by its name, and under "loss" their weighted sum."""
    terms = {"hard_loss": self._hard_loss(student[0], y, sample_weight)}
    weighted = [self.hard_loss_weight * terms["hard_loss"]]
    step = self.optimizer.iterations if self._is_compiled else tf.constant(0, tf.int64)
    available = {"training": training, "step": step}
    for objective in self.objectives:
      inputs = _inputs(objective, teacher, student, y)
      weights = sample_weight
      if weights is not None:
        weights = _pick(weights, objective.output_key, "sample_weight", objective.name)
      if objective.relational and weights is not None:
        counts = tf.reshape(weights, [-1]) > 0
        inputs = tf.nest.map_structure(lambda t, counts=counts: tf.boolean_mask(t, counts), inputs)
      options = {k: v for k, v in available.items() if k in inspect.signature(objective.call).parameters}
      terms[objective.name] = mean_over_examples(objective(inputs, **options), weights, num_examples(inputs))
      weighted.append(objective.weight_at(step) * terms[objective.name])
    return {"loss": _sum(weighted), **terms}

  def _hard_loss(self, student_outputs, y, sample_weight):
    if y is None or self.compiled_loss._user_losses is None:
      if isinstance(self.hard_loss_weight, tf.Variable) or self.hard_loss_weight:
        found = "the data has no labels" if y is None else "compile() got no loss"
        raise ValueError(f"hard_loss_weight is {self.hard_loss_weight}, but {found}: set it to 0 to train without.")
      return tf.constant(0.0)
    # Keras divides its compiled loss by the number of replicas.
    return tf.cast(self.compiled_loss(y, student_outputs, sample_weight), tf.float32) * num_replicas()

  def _own_loss(self):
    """The student's regularizers and `add_loss`, and those of connectors: a sum, not a mean over examples."""
    return _sum([tf.cast(loss, tf.float32) for loss in self.losses]) if self.losses else 0.0

  def _update(self, terms, teacher_outputs, student_outputs, x, y, sample_weight):
    for name, value in terms.items():
      self._means[name].update_state(value, sample_weight=num_examples(x))
    if _is_class_scores(teacher_outputs, student_outputs):
      same = tf.equal(tf.argmax(teacher_outputs, -1), tf.argmax(student_outputs, -1))
      self._means["agreement"].update_state(tf.cast(same, tf.float32))
    if y is not None:
      self.compiled_metrics.update_state(y, student_outputs, sample_weight)
    # Without a teacher there is no one to agree with.
    unused = () if self._teacher is not None else (self._means["agreement"],)
    return {m.name: m.result() for m in self.metrics if m not in unused}

  def _run_teacher(self, x):
    """The teacher's outputs, and its tapped features by layer name."""
    if self._teacher is None:
      for objective in self.objectives:
        if objective.source == "teacher":
          raise ValueError(
            f"objective '{objective.name}' reads the teacher, and the distiller has none (files do not hold it): set "
            "`distiller.teacher`."
          )
      return None, {}
    return self._read_teacher(x) if self._read_teacher else (self._teacher(x), {})

  def _run_student(self, x, training):
    """The student's outputs, and its tapped features by layer name, as float32."""
    x = self._student_inputs(x)
    read = self._read_student
    return _as_float32(read(x, training=training) if read else (self.student(x, training=training), {}))

  def _student_inputs(self, x):
    return x if self._teacher is None else self._teacher.student_inputs(x)

  def _term_names(self):
    return ["loss", "hard_loss", *(objective.name for objective in self.objectives), "agreement"]

  def _check_objectives(self):
    for objective in self.objectives:
      if not isinstance(objective, Objective):
        raise TypeError(f"objectives must be tfkd.objectives.Objective layers; got {objective!r}.")
    names = self._term_names()
    for name in names:
      if names.count(name) > 1:
        raise ValueError(f"two terms are called '{name}': give the objective another `name`.")

  def _build_objectives(self):
    """Makes connectors as soon as both models' shapes are known: errors come now, and saving needs no prior call."""
    for objective in self.objectives:
      if not objective.teacher_layers or objective.built or self._teacher is None:
        continue
      teacher = self._teacher.tap_shapes(objective.teacher_layers)
      if teacher is not None:
        student = Reader(self.student, objective.student_layers).shapes
        objective.build(
          (
            [teacher[name] for name in objective.teacher_layers],
            [student[name] for name in objective.student_layers],
          )
        )

  def _check_classes(self):
    model = getattr(self._teacher, "model", None)
    teacher_shape, student_shape = _output_shape(model), _output_shape(self.student)
    reads_logits = any(o.source == "teacher" and not o.teacher_layers for o in self.objectives)
    if reads_logits and teacher_shape and student_shape and teacher_shape[-1] != student_shape[-1]:
      raise ValueError(
        f"teacher logits have {teacher_shape[-1]} classes ({model.name}), student logits {student_shape[-1]} "
        f"({self.student.name}): build both with the data set's num_classes."
      )

  def get_config(self):
    return {
      **super().get_config(),
      "student": keras.saving.serialize_keras_object(self.student),
      "objectives": [keras.saving.serialize_keras_object(o) for o in self.objectives],
      "hard_loss_weight": as_number(self.hard_loss_weight),
    }

  @classmethod
  def from_config(cls, config, custom_objects=None):
    config = dict(config)
    for key in ("student", "objectives"):
      config[key] = keras.saving.deserialize_keras_object(config[key], custom_objects)
    return cls(**config)


def _sum(scalars):
  """Their sum in one order: TensorFlow's optimizer of graphs reorders what is added one by one, at every trace anew."""
  return tf.reduce_sum(tf.stack(scalars))


def _has_its_variables(layer):
  """Whether no call will make more of them."""
  is_built = layer.built or type(layer).build is Objective.build
  return is_built and all(part.built for part in layer.submodules if isinstance(part, keras.layers.Layer))


def _as_float32(outputs):
  return tf.nest.map_structure(lambda t: tf.cast(t, tf.float32), outputs)


def _layers(objectives, attribute):
  """Names of all layers that objectives tap, each once."""
  return sorted({name for objective in objectives for name in getattr(objective, attribute)})


def _inputs(objective, teacher, student, y):
  """What an objective is called on, of the outputs and features of both models and the labels."""
  key, name = objective.output_key, objective.name
  if y is None and (objective.source == "labels" or objective.reads_labels):
    raise ValueError(f"objective '{name}' reads the labels, and the data has none.")
  if objective.teacher_layers:
    pair = (
      [teacher[1][layer] for layer in objective.teacher_layers],
      [student[1][layer] for layer in objective.student_layers],
    )
  elif objective.source == "labels":
    pair = _pick(y, key, "labels", name), _pick(student[0], key, "student", name)
  else:
    pair = _pick(teacher[0], key, "teacher", name), _pick(student[0], key, "student", name)
  return (*pair, _pick(y, key, "labels", name)) if objective.reads_labels else pair


def _pick(structure, key, owner, objective_name):
  """The one tensor that an objective reads of a model's outputs."""
  if not tf.nest.is_nested(structure):
    return structure
  keys = list(structure) if isinstance(structure, dict) else list(range(len(structure)))
  if key is None and len(keys) == 1:
    return structure[keys[0]]
  if key not in keys:
    raise ValueError(f"{owner} has several outputs, {keys}: objective '{objective_name}' got output={key!r}.")
  return structure[key]


def _is_class_scores(teacher_outputs, student_outputs):
  """Whether both are one tensor [batch, classes], so that their choices can be compared."""
  tensors = (teacher_outputs, student_outputs)
  if any(t is None or tf.nest.is_nested(t) or t.shape.rank != 2 for t in tensors):
    return False
  return teacher_outputs.shape[-1] == student_outputs.shape[-1]


def _output_shape(model):
  """Static shape of a model's single output, or None."""
  shape = getattr(model, "output_shape", None) if getattr(model, "built", False) else None
  return shape if isinstance(shape, tuple) and shape and not isinstance(shape[0], tuple) else None
