import copy
import math

import pytest
import torch
from torch import nn

from peso_cli.artifacts import Artifact
from peso_cli.errors import RunError
from peso_cli.training.checkpoints import (
    Checkpoint,
    copy_state,
    load_checkpoint,
    optimiser_state,
    restore_optimiser,
    restore_state,
    save_checkpoint,
    trainable,
)

PROGRESS = {"epoch": 2, "best_loss": math.inf, "sums": {"loss": 0.1 + 0.2}, "history": [{"epoch": 0, "loss": 1e-30}]}


def small_model(seed=0, dtype=torch.float32):
    """A model of which the last layer does not train."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Linear(3, 1)).to(dtype)
    model[3].requires_grad_(False)
    return model


def adamw(model):
    return torch.optim.AdamW(trainable(model).values(), lr=0.01, weight_decay=0.1)


def train(model, optimiser, steps, start=0):
    for step in range(start, start + steps):
        torch.manual_seed(step)
        inputs = torch.randn(8, 4, dtype=model[0].weight.dtype)
        optimiser.zero_grad(set_to_none=True)
        (model(inputs) - inputs.sum(1, keepdim=True)).square().mean().backward()
        optimiser.step()


def of(model, optimiser):
    return Checkpoint({"model": copy_state(model), "optimiser": optimiser_state(optimiser, model)}, PROGRESS)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stage" / "checkpoint.safetensors"


def test_a_checkpoint_comes_back_as_it_was(path):
    parts = {
        "model": {"a.b": torch.randn(2, 3), "half": torch.randn(4).bfloat16(), "long:name": torch.arange(3)},
        "best": {"a.b": torch.randn(2, 3).T, "none": torch.zeros(0), "scalar": torch.tensor(7.0)},
    }
    save_checkpoint(path, Checkpoint(parts, PROGRESS))
    found = load_checkpoint(path)
    assert found.progress == PROGRESS
    assert found.parts.keys() == parts.keys()
    for name, state in parts.items():
        assert same(found.parts[name], state)
        assert all(found.parts[name][key].dtype == state[key].dtype for key in state)


def test_a_later_checkpoint_takes_the_place_of_an_earlier_one(path):
    for epoch in (1, 2):
        save_checkpoint(path, Checkpoint({"model": {"w": torch.full((2,), epoch)}}, {"epoch": epoch}))
    assert load_checkpoint(path).progress == {"epoch": 2}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_where_there_is_none_there_is_none(path):
    assert load_checkpoint(path) is None


def test_only_what_trains_is_kept():
    model = small_model()
    assert list(copy_state(model)) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_tied_parameters_are_kept_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert list(trainable(model)) == ["0.weight", "0.bias", "1.bias"]


def test_a_copy_does_not_follow_the_model():
    model = small_model()
    state = copy_state(model)
    before = copy.deepcopy(state)
    train(model, adamw(model), 2)
    assert same(state, before)
    assert not same(state, copy_state(model))
    restore_state(model, state)
    assert same(copy_state(model), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stop", [0, 1, 5])
def test_training_goes_on_to_the_last_bit(path, dtype, stop):
    straight = small_model(dtype=dtype)
    optimiser = adamw(straight)
    train(straight, optimiser, stop)
    save_checkpoint(path, of(straight, optimiser))
    train(straight, optimiser, 8, start=stop)

    resumed = small_model(seed=9, dtype=dtype)
    resumed[3].load_state_dict(straight[3].state_dict())
    fresh, found = adamw(resumed), load_checkpoint(path)
    restore_state(resumed, found.parts["model"])
    restore_optimiser(fresh, resumed, found.parts.get("optimiser", {}))
    train(resumed, fresh, 8, start=stop)
    assert same(copy_state(resumed), copy_state(straight))
    assert same(optimiser_state(fresh, resumed), optimiser_state(optimiser, straight))


def refusal(path):
    with pytest.raises(RunError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: the checkpoint is damaged")
    assert message.endswith("remove it to train this stage anew")


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_checkpoint_cut_off_anywhere_is_a_failure_that_names_it(path, kept):
    model = small_model()
    save_checkpoint(path, of(model, adamw(model)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    refusal(path)


def test_a_file_of_another_kind_is_a_failure_that_names_it(path):
    path.parent.mkdir()
    for content in (b"{}", b"nonsense " * 100, bytes(100)):
        path.write_bytes(content)
        refusal(path)


@pytest.mark.parametrize("metadata", [None, {}, {"progress": ""}, {"progress": "{"}])
def test_weights_without_progress_are_a_failure(path, metadata):
    from safetensors.torch import save_file

    path.parent.mkdir()
    save_file({"model:w": torch.zeros(2)}, path, metadata)
    refusal(path)


def test_a_tensor_of_no_part_is_a_failure(path):
    from safetensors.torch import save_file

    path.parent.mkdir()
    save_file({"w": torch.zeros(2)}, path, {"progress": "{}"})
    refusal(path)


def test_a_failed_write_leaves_the_earlier_checkpoint(path):
    save_checkpoint(path, Checkpoint({"model": {"w": torch.ones(2)}}, {"epoch": 1}))
    shared = torch.ones(4)
    with pytest.raises(RuntimeError):
        save_checkpoint(path, Checkpoint({"model": {"w": shared, "v": shared[:2]}}, {"epoch": 2}))
    assert load_checkpoint(path).progress == {"epoch": 1}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def read(path):
    """The checkpoint at a path, or the complaint about it."""
    try:
        return load_checkpoint(path)
    except RunError as error:
        return str(error)


def test_every_damaged_byte_of_a_checkpoint_is_found_or_changes_nothing(path):
    model = nn.Linear(3, 2)
    saved = of(model, adamw(model))
    save_checkpoint(path, saved)
    whole, seen = path.read_bytes(), 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        found = read(path)
        if isinstance(found, str):
            assert found.startswith(f"{path}: the checkpoint is damaged")
            seen += 1
        else:
            assert found.progress == saved.progress
            assert all(same(found.parts[part], state) for part, state in saved.parts.items())
    assert seen > 0.9 * len(whole)


def test_a_checkpoint_of_another_stage_is_refused(path):
    artifact = Artifact(path.parent)
    artifact.begin({}, {"fingerprint": "mine"})
    model = small_model()
    save_checkpoint(artifact.checkpoint, of(model, adamw(model)))
    assert load_checkpoint(artifact.checkpoint, "mine")
    with pytest.raises(RunError, match=r"checkpoint.safetensors: is the checkpoint of another run; .*--repair"):
        load_checkpoint(artifact.checkpoint, "other")


def test_a_checkpoint_without_a_checksum_is_still_read(path):
    from safetensors.torch import save_file

    path.parent.mkdir()
    save_file({"model:w": torch.ones(2)}, path, {"progress": "{}"})
    assert load_checkpoint(path, "any").parts["model"]["w"].tolist() == [1, 1]
