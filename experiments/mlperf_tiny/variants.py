"""The compared files, and how their students are trained."""

from collections.abc import Sequence
from typing import NamedTuple

from tfkd import objectives as o
from tfkd.sweeps import FLOAT

LABELS, SOFT_TARGETS = "labels", "soft targets"
STAGES_BEFORE_RELU = ["layer1_block0_add", "layer2_block0_add", "layer3_block0_add"]
METHODS = {
  "DKD": (o.Decoupled(4.0, beta=2.0),),
  "SRD": (o.SRD("embedding", "embedding", weight=1.0),),
  "OFD": (o.OFD(STAGES_BEFORE_RELU, STAGES_BEFORE_RELU),),
}
"""Objectives beside soft targets, with the weights of the comparison of methods; labels have weight 1."""


class Variant(NamedTuple):
  """A file: the scheme and the method of its student, and whether the converter quantizes it after training."""

  scheme: str
  method: str
  is_ptq: bool = False

  @property
  def name(self) -> str:
    """The name in tables and file names."""
    return f"{'PTQ int8' if self.is_ptq else self.scheme}, {self.method}"


FLOAT_LABELS = Variant(FLOAT, LABELS)


def variants(schemes: Sequence[str], methods: Sequence[str]) -> list[Variant]:
  """Returns the files of students, in the order of the table and of the training.

  Args:
    schemes: quantization schemes; float students and those that are quantized after training are always there.
    methods: keys of `METHODS`.
  """
  kinds = [(FLOAT, False), (FLOAT, True), *((scheme, False) for scheme in schemes)]
  found = [Variant(scheme, method, is_ptq) for scheme, is_ptq in kinds for method in (LABELS, SOFT_TARGETS)]
  return found + [Variant(scheme, method) for method in methods for scheme in (FLOAT, "w8a8")]
