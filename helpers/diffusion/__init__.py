"""Shared by 03 and 04: base models, their families, and noise."""


class ModelError(ValueError):
    """A base or checkpoint cannot be used; the message says which one and what to do."""
