"""Loss functions of tensors, without state.

Each takes the teacher's tensor first. Losses of single examples return one value per example; relational losses, which
compare the examples of a batch, return a scalar.
"""

from tfkd.losses._activation_boundary import activation_boundary as activation_boundary
from tfkd.losses._attention import attention_transfer as attention_transfer
from tfkd.losses._channel_wise import channel_wise_kl as channel_wise_kl
from tfkd.losses._contrastive import contrastive as contrastive
from tfkd.losses._correlation_congruence import correlation_congruence as correlation_congruence
from tfkd.losses._decoupled import decoupled as decoupled
from tfkd.losses._dist import dist as dist
from tfkd.losses._factor_transfer import factor_transfer as factor_transfer
from tfkd.losses._flow_of_solution_procedure import flow_of_solution_procedure as flow_of_solution_procedure
from tfkd.losses._hint import euclidean as euclidean
from tfkd.losses._hint import hint as hint
from tfkd.losses._hint import normalized_feature_matching as normalized_feature_matching
from tfkd.losses._inter_channel import inter_channel_correlation as inter_channel_correlation
from tfkd.losses._keras_loss import keras_loss as keras_loss
from tfkd.losses._multi_level import multi_level as multi_level
from tfkd.losses._neuron_selectivity import neuron_selectivity as neuron_selectivity
from tfkd.losses._normalized import normalized as normalized
from tfkd.losses._overhaul import partial_distance as partial_distance
from tfkd.losses._probabilistic_transfer import probabilistic_transfer as probabilistic_transfer
from tfkd.losses._review import hierarchical_context as hierarchical_context
from tfkd.losses._rkd import distance_metric as distance_metric
from tfkd.losses._rkd import rkd_angle as rkd_angle
from tfkd.losses._rkd import rkd_distance as rkd_distance
from tfkd.losses._self_attention import attention_divergence as attention_divergence
from tfkd.losses._self_attention import attention_maps as attention_maps
from tfkd.losses._self_attention import value_relations as value_relations
from tfkd.losses._similarity import similarity_preserving as similarity_preserving
from tfkd.losses._singular_vectors import singular_vectors as singular_vectors
from tfkd.losses._soft_targets import binary_soft_target_kl as binary_soft_target_kl
from tfkd.losses._soft_targets import soft_target_cross_entropy as soft_target_cross_entropy
from tfkd.losses._soft_targets import soft_target_jsd as soft_target_jsd
from tfkd.losses._soft_targets import soft_target_kl as soft_target_kl
from tfkd.losses._soft_targets import soft_target_reverse_kl as soft_target_reverse_kl
from tfkd.losses._soft_targets import tempered_cross_entropy as tempered_cross_entropy
from tfkd.losses._srd import log_power_distance as log_power_distance
from tfkd.losses._standardized import standardize_logits as standardize_logits
from tfkd.losses._top_k import TopK as TopK
from tfkd.losses._top_k import top_k as top_k
from tfkd.losses._top_k import with_label_and_rest as with_label_and_rest
from tfkd.losses._top_k import with_rest as with_rest
from tfkd.losses._transformed_teacher import transformed_teacher as transformed_teacher
from tfkd.losses._variational_information import variational_information as variational_information
