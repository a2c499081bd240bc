"""Teachers of a Distiller: frozen models and functions, ensembles, and outputs computed once and stored."""

from tfkd.preprocessing import HALVES as HALVES
from tfkd.preprocessing import IMAGENET as IMAGENET
from tfkd.preprocessing import Preprocessing as Preprocessing
from tfkd.teachers._cache import cache as cache
from tfkd.teachers._tflite import tflite as tflite
from tfkd.teachers.cached import CachedTeacher as CachedTeacher
from tfkd.teachers.ensemble import Ensemble as Ensemble
from tfkd.teachers.frozen import Frozen as Frozen
from tfkd.teachers.precomputed import Precomputed as Precomputed
from tfkd.teachers.protocol import Teacher as Teacher
from tfkd.teachers.sources import keras_hub as keras_hub
from tfkd.teachers.sources import saved_model as saved_model
