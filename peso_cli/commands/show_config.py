"""`peso config`: the composed configuration, every group's choices, and where each value came from."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from peso_cli.commands.output import print_json
from peso_cli.config.compose import Composed, config_folders, group_options, leaves
from peso_cli.terminal import OUT


def show_config(composed: Composed, config_dir: Path | None, as_json: bool) -> None:
    """Print the groups with their choices, then every value with its origin."""
    options = group_options(config_folders(config_dir))
    if as_json:
        print_json(
            {"config": composed.plain, "choices": composed.choices, "options": options, "origins": composed.origins}
        )
        return
    groups = Table(title="groups", title_justify="left")
    for column in ("group", "chosen", "there are"):
        groups.add_column(column)
    for group, names in options.items():
        groups.add_row(group, str(composed.choices.get(group) or "-"), ", ".join(names))
    OUT.print(groups)
    values = Table(title="values", title_justify="left")
    for column in ("key", "value", "from"):
        values.add_column(column)
    for key, value in leaves(composed.plain):
        values.add_row(key, repr(value) if isinstance(value, str) else str(value), composed.origins.get(key, ""))
    OUT.print(values)
