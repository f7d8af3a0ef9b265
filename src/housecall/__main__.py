"""``python -m housecall``."""

from housecall.cli import main

main()
