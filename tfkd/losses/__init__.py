"""Pure functions from tensors to per-example losses [batch]; no state, no reduction over the batch."""

from tfkd.losses.soft_targets import soft_target_cross_entropy as soft_target_cross_entropy
from tfkd.losses.soft_targets import soft_target_kl as soft_target_kl
from tfkd.losses.soft_targets import tempered_cross_entropy as tempered_cross_entropy
