r"""Files of one network at several bit widths: quantized after training, during training, and with distillation.

Every file is measured on the whole test set, and timed on one thread in turns with the float student's file. Students
of eight and four bits continue from the float student of their seed; those of two bits train from scratch, for as many
epochs as both trainings together. Half an hour on two cores at --preset=full. An interrupted run continues where it
stopped.

  python -m experiments.compression --preset=quick
  python -m experiments.compression --preset=full
  python -m experiments.compression --preset=full --dataset=cifar10 --data_dir=cifar10_train_jpeg.tar.xz \
    --limit_train=20000 --teacher=resnet20 --student=resnet8 --teacher_epochs=10 --epochs=5 --qat_epochs=2 \
    --augment --views=8
"""

from experiments import _run
from experiments.compression.files import EXPERIMENT

if __name__ == "__main__":
  _run.main(EXPERIMENT)
