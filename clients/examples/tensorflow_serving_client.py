"""TensorFlow Serving's own client, unchanged: `pip install tensorflow-serving-api`, then run it with `[HOST:PORT]`."""

import sys

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

with grpc.insecure_channel(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8001") as channel:
    service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "double"
    request.inputs["x"].CopyFrom(tf.make_tensor_proto(np.array([[1, 2, 3]], np.float32)))
    print(tf.make_ndarray(service.Predict(request, timeout=10).outputs["y"]))
