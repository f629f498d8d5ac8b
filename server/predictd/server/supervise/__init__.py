"""The supervisor: starts, wires, watches, restarts and drains the children. It touches no tensor."""
