"""Size, scale, mean and std of the images that a network reads, as one type."""

from tfkd.preprocessing._preprocessing import HALVES as HALVES
from tfkd.preprocessing._preprocessing import IMAGENET as IMAGENET
from tfkd.preprocessing._preprocessing import Preprocessing as Preprocessing
