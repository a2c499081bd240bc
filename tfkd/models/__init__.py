"""Networks of the homeworks, as `tf_keras` functional models from images to logits."""

from tfkd.models.svhn_cnn import svhn_cnn as svhn_cnn
