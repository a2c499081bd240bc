"""Float64 numpy versions of the losses, written from the papers with loops."""

import math

import numpy as np
from scipy.stats import norm


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


def soft_target_jsd(teacher_logits, student_logits, temperature, beta=0.5):
  losses = []
  for teacher, student in zip(teacher_logits, student_logits, strict=True):
    p, q = (_distribution(logits, temperature)[0] for logits in (teacher, student))
    m = [beta * a + (1 - beta) * b for a, b in zip(p, q, strict=True)]
    of_teacher, of_student = (
      math.fsum(a * math.log(a / b) for a, b in zip(distribution, m, strict=True)) for distribution in (p, q)
    )
    losses.append(beta * of_teacher + (1 - beta) * of_student)
  return np.array(losses)


def binary_soft_target_kl(teacher_logits, student_logits, temperature):
  losses = []
  for teacher, student in zip(teacher_logits, student_logits, strict=True):
    pairs = [np.float64([[t, 0], [s, 0]]) for t, s in zip(teacher, student, strict=True)]
    losses.append(math.fsum(soft_target_kl([t], [s], temperature)[0] for t, s in pairs) / len(pairs))
  return np.array(losses)


def keras_loss(teacher, student, loss="mse"):
  difference = np.float64(student) - np.float64(teacher)
  values = np.log(np.cosh(difference)) if loss == "log_cosh" else difference**2
  return values.mean(axis=-1)


def tempered_cross_entropy(target_probabilities, student_logits, temperature):
  losses = []
  for target, student in zip(target_probabilities, student_logits, strict=True):
    _, log_q = _distribution(student, temperature)
    losses.append(-math.fsum(float(a) * b for a, b in zip(target, log_q, strict=True)))
  return np.array(losses)


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


def attention_transfer(teacher, student, power=2, form="code"):
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
    difference = maps[0] - maps[1]
    losses.append(np.mean(difference**2) if form == "code" else np.linalg.norm(difference))
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


def standardize_logits(logits):
  rows = _f64(logits)
  return np.array([(row - row.mean()) / (row.std(ddof=1) + 1e-7) for row in rows])


def normalized(teacher_logits, student_logits, labels, temperature=1.0, gamma=1.5):
  losses = []
  for teacher, student, label in zip(teacher_logits, student_logits, labels, strict=True):
    (p, _), (_, log_q) = _distribution(teacher, 1.0), _distribution(student, 1.0)
    others = [c for c in range(len(p)) if c != label]
    o, _ = _distribution([teacher[c] for c in others], temperature)
    _, log_s = _distribution([student[c] for c in others], temperature)
    rest = -math.fsum(a * b for a, b in zip(o, log_s, strict=True))
    losses.append(-p[label] * log_q[label] + gamma * temperature**2 * rest)
  return np.array(losses)


def multi_level(teacher_logits, student_logits, temperatures=(2.0, 3.0, 4.0, 5.0, 6.0), standardize=False):
  total, compared = 0.0, (teacher_logits, student_logits)
  if standardize:
    compared = [standardize_logits(logits) for logits in compared]
  for temperature in temperatures:
    p = np.array([_distribution(row, temperature)[0] for row in teacher_logits])
    q = np.array([_distribution(row, temperature)[0] for row in student_logits])
    total += temperature**2 * soft_target_kl(*compared, temperature).mean()
    for a, b in ((p, q), (p.T, q.T)):
      difference = [[x @ y for y in a] for x in a] - np.array([[x @ y for y in b] for x in b])
      total += np.linalg.norm(difference, "fro") ** 2 / len(a)
  return total


def transformed_teacher(teacher_logits, student_logits, temperature=4.0, weighted=False):
  losses = []
  for teacher, student in zip(teacher_logits, student_logits, strict=True):
    p, log_p = _distribution(teacher, temperature)
    _, log_q = _distribution(student, 1.0)
    loss = math.fsum(a * (b - c) for a, b, c in zip(p, log_p, log_q, strict=True))
    if weighted:
      loss *= math.fsum(a ** (1 / temperature) for a in _distribution(teacher, 1.0)[0])
    losses.append(loss)
  return np.array(losses)


def neuron_selectivity(teacher, student):
  losses = []
  for t, s in zip(_f64(teacher), _f64(student), strict=True):
    sets = []
    for feature in (t, s):
      columns = feature.reshape(-1, feature.shape[-1]).T
      sets.append([c / np.linalg.norm(c) for c in columns])
    mean = [[np.mean([(x @ y) ** 2 for x in a for y in b]) for b in sets] for a in sets]
    losses.append(mean[0][0] + mean[1][1] - 2 * mean[0][1])
  return np.array(losses)


def channel_wise_kl(teacher, student, temperature=4.0, weights=None):
  losses = []
  for number, (t, s) in enumerate(zip(_f64(teacher), _f64(student), strict=True)):
    counts = np.full(t.shape[:-1], True) if weights is None else np.asarray(weights[number]) != 0
    columns = [(t[counts][:, c], s[counts][:, c]) for c in range(t.shape[-1])] if counts.any() else []
    divergences = [soft_target_kl([of_t], [of_s], temperature)[0] for of_t, of_s in columns]
    losses.append(temperature**2 * math.fsum(divergences) / t.shape[-1])
  return np.array(losses)


def flow_of_solution_procedure(teacher, student):
  """Pairs are stacked on a second axis, [batch, 2, height, width, channels], so that one array holds them."""
  losses = []
  for t, s in zip(_f64(teacher), _f64(student), strict=True):
    grams = []
    for first, second in (t, s):
      height, width, channels = first.shape
      gram = np.zeros((channels, channels))
      for i in range(height):
        for j in range(width):
          gram += np.outer(first[i, j], second[i, j])
      grams.append(gram / (height * width))
    losses.append(np.mean((grams[0] - grams[1]) ** 2))
  return np.array(losses)


def singular_vectors(teacher, student, rank=1):
  """Of each example a pair of maps [height, width, channels], stacked on a second axis or in a list."""
  losses = []
  for t, s in zip(teacher, student, strict=True):
    vectors = ([], [])
    for of_teacher, of_student in zip(t, s, strict=True):
      _, values, v_t = np.linalg.svd(_f64(of_teacher).reshape(-1, of_teacher.shape[-1]), full_matrices=False)
      _, values_s, v_s = np.linalg.svd(_f64(of_student).reshape(-1, of_student.shape[-1]), full_matrices=False)
      v_t = np.array([np.sign(v.sum()) * v for v in v_t])  # A decomposition leaves the signs open.
      weights = values[:rank] / np.linalg.norm(values[:rank])
      chosen = []
      v_s = v_s[values_s**2 > 1e-5 * values_s[0] ** 2]  # Others have any direction.
      for wanted in v_t[:rank]:
        cosines = [wanted @ candidate for candidate in v_s[: rank + 3]]
        best = int(np.argmax(np.abs(cosines)))
        chosen.append(np.sign(cosines[best]) * v_s[best])
      vectors[0].append([w * v for w, v in zip(weights, v_t, strict=False)])
      vectors[1].append([w * v for w, v in zip(weights, chosen, strict=True)])
    loss = 0.0
    for k in range(rank):
      radial = [np.exp(-((a[k][:, None] - b[k][None, :]) ** 2) / 8) for a, b in vectors]
      loss += np.sum((radial[0] - radial[1]) ** 2)
    losses.append(loss)
  return np.array(losses)


def activation_boundary(teacher, student, margin=1.0):
  losses = []
  for t, s in zip(_f64(teacher), _f64(student), strict=True):
    loss = 0.0
    for a, b in zip(t.ravel(), s.ravel(), strict=True):
      loss += (b + margin) ** 2 * (b > -margin and a <= 0) + (b - margin) ** 2 * (b <= margin and a > 0)
    losses.append(loss)
  return np.array(losses)


def factor_transfer(teacher, student):
  pairs = zip(_f64(teacher), _f64(student), strict=True)
  return np.array([np.mean(np.abs(t / np.linalg.norm(t) - s / np.linalg.norm(s))) for t, s in pairs])


def variational_information(teacher, student, variance=5.0):
  pairs = zip(_f64(teacher), _f64(student), strict=True)
  # The density of scipy's normal distribution, less its constant.
  return np.array(
    [-np.mean(norm.logpdf(t, loc=s, scale=np.sqrt(_f64(variance)))) - math.log(2 * math.pi) / 2 for t, s in pairs]
  )


def correlation_congruence(teacher, student, gamma=0.4, order=2):
  kernels = []
  for x in (_f64(teacher), _f64(student)):
    cosines = [[a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in x] for a in x]
    series = sum((2 * gamma) ** p / math.factorial(p) * np.array(cosines) ** p for p in range(order + 1))
    kernels.append(math.exp(-2 * gamma) * series)
  return np.linalg.norm(kernels[0] - kernels[1], "fro") ** 2 / len(teacher) ** 2


def contrastive(teacher, student, temperature=0.07, ratio=0.3, normalizer=1.0, mask=None):
  """The negatives are the batch in reverse order."""
  t, s = ([x / np.linalg.norm(x) for x in _f64(rows)] for rows in (teacher, student))

  def h(a, b):
    e = math.exp(a @ b / temperature) / normalizer
    return e / (e + ratio)

  losses = []
  for i in range(len(t)):
    loss = -math.log(h(t[i], s[i])) - math.log(h(s[i], t[i]))
    for j in range(len(t)):
      weight = 1.0 if mask is None else mask[i][len(t) - 1 - j]
      loss -= weight * (math.log(1 - h(t[i], s[j])) + math.log(1 - h(s[i], t[j])))
    losses.append(loss)
  return np.array(losses)


def average_pool(feature, size):
  """PyTorch's definition of AdaptiveAvgPool2d, for one map [height, width, channels]."""
  height, width, channels = feature.shape
  out = np.zeros((*size, channels))
  for i in range(size[0]):
    for j in range(size[1]):
      rows = slice(math.floor(i * height / size[0]), math.ceil((i + 1) * height / size[0]))
      columns = slice(math.floor(j * width / size[1]), math.ceil((j + 1) * width / size[1]))
      out[i, j] = feature[rows, columns].mean(axis=(0, 1))
  return out


def hierarchical_context(teacher, student):
  losses = []
  for t, s in zip(_f64(teacher), _f64(student), strict=True):
    loss, weight, total = np.mean((t - s) ** 2), 1.0, 1.0
    for side in (4, 2, 1):
      if side < len(t):
        size = (side, min(side, t.shape[1]))
        weight /= 2
        total += weight
        loss += weight * np.mean((average_pool(t, size) - average_pool(s, size)) ** 2)
    losses.append(loss / total)
  return np.array(losses)


def partial_distance(teacher, student, margin=0.0):
  losses = []
  for t, s in zip(_f64(teacher), _f64(student), strict=True):
    loss = 0.0
    for position_t, position_s in zip(t.reshape(-1, t.shape[-1]), s.reshape(-1, s.shape[-1]), strict=True):
      for a, b, m in zip(position_t, position_s, np.broadcast_to(margin, t.shape[-1:]), strict=True):
        target = max(a, m)
        loss += 0.0 if b <= target <= 0 else (target - b) ** 2
    losses.append(loss)
  return np.array(losses)


def log_power_distance(teacher, student, power=4.0):
  return math.log(math.fsum(np.abs(_f64(teacher) - _f64(student)).ravel() ** power) + 1e-30)


def inter_channel_correlation(teacher, student):
  losses = []
  for t, s in zip(_f64(teacher), _f64(student), strict=True):
    matrices = []
    for feature in (t, s):
      channels = feature.reshape(-1, feature.shape[-1]).T
      gram = [np.array([a @ b for b in channels]) for a in channels]
      matrices.append(np.array([row / np.linalg.norm(row) for row in gram]))
    losses.append(np.linalg.norm(matrices[0] - matrices[1], "fro") ** 2 / len(matrices[0]))
  return np.array(losses)


def attention_maps(teacher, student, weights=None):
  return _over_tokens(lambda t, s: np.mean((t - s) ** 2), teacher, student, weights)


def attention_divergence(teacher, student, weights=None):
  def divergence(t, s):
    t, s = (x - x.max(axis=-1, keepdims=True) for x in (t, s))
    log_p, log_q = (x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in (t, s))
    return (np.exp(log_p) * (log_p - log_q)).sum(axis=-1).mean()

  return _over_tokens(divergence, teacher, student, weights)


def value_relations(teacher, student, heads, weights=None):
  def relations(values):
    size = values.shape[-1] // heads
    parts = [_f64(values)[:, :, i * size : (i + 1) * size] for i in range(heads)]
    return np.stack([[v @ v.T / math.sqrt(size) for v in part] for part in parts], axis=1)

  return attention_divergence(relations(teacher), relations(student), weights)


def _over_tokens(loss, teacher, student, weights):
  """Mean over queries of weight times loss between rows [heads, keys], from which keys of weight zero are removed."""
  weights = np.ones(teacher.shape[::2]) if weights is None else _f64(weights)
  losses = []
  for t, s, w in zip(_f64(teacher), _f64(student), weights, strict=True):
    keys = w != 0
    losses.append(sum(w[i] * loss(t[:, i, keys], s[:, i, keys]) for i in np.flatnonzero(keys)) / len(w))
  return np.array(losses)


def _f64(array):
  return np.asarray(array, np.float64)
