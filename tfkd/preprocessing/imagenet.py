"""Statistics of ImageNet's photographs in [0, 1], by channel, for networks that were trained on it and their likes."""

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
