"""One teacher, many students, one work directory."""

from tfkd.sweeps.configuration import FLOAT as FLOAT
from tfkd.sweeps.configuration import Student as Student
from tfkd.sweeps.configuration import Training as Training
from tfkd.sweeps.results import Results as Results
from tfkd.sweeps.sweep import Sweep as Sweep
