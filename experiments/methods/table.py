"""The compared methods: objectives on layers of `svhn_cnn`."""

from tfkd import objectives as o

BASELINE = "labels"
FIVE_OBJECTIVES = "five_objectives"
STAGES = ["relu2", "relu4", "relu6"]
BEFORE_RELU = ["bn2", "bn4", "bn6"]
LAST = "relu6"
EMBEDDING = "flatten"

METHODS = {
  BASELINE: (),
  "soft_targets": (o.SoftTargets(4.0),),
  "soft_targets_standardized": (o.SoftTargets(2.0, weight=0.3, standardize=True),),
  "decoupled": (o.Decoupled(4.0, beta=2.0),),
  "normalized": (o.Normalized(),),
  "dist": (o.Dist(weight=0.3),),
  "multi_level": (o.MultiLevel(weight=0.01),),
  "transformed_teacher": (o.TransformedTeacher(4.0),),
  "learned_temperature": (o.LearnedTemperature(),),
  "hint": (o.Hint("relu4", "relu4", weight=0.1, connector="conv1x1"),),
  "euclidean": (o.Euclidean("relu4", "relu4", weight=0.02, connector="conv1x1"),),
  "normalized_feature_matching": (o.NormalizedFeatureMatching(STAGES, STAGES, weight=20.0, connector="conv1x1"),),
  "attention_transfer": (o.AttentionTransfer(STAGES, STAGES, weight=20.0),),
  "attention_transfer_paper": (o.AttentionTransfer(STAGES, STAGES, weight=1.0, form="paper"),),
  "neuron_selectivity": (o.NeuronSelectivity(LAST, LAST, weight=2.0),),
  "similarity_preserving": (o.SimilarityPreserving(LAST, LAST, weight=500.0),),
  "flow_of_solution_procedure": (
    o.FlowOfSolutionProcedure(["relu2", "relu4"], ["relu2", "relu4"], weight=1.0, connector="conv1x1"),
  ),
  "kdsvd": (o.KDSVD(STAGES, STAGES, connector="conv1x1"),),
  "activation_boundary": (o.ActivationBoundary("bn6", "bn6", weight=1e-4),),
  "factor_transfer": (o.FactorTransfer(LAST, LAST, weight=200.0),),
  "variational_information": (o.VariationalInformation(STAGES, STAGES),),
  "review_kd": (o.ReviewKD([*STAGES, EMBEDDING], [*STAGES, EMBEDDING]),),
  "ofd": (o.OFD(BEFORE_RELU, BEFORE_RELU),),
  "sim_kd": (o.SimKD(LAST),),
  "srd": (o.SRD(EMBEDDING, EMBEDDING, weight=1.0),),
  "ickd": (o.ICKD(LAST, LAST, weight=1.0),),
  "rkd": (o.RKDDistance(EMBEDDING, EMBEDDING, weight=0.3), o.RKDAngle(EMBEDDING, EMBEDDING, weight=0.6)),
  "distance_metric": (o.DistanceMetric(EMBEDDING, EMBEDDING, weight=0.002),),
  "correlation_congruence": (o.CorrelationCongruence(EMBEDDING, EMBEDDING, weight=0.3),),
  "probabilistic_transfer": (o.ProbabilisticTransfer(EMBEDDING, EMBEDDING),),
  "contrastive": (o.Contrastive(EMBEDDING, EMBEDDING, weight=0.05, queue_size=512),),
  # Shows the cost of a step with several objectives on four layers.
  FIVE_OBJECTIVES: (
    o.SoftTargets(4.0),
    o.Hint(["relu2", "relu4"], ["relu2", "relu4"], weight=0.1, connector="conv1x1"),
    o.AttentionTransfer(STAGES, STAGES, weight=10.0),
    o.SimilarityPreserving(LAST, LAST, weight=100.0),
    o.RKDDistance(EMBEDDING, EMBEDDING, weight=1.0),
  ),
}
"""Name to objectives. Their weights suit this pair of networks; labels have weight 1 in every method."""
