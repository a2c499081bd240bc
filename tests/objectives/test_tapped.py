"""Taps, connectors and alignment of objectives on features, and what is refused before training."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

import tfkd
from tests.losses import references
from tests.objectives.rows import cnn
from tfkd import objectives as o

layers = keras.layers
RNG = np.random.default_rng(0)
TEACHER = RNG.normal(size=(3, 6, 6, 5)).astype(np.float32)
STUDENT = RNG.normal(size=(3, 4, 4, 5)).astype(np.float32)


def _call(objective, teacher, student):
  return objective(([tf.constant(teacher)], [tf.constant(student)]))


def _build(objective, model):
  """Builds an objective as the `Distiller` does, on the same layers of one model."""
  shapes = tfkd.taps.tappable(model)
  objective.build(([shapes[x] for x in objective.teacher_layers], [shapes[x] for x in objective.student_layers]))


class TestAlignment:
  def test_average_pool_brings_both_to_the_smaller_side_also_where_it_does_not_divide(self):
    student = RNG.normal(size=(3, 4, 7, 5)).astype(np.float32)
    pooled = [np.array([references.average_pool(x, (4, 6)) for x in maps]) for maps in (TEACHER, student)]
    loss = _call(o.Hint("a", "b", alignment="average_pool"), TEACHER, student)
    np.testing.assert_allclose(loss, references.hint(*pooled), rtol=1e-5)

  def test_interpolate_brings_the_student_to_the_teachers_size(self):
    student = tf.image.resize(STUDENT, (6, 6)).numpy()
    loss = _call(o.Hint("a", "b", alignment="interpolate"), TEACHER, STUDENT)
    np.testing.assert_allclose(loss, references.hint(TEACHER, student), rtol=1e-5)

  def test_none_refuses_different_sizes_with_both_layers_and_shapes(self):
    with pytest.raises(
      ValueError, match=r"'hint' on teacher layer 'a' \(3, 6, 6, 5\) and student layer 'b' \(3, 4, 4, 5\).*average_pool"
    ):
      _call(o.Hint("a", "b"), TEACHER, STUDENT)

  def test_a_connector_may_change_the_size(self):
    connector = layers.Conv2D(5, 3, strides=2, padding="same")
    loss = _call(o.Hint("a", "b", connector=connector), TEACHER[:, :2, :2], STUDENT)
    assert loss.shape == (3,)


class TestConnectors:
  def test_every_pair_has_its_own(self):
    objective = o.Hint(["a", "b"], ["a", "b"], connector=layers.Conv2D(5, 1))
    objective(([TEACHER, TEACHER], [TEACHER[..., :2], TEACHER[..., :3]]))
    assert [w.shape[2] for w in objective.trainable_variables if len(w.shape) == 4] == [2, 3]

  def test_are_made_with_the_distiller_and_gone_from_the_exported_student(self, tmp_path):
    student = cnn(4, "student")
    distiller = tfkd.Distiller(cnn(8, "teacher"), student, [o.Hint("relu1", "relu1", connector="conv1x1_bn")])
    assert len(distiller.trainable_variables) == len(student.trainable_variables) + 3
    checkpoint = tf.train.Checkpoint(model=distiller).write(str(tmp_path / "checkpoint"))
    names = [name for name, _ in tf.train.list_variables(checkpoint)]
    assert sum("connectors" in name and "kernel" in name for name in names) == 1
    tfkd.quantization.save(distiller.student, tmp_path / "student.keras")
    assert tfkd.quantization.load(tmp_path / "student.keras").count_params() == cnn(4, "other").count_params()

  def test_stay_float32_under_mixed_precision(self):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
      objective = o.Hint("a", "a", connector="conv1x1_bn")
      loss = _call(objective, TEACHER, tf.cast(TEACHER[..., :2], tf.float16))
    finally:
      keras.mixed_precision.set_global_policy("float32")
    assert loss.dtype == tf.float32 and objective.connectors[0].layers[0].compute_dtype == "float32"


class TestSequences:
  """Time is an axis of positions, as height and width are."""

  TEACHER = RNG.normal(size=(3, 6, 5)).astype(np.float32)
  STUDENT = RNG.normal(size=(3, 6, 7)).astype(np.float32)

  @pytest.mark.parametrize(
    "make, reference",
    [
      (o.AttentionTransfer, references.attention_transfer),
      (o.NeuronSelectivity, references.neuron_selectivity),
      (lambda t, s: o.ChannelWise(t, s, connector="project"), references.channel_wise_kl),
      (lambda t, s: o.ICKD(t, s, connector="project"), references.inter_channel_correlation),
      (lambda t, s: o.VariationalInformation(t, s, initial_variance=2.0), references.variational_information),
      (lambda t, s: o.ActivationBoundary(t, s, connector="project"), references.activation_boundary),
    ],
  )
  def test_losses_are_those_of_a_map_of_height_one(self, make, reference):
    objective = make("a", "a")
    value = _call(objective, self.TEACHER, self.STUDENT)
    student = np.float64(self.STUDENT)
    if objective.connectors[0] is not None:
      student = student @ np.float64(objective.connectors[0].kernel) + np.float64(objective.connectors[0].bias)
    options = {
      references.variational_information: {"variance": np.full(5, 2.0)},
      references.activation_boundary: {"margin": 1.0},
    }
    expected = reference(self.TEACHER[:, None], student[:, None], **options.get(reference, {}))
    np.testing.assert_allclose(value, expected, rtol=1e-4)

  @pytest.mark.parametrize(
    "make, reference",
    [
      (o.FlowOfSolutionProcedure, references.flow_of_solution_procedure),
      (o.KDSVD, references.singular_vectors),
    ],
  )
  def test_losses_of_consecutive_layers_are_those_of_maps_of_height_one(self, make, reference):
    student = self.STUDENT[..., :5]
    later = self.TEACHER[::-1] + 0.5, student[::-1] - 0.5
    objective = make(["a", "b"], ["a", "b"])
    value = objective(([self.TEACHER, later[0]], [student, later[1]]))
    teacher, student = (  # Pairs of an earlier and a later map of each example.
      np.stack([first, second], axis=1)[:, :, None]
      for first, second in zip((self.TEACHER, student), later, strict=True)
    )
    expected = reference(teacher, student)
    np.testing.assert_allclose(value, expected, rtol=1e-3)

  def test_are_pooled_and_interpolated(self):
    student = RNG.normal(size=(3, 4, 5)).astype(np.float32)
    pooled = np.array([references.average_pool(x[None], (1, 4)) for x in self.TEACHER])
    loss = _call(o.Hint("a", "b", alignment="average_pool"), self.TEACHER, student)
    np.testing.assert_allclose(loss, references.hint(pooled[:, 0], student), rtol=1e-5)
    # Linear between the centres of the student's steps, constant beyond the first and the last.
    centres = (np.arange(6) + 0.5) * 4 / 6 - 0.5
    resized = [[np.interp(centres, np.arange(4), c) for c in np.float64(x).T] for x in student]
    loss = _call(o.Hint("a", "b", alignment="interpolate"), self.TEACHER, student)
    np.testing.assert_allclose(loss, references.hint(self.TEACHER, np.swapaxes(resized, 1, 2)), rtol=1e-5)


class TestErrorsAtConstruction:
  def _distiller(self, objective):
    return tfkd.Distiller(cnn(8, "teacher"), cnn(4, "student"), [objective])

  def test_channels_that_differ_name_both_and_the_connector(self):
    with pytest.raises(ValueError, match=r"'relu1' \(None, 4, 4, 16\).*'relu1' \(None, 4, 4, 8\): .*16 and 8.*project"):
      self._distiller(o.Hint("relu1", "relu1"))

  def test_a_connector_of_the_wrong_width_is_found(self):
    with pytest.raises(ValueError, match="16 and 7 channels, after any connector"):
      self._distiller(o.Hint("relu1", "relu1", connector=layers.Conv2D(7, 1)))

  def test_maps_are_not_compared_with_vectors(self):
    with pytest.raises(ValueError, match="features of 4 and 2 axes cannot be compared"):
      self._distiller(o.Hint("relu1", "embedding", connector="linear"))

  @pytest.mark.parametrize("make", [o.AttentionTransfer, o.NeuronSelectivity, o.ChannelWise, o.FactorTransfer, o.ICKD])
  def test_methods_that_compare_positions_refuse_vectors(self, make):
    with pytest.raises(ValueError, match="'embedding'.*compares positions.*the teacher's feature is a vector: tap"):
      self._distiller(make("embedding", "embedding"))

  def test_sequences_of_different_length_are_refused_or_aligned(self):
    inputs = keras.Input((6, 3))
    x = layers.Conv1D(5, 3, name="b")(layers.Conv1D(5, 1, name="a")(inputs))
    x = layers.Conv2D(5, 1, name="map")(layers.Reshape((2, 2, 5))(x))
    model = keras.Model(inputs, layers.Dense(4, name="logits")(layers.Flatten()(x)))
    with pytest.raises(ValueError, match=r"'a' \(None, 6, 5\) .*'b' \(None, 4, 5\).*differ in length: set alignment"):
      tfkd.Distiller(model, model, [o.AttentionTransfer("a", "b")])
    tfkd.Distiller(model, model, [o.AttentionTransfer("a", "b", alignment="average_pool")])
    with pytest.raises(ValueError, match="consecutive layers position by position; got 'b' .* and 'map' .*: tap"):
      tfkd.Distiller(model, model, [o.FlowOfSolutionProcedure(["a", "b", "map"], ["a", "b", "map"])])
    with pytest.raises(ValueError, match="resizes its features to each other; got features of 3 and 4 axes"):
      tfkd.Distiller(model, model, [o.ReviewKD(["b", "map"], ["b", "map"])])

  def test_unknown_channels_or_positions_are_refused_where_weights_depend_on_them(self):
    inputs = keras.Input((None, None, 3))
    conv = layers.Conv2D(4, 1, name="conv")(inputs)
    flat = layers.Lambda(lambda x: tf.reshape(x, [tf.shape(x)[0], -1]), output_shape=(None,), name="flat")(conv)
    model = keras.Model(inputs, [layers.GlobalAveragePooling2D(name="logits")(conv), flat])
    for make in (o.Hint, o.OFD, o.Contrastive, o.SRD, o.ReviewKD):
      with pytest.raises(ValueError, match="'flat' .*teacher's feature must have a known number of channels.*build"):
        _build(make("flat", "flat"), model)
    with pytest.raises(ValueError, match="'conv' .*the teacher's with known positions: build the teacher for a fixed"):
      _build(o.ReviewKD("conv", "conv"), model)
    for objective in (o.RKDDistance("flat", "flat"), o.SimilarityPreserving("flat", "flat"), o.ICKD("conv", "conv")):
      _build(objective, model)

  def test_a_layer_of_neither_model_names_the_nearest(self):
    with pytest.raises(ValueError, match="teacher has no layer 'relu7'; did you mean"):
      self._distiller(o.AttentionTransfer("relu7", "relu1"))
    with pytest.raises(ValueError, match="student has no layer 'relu7'; did you mean"):
      self._distiller(o.AttentionTransfer("relu1", "relu7"))

  def test_more_singular_vectors_than_there_are_positions_are_refused(self):
    with pytest.raises(
      ValueError, match="'kdsvd' on teacher layer 'relu1'.*rank 17 is more than .* positions or channels"
    ):
      self._distiller(o.KDSVD(["relu1", "relu1"], ["relu1", "relu1"], connector="conv1x1", rank=17))

  def test_a_relation_in_a_batch_of_one_is_refused(self):
    inputs = keras.Input(batch_shape=(1, 6))
    model = keras.Model(inputs, layers.Dense(4, name="logits")(inputs))
    with pytest.raises(ValueError, match="'rkd_distance' compares the examples of a batch, and the batch has one"):
      tfkd.Distiller(model, model, [o.RKDDistance("logits", "logits")])

  @pytest.mark.parametrize(
    "make, words",
    [
      (lambda: o.Hint(["a", "b"], ["a"]), "one student layer for each teacher layer"),
      (lambda: o.Hint([], []), "one student layer for each teacher layer"),
      (lambda: o.Hint("a", "a", connector="conv3x3"), "unknown connector 'conv3x3'"),
      (lambda: o.Hint("a", "a", alignment="crop"), "unknown alignment 'crop'"),
      (lambda: o.FlowOfSolutionProcedure("a", "a"), "two layers of each model"),
      (lambda: o.KDSVD("a", "a"), "two layers of each model"),
      (lambda: o.KDSVD(["a", "b"], ["a", "b"], rank=0), "rank must be at least 1; got 0"),
      (lambda: o.Contrastive(["a", "b"], ["a", "b"]), "one layer of each model"),
      (lambda: o.Contrastive("a", "a", queue_size=0), "must be positive; got 128, 0"),
      (lambda: o.FactorTransfer("a", "a", rate=0), r"rate must be in \(0, 1\]; got 0"),
      (lambda: o.ActivationBoundary("a", "a", margin=0), "margin must be positive; got 0"),
      (lambda: o.AttentionTransfer("a", "a", form="torch"), "'torch'"),
      (lambda: o.VariationalInformation("a", "a", initial_variance=0), "must be above"),
      (lambda: o.NormalizedFeatureMatching("a", "a", epsilon=0), "epsilon must be positive"),
      (lambda: o.LearnedTemperature(span=0), "span and ramp_steps must be positive; got 0"),
      (lambda: o.ReviewKD("a", "a", channels=0), "channels must be positive; got 0"),
      (lambda: o.SRD("a", "a", power=0), "power must be at least 1; got 0"),
      (lambda: o.Hint("a", "a", weight=-1), "must be a finite number >= 0; got -1"),
    ],
  )
  def test_arguments_out_of_range_are_refused(self, make, words):
    with pytest.raises(ValueError, match=words):
      make()


def _unit_rows(x):
  return x / np.linalg.norm(x, axis=1, keepdims=True)


class TestState:
  def test_contrastive_queues_hold_the_latest_embeddings_and_labels(self):
    objective = o.Contrastive("a", "a", dimensions=2, queue_size=5)
    batches = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    for x, labels in zip(batches, ([0, 1, 2], [3, 4, 5]), strict=True):
      objective(([tf.constant(x)], [tf.constant(x)], tf.constant(labels)), training=True)
    assert objective.queue_labels.numpy().tolist() == [3, 4, 5, 0, 1]
    (first_teacher, teacher), (first_student, _) = (
      [_unit_rows(projection(x).numpy()) for x in batches] for projection in objective.projections
    )
    np.testing.assert_allclose(objective.queues[0][:3], teacher, rtol=1e-5)
    np.testing.assert_allclose(objective.queues[0][3:], first_teacher[:2], rtol=1e-5)
    # The normalizer is estimated on the first batch alone.
    expected = np.exp(first_teacher @ first_student.T / 0.07).mean()
    np.testing.assert_allclose(objective.normalizer, expected, rtol=1e-4)

  def test_contrastive_takes_one_hot_labels(self):
    x = tf.ones([3, 4])
    losses = []
    for labels in (tf.constant([0, 2, 1]), tf.constant([[0], [2], [1]]), tf.one_hot([0, 2, 1], 5)):
      objective = o.Contrastive("a", "a", dimensions=2, queue_size=5)
      objective(([x], [x], labels), training=True)
      losses.append(objective.queue_labels.numpy().tolist())
    assert losses == 3 * [[0, 2, 1, -1, -1]]

  def test_contrastive_queues_hold_the_examples_of_all_replicas(self, two_replicas):
    with two_replicas.scope():
      objective = o.Contrastive("a", "a", dimensions=2, queue_size=8)
      objective.build(([tf.TensorShape([None, 4])], [tf.TensorShape([None, 4])]))
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    batches = tf.data.Dataset.from_tensor_slices((x, np.arange(6))).batch(6)

    @tf.function
    def step(x, labels):
      return objective(([x], [x], labels), training=True)

    for x, labels in two_replicas.experimental_distribute_dataset(batches):
      two_replicas.run(step, (x, labels))
    copies = two_replicas.experimental_local_results(objective.queue_labels)
    assert len(copies) == 2
    for labels in copies:
      assert sorted(labels.numpy().tolist()) == [-1, -1, 0, 1, 2, 3, 4, 5]

  def test_overhaul_measures_the_mean_negative_response_of_each_channel(self):
    objective = o.OFD("a", "a", connector=None)
    batches = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 5)).astype(np.float32)
    for x in batches:
      objective(([tf.constant(x)], [tf.constant(x)]), training=True)
    total, count = objective.negatives[0].numpy()
    expected = [channel[channel < 0].mean() for channel in batches.reshape(-1, 5).T]
    np.testing.assert_allclose(total / count, expected, rtol=1e-5)

  def test_variances_of_information_are_trained(self):
    objective = o.VariationalInformation("a", "a", initial_variance=2.0)
    optimizer = keras.optimizers.SGD(1.0)
    for _ in range(30):
      with tf.GradientTape() as tape:
        loss = tf.reduce_mean(objective(([tf.constant(10 * TEACHER)], [tf.zeros_like(TEACHER)])))
      rho = objective.variances[0]
      optimizer.apply_gradients([(tape.gradient(loss, rho), rho)])
    assert any(rho is v for v in objective.trainable_variables)
    assert (tf.nn.softplus(rho).numpy() > 2.5).all()  # The variance of channels that cannot be predicted grows.

  def test_the_student_does_not_teach_the_paraphraser(self):
    objective = o.FactorTransfer("a", "a")
    teacher, student = tf.constant(TEACHER), tf.Variable(STUDENT[..., :2].repeat(2, 1).repeat(2, 2)[:, :6, :6])
    objective(([teacher], [student]))
    gradients = []
    translated = []
    # Another direction, not another length: the loss ignores that.
    for values in (student.numpy(), np.random.default_rng(1).normal(size=student.shape)):
      student.assign(values)
      with tf.GradientTape() as tape:
        loss = tf.reduce_sum(objective(([teacher], [student])))
      gradients.append(tape.gradient(loss, objective.paraphrasers[0].trainable_variables))
      translated.append(float(loss))
    assert abs(translated[0] - translated[1]) > 1e-3
    for a, b in zip(*gradients, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    # It is trained only by the error of its own autoencoder.
    with tf.GradientTape() as tape:
      restored = objective.restorers[0](objective.paraphrasers[0](teacher))
      error = tf.reduce_sum(tf.reduce_mean(tf.square(teacher - restored), axis=[1, 2, 3]))
    expected = tape.gradient(error, objective.paraphrasers[0].trainable_variables)
    for a, b in zip(gradients[0], expected, strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)

  def test_learned_temperature_climbs_while_the_student_descends(self):
    objective = o.LearnedTemperature(ramp_steps=10)
    teacher, student = RNG.normal(size=(2, 8, 5)).astype(np.float32)
    gradients = []
    for step in (0, 5, 10, 99):
      with tf.GradientTape() as tape:
        loss = tf.reduce_mean(objective((tf.constant(teacher), tf.constant(student)), step=tf.constant(step)))
      gradients.append(float(tape.gradient(loss, objective.theta)))
    theta = 1.0 + 1e-3 * np.array([-1, 1])
    temperatures = 1 + 20 / (1 + np.exp(-theta))
    low, high = (t**2 * references.soft_target_kl(teacher, student, t).mean() for t in temperatures)
    # Half strength in the middle of the cosine, full after it; against the gradient of the formula.
    np.testing.assert_allclose(gradients, [0, *(np.array([-0.5, -1, -1]) * (high - low) / 2e-3)], rtol=1e-2, atol=1e-7)


class TestSimKD:
  def test_student_ends_in_the_teachers_frozen_classifier(self, tmp_path):
    teacher, student = cnn(8, "teacher"), cnn(4, "student")
    joined = o.simkd_student(teacher, student, "relu1", "relu1")
    classifier = joined.get_layer("teacher_logits")
    np.testing.assert_array_equal(classifier.get_weights()[0], teacher.get_layer("logits").get_weights()[0])
    assert not classifier.trainable and joined.get_layer("conv0") is student.get_layer("conv0")
    # With the teacher's own map in place of the projection, the logits are the teacher's.
    images = RNG.uniform(size=(2, 8, 8, 3)).astype(np.float32)
    feature = keras.Model(teacher.input, teacher.get_layer("relu1").output)(images)
    pooled = joined.get_layer("teacher_embedding")(feature)
    np.testing.assert_allclose(classifier(pooled), teacher(images), rtol=1e-5)
    quantized = tfkd.quantization.quantize(joined, "w8a8", calibration_data=images)
    tfkd.deploy.to_tflite(quantized, tmp_path / "student.tflite")
    assert (tmp_path / "student.tflite").stat().st_size > 0

  def test_maps_of_different_size_are_pooled(self):
    joined = o.simkd_student(cnn(8, "teacher"), cnn(4, "student"), "relu1", "relu0")
    assert joined.get_layer("simkd_projection").output.shape[1:] == (4, 4, 16)

  def test_unsuitable_layers_and_classifiers_are_refused(self):
    teacher, student = cnn(8, "teacher"), cnn(4, "student")
    with pytest.raises(ValueError, match="joins maps"):
      o.simkd_student(teacher, student, "embedding", "embedding")
    with pytest.raises(ValueError, match="teacher has no layer 'relu9' of its own"):
      o.simkd_student(teacher, student, "relu9", "relu1")
    inputs = keras.Input((8, 8, 3))
    first = layers.Conv2D(4, 1, name="first")(inputs)
    second = layers.Conv2D(4, 1, name="second")(first)
    skips = keras.Model(inputs, layers.Flatten()(layers.Add(name="sum")([first, second])), name="skips")
    with pytest.raises(ValueError, match="skips's 'sum' reads more than 'second'"):
      o.simkd_student(skips, student, "second", "relu0")


class TestLookup:
  def test_names_and_configurations_make_objectives(self):
    assert "rkd_angle" in o.names() and "objective" not in o.names() and "tapped_objective" not in o.names()
    assert isinstance(o.get("soft_targets"), o.SoftTargets) and isinstance(o.get("SoftTargets"), o.SoftTargets)
    config = {"teacher_layer": "a", "student_layer": "b", "weight": 2.0}
    hint = o.get({"class_name": "hint", "config": config})
    assert (hint.teacher_layers, hint.weight) == (("a",), 2.0)
    assert o.get(hint) is hint
    assert isinstance(o.get("kd"), o.SoftTargets) and isinstance(o.get("DKD"), o.Decoupled)
    assert isinstance(o.get({"class_name": "rkd-a", "config": config}), o.RKDAngle)
    assert isinstance(o.get({"class_name": "reviewkd", "config": config}), o.ReviewKD)
    assert o.get(keras.saving.serialize_keras_object(hint)).get_config() == hint.get_config()

  def test_a_new_class_is_found_without_being_entered(self):
    @keras.utils.register_keras_serializable(package="tests")
    class Brand(o.Objective):
      def call(self, inputs):
        return tf.reduce_sum(inputs[1], axis=-1)

    assert "brand" in o.names() and isinstance(o.get("brand"), Brand)

  @pytest.mark.parametrize(
    "identifier, words",
    [
      ("hnit", "unknown objective 'hnit'; did you mean 'hint'"),
      ("hint", r"objective 'hint' takes \(teacher_layer, student_layer"),
      ({"class_name": "SoftTargets", "config": {"temp": 3}}, "temp"),
      ({"name": "hint"}, "expected a dict"),
      ("rkd", "'rkd' names several objectives: choose one of rkd_angle, rkd_distance"),
    ],
  )
  def test_what_does_not_fit_is_refused(self, identifier, words):
    with pytest.raises(ValueError, match=words):
      o.get(identifier)
