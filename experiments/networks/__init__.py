"""What quantization does to the networks of `keras.applications`, alone and as a base."""
