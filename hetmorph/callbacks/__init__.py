"""Keras callbacks: validation, sanity checks, exact resume, a sign of life."""

from hetmorph.callbacks.checkpoint import Checkpoint, latest_checkpoint
from hetmorph.callbacks.deadline import Deadline
from hetmorph.callbacks.heartbeat import Heartbeat
from hetmorph.callbacks.sanity import SanityCheck, SanityWarning
from hetmorph.callbacks.tensorboard import EpochTensorBoard
from hetmorph.callbacks.validation import JointValidationDice, ValidationDice

__all__ = [
    "Checkpoint",
    "Deadline",
    "EpochTensorBoard",
    "Heartbeat",
    "JointValidationDice",
    "SanityCheck",
    "SanityWarning",
    "ValidationDice",
    "latest_checkpoint",
]
