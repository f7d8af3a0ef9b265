"""The shape of the program: who may import whom, what loads what, how long a file may be."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "housecall"

# The import law. A file imports only from lines above its own, or the `base` of its own folder;
# imports inside functions and for type checking count. So files of one line never know of each
# other: that is why steps meet on disk, and why a line is split as soon as one file of it needs
# another. A new file gets the highest line that its imports allow, or one between.
LAYERS = (
    # 0 ground: values and errors of all, this machine, a terminal's progress bars
    "__init__ types errors machine",
    "progress",
    # 1 one thing each
    "settings config artifact locks template_sandbox",
    "recipe journal",
    "gguf/__init__ gguf/header gguf/kernels gguf/mixture",
    "chat_template readers lineage weights gguf/llama",
    "run_report",
    # data sets: rows, the rules that mend or reject them, what is known of all of them
    "sources privacy duplicates spool cleaning/base cleaning/characters",
    "cleaning/site",
    "cleaning/answers",
    "cleaning/rules",
    "cleaning/__init__",
    "sieve",
    "data_report",
    "row_store",
    "gguf/vocabulary gguf/spread",
    "gguf/files plots promotion",
    "gguf/convert training_summary",
    "model_card",
    # 2 engines and guard: a protocol, its parts, what is put together from them
    "engines/base engines/tuning guard/base",
    "engines/llama_file engines/loopback",
    "engines/stop engines/llama_wire engines/llama_process engines/llama_child engines/hf_generate",
    "engines/llama_client engines/remote_wire",
    "engines/llama_embedder",
    "engines/llama engines/hf engines/remote engines/fake engines/__init__",
    "guard/text guard/packs guard/spelling",
    "guard/phrases guard/places guard/messages guard/languages guard/weights guard/features",
    "guard/symbols guard/learned",
    "guard/follow",
    "guard/search",
    "guard/context",
    "guard/rules",
    "guard/matcher guard/rule_sets",
    "guard/output guard/evaluation",
    "guard/medical",
    "guard/__init__",
    # 3 training: torch is known from here ...
    "causal_lm",
    "importance bitsandbytes_folder",
    "steps/__init__ steps/base",
    "training/__init__ training/attention training/functions training/batches",
    "training/processes training/curves",
    "training/weights training/checkpoint training/adapter training/memory",
    "training/decoder training/safety",
    "training/trainer",
    # ... is a model the one it is said to be, and what did it lost on the way
    "checks/__init__ checks/conversations checks/engine checks/statistics checks/streamed",
    "checks/tokens checks/greedy checks/diagnosis checks/provenance checks/questions",
    "checks/measure",
    "checks/parity",
    # ... and how fast is each
    "bench/__init__ bench/base",
    "bench/statistics bench/report bench/load bench/prompts bench/processes",
    "bench/folder bench/roofline bench/gguf bench/server bench/cells bench/summary bench/pictures",
    "bench/tables",
    "bench/compare bench/rounds bench/texts bench/tuning",
    "bench/preload",
    "steps/*",
    # ... and conversations: kept, and cut to the window
    "migrations/__init__ migrations/env migrations/versions/* records",
    "database",
    "erasure leases rows",
    "facts/base facts/lexicon facts/sentences",
    "facts/rules",
    "facts/corrections",
    "facts/drawing",
    "facts/__init__",
    "sessions memory documents/* tools/*",
    # 4 an answer, a run
    "events",
    "draft deadline",
    "places",
    "answer pipeline removal exports/base exports/__init__",
    "exports/zips exports/ollama exports/huggingface",
    # 5 to 7 HTTP: what goes over the wire, the groups of routes, the application
    "server/__init__ server/logs server/errors server/tracing server/metrics",
    "server/wire server/middleware server/housekeeping",
    "server/openai_wire server/streams",
    "server/openai_answer server/openai_text_wire",
    "server/native server/openai server/openai_text server/sessions server/documents server/runs",
    "server/app",
    "server/run",
    # 8 whoever stands in front of it: the UI (by HTTP), the commands
    "ui/__init__ ui/client ui/escape",
    "ui/conversation ui/provenance",
    "ui/sidebar ui/view",
    "ui/app ui/launch",
    "commands/__init__ commands/base",
    "commands/asking commands/making commands/showing commands/moving commands/guarding",
    "commands/benching commands/checking",
    "commands/serving mcp cli_options",
    "cli_bench cli_guard",
    "cli",
    "__main__",
)

TRAINING = (
    *("causal_lm", "importance", "bitsandbytes_folder", "weights", "checks/*", "steps/*"),
    *("bench/*",),
    *("training/*", "gguf/mixture", "gguf/llama", "gguf/vocabulary", "gguf/files"),
    *("gguf/convert", "gguf/kernels", "gguf/spread"),
    *("readers", "sources", "cleaning/*", "privacy", "duplicates", "spool", "sieve"),
    *("data_report", "row_store"),
)
"""What needs the extra ``train``."""

SERVING = (
    *("answer", "draft", "events", "memory", "facts/*", "records", "sessions", "database"),
    *("server/*", "lineage", "run_report", "exports/*", "removal"),
)
"""What runs with the core packages alone."""

BUDGET = 300
"""Lines of a file."""


def names() -> list[str]:
    return sorted(
        path.relative_to(SOURCE).with_suffix("").as_posix() for path in SOURCE.rglob("*.py")
    )


def layer(name: str) -> int:
    """The line of a file: where it is named, else where a pattern fits it."""
    for fits in (lambda pattern: pattern == name, lambda pattern: fnmatch(name, pattern)):
        for number, line in enumerate(LAYERS):
            if any(fits(pattern) for pattern in line.split()):
                return number
    raise AssertionError(
        f"src/housecall/{name}.py is in no layer: add it to LAYERS in tests/test_architecture.py"
    )


def imports(name: str) -> Iterator[tuple[str, int]]:
    """Files of Housecall that a file imports anywhere in it, with the line."""
    tree = ast.parse((SOURCE / f"{name}.py").read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from ((file, node.lineno) for file in files(alias.name))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"src/housecall/{name}.py:{node.lineno}: a relative import"
            for alias in node.names:
                whole = files(f"{node.module}.{alias.name}") or files(str(node.module))
                yield from ((file, node.lineno) for file in whole)


def files(module: str) -> list[str]:
    """The file of a module of Housecall, if it is one."""
    top, *parts = module.split(".")
    if top != "housecall":
        return []
    path = "/".join(parts)
    found = [path, f"{path}/__init__" if path else "__init__"]
    return [file for file in found if file and (SOURCE / f"{file}.py").exists()]


def in_any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


@pytest.mark.parametrize("name", names())
def test_the_import_law(name: str) -> None:
    own, folder = layer(name), Path(name).parent.as_posix()
    for target, line in imports(name):
        where = f"src/housecall/{name}.py:{line} imports {target}"
        lower = layer(target) < own or target == f"{folder}/base"
        assert lower, f"{where}, which is not below it: see LAYERS"


@pytest.mark.parametrize("name", [n for n in names() if in_any(n, SERVING)])
def test_serving_does_not_know_training(name: str) -> None:
    for target, line in imports(name):
        assert not in_any(target, TRAINING), f"src/housecall/{name}.py:{line} imports {target}"


@pytest.mark.parametrize("name", [n for n in names() if n.startswith("ui/")])
def test_the_ui_speaks_http_only(name: str) -> None:
    for target, line in imports(name):
        allowed = target.startswith("ui/") or layer(target) == 0
        assert allowed, f"src/housecall/{name}.py:{line} imports {target}"


@pytest.mark.parametrize("name", names())
def test_the_size_of_files(name: str) -> None:
    lines = len((SOURCE / f"{name}.py").read_text(encoding="utf-8").splitlines())
    assert lines <= BUDGET, f"src/housecall/{name}.py has {lines} lines: cut it at a seam"


def test_no_line_names_a_file_twice() -> None:
    patterns = [pattern for line in LAYERS for pattern in line.split()]
    assert sorted(patterns) == sorted(set(patterns))


def test_a_file_in_no_layer_is_named() -> None:
    with pytest.raises(AssertionError, match=r"something_new\.py is in no layer: add it"):
        layer("something_new")


def loaded_by(module: str) -> set[str]:
    """Top-level packages that importing a module loads, in a process of its own."""
    code = f"import {module}, sys; print(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["housecall", "housecall.cli"])
def test_the_command_line_starts_light(module: str) -> None:
    heavy = {"torch", "transformers", "pydantic", "fastapi", "numpy", "sqlalchemy", "xllamacpp"}
    assert loaded_by(module) & heavy == set()


@pytest.mark.skipif(
    importlib.util.find_spec("fastapi") is None, reason="the server's packages are not installed"
)
def test_the_server_loads_nothing_of_training() -> None:
    heavy = {"torch", "transformers", "peft", "datasets", "gguf", "tokenizers", "xllamacpp"}
    assert loaded_by("housecall.server.app") & heavy == set()
