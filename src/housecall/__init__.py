"""Housecall: from a data set to a private, guarded, traceable LLM API on one machine."""

__version__ = "0.1.0"
