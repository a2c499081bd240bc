"""Files of quantized students: with distillation, on labels alone, and by post-training quantization."""
