"""Image classifiers as `tf_keras` functional models from images to logits, and their names."""

from tfkd.models._efficientnet_lite import efficientnet_lite as efficientnet_lite
from tfkd.models._mlperf_tiny import mlperf_resnet8 as mlperf_resnet8
from tfkd.models._mobilenet import mobilenet as mobilenet
from tfkd.models._mobilenet import mobilenet_v2 as mobilenet_v2
from tfkd.models._resized import network_of as network_of
from tfkd.models._resized import resized as resized
from tfkd.models._svhn_cnn import svhn_cnn as svhn_cnn
from tfkd.models._vit import vit as vit
from tfkd.models.applications import application as application
from tfkd.models.depthwise import depthwise_cnn as depthwise_cnn
from tfkd.models.depthwise import plain_cnn as plain_cnn
from tfkd.models.family import Family as Family
from tfkd.models.registry import FAMILIES as FAMILIES
from tfkd.models.registry import build as build
from tfkd.models.registry import parse as parse
from tfkd.models.resnet import cifar_resnet as cifar_resnet
from tfkd.models.resnet import resnet18 as resnet18
from tfkd.models.resnet import resnet34 as resnet34
from tfkd.models.resnet import resnet50 as resnet50
from tfkd.models.resnet import wide_resnet as wide_resnet
from tfkd.models.torch_weights import load_torch_weights as load_torch_weights
from tfkd.ops._flatten import flatten as flatten
