"""Train a model of RecBole on benchmark files and print its test figures as a line of JSON; runs where RecBole is."""

from __future__ import annotations

import json
import logging
import sys
import types
from typing import Any

import numpy as np
import scipy.sparse
import torch

SEQUENTIAL = ("SASRec",)


def fit_newer_libraries() -> None:
    """Give RecBole 1.2.1 the names that numpy, scipy and torch have dropped, and stand-ins for what isn't used here."""
    for name in ("ray", "ray.tune", "thop", "hyperopt"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["ray"].tune = sys.modules["ray.tune"]  # type: ignore[attr-defined]
    sys.modules["thop"].profile = None  # type: ignore[attr-defined]
    dropped = {"float": float, "int": int, "bool": bool, "object": object, "float_": np.float64, "unicode_": np.str_}
    for name, kind in {**dropped, "complex_": np.complex128}.items():
        if name not in np.__dict__:
            setattr(np, name, kind)
    scipy.sparse.dok_matrix._update = lambda self, data: self._dict.update(data)
    load = torch.load
    # Its own checkpoint of a moment ago holds more than tensors.
    torch.load = lambda *args, **more: load(*args, **{"weights_only": False, **more})


def settings_of(name: str, folder: str, seed: int, words: list[str]) -> dict[str, Any]:
    """Return RecBole's settings: our files, all items ranked, the epoch chosen by the mean reciprocal rank."""
    columns = ["user_id", "item_id"]
    settings: dict[str, Any] = {
        "data_path": folder,
        "benchmark_filename": ["train", "valid", "test"],
        "load_col": {"inter": columns},
        "USER_ID_FIELD": "user_id",
        "ITEM_ID_FIELD": "item_id",
        "topk": [10],
        "metrics": ["Recall", "NDCG", "MRR"],
        "valid_metric": "MRR@10",
        "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "mode": "full", "group_by": "user"},
        "eval_batch_size": 4096,
        "metric_decimal_place": 6,
        "seed": seed,
        "reproducibility": True,
        "show_progress": False,
        "state": "ERROR",
        "device": "cpu",
        "checkpoint_dir": f"{folder}/saved",
    }
    if name in SEQUENTIAL:
        settings |= {
            "load_col": {"inter": ["user_id", "item_id_list", "item_id"]},
            "alias_of_item_id": ["item_id_list"],
            "train_neg_sample_args": None,
            "MAX_ITEM_LIST_LENGTH": 20,
        }
    return settings | {key: json.loads(value) for key, _, value in (word.partition("=") for word in words)}


def main(name: str, folder: str, seed: int, words: list[str]) -> None:
    """Train, choose the epoch on validation, test."""
    fit_newer_libraries()
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.utils import get_model, get_trainer, init_seed

    data = "sequences" if name in SEQUENTIAL else "pairs"
    config = Config(model=name, dataset=data, config_dict=settings_of(name, folder, seed, words))
    logging.disable(logging.CRITICAL)
    init_seed(seed, True)
    dataset = create_dataset(config)
    train, valid, test = data_preparation(config, dataset)
    init_seed(seed, True)
    model = get_model(name)(config, train._dataset).to("cpu")
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    trainer.fit(train, valid, saved=True, show_progress=False)
    found = trainer.evaluate(test, load_best_model=True, show_progress=False)
    print(json.dumps({"items": dataset.item_num - 1, **{key: float(value) for key, value in found.items()}}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
