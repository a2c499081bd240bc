"""The Distiller, its reductions over elements and replicas, and its checks."""

from tfkd.distiller.distiller import Distiller as Distiller
