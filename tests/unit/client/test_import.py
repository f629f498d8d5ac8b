"""What importing the client costs and needs; that it can be imported where the daemon cannot."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import predictd.client
from predictd.client import AsyncClient, Client
from predictd.protos.v1 import predictd_pb2

SCRIPT = """
import sys
import predictd.client
print(*sorted(name for name in sys.modules if name.startswith(("predictd.", "onnxruntime", "ml_dtypes"))))
"""
# What Windows does not have. Some belong to modules of the standard library, which do without them there.
ELSEWHERE = """
import sys
for name in ("fcntl", "grp", "pwd", "resource", "termios", "uvloop", "setproctitle", "msgspec", "click"):
    sys.modules[name] = None
import os, signal
for module, names in ((os, ("fork", "register_at_fork", "sched_getaffinity", "memfd_create", "umask")),
                      (signal, ("SIGKILL", "SIGHUP", "pthread_sigmask"))):
    for name in names:
        delattr(module, name)
import predictd.client
with predictd.client.Client("127.0.0.1:1", retries=predictd.client.NO_RETRIES) as client:
    try:
        client.models(deadline=5)
    except predictd.client.UnavailableError:
        print("imported, and asked")
"""
COST = """
import sys, time
start = time.perf_counter()
import grpc, numpy
between = time.perf_counter()
import predictd.client
print(between - start, time.perf_counter() - start)
"""
# Of the standard library.
EVERYWHERE = {
    *(
        "abc",
        "asyncio",
        "collections",
        "concurrent",
        "contextlib",
        "dataclasses",
        "functools",
        "inspect",
        "json",
    ),
    *(
        "math",
        "os",
        "pathlib",
        "queue",
        "random",
        "re",
        "ssl",
        "struct",
        "threading",
        "time",
        "types",
        "typing",
    ),
}
COST_SECONDS = 0.15
OURS = 1.5
CLIENT = Path(__file__).parents[3] / "clients"


def run(script: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return ran.stdout


def test_importing_the_client_imports_neither_server_nor_engine() -> None:
    loaded = run(SCRIPT).split()
    assert "predictd.client" in loaded
    assert {name.split(".")[1] if "." in name else name for name in loaded} == {"client", "protos"}


def test_importing_the_client_is_quick() -> None:
    """In 150 ms; on a machine that takes that long for gRPC and NumPy alone, in half as much more."""
    costs = []
    for _ in range(5):
        required, whole = map(float, run(COST).split())
        if whole < max(COST_SECONDS, OURS * required):
            return
        costs.append((required, whole))
    raise AssertionError(f"seconds for gRPC and NumPy, and for the client with them: {costs}")


def test_the_client_does_without_what_only_linux_has() -> None:
    assert run(ELSEWHERE) == "imported, and asked\n"


def test_the_client_imports_only_what_every_platform_has() -> None:
    """Also inside functions, which no import of the client would show."""
    imported = {
        name
        for path in (CLIENT / "predictd" / "client").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in imports(node)
    }
    required = {"grpc", "numpy", "google", "predictd", "__future__"}
    assert imported - required <= EVERYWHERE
    assert imported >= {"grpc", "numpy", "asyncio", "threading"}


def imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    return [str(node.module).partition(".")[0]] if isinstance(node, ast.ImportFrom) else []


def test_the_client_requires_a_protobuf_that_can_load_its_generated_code() -> None:
    source = Path(predictd_pb2.__file__).read_text()
    call = re.search(r"ValidateProtobufRuntimeVersion\(\s*[\w.]+,\s*(\d+),\s*(\d+),\s*(\d+)", source)
    assert call is not None
    made_by = tuple(map(int, call.groups()))
    dependencies = tomllib.loads((CLIENT / "pyproject.toml").read_text())["project"]["dependencies"]
    (requirement,) = (each for each in dependencies if each.startswith("protobuf"))
    floor, ceiling = re.findall(r"[\d.]+", requirement)
    assert tuple(map(int, floor.split("."))) >= made_by
    assert int(ceiling) == made_by[0] + 2


def test_what_is_exported_is_there() -> None:
    assert all(hasattr(predictd.client, name) for name in predictd.client.__all__)


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    own = {name for name in vars(Client) if not name.startswith("_")}
    assert {name for name in vars(AsyncClient) if not name.startswith("_")} == own | {"predict_stream"}
    for name in own:
        blocking, asynchronous = getattr(Client, name), getattr(AsyncClient, name)
        assert inspect.signature(blocking) == inspect.signature(asynchronous), name
        assert blocking.__doc__, name
    assert list(inspect.signature(Client("127.0.0.1:1").predict).parameters)[:2] == ["model", "inputs"]
