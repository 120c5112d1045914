"""Keras callbacks: validation, sanity checks, exact resume."""

from hetmorph.callbacks.checkpoint import Checkpoint, latest_checkpoint
from hetmorph.callbacks.sanity import SanityCheck, SanityWarning
from hetmorph.callbacks.validation import ValidationDice

__all__ = ["Checkpoint", "SanityCheck", "SanityWarning", "ValidationDice", "latest_checkpoint"]
