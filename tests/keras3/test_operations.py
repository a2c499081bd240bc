"""Operations of `keras.ops` in the graph of a Keras 3 model."""

import keras as keras3
import numpy as np
import pytest
import tf_keras as keras

from tests.keras3.comparison import TOLERANCE, difference
from tfkd.keras3 import from_keras3

ops = keras3.ops
CONSTANT = np.linspace(-1.0, 2.0, 4, dtype=np.float32)

# Of x [batch, 6, 5, 4] and y of the same shape.
OPERATIONS = {
  "abs": lambda x, y: ops.abs(x),
  "add": lambda x, y: x + y,
  "add_a_number": lambda x, y: 2 + x,
  "add_an_array": lambda x, y: x + CONSTANT,
  "add_integers": lambda x, y: x + ops.cast(y, "int32"),
  "add_of_another_rank": lambda x, y: x + y[0],
  "argmax": lambda x, y: ops.argmax(x, axis=-1),
  "broadcast_rows": lambda x, y: x * y[:, :1],
  "clip": lambda x, y: ops.clip(x, -0.5, 0.5),
  "compare": lambda x, y: ops.where(x > y, x, 0.0),
  "concatenate": lambda x, y: ops.concatenate([x, y], axis=1),
  "concatenate_the_batch": lambda x, y: ops.concatenate([x, y], axis=0),
  "cumsum": lambda x, y: ops.cumsum(x, axis=1),
  "divide": lambda x, y: x / (2.0 + ops.abs(y)),
  "divide_a_number": lambda x, y: 1.0 / (2.0 + ops.abs(y)),
  "einsum": lambda x, y: ops.einsum("bijc,bikc->bijk", x, y),
  "elu": lambda x, y: ops.elu(x, 0.5),
  "exp": lambda x, y: ops.exp(x),
  "expand_dims": lambda x, y: ops.expand_dims(x, (1, -1)),
  "flip": lambda x, y: ops.flip(x, 1),
  "floor_divide": lambda x, y: x // 0.3,
  "gelu": lambda x, y: ops.gelu(x),
  "gelu_exact": lambda x, y: ops.gelu(x, approximate=False),
  "get_item": lambda x, y: x[:, 1:5:2, ..., -1],
  "get_item_new_axis": lambda x, y: x[:, None, 2],
  "glu": lambda x, y: ops.glu(x, axis=-1),
  "hard_sigmoid": lambda x, y: ops.hard_sigmoid(x),
  "hard_silu": lambda x, y: ops.hard_silu(x),
  "leaky_relu": lambda x, y: ops.leaky_relu(x, 0.1),
  "log_softmax": lambda x, y: ops.log_softmax(x, axis=1),
  "logsumexp": lambda x, y: ops.logsumexp(x, axis=-1),
  "matmul": lambda x, y: ops.matmul(x, ops.transpose(y, (0, 1, 3, 2))),
  "matmul_an_array": lambda x, y: x @ np.ones((4, 2), np.float32),
  "max": lambda x, y: ops.max(x, axis=(1, 2)),
  "maximum": lambda x, y: ops.maximum(x, y),
  "mean": lambda x, y: ops.mean(x, axis=(1, 2)),
  "mean_keepdims": lambda x, y: ops.mean(x, axis=[-3, -2], keepdims=True),
  "mean_of_integers": lambda x, y: ops.mean(ops.cast(x, "int32"), axis=1),
  "min": lambda x, y: ops.min(x, axis=-1),
  "minimum": lambda x, y: ops.minimum(x, 0.1),
  "moveaxis": lambda x, y: ops.moveaxis(x, 1, -1),
  "multiply": lambda x, y: x * y,
  "multiply_by_a_number": lambda x, y: x * 3,
  "negative": lambda x, y: -x,
  "normalize": lambda x, y: ops.normalize(x, axis=-1),
  "one_hot": lambda x, y: ops.one_hot(ops.argmax(x, -1), 4),
  "pad": lambda x, y: ops.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), constant_values=2.0),
  "pad_reflect": lambda x, y: ops.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)), mode="reflect"),
  "power": lambda x, y: ops.abs(x) ** 1.5,
  "prod": lambda x, y: ops.prod(x, axis=-1),
  "relu": lambda x, y: ops.relu(x),
  "relu6": lambda x, y: ops.relu6(x * 9),
  "repeat": lambda x, y: ops.repeat(x, 2, axis=1),
  "reshape": lambda x, y: ops.reshape(x, (-1, 30, 4)),
  "reshape_with_the_batch": lambda x, y: ops.reshape(x, (-1, 4)),
  "resize": lambda x, y: ops.image.resize(x, (3, 7)),
  "resize_nearest": lambda x, y: ops.image.resize(x, (12, 10), interpolation="nearest"),
  "roll_by_split": lambda x, y: ops.concatenate(ops.split(x, [2], axis=1)[::-1], axis=1),
  "rsqrt": lambda x, y: ops.rsqrt(1.0 + ops.square(x)),
  "selu": lambda x, y: ops.selu(x),
  "sigmoid": lambda x, y: ops.sigmoid(x),
  "silu": lambda x, y: ops.silu(x),
  "softmax": lambda x, y: ops.softmax(x, axis=1),
  "split": lambda x, y: ops.split(x, 2, axis=-1)[1],
  "sqrt": lambda x, y: ops.sqrt(ops.abs(x)),
  "squeeze": lambda x, y: ops.squeeze(x[:, :1], axis=1),
  "stack": lambda x, y: ops.stack([x, y], axis=1),
  "std": lambda x, y: ops.std(x, axis=1),
  "subtract": lambda x, y: x - y,
  "subtract_from_a_number": lambda x, y: 1 - x,
  "sum": lambda x, y: ops.sum(x, axis=1),
  "sum_of_all": lambda x, y: ops.sum(x, keepdims=True),
  "swapaxes": lambda x, y: ops.swapaxes(x, 1, 2),
  "take": lambda x, y: ops.take(x, [2, 0], axis=1),
  "tanh": lambda x, y: ops.tanh(x),
  "tile": lambda x, y: ops.tile(x, (1, 2, 1, 1)),
  "transpose": lambda x, y: ops.transpose(x, (0, 3, 1, 2)),
  "transpose_the_batch": lambda x, y: ops.transpose(x, (3, 1, 2, 0)),
  "unstack": lambda x, y: ops.unstack(x, axis=1)[2],
  "variance": lambda x, y: ops.var(x, axis=1, keepdims=True),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=list(OPERATIONS))
def test_an_operation_has_the_same_outputs(operation, tmp_path):
  x, y = keras3.Input((6, 5, 4)), keras3.Input((6, 5, 4))
  outputs = operation(x, y)
  model = keras3.Model([x, y], outputs)
  data = list(np.random.default_rng(0).normal(size=(2, 3, 6, 5, 4)).astype(np.float32))
  made = from_keras3(model)
  expected = model(data)
  assert difference(expected, made(data)) < TOLERANCE
  assert outputs._keras_history.operation.name in [layer.name for layer in made.layers]
  made.save(tmp_path / "model.keras")
  assert difference(expected, keras.models.load_model(tmp_path / "model.keras")(data)) < TOLERANCE


@pytest.mark.parametrize(
  "operation, kind",
  [
    ("add", "Add"),
    ("multiply_by_a_number", "Rescaling"),
    ("mean", "GlobalAveragePooling2D"),
    ("relu6", "ReLU"),
    ("hard_silu", "Activation"),
    ("reshape", "Reshape"),
    ("transpose", "Permute"),
    ("concatenate", "Concatenate"),
  ],
)
def test_an_operation_becomes_the_layer_of_its_meaning(operation, kind):
  x, y = keras3.Input((6, 5, 4)), keras3.Input((6, 5, 4))
  model = keras3.Model([x, y], OPERATIONS[operation](x, y))
  assert type(from_keras3(model).layers[-1]).__name__ == kind
