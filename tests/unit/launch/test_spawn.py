import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from predictd.server.launch.cpulist import parse_cpulist
from predictd.server.launch.environment import child_environment
from predictd.server.launch.spawn import raise_nofile_limit, spawn

REPORT = """
import json, os, sys
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
report = {
    "cpus": status["Cpus_allowed_list"].strip(),
    "environment": dict(os.environ),
    "session": os.getsid(0),
    "stdin": os.readlink("/proc/self/fd/0"),
    "descriptors": [int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")],
}
os.write(int(sys.argv[1]), json.dumps(report).encode())
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe()
    yield read, write
    os.close(read)
    os.close(write)


def test_the_child_has_its_mask_and_environment_and_the_parent_keeps_its_own(pipe: tuple[int, int]) -> None:
    read, write = pipe
    affinity, environment = os.sched_getaffinity(0), dict(os.environ)
    cpu = max(affinity)
    planned = {"OMP_NUM_THREADS": "7", "PREDICTD_TEST": "ü"}
    child = spawn(
        [sys.executable, "-c", REPORT, str(write)],
        environment=child_environment(environment, planned),
        cpus=[cpu],
        pass_fds=[write],
    )
    assert os.sched_getaffinity(0) == affinity
    assert child.wait() == 0
    report = json.loads(os.read(read, 1 << 20))
    assert parse_cpulist(report["cpus"]) == (cpu,)
    assert report["environment"].items() >= {**environment, **planned}.items()
    assert report["session"] == child.pid
    assert report["stdin"] == "/dev/null"
    assert set(report["descriptors"]) == {0, 1, 2, write}
    assert dict(os.environ) == environment


def test_the_mask_comes_back_when_the_program_does_not_exist() -> None:
    affinity = os.sched_getaffinity(0)
    with pytest.raises(FileNotFoundError):
        spawn(["/nonexistent/program"], environment={}, cpus=[min(affinity)])
    assert os.sched_getaffinity(0) == affinity


def test_cpus_that_do_not_exist_are_an_error_and_change_nothing() -> None:
    affinity = os.sched_getaffinity(0)
    with pytest.raises(OSError, match="Invalid argument"):
        spawn([sys.executable, "-c", ""], environment={}, cpus=[1023])
    assert os.sched_getaffinity(0) == affinity


def test_the_descriptor_limit_is_raised_to_the_hard_limit() -> None:
    script = """
import resource
from predictd.server.launch.spawn import raise_nofile_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
assert raise_nofile_limit() == hard
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_raising_the_limit_twice_is_harmless() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        assert raise_nofile_limit() == raise_nofile_limit() == before[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


PARENT = """
import os, signal, subprocess, sys
child = '''
import os, signal, sys
from predictd.server.launch.spawn import die_with_parent
die_with_parent(int(sys.argv[1]))
os.write(int(sys.argv[2]), b"ready")
signal.pause()
'''
write = sys.argv[1]
subprocess.Popen([sys.executable, "-c", child, str(os.getpid()), write], pass_fds=[int(write)])
os.close(int(write))
signal.pause()
"""


def test_a_child_dies_with_its_parent() -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as pipe_end:
        parent = subprocess.Popen([sys.executable, "-c", PARENT, str(write)], pass_fds=[write])
        os.close(write)
        try:
            assert pipe_end.read(16) == b"ready"
        finally:
            parent.send_signal(signal.SIGKILL)
            assert parent.wait() == -signal.SIGKILL
        # The child holds the last writing end: the pipe ends when it is dead.
        assert pipe_end.read(16) == b""


def test_a_child_whose_parent_is_gone_already_exits() -> None:
    script = (
        "from predictd.server.launch.spawn import die_with_parent; die_with_parent(1 << 30); print('alive')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "the supervisor is gone\n")


def test_spawn_does_not_look_at_the_environment_of_its_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREDICTD_LEAK", "1")
    out = tmp_path / "environment"
    script = f"import os; open({str(out)!r}, 'w').write(os.environ.get('PREDICTD_LEAK', 'absent'))"
    child = spawn([sys.executable, "-c", script], environment={}, cpus=sorted(os.sched_getaffinity(0)))
    assert child.wait() == 0
    assert out.read_text() == "absent"
