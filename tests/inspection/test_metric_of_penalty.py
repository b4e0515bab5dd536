from dataclasses import replace

import pytest
import torch
from inspection.test_movement import factors

from peso_cli.inspection.metrics import local_form
from peso_cli.inspection.movement import movement
from peso_cli.methods.regularizers.l2 import L2
from peso_cli.methods.regularizers.none import NoRegularizer
from peso_cli.methods.regularizers.orthogonal import Orthogonal
from peso_cli.methods.regularizers.quadratic import Quadratic
from peso_cli.methods.regularizers.rank_kl import RankKL
from peso_cli.methods.regularizers.softmax_kl import SoftmaxKL

MODULES = ("layers.0.x", "layers.0.y", "layers.1.x")
SHARED = {"strength": 5.0, "reduction": "mean", "anchors": "latest", "scale": "published", "schedule": "constant"}
KL = SoftmaxKL(group="factor", smoothing=0.0, **SHARED)
L2_ = L2(group="factor", unsquared=False, **SHARED)
FORMS = [
    *(replace(KL, group=group) for group in ("factor", "module", "layer")),
    Quadratic(group="module", **SHARED),
    RankKL(**SHARED),
    L2_,
]


def live(seed=1):
    return {
        name: tuple(torch.nn.Parameter(factor.double()) for factor in pair)
        for name, pair in factors(seed, modules=MODULES).items()
    }


@pytest.mark.parametrize("scale", ["published", "per_parameter"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("regularizer", FORMS)
def test_the_local_form_is_the_penalty_of_a_small_step(regularizer, reduction, scale):
    regularizer = replace(regularizer, reduction=reduction, scale=scale)
    before = live()
    steps = factors(2, scale=1e-5, modules=MODULES)
    after = {n: tuple(f + s for f, s in zip(before[n], steps[n], strict=True)) for n in MODULES}
    metric, pull = local_form(regularizer, before, 1, True)
    x = metric.displacement(torch.cat([s.double().flatten() for pair in steps.values() for s in pair]))
    exact = movement(before, after, regularizer)["total"]["penalty"]
    assert pull / 2 * float(x.square().sum()) == pytest.approx(exact, rel=1e-3)


def test_what_has_no_local_form_predicts_nothing():
    before = live()
    for regularizer in (
        Orthogonal(**SHARED),
        replace(L2_, unsquared=True),
        replace(KL, schedule="rise"),
    ):
        assert local_form(regularizer, before, 1, True)[1] is None
    assert local_form(KL, before, 1, False)[1] is None
    assert local_form(replace(KL, anchors="all"), before, 2, True)[1] is None
    assert local_form(replace(KL, anchors="all"), before, 1, True)[1] == pytest.approx(5 / 3)
    assert local_form(NoRegularizer(), before, 1, False)[1] == 0


def test_factors_that_do_not_train_are_left_out():
    before = live()
    for a, _ in before.values():
        a.requires_grad_(False)
    metric, pull = local_form(KL, before, 1, True)
    assert len(metric.root) == sum(b.numel() for _, b in before.values())
    assert metric.dimensions == len(metric.root) - len(MODULES)
    assert pull == pytest.approx(5 / 3)
    assert local_form(replace(KL, group="module"), before, 1, True)[1] is None
