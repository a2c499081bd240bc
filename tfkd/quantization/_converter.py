"""Program that converts SavedModels to TFLite, one job for each line of its standard input.

A program of its own, since TensorFlow's converter can end its process: `tfkd.quantization.conversion` starts it. It
imports nothing of tfkd.
"""

import json
import os
import sys
import traceback

if __name__ == "__main__":
  sys.path.pop(0)  # The directory of this file, whose modules must not hide others.
  replies = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)  # Libraries may print.
  import numpy as np
  import tensorflow as tf

  for line in sys.stdin:
    directory = json.loads(line)
    reply = {}
    try:
      with open(os.path.join(directory, "job.json"), encoding="utf-8") as file:
        job = json.load(file)
      converter = tf.lite.TFLiteConverter.from_saved_model(directory, signature_keys=["serving_default"])
      if job["io"] is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(job["io"])
      if job["examples"] is not None:
        arrays = np.load(os.path.join(directory, "examples.npz"))
        count = job["examples"]
        converter.representative_dataset = lambda arrays=arrays, count=count: (
          {name: arrays[name][i : i + 1] for name in arrays.files} for i in range(count)
        )
        if job["integers_only"]:
          converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
      content = converter.convert()
      with open(os.path.join(directory, "model.tflite"), "wb") as file:
        file.write(content)
    except Exception as error:  # Of the converter, each of its kind.
      reply["error"] = f"{type(error).__name__}: {error}"
      traceback.print_exc()
    replies.write(json.dumps(reply) + "\n")
    replies.flush()
