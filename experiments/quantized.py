"""The flag of experiments whose quantized students continue from float ones."""

from absl import flags

flags.DEFINE_integer(
  "qat_epochs", None, "Epochs of quantization-aware students after those of the float student. [preset]", 1
)
