"""The SVHN homework: quantized students distilled from a float teacher at several temperatures."""
