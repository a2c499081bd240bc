"""The students of each question of the SVHN homework.

The homework measured its published accuracies on one minibatch of 256; this package uses the full test set.
"""

from collections.abc import Sequence
from typing import Any

from tfkd.objectives import SoftTargets
from tfkd.quantization import parse_scheme
from tfkd.sweeps import FLOAT, StudentSpec

PUBLISHED_Q1 = {"teacher": 96.09, "labels": 91.02, "teacher labels": 89.45}
PUBLISHED = {
  "q2": {5.0: 93.36, 15.0: 88.67, 25.0: 91.02, 50.0: 86.94, 100.0: 91.80},
  "q3": {5.0: 87.89, 15.0: 90.63, 25.0: 89.84, 50.0: 91.41, 100.0: 89.84},
  "q4": {5.0: 87.89, 15.0: 89.84, 25.0: 87.50, 50.0: 90.63, 100.0: 87.50},
}
FORM = "cross_entropy"  # As in the homework; its gradient equals that of the divergence.
METHODS = {"q2": "soft", "q3": "hard + soft", "q4": "hard + label soft"}


def students(
  question: str, scheme: str, temperatures: Sequence[float], seeds: Sequence[int], soft_weight: float
) -> list[StudentSpec]:
  """Lists the students of a question.

  q1: ground-truth labels alone; and the teacher's class probabilities at T = 1 alone.
  q2: soft cross-entropy from the teacher alone.
  q3: hard loss + soft_weight * T^2 * soft cross-entropy from the teacher.
  q4: as q3, with the ground-truth labels in place of the teacher.

  Args:
    question: "q1" to "q4".
    scheme: quantization scheme of every student.
    temperatures: temperatures of q2 to q4.
    seeds: students of one seed start from the same weights and train on the same order of images.
    soft_weight: weight of the soft loss in q3 and q4.

  Returns:
    Students, seed by seed, so that an interrupted sweep has whole seeds.
  """
  per_seed: list[dict[str, Any]]
  if question == "q1":
    per_seed = [
      {"method": "labels"},
      {"method": "teacher labels", "objectives": (SoftTargets(1.0, form=FORM),), "hard_loss_weight": 0.0},
    ]
  else:
    per_seed = [
      {
        "method": METHODS[question],
        "temperature": temperature,
        "choices": {} if question == "q2" else {"soft_weight": soft_weight},
        "objectives": (
          SoftTargets(
            temperature,
            weight=1.0 if question == "q2" else soft_weight,
            form=FORM,
            source="labels" if question == "q4" else "teacher",
          ),
        ),
        "hard_loss_weight": 0.0 if question == "q2" else 1.0,
      }
      for temperature in temperatures
    ]
  # Students with eight-bit features fine-tune trained weights, as tfmot advises; coarser grids train from scratch.
  start = "teacher" if scheme != FLOAT and parse_scheme(scheme).starts_from_float else "scratch"
  common = {"experiment": question, "scheme": scheme, "start": start}
  return [StudentSpec(seed=seed, **common, **fields) for seed in seeds for fields in per_seed]
