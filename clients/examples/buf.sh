#!/bin/sh
# buf (pip install buf-bin) learns the protocol by reflection, as grpcurl does: buf.sh [HOST:PORT]. Tensors are their
# bytes, in base64: here 1, 2, 3.
set -eu
url=http://${1:-127.0.0.1:8001}
call() { buf curl --protocol grpc --http2-prior-knowledge "$@"; }
call --list-services "$url"
call -d '{"model": "double"}' "$url/predictd.v1.PredictionService/GetModel"
call -d '{"model": "double", "inputs": [
  {"name": "x", "dtype": "FP32", "shape": [1, 3], "data": "AACAPwAAAEAAAEBA"}]}' \
  "$url/predictd.v1.PredictionService/Predict"
