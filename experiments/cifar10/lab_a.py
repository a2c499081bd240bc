"""Laboratory A: offline distillation on CIFAR-10, soft targets against normalized feature matching.

Trains the teacher, then for each seed a student from scratch, one with soft targets and one with feature matching, then
the grid of temperatures and alphas. An interrupted run continues where it stopped.

  python -m experiments.cifar10.lab_a --preset=quick
  python -m experiments.cifar10.lab_a --preset=full --mixed_precision=float16
"""

from experiments import _run
from experiments.cifar10 import laboratory

PUBLISHED = {"teacher": (0.44, 89.60), "labels": (0.53, 89.05), "response": (1.85, 88.91), "feature": (0.26, 87.16)}
PUBLISHED_GRID = {(10.0, 0.8): 88.91, (5.0, 0.8): 89.21, (50.0, 0.8): 86.19, (15.0, 0.8): 87.20, (4.0, 0.5): 88.49}
PRESETS = laboratory.presets(
  {
    "temperature": 5.0,
    "alpha": 0.8,
    "grid": [f"{t:g}:{alpha:g}" for t, alpha in PUBLISHED_GRID],
    "stages": ["layer1", "layer2", "layer3"],
    "feature_loss": "normalized",
    "feature_weight": 100.0,
    "feature_hard_weight": 1.0,
  },
  {
    "quick": {"teacher": "resnet14", "student": "resnet8", "teacher_epochs": 5},
    "cpu": {"teacher": "resnet20", "student": "resnet8", "teacher_epochs": 12, "epochs": 10},
    "full": {"teacher": "resnet56", "student": "resnet20"},
  },
)

if __name__ == "__main__":
  _run.main(laboratory.experiment("lab_a", PRESETS, PUBLISHED, PUBLISHED_GRID))
