"""Defaults that the run config and the command line share, in a module that costs nothing to import."""

DEFAULT_ENDPOINTS = "run_configs/endpoints"
"""Folder of the endpoint definitions."""
