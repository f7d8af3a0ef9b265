"""The report as Markdown, and as one HTML page that needs nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import jinja2

from housecall.artifact import write_text
from housecall.bench.pictures import Picture
from housecall.bench.report import Report
from housecall.bench.tables import Table, all_tables

MARKDOWN, PAGE = "report.md", "report.html"
_TEMPLATE = "bench_report.html"

METHOD = (
    "Every model runs in a process of its own, alone. A visit loads it, asks once to warm it up "
    "(not counted), then times. A round visits all models; every second round goes backwards. So a "
    "slow minute of the machine hits all models alike, and a model is compared with another round "
    "by round. Decoding is greedy and goes on to the same number of tokens in every model, "
    "wherever its text would end. A prompt's rate is its tokens by the time to the first new one. "
    "Folders of transformers compute in the type that is fastest on this processor; a visit's "
    "answers to read are computed together there, one by one in the engine."
)


def write_markdown(report: Report, pictures: Sequence[Picture], folder: Path) -> None:
    """``report.md`` beside its pictures."""
    write_text(folder / MARKDOWN, "\n".join(_markdown(report, pictures)) + "\n")


def _markdown(report: Report, pictures: Sequence[Picture]) -> Iterator[str]:
    yield f"# Benchmark of {report.run}\n"
    yield machine_line(report) + "\n"
    for warning in report.warnings:
        yield f"> **{_cell(warning)}**\n"
    for table in all_tables(report):
        yield f"## {table.title}\n"
        yield f"{table.note}\n"
        yield from _rows(table)
        yield ""
    for picture in pictures:
        yield f"![{picture.title}]({picture.stem}.png)\n"
    yield "## How it was measured\n"
    yield METHOD + "\n"
    if report.prompts:
        yield "## The same questions to all\n"
    for number, prompt in enumerate(report.prompts):
        yield f"**{_cell(prompt)}**\n"
        yield "| model | answer |"
        yield "|---|---|"
        for model in report.models:
            if model.answers:
                yield f"| {_cell(model.title)} | {_cell(model.answers[number])} |"
        yield ""


def _rows(table: Table) -> Iterator[str]:
    yield "| " + " | ".join(table.columns) + " |"
    yield "|---|" + "---:|" * (len(table.columns) - 1)
    for row in table.rows:
        yield "| " + " | ".join(map(_cell, row)) + " |"


def write_html(report: Report, pictures: Sequence[Picture], folder: Path) -> None:
    """``report.html``: styles and pictures inside, no script, nothing fetched."""
    source = (resources.files("housecall") / "data" / _TEMPLATE).read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.from_string(source).render(
        report=report,
        machine=machine_line(report),
        tables=list(all_tables(report)),
        pictures=[(p.title, inline(folder / f"{p.stem}.svg")) for p in pictures],
        method=METHOD,
    )
    write_text(folder / PAGE, text)


def inline(svg: Path) -> str:
    """A picture of matplotlib inside a page: it takes the page's colours and width."""
    text = svg.read_text("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Names must be one picture's own: several stand in one page.
    text = re.sub(r'(id="|url\(#|xlink:href="#)', rf"\g<1>{svg.stem}-", text)
    return text.replace("#000000", "currentColor").replace("fill: #ffffff", "fill: none")


def machine_line(report: Report) -> str:
    """What it ran on, in one line."""
    m = report.machine
    versions = ", ".join(f"{k} {v}" for k, v in m.versions.items() if k != "python")
    return (
        f"{m.processor or m.system}, {m.cores} cores, {m.memory_bytes / 2**30:.0f} GiB, "
        f"{m.system}; {m.threads} threads; Housecall {report.housecall}, {versions}; "
        f"{report.created[:10]}."
    )


def _cell(text: str) -> str:
    """Text that does not end a cell or a row of a table, and is no HTML."""
    plain = " ".join(text.split())
    return plain.replace("|", "\\|").replace("<", "&lt;")
