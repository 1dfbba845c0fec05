"""How busy the machine is with other work: what the clocks of the system say of it."""

from types import SimpleNamespace

import psutil
import pytest

from elslightning.system import load


class Times(tuple):
    """What psutil says of all cores: user, system, idle."""

    idle = property(lambda self: self[2])


@pytest.mark.parametrize(("others", "expected"), [(0.0, 1.0), (10.0, 2.0)])
def test_others_take_time(monkeypatch, others, expected):
    seconds = iter([0.0, 10.0])
    own = iter([5.0, 15.0])
    all_of_them = iter([Times((50.0, 5.0, 100.0)), Times((60.0 + others, 5.0, 110.0 - others))])
    monkeypatch.setattr(load.time, "perf_counter", lambda: next(seconds))
    monkeypatch.setattr(
        psutil, "Process", lambda: SimpleNamespace(cpu_times=lambda: SimpleNamespace(user=next(own), system=0.0))
    )
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(all_of_them))
    monkeypatch.setattr(psutil, "cpu_count", lambda: 2)
    monkeypatch.setattr(load.torch, "get_num_threads", lambda: 2)
    with load.Load() as found:
        pass
    assert found.slowdown == expected


def test_the_system_says_it():
    with load.Load() as found:
        sum(range(10**6))
    assert found.slowdown >= 1
