"""Shared by the modules of 03: the error that stops a training."""


class TrainingError(RuntimeError):
    """Training cannot continue; the message says what to do and what was kept."""
