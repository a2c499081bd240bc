"""The students of the compression table, and the files that are made of them and measured."""

from absl import flags

from experiments import files, response, run_flags
from experiments._run import Experiment, measured_files
from experiments.compression.report import write_report
from experiments.compression.variants import FILES, FLOAT_STUDENT, FLOAT_TEACHER, PTQ_INT4, PTQ_INT8, TRAINED
from tfkd import quantization
from tfkd.sweeps import FLOAT, StudentSpec, Sweep

_EXPERIMENT = "compression"
_COMMON = {
  "dataset": "house_numbers",
  "teacher": "svhn_cnnx2",
  "student": "svhn_cnn",
  "temperature": 5.0,
  "alpha": 0.8,
  "scheme": FLOAT,
}
PRESETS = {
  "quick": _COMMON | {"teacher_epochs": 1, "epochs": 2, "qat_epochs": 1, "seeds": [0]},
  "full": _COMMON | {"teacher_epochs": 8, "epochs": 4, "qat_epochs": 3, "seeds": [0, 1, 2]},
}


def _students(sweep: Sweep) -> list[StudentSpec]:
  return [
    student
    for seed in run_flags.seeds()
    for student in (_float_student(seed), *(_student(*choices, seed) for choices in TRAINED.values()))
  ]


def _float_student(seed: int) -> StudentSpec:
  return StudentSpec(_EXPERIMENT, "labels", FLOAT, seed)


def _student(scheme: str, is_distilled: bool, seed: int) -> StudentSpec:
  given = flags.FLAGS
  if quantization.parse_scheme(scheme).starts_from_float:
    fields = {"epochs": files.qat_epochs(scheme), "start": _float_student(seed)}
  else:
    fields = {"epochs": given.epochs + files.qat_epochs(scheme)}
  return response.labels_or_response(_EXPERIMENT, is_distilled, seed, scheme=scheme, **fields)


def _measured(sweep: Sweep) -> list[dict]:
  # The float student's file first: the others are timed in turns with it.
  names = sorted(FILES, key=lambda name: name != FLOAT_STUDENT)
  keys = [{"variant": name, "seed": seed} for seed in run_flags.seeds() for name in names]
  return measured_files(sweep, keys, lambda key: _measure(sweep, key["variant"], key["seed"]))


def _measure(sweep: Sweep, name: str, seed: int) -> dict:
  """Writes one file and measures it."""
  path = _path(sweep, name, seed)
  student = _trained(name, seed)
  model = sweep.load_teacher() if student is None else sweep.load(student)
  options = {}
  if name == PTQ_INT8:
    options["representative_data"] = sweep.examples.batches("train", shuffle_seed=0)
  elif name == PTQ_INT4:
    # The converter's post-training quantization has no four bits; this uses the grid of the trained students.
    model = quantization.quantize(model, "w4a8", calibration_data=sweep.examples.batches("train", shuffle_seed=0))
  return files.measure(sweep, model, student, path, name, timed_with=_path(sweep, FLOAT_STUDENT, seed), **options)


def _path(sweep: Sweep, name: str, seed: int) -> str:
  return sweep.path("files", f"{name.replace(' ', '_')}-seed{seed}.tflite")


def _trained(name: str, seed: int) -> StudentSpec | None:
  """Returns the student that a file is made of; None for the teacher."""
  if name == FLOAT_TEACHER:
    return None
  return _student(*TRAINED[name], seed) if name in TRAINED else _float_student(seed)


def _write_report(sweep: Sweep, rows: list[dict]) -> str:
  (teacher,) = sweep.results.find(role="teacher")
  return write_report(sweep.path(), teacher, rows, flags.FLAGS.student)


EXPERIMENT = Experiment("compression", PRESETS, _students, _write_report, check=files.check_flags, measure=_measured)
