"""Networks of sequences and tokens: one-dimensional convolutions, embeddings, attention and masks."""

import numpy as np
import pytest
import tf_keras as keras

from tfkd import deploy, quantization
from tfkd.deploy._interpreter import interpreter, run
from tfkd.quantization.lowering import lower

layers = keras.layers
SEQUENCES = np.random.default_rng(0).normal(size=(32, 12, 8)).astype(np.float32)
TOKENS = np.random.default_rng(0).integers(0, 20, (32, 12)).astype(np.int32)


def _model(body, inputs=SEQUENCES):
  """A model of random weights with a dense layer after the body."""
  source = keras.Input(inputs.shape[1:], dtype=inputs.dtype.name)
  model = keras.Model(source, layers.Dense(3, name="logits")(layers.Flatten()(body(source))))
  rng = np.random.default_rng(0)
  model.set_weights([weight + 0.2 * rng.normal(size=weight.shape) for weight in model.get_weights()])
  return model


def _operations(path):
  return [operation["op_name"] for operation in interpreter(path)._get_ops_details()]


def _check(model, inputs, tmp_path, steps, scheme="w8a8"):
  """Lowers, quantizes, exports and saves; returns the operations of the file."""
  expected = model(inputs).numpy()
  np.testing.assert_allclose(lower(model, ())(inputs), expected, atol=1e-5 * np.ptp(expected))
  quantized = quantization.quantize(model, scheme, calibration_data=inputs)
  path = tmp_path / "model.tflite"
  deploy.to_tflite(quantized, path)  # Refuses a file with float tensors.
  file, emulated = interpreter(path), quantized(inputs).numpy()
  step = file.get_output_details()[0]["quantization"][0]
  assert np.abs(run(file, inputs) - emulated).max() <= (steps + 0.01) * step
  for suffix in (".keras", ".h5"):
    quantization.save(quantized, tmp_path / f"model{suffix}")
    np.testing.assert_array_equal(quantization.load(tmp_path / f"model{suffix}")(inputs), emulated)
  return _operations(path)


CONVOLUTIONS = {
  "strides and groups": lambda: layers.Conv1D(4, 3, strides=2, padding="same", groups=2, activation="relu"),
  "causal and dilated": lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2),
  "depthwise": lambda: layers.DepthwiseConv1D(3, depth_multiplier=2, strides=2, padding="same"),
  "separable": lambda: layers.SeparableConv1D(4, 3, activation="swish"),
  "transposed": lambda: layers.Conv1DTranspose(4, 3, strides=2, activation="tanh"),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_of_sequences_are_integer(kind, tmp_path):
  _check(_model(lambda x: CONVOLUTIONS[kind]()(x)), SEQUENCES, tmp_path, steps=2)


def _keywords(x):
  """A small depthwise separable network for spoken words."""
  x = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(8, 3, padding="same", use_bias=False)(x)))
  x = layers.DepthwiseConv1D(3, strides=2, padding="same", use_bias=False)(x)
  x = layers.ReLU()(layers.BatchNormalization()(x))
  x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv1D(8, 1, use_bias=False)(x)))
  return layers.GlobalAveragePooling1D()(x)


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8"])
def test_normalization_and_relu_fold_into_convolutions_of_sequences(scheme, tmp_path):
  found = _check(_model(_keywords), SEQUENCES, tmp_path, steps=4, scheme=scheme)
  kernels = [name for name in found if name not in ("RESHAPE", "DELEGATE")]
  assert kernels == ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D", "MEAN", "FULLY_CONNECTED"]


def _encoder(x):
  positions = np.random.default_rng(1).normal(size=(1, 12, 8)).astype(np.float32)
  x = layers.Embedding(20, 8)(x)
  x = x + positions
  x = layers.Add()([x, layers.MultiHeadAttention(2, 4)(*[layers.LayerNormalization()(x)] * 2)])
  return layers.GlobalAveragePooling1D()(
    layers.Add()([x, layers.Dense(8)(layers.Dense(16, activation="gelu")(layers.LayerNormalization()(x)))])
  )


# Random weights amplify ties of rounding, of which int4 kernels have more.
@pytest.mark.parametrize(("scheme", "steps"), [("w8a8", 4), ("w4a8", 8)])
def test_an_encoder_of_tokens_is_integer(scheme, steps, tmp_path):
  _check(_model(_encoder, TOKENS), TOKENS, tmp_path, steps=steps, scheme=scheme)


def _masked(reader):
  def body(x):
    x = layers.Embedding(20, 8, mask_zero=True)(x)
    return reader(x)

  return _model(body, TOKENS)


READERS = {
  "MultiHeadAttention": lambda x: layers.MultiHeadAttention(2, 4, name="reader")(x, x),
  "Attention": lambda x: layers.Attention(name="reader")([x, x]),
  "GlobalAveragePooling1D": layers.GlobalAveragePooling1D(name="reader"),
}


@pytest.mark.parametrize("kind", READERS)
def test_layers_that_compute_with_a_mask_are_refused(kind):
  with pytest.raises(ValueError, match=r"'reader'.*reads the mask of its inputs.*float_layers"):
    quantization.quantize(_masked(READERS[kind]), "w8a8")
  quantization.quantize(_masked(READERS[kind]), "w8a8", float_layers=["reader"])  # What the message advises.


def test_masks_that_are_given_are_refused():
  with pytest.raises(ValueError, match="reads use_causal_mask"):
    quantization.quantize(_model(lambda x: layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)), "w8a8")


def test_masks_reach_the_loss():
  tokens = keras.Input((12,), dtype="int32")
  outputs = layers.Dense(3)(layers.LayerNormalization()(layers.Embedding(20, 8, mask_zero=True)(tokens)))
  quantized = quantization.quantize(keras.Model(tokens, outputs), "w8a8", calibration_data=TOKENS)
  np.testing.assert_array_equal(quantized(TOKENS)._keras_mask, TOKENS != 0)
