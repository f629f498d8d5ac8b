"""A file that mypy must reject: if it passes, mypy is not checking what we think it checks."""

from predictd.client import Client
from predictd.engines.api import DType
from predictd.server.config.units import parse_duration_ns

wrong_engine: str = DType.FP32.itemsize
wrong_server: str = parse_duration_ns("1s")
wrong_client: int = Client("127.0.0.1:8001")
