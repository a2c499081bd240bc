"""Laboratory B: a ResNet-50 teaches a ResNet-18 on CIFAR-10, by its response and by its four stages.

Trains the teacher, then for each seed a student from scratch, a response-based and a feature-based one, then the grid
of temperatures and alphas. Started again after an interruption, it goes on with what is missing.

  python -m experiments.cifar10.lab_b --preset=quick
  python -m experiments.cifar10.lab_b --preset=full --feature_loss=l2 --alignment=interpolate
"""

from absl import app, flags

from experiments import run_flags
from experiments.cifar10 import laboratory
from tfkd.train import FLOAT

for module in (run_flags, laboratory):
  flags.adopt_module_key_flags(module)  # So that --help lists them.

PUBLISHED = {
  "teacher": (0.4908, 86.14), "labels": (0.4700, 86.47), "response": (0.6681, 87.55), "feature": (2.0341, 86.96),
}  # fmt: skip
# The report searched this grid and gives the chosen setting's accuracy alone.
PUBLISHED_GRID = {(4.0, 0.7): 87.55}

_COMMON = {
  "dataset": "cifar10", "scheme": FLOAT, "augment": True, "optimizer": "sgd", "learning_rate": 0.1,
  "teacher_learning_rate": 0.1, "weight_decay": 5e-3, "temperature": 4.0, "alpha": 0.7,
  "grid": [f"{t}:{alpha}" for t in (1, 4, 8) for alpha in (0.3, 0.7)],
  "stages": ["layer1", "layer2", "layer3", "layer4"], "feature_loss": "mse", "alignment": "average_pool",
  "feature_weight": 1.0, "feature_hard_weight": 0.5,
}  # fmt: skip
PRESETS = {
  # One seed at an eighth of the channels on 5,000 photographs: a few minutes on two cores.
  "quick": _COMMON | {
    "teacher": "resnet50x0.125", "student": "resnet18x0.125", "limit_train": 5_000, "teacher_epochs": 4, "epochs": 4,
    "seeds": [0], "grid": [], "grid_seeds": [0],
  },
  # Under an hour on two cores.
  "cpu": _COMMON | {
    "teacher": "resnet50x0.125", "student": "resnet18x0.125", "limit_train": 20_000, "teacher_epochs": 15, "epochs": 12,
    "seeds": [0, 1, 2], "grid_seeds": [0],
  },
  # The laboratory's size, for a GPU.
  "full": _COMMON | {
    "teacher": "resnet50", "student": "resnet18", "teacher_epochs": 200, "epochs": 200, "seeds": [0, 1, 2],
    "grid_seeds": [0, 1, 2], "mixed_precision": "bfloat16",
  },
}  # fmt: skip


def main(argv):
  laboratory.run(argv, laboratory.Laboratory("lab_b", PRESETS, PUBLISHED, PUBLISHED_GRID))


if __name__ == "__main__":
  app.run(main)
