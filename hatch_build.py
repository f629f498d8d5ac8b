"""Build hook: compiles the .proto files under protos/ before a wheel or an editable install is made."""

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PROTOS = Path(__file__).resolve().parent / "protos"
PACKAGE = "predictd/protos"


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        compile_protos()
        if self.metadata.name == "predictd-client" and version == "standard":
            # The client's wheel carries its protocol; an editable install finds it through the path.
            own = ("__init__.py", "py.typed", "v1")
            build_data["force_include"].update(
                {str(PROTOS / PACKAGE / name): f"{PACKAGE}/{name}" for name in own}
            )


def compile_protos() -> None:
    """Write `*_pb2.py` and `*_pb2.pyi` beside each .proto file that is newer than they are."""
    stale = [path for path in sorted(PROTOS.rglob("*.proto")) if _is_stale(path)]
    if not stale:
        return
    from grpc_tools import protoc  # type: ignore[import-untyped]

    well_known = Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{PROTOS}", f"-I{well_known}", f"--python_out={PROTOS}", f"--pyi_out={PROTOS}"]
    if protoc.main([*arguments, *map(str, stale)]) != 0:
        sys.exit(f"protoc failed on {', '.join(map(str, stale))}")


def _is_stale(proto: Path) -> bool:
    outputs = [proto.with_name(proto.stem + suffix) for suffix in ("_pb2.py", "_pb2.pyi")]
    return not all(out.exists() and out.stat().st_mtime >= proto.stat().st_mtime for out in outputs)


if __name__ == "__main__":
    compile_protos()
