"""Program that converts SavedModels to TFLite, one job per line of standard input.

A line is a directory as a JSON string. The program writes `model.tflite` or `error.txt` into the directory and then the
line to standard output. `tfkd.quantization.conversion` starts it as a separate process, because TensorFlow's converter
can crash. It imports nothing from tfkd.
"""

import json
import os
import signal
import sys
import traceback

if __name__ == "__main__":
  sys.path.pop(0)  # The directory of this file, whose modules must not shadow others.
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal; the parent process ends this program.
  replies = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # Output of libraries must not mix with replies.
  import numpy as np
  import tensorflow as tf

  def run(directory: str) -> bytes:
    """Converts the SavedModel in a directory as specified by its `job.json`; returns the content of the file."""
    with open(os.path.join(directory, "job.json"), encoding="utf-8") as file:
      job = json.load(file)
    converter = tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=["serving_default"])
    if job["io"] is not None:
      converter.optimizations = [tf.lite.Optimize.DEFAULT]
      converter.inference_input_type = converter.inference_output_type = tf.as_dtype(job["io"])
    if job["examples"] is not None:
      arrays = [np.load(os.path.join(directory, f"{i}.npy"), mmap_mode="r") for i in range(len(job["examples"]))]
      converter.representative_dataset = lambda: (
        {name: np.array(array[i : i + 1]) for name, array in zip(job["examples"], arrays, strict=True)}
        for i in range(len(arrays[0]))
      )
      if job["integers_only"]:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()

  for line in sys.stdin:
    directory = json.loads(line)
    try:
      name, content = "model.tflite", run(directory)
    except Exception as error:  # The converter raises errors of many types.
      traceback.print_exc()
      name, content = "error.txt", f"{type(error).__name__}: {error}".encode()
    try:
      with open(os.path.join(directory, name), "wb") as file:
        file.write(content)
    except OSError:  # The directory is missing or full; the parent reports that there is no result.
      traceback.print_exc()
    replies.write(line)
    replies.flush()
