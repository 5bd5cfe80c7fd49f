"""Usable cores, from made-up cgroup trees."""

import asyncio
import os
import threading

import pytest

from penstock.errors import ConfigError
from penstock.executors.cores import CoreReader, Cores, current_cores, quota_cores, usable_cores
from tests.support.clocks import HandClock


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_without_a_quota_the_affinity_decides(tmp_path):
    cores = usable_cores({}, affinity=6, root=tmp_path, own_cgroup=tmp_path / "none")
    assert cores == Cores(chosen=6, affinity=6, quota_cores=None, override=None)
    assert cores.reason == "affinity"


def test_a_v2_quota_is_rounded_up(tmp_path):
    write(tmp_path / "app" / "cpu.max", "150000 100000\n")
    write(tmp_path / "own", "0::/app\n")
    cores = usable_cores({}, affinity=8, root=tmp_path, own_cgroup=tmp_path / "own")
    assert (cores.chosen, cores.quota_cores, cores.reason) == (2, 1.5, "quota")


def test_the_tightest_quota_of_all_parents_counts(tmp_path):
    write(tmp_path / "a" / "cpu.max", "300000 100000")
    write(tmp_path / "a" / "b" / "cpu.max", "max 100000")
    write(tmp_path / "a" / "b" / "c" / "cpu.max", "800000 100000")
    assert quota_cores("0::/a/b/c\n", tmp_path) == 3.0


def test_in_a_container_the_mount_is_our_own_cgroup(tmp_path):
    write(tmp_path / "cpu.max", "200000 100000")
    assert quota_cores("0::/\n", tmp_path) == 2.0
    assert quota_cores("0::/../../outside\n", tmp_path) == 2.0


@pytest.mark.parametrize("controllers", ["cpu,cpuacct", "cpu"])
def test_a_v1_quota_is_read_from_its_own_mount(tmp_path, controllers):
    folder = tmp_path / controllers / "docker" / "id"
    write(folder / "cpu.cfs_quota_us", "50000\n")
    write(folder / "cpu.cfs_period_us", "100000\n")
    assert quota_cores(f"5:memory:/x\n4:{controllers}:/docker/id\n", tmp_path) == 0.5


def test_v1_without_a_quota_says_minus_one(tmp_path):
    write(tmp_path / "cpu" / "cpu.cfs_quota_us", "-1")
    write(tmp_path / "cpu" / "cpu.cfs_period_us", "100000")
    assert quota_cores("4:cpu,cpuacct:/\n", tmp_path) is None


def test_nonsense_is_no_quota(tmp_path):
    write(tmp_path / "cpu.max", "nonsense")
    assert quota_cores("nonsense\n0::/\n", tmp_path) is None


def test_half_a_core_is_one(tmp_path):
    write(tmp_path / "cpu.max", "20000 100000")
    write(tmp_path / "own", "0::/\n")
    assert usable_cores({}, affinity=4, root=tmp_path, own_cgroup=tmp_path / "own").chosen == 1


def test_the_override_lowers_the_number(tmp_path):
    cores = usable_cores({"PENSTOCK_CPUS": "2"}, affinity=8, root=tmp_path, own_cgroup=tmp_path / "none")
    assert (cores.chosen, cores.override, cores.reason) == (2, 2, "override")


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_bad_override_is_one_clear_line(text):
    with pytest.raises(ConfigError, match=r"PENSTOCK_CPUS = .*whole number of cores"):
        usable_cores({"PENSTOCK_CPUS": text})


def test_this_machine_has_a_core():
    assert 1 <= usable_cores({}).chosen <= (os.cpu_count() or 1)


def test_the_cores_are_read_again_while_running_but_not_at_every_question(tmp_path):
    write(tmp_path / "cpu.max", "200000 100000")
    write(tmp_path / "own", "0::/\n")
    clock = HandClock()
    reader = CoreReader(lambda: usable_cores({}, affinity=8, root=tmp_path, own_cgroup=tmp_path / "own"), clock=clock)
    assert reader().chosen == 2
    write(tmp_path / "cpu.max", "400000 100000")
    clock.now_s += 4.9
    assert reader().chosen == 2
    clock.now_s += 0.2
    assert reader().chosen == 4


def test_a_running_loop_reads_no_file_again_but_has_a_thread_do_so():
    readers, read = [], threading.Event()

    def note_reader():
        readers.append(threading.current_thread())
        if len(readers) > 1:
            read.set()
        return len(readers)

    reader = CoreReader(note_reader, every_s=0)
    assert reader() == 1

    async def main():
        return reader()

    assert asyncio.run(main()) == 1
    assert read.wait(20)
    assert readers[0] is threading.current_thread() is not readers[1]


def test_a_lane_asks_for_what_the_machine_has_now():
    assert current_cores() == usable_cores()
    assert current_cores() is current_cores()
