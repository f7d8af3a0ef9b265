"""How many greedy texts are the same when they are made alone and beside three others?

    python benchmarks/greedy_company.py runs/demo

Batching changes the order of float sums, and so now and then a token. Asks the same questions of
`housecall serve` alone, again alone, and four at a time; then with HOUSECALL_DETERMINISTIC, sent
four at a time. Prints how many of the texts are those made alone first, and JSON as its last line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

from servers import Side, ask, at_once, housecall

from housecall.lineage import served_model

TOKENS = 64
N_CTX = 512
ABOUT = "a cold, a headache, back pain, poor sleep, a cough, hay fever, a sprained ankle, heartburn"
ASKED = "What helps against {}?", "When should I see a doctor about {}?", "What causes {}?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a finished run, or a GGUF file")
    print(json.dumps(asyncio.run(measure(parser.parse_args()))))


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    model = served_model(arguments.run, ungated=True).path.resolve()
    prompts = [form.format(what) for form in ASKED for what in ABOUT.split(", ")]
    result = {"texts": len(prompts), "tokens": TOKENS}
    result |= await same(model, prompts, deterministic=False)
    result |= await same(model, prompts, deterministic=True)
    return result


async def same(model: Path, prompts: list[str], *, deterministic: bool) -> dict[str, int]:
    """How many texts of each way are those made alone first."""
    settings = {"deterministic": str(deterministic).lower(), "queue": "64"}
    name = "deterministic" if deterministic else "default"
    async with housecall(model, n_ctx=N_CTX, parallel=4, **settings) as side:
        first = await texts(side, prompts, 1)
        found = {}
        for width, way in ((1, "alone again"), (4, "4 at once")):
            again = await texts(side, prompts, width)
            equal = sum(a == b for a, b in zip(first, again, strict=True))
            print(f"{name}, {way}: {equal} of {len(prompts)} texts the same")
            found[f"{name}, {way}"] = equal
    return found


async def texts(side: Side, prompts: list[str], width: int) -> list[str]:
    answers = await at_once(width, len(prompts), lambda i: ask(side, prompts[i], TOKENS))
    return [answer.text for answer in answers]


if __name__ == "__main__":
    main()
