"""The option tables of `docs/commands`, from the commands themselves: `python -m oploop.cli.reference docs/commands`.

A page is prose around a table between two marks; only what is between them is written.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from oploop.cli.group import GROUPS, cli

BEGIN = "<!-- from --help; `python -m oploop.cli.reference docs/commands` writes it -->"
END = "<!-- end -->"


def commands() -> dict[str, click.Command]:
    """All commands by name."""
    context = click.Context(cli)
    found = {name: cli.get_command(context, name) for name in cli.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def table(command: click.Command) -> str:
    """A command's usage and options as Markdown."""
    context = click.Context(
        command, parent=click.Context(cli, info_name="oploop", **cli.context_settings), info_name=command.name
    )
    usage = " ".join(command.collect_usage_pieces(context))
    rows = ["```", f"{context.command_path} {usage}", "```", "", "| option | what it does |", "| --- | --- |"]
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            name, text = (" ".join(part.split()).replace("|", "\\|") for part in record)
            rows.append(f"| `{name}` | {text} |")
    return "\n".join(rows)


def index() -> str:
    """The list of all commands, by group, as Markdown."""
    lines = []
    for title, group in GROUPS.items():
        lines += [f"**{title}**", "", "| command | what it does |", "| --- | --- |"]
        lines += [f"| [`oploop {name}`]({name}.md) | {text} |" for name, text in group.items()]
        lines.append("")
    return "\n".join(lines).rstrip()


def filled(page: str, generated: str) -> str:
    """A page with what is between its marks written anew."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks the marks {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{generated}\n\n{END}{tail}"


def pages(folder: Path) -> dict[Path, str]:
    """Every page as it ought to be."""
    wanted = {folder / f"{name}.md": table(command) for name, command in commands().items()}
    wanted[folder / "README.md"] = index()
    return {path: filled(path.read_text(encoding="utf-8"), generated) for path, generated in wanted.items()}


if __name__ == "__main__":
    for path, text in pages(Path(sys.argv[1])).items():
        path.write_text(text, encoding="utf-8")
