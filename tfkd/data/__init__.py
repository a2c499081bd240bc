"""Data sets by name, batches of arrays in memory as `tf.data`, and readers of sounds."""

from tfkd.data.archives import read_files as read_files
from tfkd.data.cifar10 import CIFAR10 as CIFAR10
from tfkd.data.dataset import Dataset as Dataset
from tfkd.data.food11 import Food11 as Food11
from tfkd.data.house_numbers import HouseNumbers as HouseNumbers
from tfkd.data.pipeline import batches as batches
from tfkd.data.pipeline import index_batches as index_batches
from tfkd.data.registry import DATASETS as DATASETS
from tfkd.data.registry import info as info
from tfkd.data.registry import load as load
from tfkd.data.registry import load_arrays as load_arrays
from tfkd.data.sounds import decode_sound as decode_sound
from tfkd.data.sounds import log_mel as log_mel
from tfkd.data.sounds import read_sound as read_sound
from tfkd.data.svhn import SVHN as SVHN
from tfkd.data.transforms import Augment as Augment
from tfkd.data.transforms import Batch as Batch
from tfkd.data.transforms import CenterCrop as CenterCrop
from tfkd.data.transforms import Examples as Examples
from tfkd.data.transforms import MixUp as MixUp
from tfkd.data.transforms import Normalize as Normalize
from tfkd.data.transforms import OneHot as OneHot
from tfkd.data.transforms import Transform as Transform
