"""Pure functions from tensors to losses: one value for each example, or one where examples are compared.

The teacher comes first, everywhere.
"""

from tfkd.losses.attention import attention_transfer as attention_transfer
from tfkd.losses.decoupled import decoupled as decoupled
from tfkd.losses.dist import dist as dist
from tfkd.losses.hint import euclidean as euclidean
from tfkd.losses.hint import hint as hint
from tfkd.losses.hint import normalized_feature_matching as normalized_feature_matching
from tfkd.losses.probabilistic_transfer import probabilistic_transfer as probabilistic_transfer
from tfkd.losses.rkd import distance_metric as distance_metric
from tfkd.losses.rkd import rkd_angle as rkd_angle
from tfkd.losses.rkd import rkd_distance as rkd_distance
from tfkd.losses.similarity import similarity_preserving as similarity_preserving
from tfkd.losses.soft_targets import soft_target_cross_entropy as soft_target_cross_entropy
from tfkd.losses.soft_targets import soft_target_kl as soft_target_kl
from tfkd.losses.soft_targets import tempered_cross_entropy as tempered_cross_entropy
