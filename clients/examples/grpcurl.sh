#!/bin/sh
# grpcurl learns the protocol by reflection: grpcurl.sh [HOST:PORT]. Tensors are their bytes, in base64: here 1, 2, 3.
set -eu
target=${1:-127.0.0.1:8001}
grpcurl -plaintext "$target" list
grpcurl -plaintext -d '{"model": "double"}' "$target" predictd.v1.PredictionService/GetModel
grpcurl -plaintext -d '{"model": "double", "inputs": [
  {"name": "x", "dtype": "FP32", "shape": [1, 3], "data": "AACAPwAAAEAAAEBA"}]}' \
  "$target" predictd.v1.PredictionService/Predict
