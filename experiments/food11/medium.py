"""Medium baseline: the sample student learns from the teacher's response.

The loss is alpha * T^2 * KL(teacher || student) + (1 - alpha) * cross-entropy, both distributions at temperature T. The
published solution of the homework takes instead the mean over all elements of teacher_prob * (log teacher_prob -
student_prob): a probability where the student's log-probability belongs, and a mean over classes where a sum does. Ours
is the formula.

  python -m experiments.food11.medium --data_dir=food11
"""

from absl import app, flags

from experiments.food11 import compression

flags.adopt_module_key_flags(compression)  # So that --help lists them.


def main(argv):
  compression.run(argv, ["medium"])


if __name__ == "__main__":
  app.run(main)
