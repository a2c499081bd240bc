"""Keyword spotting: spoken digits by a DS-CNN of 1,930 parameters as an all-integer file.

  python -m experiments.tasks.spoken_digits --preset=full --data_dir=spoken_digits_wav.tar.xz
  python -m experiments.tasks.spoken_digits --preset=quick

--data_dir is a directory or archive of the Free Spoken Digit Dataset (8 kHz, one channel,
`<digit>_<speaker>_<index>.wav`; indices 0 to 4 are the test set). Without it, melodies of three tones in noise are
drawn, see `experiments.tasks.recordings`.

The networks take log-mel spectrograms of the first second, [49 frames, 32 bands, 1]: windows of 256 samples (32 ms)
every 160 (20 ms), 32 bands from 60 to 4,000 Hz, powers of at least 1e-6, see `tfkd.data.log_mel`; normalized by one
mean and one std of the training set, which the work directory records.
"""

import numpy as np
import tf_keras as keras
from absl import flags

from experiments import _run
from experiments.tasks import comparison, recordings
from experiments.tasks.comparison import Method, Task
from tfkd.data import log_mel
from tfkd.objectives import SRD, SoftTargets
from tfkd.preprocessing import Preprocessing
from tfkd.sweeps import ArrayData

layers = keras.layers

_NUM_DRAWN = (2000, 1000)  # Training and test.
_LOG_MEL = {
  "sample_rate": recordings.SAMPLE_RATE,
  "window": 256,
  "hop": 160,
  "bands": 32,
  "lowest": 60.0,
  "floor": 1e-6,
}


def spoken_digits() -> ArrayData:
  """Makes the data set of --data_dir, or the drawn one."""
  data_dir = flags.FLAGS.data_dir
  if data_dir is None:
    train, test = (recordings.draw(count, seed) for seed, count in enumerate(_NUM_DRAWN))
  else:
    train, test = recordings.read(data_dir)
  inputs, test_inputs = _spectrograms(train[0]), _spectrograms(test[0])
  mean, std = float(inputs.mean()), float(inputs.std())
  return ArrayData(
    (inputs, train[1]),
    (test_inputs, test[1]),
    [str(i) for i in range(recordings.NUM_CLASSES)],
    name="drawn_tones" if data_dir is None else "spoken_digits",
    preprocessing=Preprocessing(mean=mean, std=std),
    # Whoever feeds a file computes its input by these: (log_mel(waveform, **log_mel) - mean) / std.
    metadata={"front_end": {"log_mel": _LOG_MEL, "samples": recordings.SAMPLES, "mean": mean, "std": std}},
  )


def _spectrograms(waveforms: np.ndarray) -> np.ndarray:
  parts = np.array_split(waveforms, max(1, len(waveforms) // 256))  # All frames at once would take memory.
  return np.concatenate([log_mel(part, **_LOG_MEL).numpy()[..., None] for part in parts])


def student(num_outputs: int, input_shape: tuple[int, ...]) -> keras.Model:
  """Builds a DS-CNN (Zhang et al. 2017, arXiv:1711.07128) of 16 filters and two separable blocks."""
  return _ds_cnn(num_outputs, input_shape, filters=16, blocks=2)


def teacher(num_outputs: int, input_shape: tuple[int, ...]) -> keras.Model:
  """Builds a DS-CNN of 64 filters and four separable blocks, with dropout: the paper's small one."""
  return _ds_cnn(num_outputs, input_shape, filters=64, blocks=4, dropout=0.3)


def _ds_cnn(num_outputs, input_shape, filters, blocks, dropout=0.0):
  inputs = keras.Input(input_shape)
  x = _normalized(layers.Conv2D(filters, (10, 4), 2, "same", use_bias=False)(inputs))
  for i in range(blocks):
    x = _normalized(layers.DepthwiseConv2D(3, 2 if i == 0 else 1, "same", use_bias=False)(x))
    x = _normalized(layers.Conv2D(filters, 1, use_bias=False)(x), "features" if i == blocks - 1 else None)
  x = layers.GlobalAveragePooling2D()(x)
  if dropout:
    x = layers.Dropout(dropout)(x)
  return keras.Model(inputs, layers.Dense(num_outputs)(x))


def _normalized(x, name=None):
  # A few hundred steps are too few for moving averages with Keras' momentum of 0.99.
  return layers.ReLU(name=name)(layers.BatchNormalization(momentum=0.9)(x))


TASK = Task(
  "spoken_digits",
  data=spoken_digits,
  teacher=teacher,
  student=student,
  methods={
    comparison.LABELS: Method(),
    "soft targets": Method((SoftTargets(4.0),)),
    "simple recipe": Method((SoftTargets(4.0), SRD("features", "features"))),
  },
  scheme="w8a8",
  columns=("accuracy",),
)
EXPERIMENT = comparison.experiment(
  TASK,
  presets={
    "quick": {
      "epochs": 15, "qat_epochs": 2, "teacher_epochs": 8, "batch_size": 64, "learning_rate": 1e-2,
      "teacher_learning_rate": 5e-3, "seeds": ["0"],
    },
    "full": {
      "epochs": 20, "qat_epochs": 4, "teacher_epochs": 25, "batch_size": 64, "learning_rate": 1e-2,
      "teacher_learning_rate": 5e-3, "seeds": ["0", "1", "2"],
    },
  },
)  # fmt: skip

if __name__ == "__main__":
  _run.main(EXPERIMENT)
