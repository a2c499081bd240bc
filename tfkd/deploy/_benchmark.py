"""Latency of TFLite files on this machine."""

import os
import time

import numpy as np

from tfkd.deploy._interpreter import Interpreter, interpreter

_WARM_UP = 10


def benchmark(
  path: str | os.PathLike,
  num_threads: int = 1,
  float_path: str | os.PathLike | None = None,
  *,
  rounds: int = 50,
  calls: int = 10,
) -> dict[str, float]:
  """Measures the latency of one example, optionally relative to a float32 file of the same network.

  The two files run in turns of `calls` examples, so that other processes affect both equally. Compare ratios,
  not milliseconds, between runs.

  Args:
    path: TFLite file.
    num_threads: number of LiteRT threads.
    float_path: TFLite file to compare with.
    rounds: number of turns of each file.
    calls: number of examples per turn.

  Returns:
    dict: "median_ms" and "p95_ms" over rounds * calls examples; with `float_path` also "float_median_ms",
    "float_p95_ms", and "ratio", median_ms / float_median_ms.

  Raises:
    FileNotFoundError, ValueError: see `logits`.
  """
  paths = {"": path} if float_path is None else {"": path, "float_": float_path}
  opened = {name: _ready(path, num_threads) for name, path in paths.items()}
  # `tfkd.ops.timing` measures averages of turns; percentiles need the time of every call.
  seconds: dict[str, list[float]] = {name: [] for name in opened}
  for _ in range(rounds):
    for name, file in opened.items():
      for _ in range(calls):
        start = time.perf_counter()
        file.invoke()
        seconds[name].append(time.perf_counter() - start)
  measured = {}
  for name, values in seconds.items():
    median, p95 = 1000 * np.percentile(values, [50, 95])
    measured |= {f"{name}median_ms": float(median), f"{name}p95_ms": float(p95)}
  if float_path is not None:
    measured["ratio"] = measured["median_ms"] / measured["float_median_ms"]
  return measured


def _ready(path: str | os.PathLike, num_threads: int) -> Interpreter:
  """Returns an interpreter that has run on noise a few times, since kernels are chosen in the first calls."""
  opened = interpreter(path, num_threads)
  for given in opened.get_input_details():
    noise = np.random.default_rng(0).random(given["shape"])
    if given["dtype"] != np.float32:
      # Other integers may be indices, for which 0 is always valid.
      noise = np.iinfo(given["dtype"]).min + 255 * noise if given["quantization"][0] else 0 * noise
    opened.set_tensor(given["index"], noise.astype(given["dtype"]))
  for _ in range(_WARM_UP):
    opened.invoke()
  return opened
