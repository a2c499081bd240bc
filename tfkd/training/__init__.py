"""Training of one model: fit with checkpoints, optimizers, distribution strategies, training of the last layer alone.

`python -m tfkd.training.launch` starts a script as several workers on one machine.
"""

from tfkd.training._fit import evaluate as evaluate
from tfkd.training._fit import fit as fit
from tfkd.training._quantized import Quantized as Quantized
from tfkd.training.checkpoints import Checkpoints as Checkpoints
from tfkd.training.head import fit_head as fit_head
from tfkd.training.optimizers import OPTIMIZERS as OPTIMIZERS
from tfkd.training.optimizers import SCHEDULES as SCHEDULES
from tfkd.training.optimizers import make_optimizer as make_optimizer
from tfkd.training.optimizers import scaled_learning_rate as scaled_learning_rate
from tfkd.training.strategy import STRATEGIES as STRATEGIES
from tfkd.training.strategy import barrier as barrier
from tfkd.training.strategy import is_chief as is_chief
from tfkd.training.strategy import is_multi_worker as is_multi_worker
from tfkd.training.strategy import is_parameter_server as is_parameter_server
from tfkd.training.strategy import make_strategy as make_strategy
