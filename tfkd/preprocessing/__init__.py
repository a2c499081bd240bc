"""Size, scale, mean and standard deviation of images."""
