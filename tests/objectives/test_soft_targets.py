"""Soft targets with labels as their source, and errors for unsuitable arguments."""

import numpy as np
import pytest
import tensorflow as tf

from tests.losses import references
from tfkd.objectives import SoftTargets

_RNG = np.random.default_rng(0)
_STUDENT = _RNG.normal(size=(5, 4)).astype(np.float32)
_LABELS = np.array([0, 3, 2, 2, 1])
_ONE_HOT = np.eye(4, dtype=np.float32)[_LABELS]
_SMOOTH = 0.9 * _ONE_HOT + 0.025


@pytest.mark.parametrize("labels", [_LABELS, _LABELS[:, None], _ONE_HOT], ids=["indices", "column", "one_hot"])
@pytest.mark.parametrize("form", ["cross_entropy", "kl"])
def test_labels_take_the_teachers_place(labels, form):
  loss = SoftTargets(4.0, source="labels", form=form)((tf.constant(labels), tf.constant(_STUDENT)))
  np.testing.assert_allclose(loss, 16 * references.tempered_cross_entropy(_ONE_HOT, _STUDENT, 4.0), rtol=1e-5)


def test_smoothed_labels_have_their_entropy_subtracted_in_the_kl_form():
  loss = SoftTargets(1.5, source="labels", form="kl")((tf.constant(_SMOOTH), tf.constant(_STUDENT)))
  np.testing.assert_allclose(loss, 2.25 * references.soft_target_kl(1.5 * np.log(_SMOOTH), _STUDENT, 1.5), rtol=1e-5)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_meaningless_weight_is_refused(weight):
  with pytest.raises(ValueError, match=f"objective 'soft_targets' must be a finite number >= 0; got {weight}"):
    SoftTargets(weight=weight)


def test_unknown_forms_and_sources_are_refused():
  with pytest.raises(ValueError, match="'mse'"):
    SoftTargets(form="mse")
  with pytest.raises(ValueError, match="'student'"):
    SoftTargets(source="student")
  with pytest.raises(ValueError, match="got 0"):
    SoftTargets(temperature=0)


def test_labels_of_the_wrong_shape_are_refused():
  with pytest.raises(ValueError, match=r"\(5, 3\) for student logits \(5, 4\)"):
    SoftTargets(source="labels")((tf.zeros([5, 3]), tf.zeros([5, 4])))
