from __future__ import annotations

import subprocess
import sys

import predictd.client

SCRIPT = """
import sys
import predictd.client
print(*sorted(name for name in sys.modules if name.startswith(("predictd.", "onnxruntime", "ml_dtypes"))))
"""


def test_importing_the_client_imports_neither_server_nor_engine() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    loaded = ran.stdout.split()
    assert "predictd.client" in loaded
    assert {name.split(".")[1] if "." in name else name for name in loaded} == {"client", "protos"}


def test_what_is_exported_is_there() -> None:
    assert all(hasattr(predictd.client, name) for name in predictd.client.__all__)
