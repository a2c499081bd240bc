"""One fit: checkpoints, optimizers, strategies, the last layer alone, and several workers on one machine."""

from tfkd.training.head import fit_head as fit_head
from tfkd.training.strategy import STRATEGIES as STRATEGIES
from tfkd.training.strategy import make_strategy as make_strategy
