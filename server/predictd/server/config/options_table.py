"""All options as a table for the documentation."""

from __future__ import annotations

from predictd.server.config.settings import CONFIG_FILE, options


def defaults_table() -> str:
    """All options as a Markdown table, for docs/configuration.md."""
    rows = [
        (
            f"`{option.flag}`",
            f"`{option.variable}`",
            f"`{option.key}`" if option.in_file else "",
            f"`{option.kind.metavar}`",
            f"`{option.default_text}`",
            option.help,
        )
        for option in options()
    ]
    head = ("Flag", "Environment", f"`{CONFIG_FILE}`", "Value", "Default", "Meaning")
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
