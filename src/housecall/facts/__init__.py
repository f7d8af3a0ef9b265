"""Facts that matter in medicine, drawn from what users say, in their own words.

Rules and word lists of the project's own; not reviewed by clinicians. Only English is read.
"""

from housecall.facts.base import PRIORITY, Fact
from housecall.facts.drawing import draw

__all__ = ["PRIORITY", "Fact", "draw"]
