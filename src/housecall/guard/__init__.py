"""The medical guard: rules that read the user's message before a model does."""

from housecall.guard.medical import MedicalGuard

__all__ = ["MedicalGuard"]
