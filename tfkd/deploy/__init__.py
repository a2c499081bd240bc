"""Exports students as files for devices, and runs those files.

`to_tflite` takes these steps:

1. checks the model and the arguments (`export`);
2. converts the model in a separate process (`tfkd.quantization.conversion`);
3. restores the trained grid of the kernels (`tfkd.quantization.grid`);
4. checks that no tensor of an integer file is a float (`export`);
5. adds metadata with a digest (`metadata`) and writes the file atomically.

`pack` and `unpack` (`packed`) store students whose bits LiteRT has no kernels for. `logits`, `evaluate` and `benchmark`
run TFLite files in LiteRT; `evaluate` measures by the task of a file, and `compare` shows layer by layer where it
differs from its Keras model.
"""

from tfkd.deploy._benchmark import benchmark as benchmark
from tfkd.deploy._compare import Comparison as Comparison
from tfkd.deploy._compare import compare as compare
from tfkd.deploy._evaluate import evaluate as evaluate
from tfkd.deploy._evaluate import logits as logits
from tfkd.deploy.export import to_tflite as to_tflite
from tfkd.deploy.metadata import read_metadata as read_metadata
from tfkd.deploy.metadata import write_metadata as write_metadata
from tfkd.deploy.packed import pack as pack
from tfkd.deploy.packed import unpack as unpack
