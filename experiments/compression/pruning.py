"""Files of pruned networks, trained with quantization that keeps zeros or fills them, dense and compressed.

For each seed, a float network is trained on labels, and pruned by magnitude to each sparsity in a further epoch. Its
quantized copies start from it and are trained for another epoch.
"""

import gzip
import os
from collections.abc import Sequence

import tensorflow_model_optimization as tfmot
import tf_keras as keras
from absl import app, flags, logging

import tfkd
from tfkd import deploy, quantization
from tfkd.sweeps import Results

flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds; one float network each.")
flags.DEFINE_list("sparsities", ["0.5", "0.8"], "Shares of zeros in each kernel.")
flags.DEFINE_list("schemes", ["w8a8"], "Quantization schemes.")
flags.DEFINE_integer("epochs", 2, "Epochs of the dense float network.", lower_bound=1)
flags.DEFINE_integer("limit_train", None, "Number of training images.", lower_bound=1)
flags.DEFINE_string("workdir", "pruning", "Directory for files and rows.")

_BATCH = 128
_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def main(argv: Sequence[str]) -> None:
  """Trains, exports and measures all networks, and adds a row for each to `pruning.jsonl`."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected arguments: {argv[1:]}")
  if os.path.exists(_rows()):
    raise app.UsageError(f"{_rows()} exists: choose another --workdir.")
  os.makedirs(flags.FLAGS.workdir, exist_ok=True)
  train, test = (_images(split) for split in ("train", "test"))
  for seed in map(int, flags.FLAGS.seeds):
    keras.utils.set_random_seed(seed)
    dense = tfkd.models.svhn_cnn()
    _fit(dense, train, 1e-3, flags.FLAGS.epochs)
    _measure(dense, test, {"seed": seed, "sparsity": 0.0, "variant": "float"})
    for scheme in flags.FLAGS.schemes:
      _quantized(dense, scheme, train, test, {"seed": seed, "sparsity": 0.0}, [""])
    for sparsity in map(float, flags.FLAGS.sparsities):
      pruned = _pruned(dense, sparsity, train)
      row = {"seed": seed, "sparsity": sparsity}
      _measure(pruned, test, row | {"variant": "float"})
      for scheme in flags.FLAGS.schemes:
        _quantized(pruned, scheme, train, test, row, [", zeros kept", ", zeros filled"])


def _rows() -> str:
  return os.path.join(flags.FLAGS.workdir, "pruning.jsonl")


def _images(split: str) -> tuple:
  images, labels = tfkd.data.load_arrays("house_numbers", split, limit=flags.FLAGS.limit_train)
  return images.astype("float32") / 255, labels


def _fit(model: keras.Model, train: tuple, learning_rate: float, epochs: int, callbacks: Sequence = ()) -> None:
  model.compile(keras.optimizers.Adam(learning_rate), _LOSS)
  model.fit(*train, batch_size=_BATCH, epochs=epochs, verbose=0, callbacks=list(callbacks))


def _pruned(dense: keras.Model, sparsity: float, train: tuple) -> keras.Model:
  """Returns a copy with a share of zeros that grows over the first half of an epoch."""
  every = max(1, len(train[0]) // _BATCH // 40)  # Steps; the last one that prunes is the end of the schedule.
  copy = keras.models.clone_model(dense)
  copy.set_weights(dense.get_weights())
  schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, sparsity, 0, 20 * every, frequency=every)
  wrapped = tfmot.sparsity.keras.prune_low_magnitude(copy, pruning_schedule=schedule)
  _fit(wrapped, train, 1e-3, 1, [tfmot.sparsity.keras.UpdatePruningStep()])
  return tfmot.sparsity.keras.strip_pruning(wrapped)


def _quantized(model: keras.Model, scheme: str, train: tuple, test: tuple, row: dict, endings: Sequence[str]) -> None:
  for ending in endings:
    keep_zeros = ending != ", zeros filled"
    student = quantization.quantize(model, scheme, calibration_data=train[0], keep_zeros=keep_zeros)
    _fit(student, train, 1e-4, 1)
    _measure(student, test, row | {"variant": scheme + ending})


def _measure(model: keras.Model, test: tuple, row: dict) -> None:
  """Writes a file, and a row with its accuracy on the test set, its zeros and its bytes."""
  name = f"{row['variant'].replace(', ', '_').replace(' ', '_')}-{row['sparsity']}-seed{row['seed']}.tflite"
  path = os.path.join(flags.FLAGS.workdir, name)
  deploy.to_tflite(model, path)
  with open(path, "rb") as file:
    content = file.read()
  batches = tfkd.data.batches(*test, _BATCH)
  sizes = quantization.sizes(model)
  row |= {"accuracy": deploy.evaluate(path, batches)["accuracy"], "bytes": len(content)}
  row |= {"gzip_bytes": len(gzip.compress(content, 9, mtime=0))}
  row |= {key: sizes[key] for key in ("parameters", "nonzero_parameters", "packed_bytes", "sparse_bytes")}
  logging.info("%s", row)
  Results(_rows()).add(row)


if __name__ == "__main__":
  app.run(main)
