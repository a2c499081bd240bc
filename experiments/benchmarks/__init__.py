"""Costs of distillation, compared with `keras.distillation.Distiller` and with PyTorch on the same networks."""
