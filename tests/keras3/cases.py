"""One or more layers of each class of `keras.layers`, with the shapes of their inputs."""

import keras as keras3
import numpy as np

L = keras3.layers
FLAT, SEQUENCE, IMAGE, VOLUME = (6,), (8, 4), (9, 8, 4), (5, 6, 4, 2)
SHAPES = {1: SEQUENCE, 2: IMAGE, 3: VOLUME}


def _ranked(name, *options):
  return {
    f"{name}{n}D": [(lambda o=o, n=n: getattr(L, f"{name}{n}D")(**o), SHAPES[n]) for o in options] for n in SHAPES
  }


def _only(name, shapes, *options):
  return {name: [(lambda o=o: getattr(L, name)(**o), shapes) for o in options]}


CONVOLUTIONS = (
  {"filters": 4, "kernel_size": 3, "padding": "same", "kernel_regularizer": "l2", "activation": "hard_silu"},
  {"filters": 4, "kernel_size": 2, "dilation_rate": 2, "use_bias": False, "kernel_constraint": "max_norm"},
  {"filters": 2, "kernel_size": 2, "strides": 2, "activation": "relu6"},
)
GROUPS = {"filters": 4, "kernel_size": 2, "groups": 2}
TRANSPOSED = (
  {"filters": 3, "kernel_size": 3, "strides": 2, "padding": "same", "activation": "hard_sigmoid"},
  {"filters": 3, "kernel_size": 3, "strides": 2, "use_bias": False},
)
DEPTHWISE = ({"kernel_size": 3, "padding": "same"}, {"kernel_size": 2, "strides": 2, "depth_multiplier": 2})
POOLS = ({"pool_size": 2}, {"pool_size": 3, "strides": 2, "padding": "same"})
RECURRENT = (
  {"units": 3},
  {"units": 3, "return_sequences": True, "go_backwards": True, "recurrent_regularizer": "l1"},
  {"units": 3, "return_state": True, "activation": "relu", "unroll": True},
)
GATED = ({"units": 3, "recurrent_activation": "hard_sigmoid"},)
VOCABULARY = np.array(["a", "b", "c"])

LAYERS = {
  **_only(
    "Activation",
    FLAT,
    *[{"activation": n} for n in ("relu", "relu6", "hard_silu", "hard_sigmoid", "silu", "leaky_relu", "log_softmax")],
    *[{"activation": n} for n in ("gelu", "celu", "hard_tanh", "tanh_shrink", "squareplus", "glu", "log_sigmoid")],
    *[{"activation": n} for n in ("elu", "selu", "softplus", "softsign", "exponential", "mish", "linear", "tanh")],
  ),
  **_only("ActivityRegularization", FLAT, {"l1": 0.1}),
  **_ranked("AdaptiveAveragePooling", {"output_size": 3}, {"output_size": 3, "data_format": "channels_first"}),
  **_ranked("AdaptiveMaxPooling", {"output_size": 2}),
  **_only("Add", [FLAT, FLAT], {}),
  **_only("AdditiveAttention", [SEQUENCE, SEQUENCE], {}, {"use_scale": False}),
  **_only("AlphaDropout", FLAT, {"rate": 0.5}),
  **_only("Attention", [SEQUENCE, SEQUENCE], {}, {"use_scale": True}, {"score_mode": "concat"}),
  **_only("Average", [FLAT, FLAT], {}),
  **_ranked("AveragePooling", *POOLS),
  **_only("BatchNormalization", IMAGE, {}, {"axis": 1, "scale": False, "epsilon": 0.1}, {"center": False}),
  "Bidirectional": [
    (lambda: L.Bidirectional(L.LSTM(3)), SEQUENCE),
    (lambda: L.Bidirectional(L.GRU(3, return_sequences=True), merge_mode="sum", name="both"), SEQUENCE),
    (lambda: L.Bidirectional(L.LSTM(3), backward_layer=L.GRU(3, go_backwards=True)), SEQUENCE),
  ],
  **_only("CategoryEncoding", (3,), {"num_tokens": 4}, {"num_tokens": 4, "output_mode": "count"}),
  **_only("CenterCrop", IMAGE, {"height": 4, "width": 5}),
  **_only("Concatenate", [FLAT, FLAT], {}),
  **_ranked("Conv", *CONVOLUTIONS, GROUPS),
  **{f"Conv{n}DTranspose": cases for n, cases in zip(SHAPES, ([], [], []), strict=True)},
  **{f"ConvLSTM{n}D": [] for n in SHAPES},
  **_ranked("Cropping", {"cropping": 1}),
  **_only("Dense", SEQUENCE, {"units": 3}, {"units": 3, "activation": "gelu", "use_bias": False}),
  **_only("DepthwiseConv1D", SEQUENCE, *DEPTHWISE),
  **_only("DepthwiseConv2D", IMAGE, *DEPTHWISE, {"kernel_size": 2, "dilation_rate": 2, "activation": "silu"}),
  **_only("Discretization", FLAT, {"bin_boundaries": [-0.5, 0.0, 0.7]}),
  **_only("Dot", [SEQUENCE, SEQUENCE], {"axes": 2}, {"axes": (1, 1), "normalize": True}),
  **_only("Dropout", FLAT, {"rate": 0.5, "seed": 1}, {"rate": 0.2, "noise_shape": (None, 1)}),
  **_only("ELU", FLAT, {"alpha": 0.5}),
  **_only("EinsumDense", SEQUENCE, {"equation": "abc,cd->abd", "output_shape": (None, 3), "bias_axes": "d"}),
  **_only("Embedding", (5,), {"input_dim": 9, "output_dim": 3}, {"input_dim": 9, "output_dim": 3, "mask_zero": True}),
  **_only("Flatten", IMAGE, {}, {"data_format": "channels_first"}),
  **_only("GRU", SEQUENCE, *RECURRENT, *GATED, {"units": 3, "reset_after": False}),
  **_only("GaussianDropout", FLAT, {"rate": 0.5}),
  **_only("GaussianNoise", FLAT, {"stddev": 0.5}),
  **_ranked("GlobalAveragePooling", {}, {"keepdims": True}, {"data_format": "channels_first"}),
  **_ranked("GlobalMaxPooling", {}),
  **_only("GroupNormalization", IMAGE, {"groups": 2}, {"groups": -1, "scale": False}),
  "GroupQueryAttention": [
    (lambda: L.GroupQueryAttention(2, 4, 2), [SEQUENCE, SEQUENCE]),
    (lambda: L.GroupQueryAttention(2, 4, 2, use_bias=False, kernel_regularizer="l2"), [SEQUENCE, (5, 4)]),
  ],
  **_only("Hashing", (3,), {"num_bins": 5}, {"num_bins": 5, "salt": 3}),
  **_only("Identity", FLAT, {}),
  **_only("LSTM", SEQUENCE, *RECURRENT, *GATED, {"units": 3, "unit_forget_bias": False}),
  **_only("LayerNormalization", IMAGE, {}, {"axis": [1, 2], "epsilon": 0.1}, {"center": False}),
  **_only("LeakyReLU", FLAT, {"negative_slope": 0.1}),
  **_only("Masking", SEQUENCE, {}),
  **_ranked("MaxPooling", *POOLS),
  **_only("Maximum", [FLAT, FLAT], {}),
  **_only("Minimum", [FLAT, FLAT], {}),
  **_only(
    "MultiHeadAttention",
    [SEQUENCE, SEQUENCE],
    {"num_heads": 2, "key_dim": 3},
    {"num_heads": 2, "key_dim": 3, "value_dim": 2, "output_shape": 5},
  ),
  **_only("Multiply", [FLAT, FLAT], {}),
  **_only("Normalization", IMAGE, {}, {"axis": (1, 3)}, {"mean": [0.1] * 4, "variance": [2.0] * 4}, {"axis": None}),
  **_only("PReLU", IMAGE, {}, {"shared_axes": [1, 2]}),
  **_only("Permute", SEQUENCE, {"dims": (2, 1)}),
  **_only("RMSNormalization", IMAGE, {}, {"axis": [2, 3]}),
  "RNN": [
    (lambda: L.RNN(L.LSTMCell(3), return_sequences=True), SEQUENCE),
    (lambda: L.RNN([L.GRUCell(3), L.SimpleRNNCell(2)]), SEQUENCE),
  ],
  **_only("RandomBrightness", IMAGE, {"factor": 0.2}),
  **_only("RandomContrast", IMAGE, {"factor": 0.2}),
  **_only("RandomFlip", IMAGE, {}, {"mode": "horizontal"}),
  **_only("RandomRotation", IMAGE, {"factor": 0.2}),
  **_only("RandomTranslation", IMAGE, {"height_factor": 0.2, "width_factor": 0.1}),
  **_only("RandomZoom", IMAGE, {"height_factor": 0.2}),
  **_only("ReLU", FLAT, {}, {"max_value": 1.0, "negative_slope": 0.1, "threshold": 0.2}),
  **_only("RepeatVector", FLAT, {"n": 3}),
  **_only(
    "Rescaling", IMAGE, {"scale": 0.1, "offset": 1.0}, {"scale": [1.0, 2.0, 3.0, 4.0], "offset": [0.0, 1.0, 2.0, 3.0]}
  ),
  **_only("Reshape", IMAGE, {"target_shape": (-1, 2)}),
  **_only(
    "Resizing",
    IMAGE,
    {"height": 5, "width": 4},
    {"height": 12, "width": 12, "interpolation": "nearest"},
    {"height": 4, "width": 6, "crop_to_aspect_ratio": True},
  ),
  **_only(
    "SeparableConv1D",
    SEQUENCE,
    {"filters": 3, "kernel_size": 3},
    {"filters": 3, "kernel_size": 2, "depth_multiplier": 2},
  ),
  **_only(
    "SeparableConv2D",
    IMAGE,
    {"filters": 3, "kernel_size": 3},
    {"filters": 3, "kernel_size": 2, "strides": 2, "depth_multiplier": 2},
  ),
  **_only("SimpleRNN", SEQUENCE, *RECURRENT),
  **_only("Softmax", IMAGE, {}, {"axis": 1}, {"axis": [1, 2]}),
  **_ranked("SpatialDropout", {"rate": 0.5}),
  "SpectralNormalization": [(lambda: L.SpectralNormalization(L.Conv2D(3, 2)), IMAGE)],
  **_only("Subtract", [FLAT, FLAT], {}),
  "TimeDistributed": [
    (lambda: L.TimeDistributed(L.Dense(3)), SEQUENCE),
    (lambda: L.TimeDistributed(keras3.Sequential([keras3.Input((4,)), L.Dense(3), L.BatchNormalization()])), SEQUENCE),
  ],
  **_only("UnitNormalization", IMAGE, {}, {"axis": 1}),
  **_ranked("UpSampling", {"size": 2}),
  **_ranked("ZeroPadding", {"padding": 1}),
}
for n, shape in SHAPES.items():
  LAYERS[f"Conv{n}DTranspose"] = [(lambda o=o, n=n: getattr(L, f"Conv{n}DTranspose")(**o), shape) for o in TRANSPOSED]
  LAYERS[f"ConvLSTM{n}D"] = [
    (lambda n=n: getattr(L, f"ConvLSTM{n}D")(2, 2), (3, *shape)),
    (lambda n=n: getattr(L, f"ConvLSTM{n}D")(2, 3, padding="same", return_sequences=True), (3, *shape)),
  ]
LAYERS["UpSampling2D"].append((lambda: L.UpSampling2D((2, 3), interpolation="bilinear"), IMAGE))
LAYERS["ZeroPadding2D"].append((lambda: L.ZeroPadding2D(((0, 1), (2, 0)), data_format="channels_first"), IMAGE))
LAYERS["MaxPooling2D"].append((lambda: L.MaxPooling2D(2, data_format="channels_first"), IMAGE))
# Inputs that are indices, not features.
INDICES = {"Embedding", "CategoryEncoding", "Hashing"}
# Parts of the cases of other classes.
CELLS = {"GRUCell": "RNN", "LSTMCell": "RNN", "SimpleRNNCell": "RNN", "StackedRNNCells": "RNN"}
# Layers of strings, which have tests of their own.
STRINGS = {"HashedCrossing", "IntegerLookup", "StringLookup", "TextVectorization"}
# Not layers of a graph.
ABSTRACT = {"Input", "InputLayer", "InputSpec", "Layer", "Wrapper"}
