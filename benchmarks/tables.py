"""Tables as csv and markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from benchmarks import machine

if TYPE_CHECKING:
    from benchmarks.runs import Session

_DIGITS = 4


def write(session: Session, name: str, title: str, table: pd.DataFrame, notes: str = "") -> None:
    """Write ``name.csv`` and ``name.md`` into the folder of results, and print the latter."""
    table.to_csv(session.out / f"{name}.csv", index=False)
    parts = [f"## {title}", machine.description(session.threads), notes, markdown(table)]
    text = "\n\n".join(part for part in parts if part) + "\n"
    (session.out / f"{name}.md").write_text(text)
    print(f"\n{text}", flush=True)


def markdown(table: pd.DataFrame) -> str:
    """The table, numbers with four significant digits."""
    rows = [list(map(str, table.columns)), ["---"] * table.shape[1]]
    rows += [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(value: object) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{value:.{_DIGITS}g}" if abs(value) < 10**_DIGITS else f"{value:.0f}"
    return str(value)
