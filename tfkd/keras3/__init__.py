"""Conversion of models between Keras 3 and `tf_keras`.

`from_keras3` rebuilds a model layer by layer, and `to_keras3` is the way back. The steps have modules of their own:

1. `checks`: refuses models without a graph, and names all layers without a counterpart.
2. `table` and `config`: make the counterpart of a layer from its configuration; `substitutes` has the layers that
   `tf_keras` lacks, `activations` the functions, and `expansion` the blocks of KerasHub.
3. `operations` and `rules`: make layers or TensorFlow operations of `keras.ops`; `symbols` is their way back, as
   `reverse_table` is that of layers.
4. `weights`: copies the values and the trainable flags.
"""

from tfkd.keras3._from_keras3 import as_tf_keras as as_tf_keras
from tfkd.keras3._from_keras3 import from_keras3 as from_keras3
from tfkd.keras3._to_keras3 import to_keras3 as to_keras3
from tfkd.keras3.library import is_keras3 as is_keras3
