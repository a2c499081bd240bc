"""Transfer learning from ImageNet to traffic signs, and on to quantized students."""
