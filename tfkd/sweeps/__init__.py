"""One teacher, many students, one work directory."""

from tfkd.sweeps.configuration import FLOAT as FLOAT
from tfkd.sweeps.configuration import StudentSpec as StudentSpec
from tfkd.sweeps.configuration import SweepConfig as SweepConfig
from tfkd.sweeps.results import Results as Results
from tfkd.sweeps.sweep import Sweep as Sweep
