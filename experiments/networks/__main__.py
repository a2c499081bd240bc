r"""Quantizes networks of `tf_keras.applications` and `keras.applications`, and compares files with their models.

Each network is measured alone, and as the base of a transfer-learning model with augmentation and preprocessing. It is
trained briefly in float, quantized, trained briefly with quantization, and exported; the file runs in LiteRT on test
images. Each network has a process of its own. An interrupted run continues where it stopped.

  python -m experiments.networks --preset=quick
  python -m experiments.networks --preset=full
  python -m experiments.networks --preset=full --networks=ResNet50 --schemes=w8a8 --again
"""

import itertools
import os
from collections.abc import Sequence

from absl import flags

from experiments import _run, run_flags
from experiments.networks.architectures import LIBRARIES, MODES, NETWORKS
from experiments.networks.report import write_report
from experiments.networks.rows import Key, forget, rows
from experiments.networks.run import Setting, run
from tfkd.quantization import parse_scheme
from tfkd.sweeps.workspace import Workspace

flags.DEFINE_multi_enum("libraries", None, LIBRARIES, "Library of the networks; may be repeated. [preset]")
flags.DEFINE_list("networks", None, "Names of networks, separated by commas. [preset]")
flags.DEFINE_multi_enum("modes", list(MODES), MODES, "alone, or transfer: as a base; may be repeated.")
flags.DEFINE_list("schemes", ["w8a8", "w4a8"], "Quantization schemes, separated by commas.")
flags.DEFINE_boolean("again", False, "Measure the rows of the other flags again, with the same float networks.")
flags.DEFINE_integer("size", None, "Height and width of the images in pixels. [preset]", lower_bound=32)
flags.DEFINE_integer("test_images", None, "Number of images on which file and model are compared. [preset]", 1)
flags.DEFINE_integer("steps", None, "Number of steps of the float training. [preset]", 1)
flags.DEFINE_integer("qat_steps", None, "Number of steps of the quantization-aware training. [preset]", 1)

_COMMON = {"batch_size": 32, "limit_train": 2048, "qat_steps": 10, "size": 48, "test_images": 64}
PRESETS = {
  "quick": _COMMON | {"libraries": ["tf_keras"], "networks": ["MobileNetV2"], "steps": 200},
  "full": _COMMON | {"libraries": list(LIBRARIES), "networks": list(NETWORKS), "steps": 200},
}
flags.register_validator(
  "networks",
  run_flags.every(str, NETWORKS.__contains__),
  f"expected names of {', '.join(NETWORKS)}, separated by commas",
)
flags.register_validator("schemes", run_flags.parses(lambda names: [parse_scheme(name) for name in names]))


def main(argv: Sequence[str]) -> None:
  """Measures the rows of the flags that the work directory lacks, then writes and prints the report."""
  run_flags.start(argv, PRESETS)
  given = flags.FLAGS
  workdir = given.workdir or os.path.join("runs", "networks")
  setting = Setting(**{name: given[name].value for name in Setting._fields})
  keys = [Key(*v) for v in itertools.product(given.libraries, given.networks, given.modes, given.schemes)]
  with run_flags.errors_without_traceback():
    workspace = Workspace(workdir)
    workspace.claim(setting._asdict(), given.overwrite)
    if given.overwrite:
      workspace.remove("float", *LIBRARIES, *(f"{library}.jsonl" for library in LIBRARIES))
    if given.again:
      forget(workdir, keys)
    run(workdir, keys, setting)
  print(write_report(workdir, rows(workdir)))  # noqa: T201  (the script's output)


if __name__ == "__main__":
  _run.main(main)
