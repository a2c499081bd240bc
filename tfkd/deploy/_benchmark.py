"""How long a TFLite file takes for an image on this machine."""

import os
import time

import numpy as np

from tfkd.deploy._evaluate import interpreter

_WARM_UP = 10


def benchmark(
  path: str | os.PathLike,
  num_threads: int = 1,
  float_path: str | os.PathLike | None = None,
  *,
  rounds: int = 50,
  calls: int = 10,
) -> dict[str, float]:
  """Measures the latency of one image, for itself or against the same network in float32.

  The two files take turns of `calls` images, so that what else the machine does falls on both alike. The ratio is what
  can be compared between runs.

  Args:
    path: TFLite file with one input and one output.
    num_threads: LiteRT threads.
    float_path: file to compare with.
    rounds, calls: turns, and images of a turn.

  Returns:
    dict: "median_ms" and "p95_ms" over rounds * calls images; with `float_path` also "float_median_ms", "float_p95_ms",
    and "ratio", median_ms / float_median_ms.

  Raises:
    FileNotFoundError, ValueError: see `logits`.
  """
  paths = {"": path} if float_path is None else {"": path, "float_": float_path}
  opened = {name: _ready(path, num_threads) for name, path in paths.items()}
  seconds = {name: [] for name in opened}
  for _ in range(rounds):
    for name, file in opened.items():
      for _ in range(calls):
        start = time.perf_counter()
        file.invoke()
        seconds[name].append(time.perf_counter() - start)
  measured = {}
  for name, values in seconds.items():
    median, late = 1000 * np.percentile(values, [50, 95])
    measured |= {f"{name}median_ms": float(median), f"{name}p95_ms": float(late)}
  if float_path is not None:
    measured["ratio"] = measured["median_ms"] / measured["float_median_ms"]
  return measured


def _ready(path, num_threads):
  """An interpreter with an image of noise, warmed up: kernels choose their paths in the first calls."""
  opened = interpreter(path, num_threads)
  (given,) = opened.get_input_details()
  noise = np.random.default_rng(0).random(given["shape"])
  if given["dtype"] != np.float32:
    noise = np.iinfo(given["dtype"]).min + 255 * noise
  opened.set_tensor(given["index"], noise.astype(given["dtype"]))
  for _ in range(_WARM_UP):
    opened.invoke()
  return opened
