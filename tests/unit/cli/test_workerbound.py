"""How many worker processes a machine can have, by its cores, its memory and its cgroup."""

from pathlib import Path

from penstock.cli.serving.workerbound import cgroup_bytes, most_workers

GIB = 2**30


def test_the_scarcer_of_cores_and_memory_decides() -> None:
    assert most_workers(2, 64 * GIB) == (64, "32 for each usable core")
    assert most_workers(1, None) == (32, "32 for each usable core")
    assert most_workers(64, GIB) == (32, "32 MiB of 1.0 GiB of memory for each")
    assert most_workers(64, 1)[0] == 1


def test_the_memory_limits_of_a_cgroup_and_its_parents_count(tmp_path: Path) -> None:
    (tmp_path / "pod" / "box").mkdir(parents=True)
    (tmp_path / "pod" / "memory.max").write_text("1000\n")
    (tmp_path / "pod" / "box" / "memory.max").write_text("max\n")
    assert cgroup_bytes("0::/pod/box\n", tmp_path) == [1000]
    (tmp_path / "memory" / "box").mkdir(parents=True)
    (tmp_path / "memory" / "box" / "memory.limit_in_bytes").write_text("2000\n")
    assert cgroup_bytes("5:cpu:/box\n4:memory:/box\n", tmp_path) == [2000]
