"""Teacher and students of MLPerf Tiny's image classification, and the files that are made of them and measured."""

import os

import tf_keras as keras
from absl import flags

from experiments import _run, files, response, run_flags
from experiments._run import Experiment
from experiments.mlperf_tiny import reference
from experiments.mlperf_tiny.report import TEACHER, write_report
from experiments.mlperf_tiny.variants import FLOAT_LABELS, METHODS, SOFT_TARGETS, Variant, variants
from tfkd import data, deploy, models
from tfkd.preprocessing import Preprocessing
from tfkd.quantization import parse_scheme
from tfkd.sweeps import FLOAT, ArrayData, StudentSpec, Sweep, SweepConfig

flags.DEFINE_string(
  "reference_dir",
  None,
  "Directory with the TFLite files of mlcommons/tiny, benchmark/training/image_classification/trained_models. The "
  "teacher starts from IC02's weights, and the files are measured too. By default the teacher starts from random "
  "weights.",
)

flags.DEFINE_list("schemes", None, "Schemes of the quantized students, separated by commas. [preset]")
flags.DEFINE_list("methods", None, f"Methods beside soft targets: {', '.join(METHODS)}. [preset]")
flags.register_validator(
  "schemes", run_flags.every(parse_scheme, bool), "expected schemes such as w8a8, separated by commas"
)
flags.register_validator(
  "methods", lambda names: METHODS.keys() >= set(names or ()), f"expected some of {', '.join(METHODS)}"
)

_NAME = "mlperf_tiny"
_COMMON = {
  "student": "mlperf_resnet8",
  "augment": True,
  "temperature": 4.0,
  "alpha": 0.8,
  "scheme": FLOAT,
  "teacher_learning_rate": 2e-4,
}
PRESETS = {
  "quick": _COMMON
  | {
    "limit_train": 5000,
    "teacher_epochs": 1,
    "epochs": 2,
    "qat_epochs": 1,
    "views": 1,
    "seeds": [0],
    "schemes": ["w8a8"],
    "methods": [],
  },
  "full": _COMMON
  | {
    "teacher_epochs": 5,
    "epochs": 20,
    "qat_epochs": 3,
    "two_bit_epochs": 10,
    "views": 8,
    "seeds": [0, 1, 2],
    "schemes": ["w8a8", "w4a8", "w4a4-lsq", "w2a2-lsq"],
    "methods": list(METHODS),
  },
}


def _variants() -> list[Variant]:
  return variants(flags.FLAGS.schemes, flags.FLAGS.methods)


def _check() -> None:
  given = flags.FLAGS
  files.check_flags("teacher", "dataset", "teacher_checkpoint", "student_checkpoint")
  if given.reference_dir is not None:
    for name in reference.FILES:
      reference.path(given.reference_dir, name)


def _data() -> ArrayData:
  given, photographs = flags.FLAGS, data.info("cifar10")
  return ArrayData(
    photographs.load_arrays("train", data_dir=given.data_dir, limit=given.limit_train),
    photographs.load_arrays("test", data_dir=given.data_dir),
    photographs.classes,
    name=photographs.name if given.data_dir is None else f"{photographs.name} (JPEG copies)",
    scale_pixels=True,
    preprocessing=Preprocessing(std=1 / 255),  # The reference networks read pixel values in [0, 255].
    augment=photographs.augment,
  )


def _configured(config: SweepConfig) -> SweepConfig:
  teacher = ic02 if flags.FLAGS.reference_dir is None else ic02_reference
  return config._replace(teacher=teacher, limit_train=None)


def ic02(num_classes: int, input_shape: tuple[int, ...]) -> keras.Model:
  """Builds IC02's network with random weights."""
  return models.build("mlperf_resnet8x2.5", num_classes, input_shape)


def ic02_reference(num_classes: int, input_shape: tuple[int, ...]) -> keras.Model:
  """Builds IC02's network with the weights of its float file."""
  model = models.mlperf_resnet8(num_classes, input_shape, filters=40, has_normalization=False, name="ic02")
  reference.load_weights(model, reference.path(flags.FLAGS.reference_dir, "IC02 float"))
  return model


def _students(sweep: Sweep) -> list[StudentSpec]:
  # Seeds last: students that differ only in their seed share a trace.
  return [_student(variant, seed) for variant in _variants() if not variant.is_ptq for seed in run_flags.seeds()]


def _student(variant: Variant, seed: int) -> StudentSpec:
  fields = {}
  if variant.scheme != FLOAT:
    fields = {"epochs": files.qat_epochs(variant.scheme), "start": _student(Variant(FLOAT, variant.method), seed)}
  if variant.method in METHODS:
    return StudentSpec(_NAME, variant.method, variant.scheme, seed, METHODS[variant.method], **fields)
  is_distilled = variant.method == SOFT_TARGETS
  return response.labels_or_response(_NAME, is_distilled, seed, scheme=variant.scheme, **fields)


def _measured(sweep: Sweep) -> list[dict]:
  seeds = run_flags.seeds()
  found = {variant.name: variant for variant in _variants()}
  names = list(reference.FILES) if flags.FLAGS.reference_dir else []
  # Float files of the first seed first: the others are timed in turns with it.
  keys = [{"variant": name, "seed": seed} for name in found for seed in seeds]
  keys += [{"variant": name, "seed": seeds[0]} for name in (TEACHER, *names)]

  def measure(key):
    name, seed = key["variant"], key["seed"]
    if name in names:
      return _measure_reference(sweep, name)
    return _measure(sweep, found.get(name), seed)

  return _run.measured_files(sweep, keys, measure)


def _measure(sweep: Sweep, variant: Variant | None, seed: int) -> dict:
  """Writes the file of a student, or of the teacher, and measures it."""
  student = None if variant is None else _student(variant, seed)
  model = sweep.load_teacher() if student is None else sweep.load(student)
  name = TEACHER if variant is None else variant.name
  options = {"timed_with": _path(sweep, FLOAT_LABELS.name, run_flags.seeds()[0])}
  if variant is not None and variant.is_ptq:
    options["representative_data"] = sweep.examples.batches("train", shuffle_seed=0)
  return files.measure(sweep, model, student, _path(sweep, name, seed), name, **options)


def _measure_reference(sweep: Sweep, name: str) -> dict:
  """Measures a published file on the same images."""
  path = reference.path(flags.FLAGS.reference_dir, name)
  row = deploy.evaluate(path, sweep.examples.batches("test"))
  row |= deploy.benchmark(path, 1, _path(sweep, FLOAT_LABELS.name, run_flags.seeds()[0]))
  return row | {"bytes": os.path.getsize(path)}


def _path(sweep: Sweep, name: str, seed: int) -> str:
  return sweep.path("files", f"{name.replace(', ', '-').replace(' ', '_')}-seed{seed}.tflite")


def _write_report(sweep: Sweep, rows: list[dict]) -> str:
  (teacher,) = sweep.results.find(role="teacher")
  return write_report(sweep.path(), teacher, rows, _variants())


EXPERIMENT = Experiment(
  _NAME,
  PRESETS,
  _students,
  _write_report,
  check=_check,
  measure=_measured,
  data=_data,
  configure=_configured,
)
