"""Rules that mend the dialogues of a data set, or say why one can't be trained on."""

from housecall.cleaning.rules import Cleaned, check_shape, clean

__all__ = ["Cleaned", "check_shape", "clean"]
