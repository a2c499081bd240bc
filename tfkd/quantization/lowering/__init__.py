"""Rewrites a float model in layers that an integer file computes with one operation each."""

from tfkd.quantization.lowering import primitives as primitives
from tfkd.quantization.lowering._lower import lower as lower
from tfkd.quantization.lowering.operation import Operation as Operation
from tfkd.quantization.lowering.operation import RoundedOperation as RoundedOperation
from tfkd.quantization.lowering.operations import is_operation as is_operation
from tfkd.quantization.lowering.parts import HARD_SIGMOIDS as HARD_SIGMOIDS
from tfkd.quantization.lowering.parts import is_plain_relu as is_plain_relu
from tfkd.quantization.lowering.parts import is_relu as is_relu
from tfkd.quantization.lowering.rules import is_split as is_split
from tfkd.quantization.lowering.rules import lowered as lowered
