"""Objectives: serializable Keras layers, each of which computes one term of the loss of a `Distiller`.

A class has the paper's name of its method, or the acronym if the paper gives no other name; `get` accepts both. Its
loss is the pure function of `tfkd.losses` that its docstring names, to which it adds layers, connectors and weights.
"""

from tfkd.objectives.activation_boundary import ActivationBoundary as ActivationBoundary
from tfkd.objectives.attention import AttentionTransfer as AttentionTransfer
from tfkd.objectives.base import Objective as Objective
from tfkd.objectives.batch import Batch as Batch
from tfkd.objectives.binary_soft_targets import BinarySoftTargets as BinarySoftTargets
from tfkd.objectives.channel_wise import ChannelWise as ChannelWise
from tfkd.objectives.contrastive import Contrastive as Contrastive
from tfkd.objectives.correlation_congruence import CorrelationCongruence as CorrelationCongruence
from tfkd.objectives.decoupled import Decoupled as Decoupled
from tfkd.objectives.dist import Dist as Dist
from tfkd.objectives.factor_transfer import FactorTransfer as FactorTransfer
from tfkd.objectives.flow_of_solution_procedure import FlowOfSolutionProcedure as FlowOfSolutionProcedure
from tfkd.objectives.hint import Euclidean as Euclidean
from tfkd.objectives.hint import Hint as Hint
from tfkd.objectives.hint import NormalizedFeatureMatching as NormalizedFeatureMatching
from tfkd.objectives.inter_channel import ICKD as ICKD
from tfkd.objectives.learned_temperature import LearnedTemperature as LearnedTemperature
from tfkd.objectives.logits import LogitObjective as LogitObjective
from tfkd.objectives.lookup import get as get
from tfkd.objectives.lookup import names as names
from tfkd.objectives.match import MatchFeatures as MatchFeatures
from tfkd.objectives.match import MatchOutputs as MatchOutputs
from tfkd.objectives.multi_level import MultiLevel as MultiLevel
from tfkd.objectives.neuron_selectivity import NeuronSelectivity as NeuronSelectivity
from tfkd.objectives.normalized import Normalized as Normalized
from tfkd.objectives.overhaul import OFD as OFD
from tfkd.objectives.probabilistic_transfer import ProbabilisticTransfer as ProbabilisticTransfer
from tfkd.objectives.review import ReviewKD as ReviewKD
from tfkd.objectives.rkd import DistanceMetric as DistanceMetric
from tfkd.objectives.rkd import RKDAngle as RKDAngle
from tfkd.objectives.rkd import RKDDistance as RKDDistance
from tfkd.objectives.self_attention import AttentionDistributions as AttentionDistributions
from tfkd.objectives.self_attention import AttentionMaps as AttentionMaps
from tfkd.objectives.self_attention import ValueRelations as ValueRelations
from tfkd.objectives.similarity import SimilarityPreserving as SimilarityPreserving
from tfkd.objectives.simkd import SimKD as SimKD
from tfkd.objectives.simkd import simkd_student as simkd_student
from tfkd.objectives.singular_vectors import KDSVD as KDSVD
from tfkd.objectives.soft_targets import SoftTargets as SoftTargets
from tfkd.objectives.srd import SRD as SRD
from tfkd.objectives.tapped import EmbeddingObjective as EmbeddingObjective
from tfkd.objectives.tapped import TappedObjective as TappedObjective
from tfkd.objectives.transformed_teacher import TransformedTeacher as TransformedTeacher
from tfkd.objectives.variational_information import VariationalInformation as VariationalInformation
