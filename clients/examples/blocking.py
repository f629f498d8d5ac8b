"""Ask a model: `python blocking.py [HOST:PORT]`. The model is the `double` of the README."""

import sys

import numpy as np

from predictd.client import Client, DeadlineExceededError, InvalidRequestError

target = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:8001"

with Client(target) as client:
    model = client.model("double")
    print(model)

    # An array alone is the model's only input; a Model instead of its name is compared with before anything is sent.
    prediction = client.predict(model, np.array([[1, 2, 3]], np.float32))
    print(prediction.outputs["y"], "by version", prediction.version)

    try:
        client.predict(model, np.array([[1, 2]], np.float32), deadline=0.2)
    except InvalidRequestError as error:
        print("refused:", error)
    except DeadlineExceededError:
        print("too late")
