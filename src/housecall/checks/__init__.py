"""Checks that a model made here is the model it is said to be, and what it lost on the way."""
