"""What a TFLite file says of pictures: `python -m tfkd.deploy student.tflite --images cat.jpg dog.png`.

Prints what the file says of itself, and for each picture the most probable classes. The middle of a picture is brought
to the size that the file takes.
"""

import os
import sys

import numpy as np
from absl import app, flags

from tfkd.data.images import read_image
from tfkd.deploy.evaluate import interpreter, run
from tfkd.deploy.metadata import read_metadata

flags.DEFINE_list("images", [], "Pictures; further ones may follow, separated by spaces.")
flags.DEFINE_integer("top", 3, "How many classes of each picture to print.", lower_bound=1)
flags.DEFINE_integer("threads", None, "LiteRT threads; all cores by default.", lower_bound=1)


def main(argv):
  """Describes the file, then the pictures."""
  if len(argv) < 2:
    raise app.UsageError("expected a TFLite file: python -m tfkd.deploy student.tflite --images cat.jpg dog.png")
  path, *pictures = argv[1:]
  try:
    _describe(path, [*flags.FLAGS.images, *pictures])
  except (ValueError, OSError) as error:
    sys.exit(f"{error}")


def _describe(path, pictures):
  fields = read_metadata(path)
  opened = interpreter(path, flags.FLAGS.threads)
  _, height, width, channels = opened.get_input_details()[0]["shape"].tolist()
  _say(f"{path}: {os.path.getsize(path):,} bytes, images of {height} x {width}")
  for name, value in fields.items():
    if name not in ("labels", "weights_sha256"):
      _say(f"  {name}: {value}")
  if channels != 3:
    raise ValueError(f"{path} takes images of {channels} channels; pictures have 3.")
  for picture in pictures:
    image = read_image(picture, height, width).astype(np.float32) / 255
    image = (image - np.float32(fields.get("mean", 0.0))) / np.float32(fields.get("std", 1.0))
    probabilities = _softmax(run(opened, image[None])[0])
    labels = fields.get("labels") or [f"class {number}" for number in range(len(probabilities))]
    best = np.argsort(-probabilities)[: flags.FLAGS.top]
    _say(f"{picture}: " + ", ".join(f"{labels[number]} {100 * probabilities[number]:.1f} %" for number in best))


def _softmax(logits):
  exponentials = np.exp(logits - logits.max())
  return exponentials / exponentials.sum()


def _say(line):
  print(line)  # noqa: T201  (the answer)


if __name__ == "__main__":
  app.run(main)
