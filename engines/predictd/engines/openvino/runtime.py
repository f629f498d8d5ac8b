"""The `openvino` package, imported so that it tells nobody.

Importing it reports the import through the package `openvino_telemetry`, which its wheel requires. Without that
package it does without, so here it is as if it were not installed.
"""

import sys
from typing import TYPE_CHECKING

if not TYPE_CHECKING:
    # Python's way to say of a module that it cannot be imported.
    sys.modules["openvino_telemetry"] = None

import openvino

__all__ = ["openvino"]
