"""Program that converts SavedModels to TFLite, one job for each line of its standard input.

A line is the JSON string of a directory, which gets a `model.tflite` or an `error.txt`; then the line is written to
standard output. A program of its own, since TensorFlow's converter can end its process:
`tfkd.quantization.conversion` starts it. It imports nothing of tfkd.
"""

import json
import os
import signal
import sys
import traceback

if __name__ == "__main__":
  sys.path.pop(0)  # The directory of this file, whose modules must not hide others.
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Of a terminal; who started this program ends it.
  replies = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # Libraries may print.
  import numpy as np
  import tensorflow as tf

  def run(directory):
    """Converts the SavedModel in a directory as its `job.json` says; returns the file's bytes."""
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
    except Exception as error:  # Of the converter, each of its kind.
      traceback.print_exc()
      name, content = "error.txt", f"{type(error).__name__}: {error}".encode()
    try:
      with open(os.path.join(directory, name), "wb") as file:
        file.write(content)
    except OSError:  # The directory is gone or full: there is no result, which is an error, too.
      traceback.print_exc()
    replies.write(line)
    replies.flush()
