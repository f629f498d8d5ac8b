"""TensorFlow Serving's API. Server-only: TensorFlow and its clients carry the same symbols."""
