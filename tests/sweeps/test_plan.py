import pytest
from commands.running import SMALL

from peso_cli.errors import InputError
from peso_cli.sweeps.grid import read_grid
from peso_cli.sweeps.plan import Plan, make_plan


@pytest.fixture
def plan(tmp_path):
    def make(*words: str) -> Plan:
        return make_plan(read_grid([*SMALL, f"output={tmp_path}", "stage=2", *words]))

    return make


def test_a_strength_is_left_out_where_a_method_has_none_and_equal_runs_become_one(plan):
    made = plan("method=single,peso,pretrain", "regularizer.strength=1,2,3")
    assert made.points == 9
    assert [job.label for job in made.jobs] == [
        "single",
        "peso regularizer.strength=1",
        "peso regularizer.strength=2",
        "peso regularizer.strength=3",
        "pretrain",
    ]
    assert made.left_out == {"regularizer.strength": 6}


def test_a_key_that_no_point_has_is_a_mistake(plan):
    with pytest.raises(InputError, match="strenth"):
        plan("regularizer.strenth=1,2")
    with pytest.raises(InputError, match=r"unknown key 'regularizer\.strength'"):
        plan("method=single", "regularizer.strength=1,2")


def test_settings_that_no_run_could_have_are_refused_before_any_runs(plan, tmp_path):
    with pytest.raises(InputError, match=r"trainer.epochs=-1"):
        plan("trainer.epochs=1,-1")
    with pytest.raises(InputError, match="trains nothing"):
        plan("method=peso", "adapter=evolving,frozen")
    assert not list(tmp_path.iterdir())


def test_runs_that_share_a_first_stage_begin_after_one_for_each(plan):
    jobs = plan("seed=1,2", "method=single,peso").jobs
    assert [job.label for job in jobs] == ["single seed=1", "single seed=2", "peso seed=1", "peso seed=2"]
    assert jobs[0].base == jobs[2].base != jobs[1].base
    assert len(jobs[0].fingerprints) == 2
    # Then come those whose first stage is trained first: nobody waits for one while others have theirs.
    labels = [job.label for job in plan("method=single,peso,replay", "seed=1,2").jobs]
    assert labels[2:] == ["peso seed=1", "replay seed=1", "peso seed=2", "replay seed=2"]


def test_further_figures_of_the_same_stages_are_no_further_run(plan):
    (job,) = plan("method=single", "evaluation.split=test,valid").jobs
    assert [way[-1] for way in job.ways] == ["evaluation.split=test", "evaluation.split=valid"]
    assert job.label == "single"
    (alone,) = plan("method=single").jobs
    assert alone.fingerprints == job.fingerprints
    assert alone.name != job.name


def test_names_rest_on_what_is_trained_not_on_how_it_is_written(plan):
    (one,) = plan("method=single", "seed=1").jobs
    (other,) = plan("seed=1", "method=single", "memory=current").jobs
    (another,) = plan("method=single", "seed=2").jobs
    assert one.name == other.name != another.name


def test_planning_tells_how_far_it_is(tmp_path):
    seen = []
    words = [*SMALL, f"output={tmp_path}", "method=single,peso"]
    make_plan(read_grid(words), None, lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
