"""What a teacher adds to quantized students, against training after quantization and on labels alone."""
