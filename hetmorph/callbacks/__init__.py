"""Keras callbacks: validation, sanity checks, exact resume, a sign of life."""

from hetmorph.callbacks.checkpoint import Checkpoint, latest_checkpoint
from hetmorph.callbacks.heartbeat import Heartbeat
from hetmorph.callbacks.sanity import SanityCheck, SanityWarning
from hetmorph.callbacks.validation import JointValidationDice, ValidationDice

__all__ = [
    "Checkpoint",
    "Heartbeat",
    "JointValidationDice",
    "SanityCheck",
    "SanityWarning",
    "ValidationDice",
    "latest_checkpoint",
]
