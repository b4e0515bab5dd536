"""A continual method of a user's own: a class and two YAMLs in a folder, and no line of the package changed."""

import json

from commands.running import SMALL, peso

MODULE = '''
from typing import Literal

from pydantic.dataclasses import dataclass

from peso_cli.methods.parts import STRICT, Penalty


@dataclass(frozen=True, config=STRICT)
class Pinned:
    """Pulls every factor to zero."""

    strength: float
    name: Literal["pinned"] = "pinned"

    def begin(self, start):
        if not self.strength:
            return None
        factors = [factor for pair in start.factors.values() for factor in pair]
        return Penalty(lambda step: self.strength * sum(f.square().sum() for f in factors))
'''

REGULARIZER = "_target_: pinning.Pinned\nname: pinned\nstrength: 100.0\n"

METHOD = """# @package _global_
defaults:
  - override /adapter: evolving
  - override /regularizer: pinned
  - override /memory: current
method:
  name: pinned
"""


def folder(path, module=MODULE, regularizer=REGULARIZER):
    """Write a config folder of a user's own with its module."""
    for name, text in (
        ("pinning.py", module),
        ("regularizer/pinned.yaml", regularizer),
        ("method/pinned.yaml", METHOD),
    ):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return path


def size_of_factors(output, method):
    from safetensors.torch import load_file

    (found,) = output.glob(f"synthetic/tiny/{method}/*/seed_1/stage_3/adapter/adapter_model.safetensors")
    return sum(float(tensor.square().sum()) for tensor in load_file(found).values())


def test_a_method_of_ones_own_trains_in_every_later_stage_and_does_what_it_says(tmp_path):
    own, output = folder(tmp_path / "own"), tmp_path / "outputs"
    arguments = (*SMALL, f"output={output}")
    answer = peso("train", "stage=1..3", "method=pinned", "--config-dir", own, *arguments)
    assert answer.code == 0, answer.err
    (lineage,) = output.glob("synthetic/tiny/pinned/*/seed_1/stage_3/lineage.json")
    assert json.loads(lineage.read_text())["composition"]["regularizer"] == "pinned"
    assert peso("train", "stage=3", "method=single", *arguments).code == 0
    assert size_of_factors(output, "pinned") < 0.8 * size_of_factors(output, "single")
    again = peso("evaluate", "stage=3", "method=pinned", "--config-dir", own, *arguments)
    assert again.code == 0, again.err


def test_a_class_that_was_edited_is_trained_anew_and_not_taken_for_the_one_before(tmp_path):
    own, output = (
        folder(tmp_path / "own", regularizer=REGULARIZER.replace("pinning", "pinning_anew")),
        tmp_path / "outputs",
    )
    (own / "pinning.py").rename(own / "pinning_anew.py")
    arguments = ("train", "stage=2", "method=pinned", "--config-dir", own, f"output={output}", *SMALL)
    assert peso(*arguments).code == 0
    assert "stage 2: reusing" in peso(*arguments).err
    with (own / "pinning_anew.py").open("a") as file:
        file.write("# another thought\n")
    assert "stage 2: training" in peso(*arguments).err
    assert len(list(output.glob("synthetic/tiny/pinned/*/seed_1/stage_2/DONE"))) == 2


def test_a_setting_that_the_class_does_not_know_is_one_line_and_leaves_nothing(tmp_path):
    own = folder(tmp_path / "own", regularizer=REGULARIZER.replace("strength", "strenght"))
    answer = peso("train", "method=pinned", "--config-dir", own, f"output={tmp_path / 'outputs'}", *SMALL)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "regularizer.strength is missing" in answer.err
    assert not (tmp_path / "outputs").exists()


def test_a_module_that_is_not_there_is_one_line(tmp_path):
    own = folder(tmp_path / "own", regularizer="_target_: nowhere.Pinned\nname: pinned\n")
    answer = peso("train", "method=pinned", "--config-dir", own, *SMALL)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "regularizer._target_=nowhere.Pinned: nowhere can't be imported" in answer.err
