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


def hint(teacher, student):
  return np.array(
    [math.fsum(((t - s) ** 2).ravel()) / t.size for t, s in zip(_f64(teacher), _f64(student), strict=True)]
  )


def euclidean(teacher, student):
  return np.array([np.linalg.norm((t - s).ravel()) for t, s in zip(_f64(teacher), _f64(student), strict=True)])


def normalized_feature_matching(teacher, student, epsilon=1e-8):
  losses = []
  for t, s in zip(_f64(teacher), _f64(student), strict=True):
    t, s = t.reshape(-1, t.shape[-1]), s.reshape(-1, s.shape[-1])
    squares = [
      (a / max(np.linalg.norm(a), epsilon) - b / max(np.linalg.norm(b), epsilon)) ** 2
      for a, b in zip(t, s, strict=True)
    ]
    losses.append(np.mean(squares))
  return np.array(losses)


def attention_transfer(teacher, student, power=2):
  losses = []
  for t, s in zip(_f64(teacher), _f64(student), strict=True):
    maps = []
    for feature in (t, s):
      height, width, channels = feature.shape
      responses = [
        sum(abs(feature[i, j, c]) ** power for c in range(channels)) / channels
        for i in range(height)
        for j in range(width)
      ]
      maps.append(np.array(responses) / np.linalg.norm(responses))
    losses.append(np.mean((maps[0] - maps[1]) ** 2))
  return np.array(losses)


def similarity_preserving(teacher, student):
  matrices = []
  for feature in (_f64(teacher), _f64(student)):
    rows = feature.reshape(len(feature), -1)
    gram = np.array([[a @ b for b in rows] for a in rows])
    matrices.append(np.array([row / np.linalg.norm(row) for row in gram]))
  return np.linalg.norm(matrices[0] - matrices[1], "fro") ** 2 / len(teacher) ** 2


def _distances(embedding):
  return np.array([[np.linalg.norm(a - b) for b in _f64(embedding)] for a in _f64(embedding)])


def _huber(error):
  return 0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5


def rkd_distance(teacher, student):
  relative = []
  for embedding in (teacher, student):
    distances = _distances(embedding)
    relative.append(distances / distances[distances > 0].mean())
  return np.mean([_huber(a - b) for a, b in zip(relative[0].ravel(), relative[1].ravel(), strict=True)])


def rkd_angle(teacher, student):
  n, total = len(teacher), 0.0
  for i in range(n):
    for j in range(n):
      for k in range(n):
        cosines = []
        for x in (_f64(teacher), _f64(student)):
          a, b = x[i] - x[j], x[k] - x[j]
          lengths = np.linalg.norm(a) * np.linalg.norm(b)
          cosines.append(a @ b / lengths if lengths else 0.0)
        total += _huber(cosines[0] - cosines[1])
  return total / n**3


def distance_metric(teacher, student):
  return np.mean((_distances(teacher) - _distances(student)) ** 2)


def probabilistic_transfer(teacher, student):
  neighbours = []
  for x in (_f64(teacher), _f64(student)):
    cosines = np.array([[a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in x] for a in x])
    kernel = (cosines + 1) / 2
    neighbours.append(kernel / kernel.sum(axis=1, keepdims=True))
  p, q = neighbours
  return np.mean([a * math.log((a + 1e-7) / (b + 1e-7)) for a, b in zip(p.ravel(), q.ravel(), strict=True)])


def decoupled(teacher_logits, student_logits, labels, temperature=4.0, alpha=1.0, beta=8.0):
  losses = []
  for teacher, student, label in zip(teacher_logits, student_logits, labels, strict=True):
    (p, _), (q, _) = _distribution(teacher, temperature), _distribution(student, temperature)
    target = p[label] * math.log(p[label] / q[label]) + (1 - p[label]) * math.log((1 - p[label]) / (1 - q[label]))
    rest = 0.0
    for c in range(len(p)):
      if c != label:
        a, b = p[c] / (1 - p[label]), q[c] / (1 - q[label])
        rest += a * math.log(a / b)
    losses.append(temperature**2 * (alpha * target + beta * rest))
  return np.array(losses)


def dist(teacher_logits, student_logits, temperature=1.0, inter_weight=1.0, intra_weight=1.0):
  p = np.array([_distribution(row, temperature)[0] for row in teacher_logits])
  q = np.array([_distribution(row, temperature)[0] for row in student_logits])
  inter = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
  intra = np.mean([1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
  return temperature**2 * (inter_weight * inter + intra_weight * intra)


def _f64(array):
  return np.asarray(array, np.float64)


_MAPS = ((5, 4, 3, 6), (5, 4, 3, 6))
_MAPS_OF_OTHER_WIDTH = ((5, 4, 3, 6), (5, 4, 3, 2))
_EMBEDDINGS = ((6, 5), (6, 3))

# name: (reference, shapes of teacher and student feature, non-default arguments, whether a value for each example)
FEATURE_CASES = {
  "hint": (hint, _MAPS, {}, True),
  "euclidean": (euclidean, _MAPS, {}, True),
  "normalized_feature_matching": (normalized_feature_matching, _MAPS, {"epsilon": 0.5}, True),
  "attention_transfer": (attention_transfer, _MAPS_OF_OTHER_WIDTH, {"power": 3}, True),
  "similarity_preserving": (similarity_preserving, _MAPS_OF_OTHER_WIDTH, {}, False),
  "rkd_distance": (rkd_distance, _EMBEDDINGS, {}, False),
  "rkd_angle": (rkd_angle, _EMBEDDINGS, {}, False),
  "distance_metric": (distance_metric, _EMBEDDINGS, {}, False),
  "probabilistic_transfer": (probabilistic_transfer, _EMBEDDINGS, {}, False),
}

# name: (reference, non-default arguments, whether labels are the third argument, whether a value for each example)
LOGIT_CASES = {
  "decoupled": (decoupled, {"temperature": 2.0, "alpha": 0.5, "beta": 3.0}, True, True),
  "dist": (dist, {"temperature": 3.0, "inter_weight": 0.5, "intra_weight": 2.0}, False, False),
}
