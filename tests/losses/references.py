"""Float64 numpy versions of the losses, written from the papers with loops, and the cases to compare them on."""

import math

import numpy as np


def _distribution(logits, temperature):
  """softmax(logits / T) and its logarithm for one row."""
  scaled = [float(z) / temperature for z in logits]
  largest = max(scaled)
  total = math.fsum(math.exp(z - largest) for z in scaled)
  logs = [z - largest - math.log(total) for z in scaled]
  return [math.exp(v) for v in logs], logs


def soft_target_cross_entropy(teacher_logits, student_logits, temperature):
  losses = []
  for teacher, student in zip(teacher_logits, student_logits, strict=True):
    p, _ = _distribution(teacher, temperature)
    _, log_q = _distribution(student, temperature)
    losses.append(-math.fsum(a * b for a, b in zip(p, log_q, strict=True)))
  return np.array(losses)


def soft_target_kl(teacher_logits, student_logits, temperature):
  losses = []
  for teacher, student in zip(teacher_logits, student_logits, strict=True):
    p, log_p = _distribution(teacher, temperature)
    _, log_q = _distribution(student, temperature)
    losses.append(math.fsum(a * (b - c) for a, b, c in zip(p, log_p, log_q, strict=True)))
  return np.array(losses)


def tempered_cross_entropy(target_probabilities, student_logits, temperature):
  losses = []
  for target, student in zip(target_probabilities, student_logits, strict=True):
    _, log_q = _distribution(student, temperature)
    losses.append(-math.fsum(float(a) * b for a, b in zip(target, log_q, strict=True)))
  return np.array(losses)


# name: (reference, whether the first argument is a row of probabilities)
CASES = {
  "soft_target_cross_entropy": (soft_target_cross_entropy, False),
  "soft_target_kl": (soft_target_kl, False),
  "tempered_cross_entropy": (tempered_cross_entropy, True),
}
