"""All objectives on one teacher and one student: accuracy over seeds, and what a step costs.

The teacher is the SVHN homework's network, the student the same network at half its width; every student has the same
labels, epochs and steps. Layers and weights suit this pair and were not searched. About 45 minutes on two cores at
--preset=full, and resumed where it was interrupted.

  python -m experiments.methods --preset=quick
  python -m experiments.methods --preset=full --dataset=cifar10 --data_dir=cifar10_train_jpeg.tar.xz --limit_train=20000
"""

import json
import os

from absl import app, flags, logging

from experiments import run_flags
from tfkd import objectives as o
from tfkd.ops.timing import median_ratio
from tfkd.reporting import accuracy_by_method, format_mean_std, markdown_table, write_text
from tfkd.storage.files import atomic_path
from tfkd.sweeps import FLOAT, StudentSpec, Sweep

flags.adopt_module_key_flags(run_flags)  # So that --help lists them.

BASELINE = "labels"
FIVE_OBJECTIVES = "five_objectives"
PICTURE = "accuracy_by_method.png"
STAGES = ["relu2", "relu4", "relu6"]
BEFORE_RELU = ["bn2", "bn4", "bn6"]
LAST = "relu6"
EMBEDDING = "flatten"

# Name: objectives, the weights of which are set for this pair of networks. Labels have weight 1 beside them.
METHODS = {
  BASELINE: (),
  "soft_targets": (o.SoftTargets(4.0),),
  "soft_targets_standardized": (o.SoftTargets(2.0, weight=0.3, standardize=True),),
  "decoupled": (o.Decoupled(4.0, beta=2.0),),
  "normalized": (o.Normalized(),),
  "dist": (o.Dist(weight=0.3),),
  "multi_level": (o.MultiLevel(weight=0.01),),
  "transformed_teacher": (o.TransformedTeacher(4.0),),
  "learned_temperature": (o.LearnedTemperature(),),
  "hint": (o.Hint("relu4", "relu4", weight=0.1, connector="conv1x1"),),
  "euclidean": (o.Euclidean("relu4", "relu4", weight=0.02, connector="conv1x1"),),
  "normalized_feature_matching": (o.NormalizedFeatureMatching(STAGES, STAGES, weight=20.0, connector="conv1x1"),),
  "attention_transfer": (o.AttentionTransfer(STAGES, STAGES, weight=20.0),),
  "attention_transfer_paper": (o.AttentionTransfer(STAGES, STAGES, weight=1.0, form="paper"),),
  "neuron_selectivity": (o.NeuronSelectivity(LAST, LAST, weight=2.0),),
  "similarity_preserving": (o.SimilarityPreserving(LAST, LAST, weight=500.0),),
  "flow_of_solution_procedure": (
    o.FlowOfSolutionProcedure(["relu2", "relu4"], ["relu2", "relu4"], weight=1.0, connector="conv1x1"),
  ),
  "kdsvd": (o.KDSVD(STAGES, STAGES, connector="conv1x1"),),
  "activation_boundary": (o.ActivationBoundary("bn6", "bn6", weight=1e-4),),
  "factor_transfer": (o.FactorTransfer(LAST, LAST, weight=200.0),),
  "variational_information": (o.VariationalInformation(STAGES, STAGES),),
  "review_kd": (o.ReviewKD([*STAGES, EMBEDDING], [*STAGES, EMBEDDING]),),
  "ofd": (o.OFD(BEFORE_RELU, BEFORE_RELU),),
  "sim_kd": (o.SimKD(LAST),),
  "srd": (o.SRD(EMBEDDING, EMBEDDING, weight=1.0),),
  "ickd": (o.ICKD(LAST, LAST, weight=1.0),),
  "rkd": (o.RKDDistance(EMBEDDING, EMBEDDING, weight=0.3), o.RKDAngle(EMBEDDING, EMBEDDING, weight=0.6)),
  "distance_metric": (o.DistanceMetric(EMBEDDING, EMBEDDING, weight=0.002),),
  "correlation_congruence": (o.CorrelationCongruence(EMBEDDING, EMBEDDING, weight=0.3),),
  "probabilistic_transfer": (o.ProbabilisticTransfer(EMBEDDING, EMBEDDING),),
  "contrastive": (o.Contrastive(EMBEDDING, EMBEDDING, weight=0.05, queue_size=512),),
  # On four layers: what a step costs when much is asked of it.
  FIVE_OBJECTIVES: (
    o.SoftTargets(4.0),
    o.Hint(["relu2", "relu4"], ["relu2", "relu4"], weight=0.1, connector="conv1x1"),
    o.AttentionTransfer(STAGES, STAGES, weight=10.0),
    o.SimilarityPreserving(LAST, LAST, weight=100.0),
    o.RKDDistance(EMBEDDING, EMBEDDING, weight=1.0),
  ),
}

flags.DEFINE_multi_enum("method", None, METHODS, "Train only this method beside the baseline; may be repeated.")

_COMMON = {
  "dataset": "house_numbers", "scheme": FLOAT, "teacher": "svhn_cnn", "student": "svhn_cnnx0.5", "epochs": 4,
  "teacher_epochs": 5,
}  # fmt: skip
PRESETS = {"quick": _COMMON | {"seeds": [0]}, "full": _COMMON | {"seeds": [0, 1, 2]}}


def main(argv):
  run_flags.start(argv, PRESETS)
  given = flags.FLAGS
  workdir = given.workdir or os.path.join("runs", "methods", given.dataset)
  methods = list(dict.fromkeys([BASELINE, *(given.method or METHODS)]))
  with run_flags.errors_without_traceback():
    sweep = Sweep(workdir, run_flags.training(), overwrite=given.overwrite)
    sweep.run([_student(method, seed) for seed in run_flags.seeds() for method in methods])
    seconds = _step_seconds(sweep, [method for method in METHODS if sweep.rows(_student(method, 0))])
  if sweep.writes:
    print(_write_report(workdir, sweep, seconds))  # noqa: T201  (the answer)


def _student(method, seed):
  return StudentSpec(
    experiment="methods",
    method=method,
    scheme=flags.FLAGS.scheme,
    seed=seed,
    objectives=METHODS[method],
    adapt=_with_teachers_classifier if method == "sim_kd" else None,
  )


def _with_teachers_classifier(teacher, student):
  return o.simkd_student(teacher, student, LAST, LAST)


def _step_seconds(sweep, methods):
  """Seconds of a step of each method, one for each round of turns; kept, since they take minutes to trace."""
  path = sweep.path("costs", f"{flags.FLAGS.scheme}.json")
  if os.path.exists(path):
    with open(path, encoding="utf-8") as file:
      seconds = json.load(file)
    if set(methods) <= set(seconds):
      return seconds
  logging.info("timing a training step of %d methods", len(methods))
  seconds = sweep.step_seconds({method: _student(method, 0) for method in methods})
  if sweep.writes:
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
      json.dump(seconds, file)
  return seconds


def _write_report(workdir, sweep, seconds):
  """Writes `report.md` and the picture; returns the text with the paths of both."""
  (teacher,) = sweep.results.find(role="teacher")
  found = {method: rows for method in METHODS if (rows := sweep.rows(_student(method, 0)))}
  accuracies = {method: [row["accuracy"] for row in rows] for method, rows in found.items()}
  ordered = sorted(accuracies, key=lambda method: -sum(accuracies[method]) / len(accuracies[method]))
  baseline = {row["seed"]: row["accuracy"] for row in found[BASELINE]}
  table = [
    [
      f"`{method}`",
      format_mean_std(accuracies[method], 100),
      format_mean_std([row["accuracy"] - baseline[row["seed"]] for row in found[method]], 100),
      format_mean_std([row["agreement"] for row in found[method]], 100),
      f"{median_ratio(seconds[method], seconds[BASELINE]):.2f}",
    ]
    for method in ordered
  ]
  row = found[BASELINE][0]
  seeds = sorted({row["seed"] for rows in found.values() for row in rows})
  title = f"{row['scheme']} {row['config']['student']} students on {teacher['dataset']}"
  text = (
    f"# Methods: {title}\n\n"
    f"Test accuracy in percent on all {teacher['test_images']:,} test images, mean ± standard deviation over seeds "
    f"({', '.join(map(str, seeds))}). Teacher {100 * teacher['accuracy']:.2f} ({teacher['parameters']:,} parameters), "
    f"students with {row['parameters']:,} parameters, {row['config']['epochs']} epochs of {row['train_images']:,} "
    "images, labels with weight 1 beside every method. Gain: over the student of `labels` with the same seed, the same "
    "initial weights and the same order of images. Cost of a step: median of its time over that of `labels`, which "
    "runs the teacher too, in turns.\n\n"
  )
  text += markdown_table(["method", "accuracy", "gain", "agreement with teacher", "cost of a step"], table)
  if {FIVE_OBJECTIVES, "soft_targets"} <= accuracies.keys():
    ratio = median_ratio(seconds[FIVE_OBJECTIVES], seconds["soft_targets"])
    text += f"\nFive objectives on four layers: {ratio:.2f} of a step with soft targets alone.\n"
  text += f"\n![Accuracy by method]({PICTURE})\n"
  accuracy_by_method(os.path.join(workdir, PICTURE), accuracies, BASELINE, title)
  write_text(os.path.join(workdir, "report.md"), text)
  return f"{text}\nReport: {os.path.join(workdir, 'report.md')}\nPicture: {os.path.join(workdir, PICTURE)}"


if __name__ == "__main__":
  app.run(main)
