"""The CIFAR-10 laboratories: response- and feature-based distillation of residual networks, in one table."""
