"""How precise the guard is on GenMedGPT-5k, by 400 rows that were read and labelled by hand.

    python benchmarks/guard_labels.py chatdoctor5k.json

The labels (tests/guard/data/genmedgpt_labels.csv) hold row numbers and no text: 200 rows on which
the guard of that day alarmed and 200 on which it did not, each drawn at random. The guard of today
is judged on the same rows, weighted to the shares of the two kinds when they were drawn.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

from housecall.guard import MedicalGuard

LABELS = Path(__file__).parents[1] / "tests/guard/data/genmedgpt_labels.csv"
WEIGHTS = {"alarm": 200 / 948, "no alarm": 748 / 948}
"""948 rows in random order were read by the guard until 200 had alarmed."""


def main(file: str) -> None:
    """Read the rows, print precision, recall and the share of alarms."""
    texts = [row["input"] for row in json.loads(Path(file).read_text(encoding="utf-8"))]
    for learned in (False, True):
        guard = MedicalGuard.load(learned=learned)
        sums = {(alarm, flag): 0.0 for alarm in (False, True) for flag in (False, True)}
        with LABELS.open(encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                alarm = guard.check(texts[int(row["row"])]).level in ("emergency", "crisis")
                sums[alarm, row["red_flag"] == "1"] += WEIGHTS[row["stratum"]] / 200
        alarms = sums[True, True] + sums[True, False]
        flags = sums[True, True] + sums[False, True]
        print(
            f"{'rules and second stage' if learned else 'rules alone':24}alarms {alarms:.1%}, "
            f"precision {sums[True, True] / alarms:.1%}, "
            f"recall of red flags {sums[True, True] / flags:.1%}"
        )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
