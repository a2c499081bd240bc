"""A sweep: one teacher, trained once, and the students that learn from it, each trained once."""

import contextlib
import functools
import os
import platform
import shutil
import time

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import logging
from tqdm import tqdm

from tfkd import Distiller, __version__, models, quantization
from tfkd.ops.timing import interleaved
from tfkd.storage.digests import sha256_of_arrays, sha256_of_file
from tfkd.storage.files import path_to_write
from tfkd.sweeps import tensorboard
from tfkd.sweeps.configuration import FLOAT, StudentSpec, SweepConfig
from tfkd.sweeps.examples import Examples
from tfkd.sweeps.export import export, file_metadata
from tfkd.sweeps.results import Results
from tfkd.sweeps.trace_sharing import SharedDistillers, with_variables
from tfkd.sweeps.workspace import open_workdir
from tfkd.teachers import CachedTeacher, cache
from tfkd.training._fit import evaluate, fit
from tfkd.training.head import fit_head
from tfkd.training.optimizers import make_optimizer, scaled_learning_rate
from tfkd.training.strategy import barrier, is_chief, is_multi_worker, is_parameter_server, make_strategy

# Fields of a training that do not decide results: what they lead to does.
_PLACES = (
  "data_dir", "on_bad_image", "teacher_checkpoint", "student_checkpoint", "strategy", "checkpoint_minutes",
  "checkpoint_steps",
)  # fmt: skip


class Sweep:
  """Trains a teacher and students in a workdir; what is done there is not done again.

  Args:
    workdir: folder for `results.jsonl`, teacher, students and logs.
    training: `SweepConfig`.
    overwrite: remove an earlier run's results first.

  Raises:
    ValueError: the workdir holds another configuration's results, a name is unknown, a number is out of range, or the
      data is damaged.
  """

  def __init__(self, workdir: str, training: SweepConfig, *, overwrite: bool = False):
    self._strategy = make_strategy(training.strategy)  # Before TensorFlow's first operation: workers find each other.
    self._workdir = workdir
    self._training = training
    self._build_teacher = models.parse(training.teacher)
    models.parse(training.student)  # A wrong name is an error now, not after the teacher's training.
    self.examples = Examples(training, self._strategy.num_replicas_in_sync)
    if training.teacher_head_only and not training.teacher_checkpoint:
      raise ValueError("--teacher_head_only trains the last layer of a --teacher_checkpoint; there is none.")
    if training.teacher_head_only and is_parameter_server(self._strategy):
      raise ValueError(
        "--teacher_head_only trains in one process: begin with another --strategy; the workdir keeps the teacher."
      )
    for epochs in (training.epochs, training.teacher_epochs):
      self._optimizer(epochs, 0.0)
    # Where the files lie and which devices train does not decide the results; the pixels do.
    configuration, defaults = (
      {k: v for k, v in fields.items() if k not in _PLACES}
      for fields in (training._asdict(), SweepConfig._field_defaults)
    )
    configuration["data_sha256"] = sha256_of_arrays([*self.examples.train, *self.examples.test])
    for name in ("teacher_checkpoint", "student_checkpoint"):
      if getattr(training, name):
        configuration[f"{name}_sha256"] = sha256_of_file(getattr(training, name))
    if self.writes:
      open_workdir(workdir, configuration, overwrite, defaults)
    barrier(self._strategy)
    self.results = Results(os.path.join(workdir, "results.jsonl"))
    logging.info("results go to %s", self.path("results.jsonl"))
    self._cached = {}
    self._distillers = SharedDistillers()

  @property
  def writes(self):
    """Whether this process writes the workdir: the only one, or of several workers the chief."""
    return is_chief(self._strategy)

  def path(self, *parts):
    """A path inside the workdir."""
    return os.path.join(self._workdir, *parts)

  def steps(self, epochs):
    """Number of optimizer steps, for weights that change with them."""
    return epochs * -(-len(self.examples.train[1]) // self._training.batch_size)

  def train_teacher(self):
    """Trains the teacher, unless the workdir has it, and computes its outputs for both splits, unless it has them."""
    if not (os.path.exists(self._teacher_path) and self.results.find(role="teacher")):
      self._train_teacher()
    self._cached = self._teacher_outputs()

  def run(self, students):
    """Trains the students that the results lack, the teacher first.

    Args:
      students: list of `StudentSpec`.
    """
    missing = [student for student in students if not self.results.find(**student.key)]
    self._check_schemes(missing)
    self.train_teacher()
    if self.writes:
      tensorboard.declare(self.path("logs", "hparams"), students, self.results.rows())
    logging.info("%d of %d students are trained already", len(students) - len(missing), len(students))
    with tqdm(missing, desc="students", unit="student", dynamic_ncols=True) as bar:
      for student in bar:
        bar.set_postfix_str(student.name)
        self._train_student(student)

  def _check_schemes(self, students):
    """Raises where a network has no file of a scheme: now, not after the teacher's training."""
    shape = {"num_classes": len(self.examples.info.classes), "input_shape": self.examples.info.image_shape}
    for network, scheme, adapt in dict.fromkeys(
      (s.network or self._training.student, s.scheme, s.adapt) for s in students
    ):
      if scheme != FLOAT:
        model = models.build(network, **shape)
        quantization.check(adapt(self._build_teacher(**shape), model) if adapt else model, scheme)

  def rows(self, student):
    """The results of a student's seeds: rows that differ from its key in the seed alone."""
    key = student.key
    del key["seed"]
    return self.results.find(**key)

  def predict(self, student, split):
    """Answers of a trained student.

    Args:
      student: `StudentSpec` that the results have.
      split: of the data set, see `Examples.batches`.

    Returns:
      Logits float32 [n, classes], in the order of the images.
    """
    return self.load(student).predict(self.examples.batches(split), verbose=0)

  def load(self, student):
    """The trained `tf_keras` model of a student that the results have."""
    return quantization.load(self._student_path(student))

  def load_teacher(self):
    """The teacher's `tf_keras` model, of this process alone."""
    return quantization.load(self._teacher_path)

  def _train_teacher(self):
    training = self._training
    keras.utils.set_random_seed(0)
    with self._strategy.scope(), _arithmetic(training.mixed_precision):
      teacher = self._build_teacher(
        num_classes=len(self.examples.info.classes), input_shape=self.examples.info.image_shape
      )
      self._compile(teacher, training.teacher_epochs, training.teacher_learning_rate)
    test = self.examples.test_batches(self.examples.test[0])
    if training.teacher_checkpoint:
      models.load_torch_weights(teacher, training.teacher_checkpoint, head=not training.teacher_head_only)
      logging.info("the teacher has the weights of %s", training.teacher_checkpoint)
    kept = self._places("teacher")
    if training.teacher_head_only:
      logging.info("training the teacher's last layer: %s, %d epochs", training.dataset, training.teacher_epochs)
      with self._strategy.scope():
        history, seconds = fit_head(
          teacher, self.examples.batches("train"), self.examples.batches("test"),
          optimizer=self._optimizer(training.teacher_epochs, training.teacher_learning_rate),
          epochs=training.teacher_epochs, batch_size=training.batch_size, **kept,
        )  # fmt: skip
    elif training.teacher_checkpoint:
      start = time.perf_counter()
      history = {f"val_{k}": [v] for k, v in evaluate(teacher, test).items()}
      seconds = time.perf_counter() - start
    else:
      logging.info("training the teacher: %s, %d epochs", training.dataset, training.teacher_epochs)
      train = functools.partial(self.examples.train_batches, self.examples.train[0], 0)
      history, seconds = fit(
        teacher, train, test, epochs=training.teacher_epochs, steps_per_epoch=self.steps(1), **kept
      )
    if self.writes and os.path.exists(self.path("teacher")):
      shutil.rmtree(self.path("teacher"))  # What another one answered.
    self._save(teacher, self._teacher_path)
    row = {"role": "teacher", "experiment": None, "method": "labels", "scheme": "float", "temperature": None, "seed": 0}
    row |= {"accuracy": history["val_accuracy"][-1], "loss": history["val_loss"][-1], "agreement": 1.0}
    self._finish("teacher", self._teacher_path)
    if self.writes:
      shutil.rmtree(self.path("checkpoints"), ignore_errors=True)  # Of students that another teacher taught.
    self._add_row(row, teacher, seconds, history)

  def _teacher_outputs(self):
    """A `CachedTeacher` for each split, written once: of test, and of train where the same images come again."""
    wanted = {"test": ("test", self.examples.test, {})}
    if not self.examples.always_new:
      views = self._training.views
      wanted["train"] = (
        "train" if views is None else f"train-{views}views",
        self.examples.train,
        self.examples.augmentation,
      )
    return {split: self._outputs_of(*arguments) for split, arguments in wanted.items()}

  def _outputs_of(self, folder, arrays, augmentation):
    path = self.path("teacher", "outputs", folder)
    cached = self._write_outputs(path, arrays, augmentation) if self.writes else None
    barrier(self._strategy)
    return CachedTeacher(path) if cached is None else cached  # Opening one reads it whole, for its CRC-32.

  def _write_outputs(self, path, arrays, augmentation):
    try:
      # What it is of need not be asked: the workdir belongs to these data, and a new teacher removes it.
      return CachedTeacher(path)
    except FileNotFoundError:
      pass
    except ValueError as error:
      logging.warning("%s", error)
      shutil.rmtree(path)
    teacher = self.load_teacher() if self._needs_copies else self._teacher
    return cache(teacher, self.examples.evaluation_batches(*arrays, **augmentation), path)

  def step_seconds(self, students, rounds=25, steps=4):
    """Times training steps of several students in turn, each with the teacher run online.

    Args:
      students: dict from any key to `StudentSpec`.
      rounds: how often each student has its turn.
      steps: steps of a turn.

    Returns:
      dict from key to list of float, seconds per step, one for each round.
    """
    batches = self.examples.train_batches(self.examples.train[0], 0, 0)
    turns = {}
    for key, student in tqdm(students.items(), desc="tracing", unit="student", dynamic_ncols=True):
      distiller = self._distiller(student, self._teacher)
      turns[key] = functools.partial(distiller.make_train_function(), iter(batches))
    return {key: times.wall for key, times in interleaved(turns, rounds, steps).items()}

  def _distiller(self, student, teacher):
    """A compiled distiller."""
    training = self._training
    keras.utils.set_random_seed(student.seed)
    arithmetic = training.mixed_precision if student.scheme == FLOAT else "none"
    with self._strategy.scope(), _arithmetic(arithmetic):
      network = student.network or training.student
      model = models.build(network, len(self.examples.info.classes), self.examples.info.image_shape)
      if student.adapt:
        model = student.adapt(self._teacher, model)
      if student.start == "teacher":
        if network != training.teacher:
          raise ValueError(
            f"{student.scheme} students begin with the teacher's weights: student={network} must be "
            f"teacher={training.teacher}."
          )
        model.set_weights(self._teacher.get_weights())
      elif isinstance(student.start, StudentSpec):
        other = student.start.network or training.student
        if (other, student.start.scheme) != (network, FLOAT):
          raise ValueError(
            f"a student of {network} can go on from a float one of the same network; {student.start.name} is "
            f"{student.start.scheme}, of {other}."
          )
        model.set_weights(self.load(student.start).get_weights())
      elif student.start == "checkpoint":
        models.load_torch_weights(model, training.student_checkpoint, head=False)
      if student.scheme != FLOAT:
        calibration_data = self.examples.calibration_batches()
        model = quantization.quantize(model, student.scheme, calibration_data=calibration_data)
      # Copies: a layer belongs to one distiller, and a sweep may list one objective for several seeds.
      objectives = [type(o).from_config(o.get_config()) for o in student.objectives]
      hard_loss_weight = with_variables(objectives, student.hard_loss_weight)
      distiller = Distiller(teacher, model, objectives, hard_loss_weight=hard_loss_weight)
      self._compile(distiller, self._epochs(student), training.learning_rate)
      adapt = student.adapt and student.method
      return self._distillers.share(distiller, [network, student.scheme, adapt, self._epochs(student)])

  def _train_student(self, student):
    images, test_images = self.examples.train[0], self.examples.test[0]
    # The teacher runs where its answer was not computed before: features, and images that no one saw before.
    if any(objective.teacher_layers for objective in student.objectives):
      teacher = self._teacher
    elif not self.examples.always_new:
      teacher = self._cached["train"]
      images, test_images = (images, teacher.outputs), (test_images, self._cached["test"].outputs)
    else:
      reads_teacher = any(objective.reads_teacher for objective in student.objectives)
      teacher = self._teacher if reads_teacher else None
    distiller = self._distiller(student, teacher)
    model = distiller.student
    train = functools.partial(self.examples.train_batches, images, student.seed)
    history, seconds = fit(
      distiller, train, self.examples.test_batches(test_images), epochs=self._epochs(student),
      steps_per_epoch=self.steps(1), **self._places(student.name),
    )  # fmt: skip
    path = self._student_path(student)
    self._save(model, path)
    # Of every worker.
    logging.info("SHA-256 of its weights: %s", sha256_of_arrays(model.get_weights()))
    row = student.key | {"accuracy": history["val_accuracy"][-1], "loss": history["val_hard_loss"][-1]}
    if teacher is None:
      predicting = quantization.load(path) if is_parameter_server(self._strategy) else model
      choices = predicting.predict(self.examples.batches("test"), verbose=0).argmax(axis=1)
      row["agreement"] = float(np.mean(choices == self._cached["test"].outputs.argmax(axis=1)))
    else:
      row["agreement"] = history["val_agreement"][-1]
    if self.writes:
      local = quantization.load(path) if self._needs_copies else model
      fields = file_metadata(self._training, self.examples.info, student)
      row |= export(
        local, path.removesuffix(".keras"), self.examples.batches("test"), info=self.examples.info, fields=fields
      )
    self._finish(student.name, path)
    self._add_row(row, model, seconds, history)
    if self.writes:
      tensorboard.log(self.path("logs", student.name), student, row, self._training.epochs)

  def _places(self, name):
    """Options of `fit`: where a model's logs and checkpoints are, and how often they are written."""
    training = self._training
    places = {"log_dir": self.path("logs", name), "checkpoint_dir": self.path("checkpoints", name)}
    if is_multi_worker(self._strategy):
      # They must write together, and their clocks differ.
      return places | {"checkpoint_steps": training.checkpoint_steps or self.steps(1)}
    minutes, steps = training.checkpoint_minutes, training.checkpoint_steps
    return places | {"checkpoint_minutes": minutes, "checkpoint_steps": steps}

  def _save(self, model, path):
    """Saves a model; all workers take part."""
    with path_to_write(path, self.writes) as kept:
      quantization.save(model, kept)
    if self.writes:
      logging.info("wrote %s", path)

  def _finish(self, name, path):
    """Keeps the best of a trained model beside the last, and forgets its checkpoints."""
    folder = self.path("checkpoints", name)
    if self.writes and os.path.exists(folder):
      os.replace(os.path.join(folder, "best.keras"), f"{path.removesuffix('.keras')}.best.keras")
      shutil.rmtree(folder)

  def _compile(self, model, epochs, learning_rate):
    if not self.examples.has_distributions:
      crossentropy, accuracy = keras.losses.SparseCategoricalCrossentropy, keras.metrics.SparseCategoricalAccuracy
    else:
      crossentropy, accuracy = keras.losses.CategoricalCrossentropy, keras.metrics.CategoricalAccuracy
    model.compile(
      self._optimizer(epochs, learning_rate),
      loss=crossentropy(from_logits=True),
      # By its name, Keras would make its variables in the first step, which is traced twice then.
      metrics=[accuracy("accuracy")],
    )

  def _optimizer(self, epochs, learning_rate):
    training = self._training
    if training.scale_learning_rate:
      learning_rate = scaled_learning_rate(learning_rate, training.batch_size)
    options = {name: getattr(training, name) for name in ("schedule", "warm_up", "weight_decay", "ema")}
    return make_optimizer(training.optimizer, learning_rate, self.steps(epochs), **options)

  def _epochs(self, student):
    return student.epochs or self._training.epochs

  @property
  def _needs_copies(self):
    """Whether this process alone cannot run a model of the strategy, only what was saved of it."""
    # Some variables of workers in step are read by all together, or not at all; others lie on another machine.
    return is_multi_worker(self._strategy) or is_parameter_server(self._strategy)

  @functools.cached_property
  def _teacher(self):
    """The trained teacher, read once for all students; within the scope, so that every replica has its weights."""
    with self._strategy.scope():
      return quantization.load(self._teacher_path)

  def _student_path(self, student):
    return self.path("students", f"{student.name}.keras")

  @property
  def _teacher_path(self):
    return self.path("teacher", "model.keras")

  def _add_row(self, row, model, seconds, history):
    epochs = len(history.get("loss", ()))
    row["history"] = {name: [round(float(v), 6) for v in values] for name, values in history.items()}
    # Seconds include tracing and the evaluation after each epoch; the rate counts training images only.
    row = quantization.sizes(model) | row
    flags = self._training._asdict()
    for name in ("data_dir", "teacher_checkpoint", "student_checkpoint"):
      if flags[name]:
        flags[name] = os.path.basename(os.path.normpath(flags[name]))  # Rows are published; paths are not.
    row |= {"dataset": self._training.dataset, "config": flags, "versions": _versions()}
    row |= {"seconds": round(seconds, 2), "images_per_second": round(epochs * len(self.examples.train[1]) / seconds, 1)}
    row |= {"test_images": len(self.examples.test[1]), "train_images": len(self.examples.train[1])}
    if self.writes:
      self.results.add(row)
    barrier(self._strategy)


@contextlib.contextmanager
def _arithmetic(mixed_precision):
  """Layers made inside compute in "float16" or "bfloat16", or, with "none", as they do anyway."""
  policy = keras.mixed_precision.global_policy()
  if mixed_precision != "none":
    keras.mixed_precision.set_global_policy(f"mixed_{mixed_precision}")
  try:
    yield
  finally:
    keras.mixed_precision.set_global_policy(policy)


def _versions():
  return {
    "tfkd": __version__,
    "tensorflow": tf.__version__,
    "tf_keras": keras.__version__,
    "python": platform.python_version(),
  }
