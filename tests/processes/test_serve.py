"""The daemon as an operator meets it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from predictd.client import Client
from tests.fixtures import models
from tests.fixtures.daemon import running


def test_a_model_file_is_served(tmp_path: Path) -> None:
    model = models.affine(tmp_path / "affine.onnx", scale=2.0, bias=1.0, width=4)
    with running(model, folder=tmp_path / "run") as daemon, Client(daemon.grpc) as client:
        x = np.arange(8, dtype=np.float32).reshape(2, 4)
        prediction = client.predict("affine", {"x": x})
        np.testing.assert_array_equal(prediction.outputs["y"], x * 2 + 1)
        assert daemon.get("/readyz") == (200, "ready\n")
        assert daemon.metric("predictd_requests_total", model="affine", status="OK") == 1
