"""The students, and the files that are made of them and measured."""

import os

import tf_keras as keras
from absl import flags

from experiments import _run, files, response, run_flags
from experiments._run import Experiment
from experiments.transfer import networks
from experiments.transfer.report import FILES, FLOAT, PTQ, TEACHER, write_report
from tfkd.sweeps import StudentSpec, Sweep, SweepConfig

_NAME = "transfer"
_COMMON = {
  "teacher_learning_rate": 1e-3,
  "batch_size": 64,
  "learning_rate": 5e-3,
  "augment": True,
  "temperature": 4.0,
  "alpha": 0.8,
  "scheme": "float",
}
PRESETS = {
  "quick": _COMMON | {"image_size": 24, "teacher_epochs": 1, "epochs": 2, "qat_epochs": 1, "views": 1, "seeds": [0]},
  "full": _COMMON
  | {
    "image_size": 40,
    "teacher_epochs": 6,
    "epochs": 20,
    "qat_epochs": 3,
    "two_bit_epochs": 10,
    "views": 4,
    "seeds": [0, 1, 2],
  },
}
flags.DEFINE_alias("data", "data_dir")


def _check() -> None:
  given = flags.FLAGS
  files.check_flags("teacher", "student", "dataset", "limit_train", "teacher_checkpoint", "student_checkpoint")
  if given.data_dir is None:
    raise ValueError("data is missing: expected a directory or archive of train/<class>/<track>_<frame>.png.")


def _configured(config: SweepConfig) -> SweepConfig:
  return config._replace(teacher=teacher, student=networks.student, teacher_epochs=0, image_size=None)


def teacher(num_classes: int, input_shape: tuple[int, ...]) -> keras.Model:
  """Returns the trained teacher of the work directory, see `networks.teacher`."""
  return networks.teacher(networks.source(), os.path.join(_run.workdir(EXPERIMENT), "pretrained"))


def _students(sweep: Sweep) -> list[StudentSpec]:
  # Seeds last: students that differ only in their seed share a trace.
  chosen = [FILES[name] for name in FILES if name not in (TEACHER, *PTQ)]
  return [_student(*choices, seed) for choices in chosen for seed in run_flags.seeds()]


def _student(scheme: str, is_distilled: bool, seed: int) -> StudentSpec:
  fields = {}
  if scheme != FLOAT:
    fields = {"epochs": files.qat_epochs(scheme), "start": _student(FLOAT, is_distilled, seed)}
  return response.labels_or_response(_NAME, is_distilled, seed, scheme=scheme, **fields)


def _measured(sweep: Sweep) -> list[dict]:
  keys = [{"variant": name, "seed": s} for name in FILES for s in ([0] if name == TEACHER else run_flags.seeds())]
  return _run.measured_files(sweep, keys, lambda key: _measure(sweep, key["variant"], key["seed"]))


def _measure(sweep: Sweep, name: str, seed: int) -> dict:
  """Writes one file and measures it on the whole test set."""
  scheme, is_distilled = FILES[name]
  student = None if name == TEACHER else _student(scheme, is_distilled, seed)
  model = sweep.load_teacher() if student is None else sweep.load(student)
  path = sweep.path("files", f"{name.replace(' ', '_')}-seed{seed}.tflite")
  options = {"representative_data": sweep.examples.batches("train", shuffle_seed=0)} if name in PTQ else {}
  return files.measure(sweep, model, student, path, name, **options)


def _write_report(sweep: Sweep, rows: list[dict]) -> str:
  (trained,) = sweep.results.find(role="teacher")
  return write_report(sweep.path(), trained, rows)


EXPERIMENT = Experiment(
  _NAME,
  PRESETS,
  _students,
  _write_report,
  check=_check,
  measure=_measured,
  data=networks.source,
  configure=_configured,
)
