"""Where knowledge comes from: a frozen model or callable, or outputs computed once and kept."""

from tfkd.teachers.frozen import Frozen as Frozen
from tfkd.teachers.precomputed import Precomputed as Precomputed
