#!/bin/sh
# Health and metrics are HTTP: curl.sh [HOST:PORT].
set -eu
target=${1:-127.0.0.1:8002}
curl -sSf "http://$target/healthz"
curl -sSf "http://$target/readyz"
curl -sSf "http://$target/metrics" | grep '^predictd_requests_total' || echo 'no requests yet'
