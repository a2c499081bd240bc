"""What a step of distillation costs, beside Keras 3's own Distiller and a PyTorch loop, on the same networks."""
