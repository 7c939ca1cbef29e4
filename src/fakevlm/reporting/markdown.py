"""Report tables as Markdown: `figures/<name>.md`, and the conclusions for the notebook."""

from collections.abc import Sequence

from fakevlm.reporting.findings import Finding
from fakevlm.reporting.tables import ReportTable, Sheet


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def sheet(table: Sheet) -> str:
    """One sheet as a pipe table; rows of the paper's own method in bold."""
    lines = ["| " + " | ".join(map(_escape, table.head)) + " |"]
    lines.append("|" + "|".join("---" if i == 0 else "---:" for i in range(len(table.head))) + "|")
    for i, row in enumerate(table.rows):
        cells = [_escape(cell) for cell in row]
        if i in table.strong:
            cells[0] = f"**{cells[0]}**"
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def markdown(table: ReportTable, profile: str) -> str:
    """A whole table: heading, how to read it, its sheets, its notes."""
    parts = [
        f"# {table.number}: {table.caption}",
        f"Columns marked *paper* hold what the paper prints; those marked *this run ({profile})* were measured here, with 95 % "
        "bootstrap intervals in brackets (where all answers are right, or all wrong, the exact bound; where no interval can be told, "
        "none). A dash: not reported, or not defined. "
        f"The same numbers for machines: [`{table.name}.csv`]({table.name}.csv).",
    ]
    for part in table.sheets:
        parts += [f"## {part.title}", sheet(part)]
    if table.notes:
        parts += ["## Notes", "\n".join(f"- {note}" for note in table.notes)]
    return "\n\n".join(parts) + "\n"


def findings_table(findings: Sequence[Finding]) -> str:
    """The paper's conclusions beside this run, as a pipe table."""
    lines = ["| Where | The paper's conclusion | This run | Numbers |", "|---|---|---|---|"]
    for f in findings:
        lines.append(
            "| " + " | ".join(map(_escape, (f.where, f.claim, f"**{f.verdict}**", f.evidence))) + " |"
        )
    return "\n".join(lines)
