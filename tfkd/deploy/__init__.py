"""Students as files for devices: TFLite export, packs of few bits, and what LiteRT makes of them."""

from tfkd.deploy._benchmark import benchmark as benchmark
from tfkd.deploy._evaluate import evaluate as evaluate
from tfkd.deploy._evaluate import logits as logits
from tfkd.deploy.export import to_tflite as to_tflite
from tfkd.deploy.metadata import read_metadata as read_metadata
from tfkd.deploy.metadata import write_metadata as write_metadata
from tfkd.deploy.packed import pack as pack
from tfkd.deploy.packed import unpack as unpack
