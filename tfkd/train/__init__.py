"""Running fits: strategy, workdir, teacher, sweep of students, results, tables and pictures."""

from tfkd.train.results import Results as Results
from tfkd.train.strategy import STRATEGIES as STRATEGIES
from tfkd.train.strategy import make_strategy as make_strategy
from tfkd.train.sweep import FLOAT as FLOAT
from tfkd.train.sweep import Student as Student
from tfkd.train.sweep import Sweep as Sweep
from tfkd.train.sweep import Training as Training
