"""Write the examples of stage 1 as RecBole's benchmark files: pairs of users and items, and histories with targets."""

from __future__ import annotations

import sys
from pathlib import Path

from peso_cli.config.compose import compose
from peso_cli.data.blocks import Dataset
from peso_cli.data.examples import Examples, Split, examples
from peso_cli.data.open import open_dataset

SPLITS: tuple[Split, ...] = ("train", "valid", "test")


def main(folder: Path, words: list[str]) -> None:
    """Write both kinds of files, one for each split."""
    config = compose(words).config
    dataset: Dataset = open_dataset(config.dataset)
    for kind in ("pairs", "sequences"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        found = examples(dataset.block(1), split, config.prompt.window)
        (folder / "pairs" / f"pairs.{split}.inter").write_text(pairs(found))
        (folder / "sequences" / f"sequences.{split}.inter").write_text(sequences(found))


def pairs(found: Examples) -> str:
    """Return the users with their targets."""
    rows = zip(found.user.tolist(), found.target_items.tolist(), strict=True)
    return "user_id:token\titem_id:token\n" + "".join(f"{user}\t{item}\n" for user, item in rows)


def sequences(found: Examples) -> str:
    """Return the users with their histories, oldest first, and their targets; RecBole takes no empty history."""
    lines = ["user_id:token\titem_id_list:token_seq\titem_id:token"]
    for user, history, item in zip(found.user.tolist(), found.histories(), found.target_items.tolist(), strict=True):
        if len(history):
            lines.append(f"{user}\t{' '.join(map(str, history.tolist()))}\t{item}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
