"""Trained models outside Python training code: export, deployment on TensorFlow Serving, client."""

from hetmorph.serving.check import Check, check
from hetmorph.serving.client import Client, ServedPredictor, ServingError, is_endpoint
from hetmorph.serving.deploy import Deployment, deploy
from hetmorph.serving.export import export_savedmodel
from hetmorph.serving.onnx import export_onnx
from hetmorph.serving.warmup import read_warmup, write_warmup
from hetmorph.serving.weights import read_weights, start_from

__all__ = [
    "Check",
    "Client",
    "Deployment",
    "ServedPredictor",
    "ServingError",
    "check",
    "deploy",
    "export_onnx",
    "export_savedmodel",
    "is_endpoint",
    "read_warmup",
    "read_weights",
    "start_from",
    "write_warmup",
]
