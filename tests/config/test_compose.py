import shlex
from pathlib import Path

import pytest

from peso_cli.config.compose import compose, conf_folder, config_folders, group_options, validate
from peso_cli.errors import InputError
from peso_cli.sweeps.engine import choose_launcher
from peso_cli.sweeps.grid import read_grid, split_words
from peso_cli.sweeps.searches.choose import choose_search

FILES = sorted(conf_folder().glob("*/*.yaml"))
NAMES = [f"{path.parent.name}/{path.stem}" for path in FILES]


def refusal(overrides, config_dir=None) -> str:
    with pytest.raises(InputError) as caught:
        compose(overrides, config_dir)
    message = str(caught.value)
    assert "\n" not in message
    return message


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return folder


# What is right


def test_nothing_said_gives_the_defaults():
    composed = compose([])
    assert composed.config.stage == 1
    assert composed.config.method.name == "peso"
    assert composed.choices["regularizer"] == "softmax_kl"
    assert composed.choices["experiment"] is None
    assert composed.plain["trainer"]["epochs"] == composed.config.trainer.epochs


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("stage=3", lambda c: c.stage, 3),
        ("stage=1..3", lambda c: c.stage, "1..3"),
        ("stage=[1,3]", lambda c: c.stage, (1, 3)),
        ("stage=all", lambda c: c.stage, "all"),
        ("evaluation.on=[1,2]", lambda c: c.evaluation.on, (1, 2)),
        ("evaluation.on=null", lambda c: c.evaluation.on, None),
        ("trainer.learning_rate=1e-3", lambda c: c.trainer.learning_rate, 0.001),
        ("trainer.learning_rate=1", lambda c: c.trainer.learning_rate, 1.0),
        ("backbone.lora={rank: 4, alpha: 9}", lambda c: (c.backbone.lora.rank, c.backbone.lora.alpha), (4, 9.0)),
        ("backbone.lora.targets=[q_proj]", lambda c: c.backbone.lora.targets, ("q_proj",)),
        ("variant=a.b-c", lambda c: c.variant, "a.b-c"),
        ("output='some folder'", lambda c: c.output, "some folder"),
        ("output=${method.name}", lambda c: c.output, "peso"),
    ],
)
def test_values_arrive_typed(override, read, value):
    found = read(compose([override]).config)
    assert found == value
    assert type(found) is type(value)


def test_a_setting_may_stand_before_or_behind_the_choice_of_its_group():
    for overrides in (["trainer=paper", "trainer.epochs=9"], ["trainer.epochs=9", "trainer=paper"]):
        trainer = compose(overrides).config.trainer
        assert (trainer.epochs, trainer.temperature) == (9, 0.8)


def test_where_a_key_comes_twice_the_last_one_counts_and_is_named_as_the_origin():
    composed = compose(["seed=1", "seed=2", "method=peso", "method=single"])
    assert composed.config.seed == 2
    assert composed.origins["seed"] == "override seed=2"
    assert composed.config.method.name == composed.choices["method"] == "single"


def test_the_command_line_wins_over_what_a_method_or_an_experiment_chooses():
    composed = compose(["tracker=none", "experiment=paper", "backbone.trained_rows=new_rows", "adapter=frozen"])
    assert composed.config.tracker.name == "none"
    assert composed.config.backbone.trained_rows == "new_rows"
    assert composed.config.adapter.name == "frozen"
    assert composed.choices["prompt"] == "instruct"


def test_any_working_directory_will_do(tmp_path, monkeypatch):
    here = compose(["method=l2"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    assert compose(["method=l2"]) == here


# Where values come from


def test_origins_name_files_and_overrides():
    overrides = ["trainer.epochs=3", "seed=4", "method=l2", "experiment=paper", "backbone.lora={rank: 4}"]
    origins = compose(overrides).origins
    assert origins["stage"] == "config"
    assert origins["trainer.learning_rate"] == "trainer/paper"
    assert origins["trainer.epochs"] == "override trainer.epochs=3"
    assert origins["seed"] == "override seed=4"
    assert origins["method.name"] == "method/l2"
    assert origins["regularizer.unsquared"] == "regularizer/l2"
    assert origins["backbone.trained_rows"] == "experiment/paper"
    assert origins["backbone.lora.rank"] == "override backbone.lora={rank: 4}"
    assert origins["backbone.lora.alpha"] == "backbone/llama_3_2_1b"


def test_every_value_has_an_origin():
    composed = compose(["stage=2", "method=orthogonal", "trainer.patience=1"])

    def leaves(plain, prefix=""):
        for key, value in plain.items():
            yield from leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"]

    assert set(composed.origins) == set(leaves(composed.plain))


# What is wrong


@pytest.mark.parametrize(
    ("overrides", "parts"),
    [
        # keys
        (["sede=1"], ["'sede'", "did you mean seed?", "there are", "method"]),
        (["trainer.epoch=2"], ["'trainer.epoch'", "did you mean epochs?", "trainer=tiny has", "patience"]),
        (["trainer.adam.beta=2"], ["'trainer.adam.beta'", "trainer=tiny has", "learning_rate"]),
        (["backbone.lora.rang=2"], ["'backbone.lora.rang'", "did you mean rank?", "alpha"]),
        (["strength=3"], ["'strength'", "did you mean regularizer.strength?"]),
        (["seed.x=1"], ["'seed.x'", "did you mean seed?"]),
        (["methd=peso"], ["'methd'", "did you mean method?"]),
        (["dataset/more=x"], ["'dataset/more'"]),
        (["method=single", "regularizer.strength=3"], ["'regularizer.strength'", "regularizer=none has name"]),
        (["regularizer.strength=3", "trainer.epochs=2", "method=single"], ["regularizer=none has name"]),
        # choices
        (["method=pesso"], ["method=pesso", "did you mean peso?", "there are distill, ewc,"]),
        (["backbone=gpt"], ["backbone=gpt", "there are bpr,", "llama_3_2_1b,", "tiny"]),
        (["trainer="], ["trainer=:", "there are paper, tiny"]),
        (["trainer=null"], ["trainer=null", "one choice (paper, tiny, two_tower)"]),
        (["trainer={}"], ["trainer={}", "one choice (paper, tiny, two_tower)"]),
        (["trainer={epochs: 3}"], ["trainer={epochs: 3}", "one choice (paper, tiny, two_tower)"]),
        (["trainer=[]"], ["trainer=[]", "one choice (paper, tiny, two_tower)"]),
        (["trainer=3"], ["trainer=3", "one choice (paper, tiny, two_tower)"]),
        (["trainer=${oc.env:'{}"], ["trainer=${oc.env:'{}", "one choice (paper, tiny, two_tower)"]),
        (["dataset=[a,b]"], ["dataset=[a,b]", "one choice", "synthetic"]),
        (["regularizer.name=l3"], ["regularizer", "l3", "softmax_kl"]),
        (["regularizer.name=l2"], ["regularizer.name=l2", "'softmax_kl'"]),
        (["adapter._target_=no.Such"], ["adapter._target_=no.Such", "can't be imported"]),
        (["memory._target_=os.path"], ["memory._target_=os.path", "no class path"]),
        (["memory._target_=peso_cli.methods.adapters.fresh.Fresh"], ["Fresh has no stages and no select", "memory"]),
        # types and bounds
        (["trainer.epochs=two"], ["trainer.epochs=two", "integer"]),
        (["trainer.epochs=2.5"], ["trainer.epochs=2.5", "integer"]),
        (["trainer.epochs=true"], ["trainer.epochs=true", "integer"]),
        (["trainer.epochs=null"], ["trainer.epochs=null", "integer"]),
        (["trainer.epochs=-1"], ["trainer.epochs=-1", "greater than or equal to 0"]),
        (["trainer.learning_rate=0"], ["trainer.learning_rate=0", "greater than 0"]),
        (["trainer.learning_rate=inf"], ["trainer.learning_rate=", "finite"]),
        (["trainer.warmup=1"], ["trainer.warmup=1", "less than 1"]),
        (["trainer.packing=tree"], ["trainer.packing=tree", "'auto' or 'example'"]),
        (["output='\udcff'"], ["output", "half of a character"]),
        (["prompt.head='{bos}\ud800'"], ["prompt.head", "half of a character"]),
        (["seed=-1"], ["seed=-1", "greater than or equal to 0"]),
        (["seed=1.0"], ["seed=1.0", "integer"]),
        (["dataset.users=19"], ["dataset.users=19", "greater than or equal to 20"]),
        (["dataset.users=1e3"], ["dataset.users=1000.0", "integer"]),
        (["device=gpu"], ["device=gpu", "'auto', 'cpu' or 'cuda'"]),
        (["decoding.constraint=none"], ["decoding.constraint=none", "'trie' or 'positional'"]),
        (["evaluation.split=train"], ["evaluation.split=train", "'test' or 'valid'"]),
        (["evaluation.on=1"], ["evaluation.on=1", "list in brackets"]),
        (["evaluation.on=[]"], ["evaluation.on=[]", "empty"]),
        (["evaluation.on=[0]"], ["evaluation.on", "greater than or equal to 1"]),
        (["backbone.lora.targets=q_proj"], ["backbone.lora.targets=q_proj", "list in brackets"]),
        (["backbone.lora=4"], ["backbone.lora=4"]),
        (["stage=null"], ["stage=null", "1..3 or [1,3]"]),
        (["stage=true"], ["stage=true", "1..3 or [1,3]"]),
        (["stage=1.5"], ["stage=1.5", "1..3 or [1,3]"]),
        (["stage=[]"], ["stage=[]", "1..3 or [1,3]"]),
        (["stage=[1,x]"], ['stage=[1, "x"]', "1..3 or [1,3]"]),
        (["stage={a: 1}"], ["stage=", "1..3 or [1,3]"]),
        (["trainer.epochs=-1", "seed=-1"], ["trainer.epochs=-1", "; ", "seed=-1"]),
        (["trainer.epochs=-1", "trainer.patience=0", "decoding.beams=0", "seed=-1"], ["(and 2 more)"]),
        # values that are missing or lead elsewhere
        (["dataset=released"], ["dataset.name has no value", "add dataset.name=VALUE"]),
        (["dataset=amazon_games"], ["dataset.path has no value", "add dataset.path=VALUE"]),
        (["dataset=csv", "dataset.interactions=[e.csv]"], ["dataset.name has no value", "add dataset.name=VALUE"]),
        (["dataset=csv", "dataset.name=mine"], ["dataset.interactions has no value"]),
        (
            ["dataset=csv", "dataset.name=mine", "dataset.interactions=e.csv"],
            ["interactions=e.csv", "list in brackets"],
        ),
        (["dataset=built", "dataset.name=../x"], ["dataset.name=../x", "pattern"]),
        (["split.by=weeks"], ["split.by=weeks", "'shares', 'dates' or 'periods'"]),
        (["tokenizer.resolve=maybe"], ["tokenizer.resolve=maybe", "'none', 'sinkhorn', 'reassign' or 'extra_level'"]),
        (["seed=???"], ["seed has no value"]),
        (["output=${nope}"], ["output: ", "'nope' not found"]),
        (["output=null"], ["output=null", "string"]),
        (["output="], ["output=", "is empty"]),
        (["dataset.name=../x"], ["dataset.name=../x", "pattern"]),
        (["dataset.name=.."], ["dataset.name=..", "pattern"]),
        (["variant=a/b"], ["variant=a/b", "pattern"]),
        (["variant=.."], ["variant=..", "pattern"]),
        (["variant="], ["variant=:", "pattern"]),
        (["method.name=../x"], ["method.name=../x", "pattern"]),
        (["backbone.name=/x"], ["backbone.name=/x", "pattern"]),
        # what can't be read, or says something else
        (["seed"], ["'seed' can't be read", "KEY=VALUE"]),
        (["seed==3"], ["'seed==3' can't be read"]),
        (["foo bar"], ["'foo bar' can't be read"]),
        (["evaluation.on=[1,"], ["'evaluation.on=[1,' can't be read"]),
        (["=3"], ["'=3' names no key"]),
        (["--foo"], ["no such option: --foo", "--help"]),
        (["--foo=3"], ["no such option: --foo;"]),
        (["-x"], ["no such option: -x"]),
        (["seed=1,2"], ["'seed=1,2' gives several values", "KEY=[1,2]"]),
        (["seed=range(1,3)"], ["gives several values"]),
        (["method=peso,single"], ["gives several values"]),
        (["+new=1"], ["'+new=1'", "can't be added"]),
        (["++seed=1"], ["'++seed=1'", "can't be added"]),
        (["~trainer"], ["'~trainer'", "removed"]),
        (["~seed"], ["'~seed'", "removed"]),
        (["method@more=peso"], ["'method@more=peso'", "moved"]),
        (["hydra.run.dir=x"], ["'hydra.run.dir=x'", "Hydra's own"]),
        (["hydra/launcher=basic"], ["'hydra/launcher=basic'", "Hydra's own"]),
    ],
)
def test_every_way_to_get_it_wrong_is_one_line_that_helps(overrides, parts):
    message = refusal(overrides)
    for part in parts:
        assert part in message


def test_a_name_of_no_likeness_is_not_guessed_at():
    assert "did you mean" not in refusal(["qqq=1"])
    assert "did you mean" not in refusal(["method=single", "regularizer.strength=3"])


def test_a_configuration_that_lacks_a_group_says_so():
    plain = compose([]).plain
    del plain["trainer"]
    with pytest.raises(InputError, match=r"^trainer is missing; choose trainer=NAME"):
        validate(plain)


# The built-in files


def test_there_are_files_for_every_group():
    assert {path.parent.name for path in FILES} >= {
        "dataset",
        "backbone",
        "method",
        "adapter",
        "regularizer",
        "tracker",
    }


@pytest.mark.parametrize("path", [conf_folder() / "config.yaml", *FILES], ids=["config", *NAMES])
def test_every_built_in_file_composes_and_opens_with_a_command_that_uses_it(path, tmp_path):
    lines = path.read_text().splitlines()
    command = shlex.split(lines[1 if lines[0].startswith("# @package") else 0].replace("FOLDER", str(tmp_path)))
    assert command[:2] == ["#", "peso"]
    of_runs, of_sweep = split_words([word for word in command[2:] if "=" in word])
    if path.parent.name == "search":
        # Its words span intervals, which are no grid.
        assert f"search={path.stem}" in of_sweep
        choose_search(of_sweep)
        return
    composed = compose(read_grid(of_runs).points[0])
    if path.parent.name == "launcher":
        assert f"launcher={path.stem}" in of_sweep
        assert choose_launcher(of_sweep).name == path.stem
    elif path.parent != conf_folder():
        assert composed.choices[path.parent.name] == path.stem


# A folder of the user's own


def test_a_folder_of_ones_own_adds_choices(tmp_path):
    text = """# @package _global_
defaults:
  - override /adapter: evolving
  - override /regularizer: mine
  - override /memory: all
method:
  name: mine
"""
    write(tmp_path, "method/mine.yaml", text)
    write(tmp_path, "regularizer/mine.yaml", "defaults:\n  - l2\n  - _self_\nstrength: 7.0\nreduction: sum\n")
    composed = compose(["method=mine", "regularizer.reduction=mean"], tmp_path)
    assert composed.config.method.name == "mine"
    assert composed.config.memory.name == "all"
    assert (composed.config.regularizer.strength, composed.config.regularizer.reduction) == (7.0, "mean")
    assert composed.origins["regularizer.strength"] == "regularizer/mine"
    assert "mine" in group_options(config_folders(tmp_path))["method"]
    assert "peso" in group_options(config_folders(tmp_path))["method"]


def test_a_file_of_the_same_name_wins_and_only_while_its_folder_is_given(tmp_path, monkeypatch):
    built_in, epochs = (conf_folder() / "trainer/tiny.yaml").read_text(), compose([]).config.trainer.epochs
    write(tmp_path, "own/trainer/tiny.yaml", built_in.replace(f"\nepochs: {epochs} ", "\nepochs: 77 "))
    monkeypatch.chdir(tmp_path)
    assert compose([], Path("own")).config.trainer.epochs == 77
    assert compose([]).config.trainer.epochs == epochs != 77


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    message = refusal([], tmp_path / "nowhere")
    assert message == f"--config-dir {tmp_path / 'nowhere'}: no such folder"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("_target_: peso_cli.methods.regularizers.l2.L2\nname: l2\n", ["regularizer.strength is missing", "more)"]),
        ("defaults:\n  - softmax_kl\n  - _self_\nmore: 1\n", ["unknown key 'regularizer.more'"]),
        ("name: l2\nstrength: 1.0\n", ["regularizer._target_ is missing", "my_module.MyClass"]),
        ("name: l2\nstrength: [\n", ["regularizer/mine.yaml", "line 3"]),
        ("defaults:\n  - l2\n  - _self_\nstrength: -1\n", ["regularizer.strength=-1"]),
        ("defaults:\n  - /backbone: nope\n", ["nope"]),
        ("", ["regularizer"]),
    ],
)
def test_a_broken_file_of_ones_own_is_one_line(tmp_path, text, parts):
    write(tmp_path, "regularizer/mine.yaml", text)
    message = refusal(["regularizer=mine"], tmp_path)
    for part in parts:
        assert part in message
