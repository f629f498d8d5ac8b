"""Metrics, health and logs: counted in the children, added up and served by the supervisor."""
