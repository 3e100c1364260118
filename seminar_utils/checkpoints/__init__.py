"""Weights: the course's own small checkpoints, and the verified download of the official ones."""

from .course import checkpoint_card, list_checkpoints, load_checkpoint, save_checkpoint

__all__ = ["checkpoint_card", "list_checkpoints", "load_checkpoint", "save_checkpoint"]
