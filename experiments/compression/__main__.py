r"""One network as files of fewer and fewer bits, quantized after its training, in it, and in it with a teacher.

Every file is measured on the whole test set, and on one thread in turns with the float student's. Students of eight and
four bits go on from the float student of their seed; those of two train from scratch, as long as both trainings
together. Half an hour on two cores at --preset=full, and resumed where it was interrupted.

  python -m experiments.compression --preset=quick
  python -m experiments.compression --preset=full
  python -m experiments.compression --preset=full --dataset=cifar10 --data_dir=cifar10_train_jpeg.tar.xz \
    --limit_train=20000 --teacher=resnet20 --student=resnet8 --teacher_epochs=10 --epochs=5 --qat_epochs=2 \
    --augment --views=8
"""

import os

import numpy as np
from absl import app, flags, logging

from experiments import response, run_flags
from tfkd import deploy, quantization, reporting
from tfkd.reporting import (
  compare,
  format_mean_std,
  markdown_table,
  mean_and_std,
  new_figure,
  save_figure,
)
from tfkd.sweeps import FLOAT, Results, StudentSpec, Sweep
from tfkd.sweeps.export import file_metadata

flags.adopt_module_key_flags(run_flags)  # So that --help lists them.
flags.adopt_module_key_flags(response)
flags.DEFINE_integer("qat_epochs", None, "Epochs of quantization-aware students after the float ones'. [preset]", 1)

PICTURE = "accuracy_against_bytes.png"
_HEADER = [
  "model", "accuracy", "parameters", "file, bytes", "of float", "median, ms", "p95, ms", "of float", "agreement",
]  # fmt: skip
_QUESTION = "compression"
_COMMON = {
  "dataset": "house_numbers", "teacher": "svhn_cnn", "student": "svhn_cnn", "teacher_epochs": 5, "temperature": 5.0,
  "alpha": 0.8, "scheme": FLOAT,
}  # fmt: skip
PRESETS = {
  "quick": _COMMON | {"epochs": 2, "qat_epochs": 1, "seeds": [0]},
  "full": _COMMON | {"epochs": 4, "qat_epochs": 3, "seeds": [0, 1, 2]},
}

# Those that were trained with their quantization: scheme, and whether a teacher took part.
TRAINED = {
  "QAT int8": ("w8a8", False),
  "QAT int8 + distillation": ("w8a8", True),
  "QAT int4": ("w4a8", False),
  "QAT int4 + distillation": ("w4a8", True),
  "w2a1": ("w2a1", False),
  "w2a1 + distillation": ("w2a1", True),
}
FLOAT_TEACHER, FLOAT_STUDENT, PTQ_INT8, PTQ_INT4 = "float teacher", "float student", "PTQ int8", "PTQ int4"
FILES = (
  FLOAT_TEACHER, FLOAT_STUDENT, PTQ_INT8, "QAT int8", "QAT int8 + distillation", PTQ_INT4, "QAT int4",
  "QAT int4 + distillation", "w2a1", "w2a1 + distillation",
)  # fmt: skip


def main(argv):
  run_flags.start(argv, PRESETS)
  given = flags.FLAGS
  if given.scheme != FLOAT:
    raise app.UsageError(f"--scheme={given.scheme}: the table has every scheme of its own.")
  workdir = given.workdir or os.path.join("runs", "compression", given.dataset)
  with run_flags.errors_without_traceback():
    sweep = Sweep(workdir, run_flags.training(), overwrite=given.overwrite)
    students = []
    for seed in run_flags.seeds():
      students.append(_float_student(seed))
      students += [_student(*choices, seed) for choices in TRAINED.values()]
    sweep.run(students)
    if not sweep.writes:
      return
    rows = _measured(sweep, run_flags.seeds())
    (teacher,) = sweep.results.find(role="teacher")
  print(_write_report(workdir, teacher, rows, given.student))  # noqa: T201  (the answer)


def _float_student(seed):
  return StudentSpec(_QUESTION, "labels", FLOAT, seed)


def _student(scheme, is_distilled, seed):
  given = flags.FLAGS
  is_low = quantization.parse_scheme(scheme).is_low
  fields = {"epochs": given.epochs + given.qat_epochs} if is_low else {
    "epochs": given.qat_epochs, "start": _float_student(seed)
  }  # fmt: skip
  if not is_distilled:
    return StudentSpec(_QUESTION, "labels", scheme, seed, **fields)
  student = response.response(_QUESTION, "labels + teacher", seed, given.temperature, given.alpha, **fields)
  return student._replace(scheme=scheme)


def _measured(sweep, seeds):
  """Rows of all files: those of an earlier run, and with them what is missing."""
  results = Results(sweep.path("files.jsonl"))
  for seed in seeds:
    # The float student's file first: the others' latency is compared with it.
    for name in sorted(FILES, key=lambda name: name != FLOAT_STUDENT):
      if not results.find(variant=name, seed=seed):
        row = _measure(sweep, name, seed)
        logging.info("%s, seed %d: %.2f %%, %d bytes", name, seed, 100 * row["accuracy"], row["bytes"])
        results.add({"variant": name, "seed": seed, **row})
  return [row for row in results.rows() if row["seed"] in seeds]


def _measure(sweep, name, seed):
  """Writes one file and measures it."""
  path = _path(sweep, name, seed)
  student = _trained(name, seed)
  model = sweep.load_teacher() if student is None else sweep.load(student)
  options = {}
  if name == PTQ_INT8:
    options["representative_data"] = sweep.examples.batches("train", shuffle_seed=0)
  elif name == PTQ_INT4:
    # The converter's own quantization after training has no four bits; the grid is that of the trained ones.
    model = quantization.quantize(model, "w4a8", calibration_data=sweep.examples.batches("train", shuffle_seed=0))
  fields = file_metadata(run_flags.training(), sweep.examples.info, student) | {"method": name}
  deploy.to_tflite(model, path, labels=sweep.examples.info.classes, metadata=fields, **options)
  row = deploy.evaluate(path, sweep.examples.batches("test"), model)
  deploy.write_metadata(path, accuracy=round(row["accuracy"], 4))
  row |= deploy.benchmark(path, 1, _path(sweep, FLOAT_STUDENT, seed))
  row |= {"parameters": quantization.sizes(model)["parameters"], "bytes": os.path.getsize(path)}
  bits = quantization.scheme_of(model)
  if bits is not None and bits.is_low:
    # Its TFLite file is a float one that shows the arithmetic; what is sent is the pack, restored here.
    pack = path.replace(".tflite", ".pack")
    row["bytes"] = deploy.pack(model, pack)
    restored = deploy.unpack(pack)
    restored.compile(metrics=["accuracy"])
    row["accuracy"] = restored.evaluate(sweep.examples.batches("test"), verbose=0, return_dict=True)["accuracy"]
  return row


def _path(sweep, name, seed):
  return sweep.path("files", f"{name.replace(' ', '_')}-seed{seed}.tflite")


def _trained(name, seed):
  """The student that a file is made of; None of the teacher."""
  if name == FLOAT_TEACHER:
    return None
  return _student(*TRAINED[name], seed) if name in TRAINED else _float_student(seed)


def _write_report(workdir, teacher, rows, student):
  """Writes `report.md` and the picture into the workdir.

  Args:
    workdir: where to.
    teacher: its row of the results.
    rows: of all files, one for each variant and seed.
    student: the network's name.

  Returns:
    The report's text, with the paths of both files at its end.
  """
  groups = {name: [row for row in rows if row["variant"] == name] for name in FILES}
  baseline = groups[FLOAT_STUDENT]
  seeds = sorted({row["seed"] for row in rows})
  title = f"{student} on {teacher['dataset']}"
  text = (
    f"# Files: {title}\n\n"
    f"Accuracy of the files in percent on all {teacher['test_images']:,} test images, mean ± standard deviation over "
    f"seeds ({', '.join(map(str, seeds))}); the teacher is one. Bytes and time of an image on one thread stand beside "
    "the float student's, with which each file took turns. Agreement: the least share, in percent, of images of which "
    "a file and its Keras model choose the same class.\n\n"
  )
  table = [_row(name, found, baseline) for name, found in groups.items()]
  text += markdown_table(_HEADER, table)
  text += (
    "\nFiles of w2a1 are packs, restored for this. No kernel of LiteRT computes in these bits: their latency is that "
    f"of a float file with the same arithmetic.\n\n{_fidelity(groups)}\n\n{_order(groups)}\n\n![Accuracy against bytes]"
    f"({PICTURE})\n"
  )
  _accuracy_against_bytes(
    os.path.join(workdir, PICTURE),
    {name: (_mean(found, "bytes"), _all(found, "accuracy")) for name, found in groups.items()},
    f"Files of {title}",
  )
  return reporting.write_report(workdir, text, [PICTURE])


def _row(name, rows, baseline):
  size = _mean(rows, "bytes")
  return [
    name,
    format_mean_std(_all(rows, "accuracy") if name != FLOAT_TEACHER else [rows[0]["accuracy"]], 100),
    f"{rows[0]['parameters']:,}",
    f"{size:,.0f}",
    f"{size / _mean(baseline, 'bytes'):.3f}",
    f"{np.median(_all(rows, 'median_ms')):.3f}",
    f"{np.median(_all(rows, 'p95_ms')):.3f}",
    f"{np.median(_all(rows, 'ratio')):.2f}",
    f"{100 * min(_all(rows, 'agreement')):.2f}",
  ]


def _fidelity(groups):
  """How far the files are from the Keras models that were trained with their quantization."""
  rows = [row for name in TRAINED for row in groups[name]]
  apart = max(abs(row["accuracy"] - row["student_accuracy"]) for row in rows)
  steps = max(row["worst_steps"] or 0 for row in rows)
  agreement = min(_all(rows, "agreement"))
  return (
    f"At worst, the accuracy of a file trained with its quantization is {100 * apart:.2f} points from its Keras "
    f"model's, {100 * agreement:.2f} % of the images have the same class, and a logit is {steps:.0f} steps of the "
    "output's grid away."
  )


def _order(groups):
  """What four bits keep: trained with its quantization against after it, and with a teacher against without."""
  ptq, qat, distilled = (_all(groups[name], "accuracy") for name in (PTQ_INT4, "QAT int4", "QAT int4 + distillation"))
  return (
    f"{compare('QAT at int4', qat, 'PTQ', ptq)} {compare('with distillation it', distilled, 'QAT alone', qat)} "
    + compare("a w2a1 student with distillation", _all(groups["w2a1 + distillation"], "accuracy"), "w2a1 alone",
              _all(groups["w2a1"], "accuracy"))
  )  # fmt: skip


def _all(rows, field):
  return [row[field] for row in rows]


def _mean(rows, field):
  return float(np.mean(_all(rows, field)))


def _accuracy_against_bytes(path, groups, title):
  """Draws accuracy over the size of a file, with stds over seeds; a line joins those that none beats in both.

  Args:
    path: `.png` to write.
    groups: dict from label to (bytes, list of accuracies in [0, 1]).
    title: above the picture.
  """
  figure, axes = new_figure(8, 4.8)
  points = {label: (size / 1000, *mean_and_std(values, 100)) for label, (size, values) in groups.items()}
  best = []
  for size, mean, _ in sorted(points.values(), key=lambda point: (point[0], -point[1])):
    if not best or mean > best[-1][1]:
      best.append((size, mean))
  axes.step(*zip(*best, strict=True), where="post", color="0.7", linewidth=1.2, zorder=0)
  for number, (label, (size, mean, std)) in enumerate(points.items()):
    marker = "o" if number < 10 else "s"
    axes.errorbar(size, mean, std, marker=marker, capsize=3, linestyle="none", label=f"{label}: {mean:.1f} %")
  axes.set_xscale("log")
  axes.xaxis.get_major_locator().set_params(subs=(1, 2, 5))
  axes.xaxis.set_major_formatter("{x:g}")
  axes.xaxis.set_minor_formatter("")
  axes.set_xlabel("bytes of the file, thousands")
  axes.set_ylabel("test accuracy, %")
  axes.set_title(title, fontsize=10)
  axes.grid(alpha=0.3, which="both")
  axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
  save_figure(figure, path)


if __name__ == "__main__":
  app.run(main)
