"""Running fits: strategy, workdir, teacher, sweep of students, results, tables and pictures."""

from tfkd.train.configuration import FLOAT as FLOAT
from tfkd.train.configuration import Student as Student
from tfkd.train.configuration import Training as Training
from tfkd.train.head import fit_head as fit_head
from tfkd.train.results import Results as Results
from tfkd.train.strategy import STRATEGIES as STRATEGIES
from tfkd.train.strategy import make_strategy as make_strategy
from tfkd.train.sweep import Sweep as Sweep
