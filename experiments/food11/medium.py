"""Medium baseline: the sample student learns from labels and from the teacher's logits.

The loss is alpha * T^2 * KL(teacher || student) + (1 - alpha) * cross-entropy, with both distributions at temperature
T. The published solution of the homework instead takes the mean over all elements of teacher_prob * (log teacher_prob -
student_prob): a probability in place of the student's log-probability, and a mean over classes in place of a sum. This
script uses the formula.

  python -m experiments.food11.medium --data_dir=food11
"""

from experiments import _run
from experiments.food11 import baselines

if __name__ == "__main__":
  _run.main(baselines.experiment("medium"))
