import errno
import fcntl
import itertools
import math
import multiprocessing
import os
import signal
import time

import pytest

from peso_cli.errors import RunError
from peso_cli.locks import hold, is_held

FORK = multiprocessing.get_context("fork")


def count_up(counter, lock, rounds):
    for _ in range(rounds):
        with hold(lock):
            seen = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(seen + 1))


def hold_forever(lock, begun):
    with hold(lock):
        begun.set()
        time.sleep(60)


def holder(lock):
    begun = FORK.Event()
    process = FORK.Process(target=hold_forever, args=(lock, begun))
    process.start()
    assert begun.wait(10)
    return process


def test_processes_take_turns(tmp_path):
    counter, lock = tmp_path / "counter", tmp_path / "deep" / "lock"
    counter.write_text("0")
    processes = [FORK.Process(target=count_up, args=(counter, lock, 5)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert counter.read_text() == "20"
    assert not lock.exists()


def test_a_killed_holder_sets_the_lock_free(tmp_path):
    lock = tmp_path / "lock"
    process = holder(lock)
    assert is_held(lock)
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert not is_held(lock)
    with hold(lock, lambda: pytest.fail("nobody holds it")):
        assert is_held(lock)


def test_who_waits_says_so_once_and_goes_on_when_the_holder_ends(tmp_path):
    lock, said = tmp_path / "lock", []
    process = holder(lock)

    def waiting():
        said.append("waiting")
        os.kill(process.pid, signal.SIGTERM)

    with hold(lock, waiting):
        assert said == ["waiting"]
    process.join(10)


def test_an_error_inside_sets_the_lock_free(tmp_path):
    def fail():
        with hold(tmp_path / "lock"):
            raise ValueError("inside")

    with pytest.raises(ValueError, match="inside"):
        fail()
    assert not is_held(tmp_path / "lock")
    assert list(tmp_path.iterdir()) == []


# File systems that can't lock


def failing(number, times=math.inf):
    """A flock that fails so many times, and works from then on."""
    original, calls = fcntl.flock, itertools.count()

    def flock(handle, operation):
        if next(calls) < times:
            raise OSError(number, os.strerror(number))
        return original(handle, operation)

    return flock


@pytest.fixture
def no_flock(monkeypatch):
    """A system that knows no flock."""
    monkeypatch.setattr(fcntl, "flock", failing(errno.ENOSYS))


@pytest.mark.usefixtures("no_flock")
@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.parametrize(
    "test",
    [test_processes_take_turns, test_a_killed_holder_sets_the_lock_free, test_an_error_inside_sets_the_lock_free],
)
def test_without_flock_a_file_with_the_holders_process_takes_its_place(tmp_path, test):
    test(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_locks_fail_nothing_is_held_and_the_message_says_where_and_why(tmp_path, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", failing(number))
    with pytest.raises(RunError) as caught, hold(tmp_path / "lock"):
        pytest.fail("nothing is held")
    assert str(caught.value).startswith(f"{tmp_path / 'lock'}: files can't be locked there ({os.strerror(number)}); ")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_its_holder_removed_on_another_machine_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", failing(errno.ESTALE, times=1))
    with hold(tmp_path / "lock"):
        assert is_held(tmp_path / "lock")
