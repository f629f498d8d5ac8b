"""Triton's own client, unchanged: `pip install 'tritonclient[grpc]'`, then `python triton_client.py [HOST:PORT]`."""

import sys

import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8001")
x = triton.InferInput("x", [1, 3], "FP32")
x.set_data_from_numpy(np.array([[1, 2, 3]], np.float32))
print(client.infer("double", [x]).as_numpy("y"))
client.close()
