"""Writing semantic IDs in the released layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from peso_cli.files import write_text
from peso_cli.semantic_ids.catalog import token_text
from peso_cli.semantic_ids.parts import Codes


def write_index(path: Path, items: Sequence[str], codes: Codes) -> None:
    """Write `{item: ["<a_1>", "<b_2>", …]}`, whole or not at all.

    Args:
        path: the file; what was there before is replaced.
        items: item ids, each once.
        codes: (items, levels), at most 26 levels.
    """
    table = {
        item: [token_text(level, code) for level, code in enumerate(row)]
        for item, row in zip(items, codes.tolist(), strict=True)
    }
    write_text(path, json.dumps(table, ensure_ascii=False) + "\n")
