import numpy as np
import pytest
import torch

from peso_cli.inspection.movement import movement, principal_angles
from peso_cli.methods.regularizers.l2 import L2
from peso_cli.methods.regularizers.none import NoRegularizer
from peso_cli.methods.regularizers.softmax_kl import SoftmaxKL

SHARED = {"anchors": "latest", "scale": "published", "schedule": "constant"}


def factors(seed, out=7, inputs=9, rank=3, scale=1.0, modules=("layers.0.x", "layers.0.y")):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return scale * torch.randn(*shape, generator=generator)

    return {name: (draw(rank, inputs), draw(out, rank)) for name in modules}


def near(before, step, seed=9):
    return {
        name: tuple(old + step * new for old, new in zip(before[name], pair, strict=True))
        for name, pair in factors(seed).items()
    }


def dense(pair):
    a, b = (factor.double().numpy() for factor in pair)
    return a, b, b @ a


@pytest.mark.parametrize("step", [1e-4, 1.0])
def test_lengths_are_those_of_dense_matrices(step):
    before = factors(1)
    after = near(before, step)
    found = movement(before, after, NoRegularizer())
    for name, figures in found["modules"].items():
        for part, old, new in zip(("A", "B", "BA"), dense(before[name]), dense(after[name]), strict=True):
            assert figures[part]["norm_before"] == pytest.approx(np.linalg.norm(old), rel=1e-10)
            assert figures[part]["moved"] == pytest.approx(np.linalg.norm(new - old), rel=1e-9)
            assert figures[part]["relative"] == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old), rel=1e-9)
    moved = [m["BA"]["moved"] for m in found["modules"].values()]
    assert found["total"]["BA"]["moved"] == pytest.approx(np.linalg.norm(moved), rel=1e-10)


@pytest.mark.parametrize("step", [1e-5, 1e-2, 1.0])
def test_the_angle_between_products_is_that_of_dense_matrices(step):
    before = factors(1)
    after = near(before, step)
    for name, figures in movement(before, after, NoRegularizer())["modules"].items():
        old, new = (dense(pair[name])[2].ravel() for pair in (before, after))
        old, new = old / np.linalg.norm(old), new / np.linalg.norm(new)
        exact = np.degrees(2 * np.arctan2(np.linalg.norm(new - old), np.linalg.norm(new + old)))
        assert figures["BA"]["angle"] == pytest.approx(exact, rel=1e-6)


def test_principal_angles_of_known_spaces():
    e = torch.eye(6).double()
    assert principal_angles(e[:, :2], e[:, :2] @ torch.tensor([[1.0, 5.0], [0.0, 2.0]]).double()) == pytest.approx(
        [0, 0]
    )
    assert principal_angles(e[:, :2], e[:, 2:4]) == pytest.approx([90, 90])
    for angle in (1e-7, 30.0, 89.9999999):
        turned = np.cos(np.radians(angle)) * e[:, 1] + np.sin(np.radians(angle)) * e[:, 2]
        one = torch.stack([e[:, 0], turned], dim=1)
        assert principal_angles(e[:, :2], one) == pytest.approx([0, angle], rel=1e-6, abs=1e-12)
        assert principal_angles(e[:, :2], turned[:, None]) == pytest.approx([angle], rel=1e-6)
    assert principal_angles(e[:, :2] * 0, e[:, :2]) == []


def test_a_fresh_adapter_has_no_product_to_compare_with():
    before = {name: (a, 0 * b) for name, (a, b) in factors(1).items()}
    figures = movement(before, factors(2), NoRegularizer())["modules"]["layers.0.x"]
    assert figures["B"]["relative"] is None
    assert figures["BA"]["relative"] is None
    assert figures["BA"]["angle"] is None
    assert figures["B"]["angles"] == []
    assert len(figures["A"]["angles"]) == 3


def test_the_divergence_is_that_of_softmaxes():
    before, after = factors(1), factors(2)
    figures = movement(before, after, NoRegularizer())["modules"]["layers.0.x"]
    for place, part in enumerate("AB"):
        log_q, log_p = (f["layers.0.x"][place].double().flatten().log_softmax(0) for f in (before, after))
        exact = float((log_p.exp() * (log_p - log_q)).sum())
        assert figures[part]["softmax_kl"] == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("schedule", ["constant", "rise"])
def test_each_modules_penalty_is_its_part_of_the_whole(reduction, schedule):
    before, after = factors(1), factors(2)
    shared = {**SHARED, "reduction": reduction, "schedule": schedule}
    l2 = movement(before, after, L2(strength=3.0, group="factor", unsquared=False, **shared))
    for figures in l2["modules"].values():
        squares = figures["A"]["moved"] ** 2 + figures["B"]["moved"] ** 2
        assert figures["penalty"] == pytest.approx(3.0 * squares / (2 if reduction == "mean" else 1), rel=1e-6)
    kl = movement(before, after, SoftmaxKL(strength=3.0, group="module", smoothing=0.0, **shared))
    for found in (l2, kl):
        assert found["total"]["penalty"] == pytest.approx(
            sum(m["penalty"] for m in found["modules"].values()), rel=1e-6
        )


def test_penalties_that_are_not_of_modules_are_left_out():
    before, after = factors(1), factors(2)
    layer = movement(before, after, SoftmaxKL(strength=3.0, reduction="sum", group="layer", smoothing=0.0, **SHARED))
    assert [m["penalty"] for m in layer["modules"].values()] == [None, None]
    assert layer["total"]["penalty"] > 0
    none = movement(before, after, NoRegularizer())
    assert none["total"]["penalty"] is None


def test_the_penalty_is_held_to_what_the_latest_stage_left():
    before, after, past = factors(1), factors(2), factors(3)
    l2 = L2(strength=1.0, reduction="sum", group="factor", unsquared=False, **SHARED)
    assert movement(before, after, l2, [before, past])["total"]["penalty"] == pytest.approx(
        movement(past, after, l2)["total"]["penalty"]
    )
    assert movement(before, past, l2, [before, past])["total"]["penalty"] == 0
