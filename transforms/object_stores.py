"""Beam's file systems for object stores, ready for use in any process."""

import os
import threading
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

_BUILDING = threading.Lock()


@lru_cache(maxsize=1)
def _import_file_systems() -> Any:
    from apache_beam.io.filesystems import FileSystems

    try:
        from apache_beam.io.aws.clients.s3 import boto3_client
    except ImportError:
        return FileSystems
    if boto3_client.boto3 is not None:
        boto3_client.boto3 = SimpleNamespace(session=SimpleNamespace(Session=_SharedSession))
    return FileSystems


def file_systems() -> Any:
    """Beam's `FileSystems`, with options that object stores accept."""
    from apache_beam.options.pipeline_options import PipelineOptions

    systems = _import_file_systems()
    if systems._pipeline_options is None:
        # Object stores refuse to work without options; with empty ones they take everything from the environment. Beam
        # sets its own on the workers that it starts itself, but not in the launcher and not in external worker pools.
        systems.set_options(PipelineOptions([]))
    return systems


class _SharedSession:
    """Stands for boto3's session where Beam makes one, and a client of it, for each operation on a file.

    To make a client takes longer than to read a small file, 0.13 s. Clients are safe to share between threads.
    """

    def client(self, **settings: Any) -> Any:
        """The process's client of these settings; another environment, or files of it that changed, have another."""
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        files = (
            environment.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
            environment.get("AWS_CONFIG_FILE", "~/.aws/config"),
        )
        read = (tuple(environment.items()), tuple(map(_version, files)))
        with _BUILDING:
            return _client(tuple(sorted(settings.items())), read)


def _version(path: str) -> tuple[int, ...]:
    """What changes when a file does; tools renew short-lived keys in it."""
    try:
        found = os.stat(os.path.expanduser(path))
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(maxsize=8)
def _client(settings: tuple[tuple[str, Any], ...], read: tuple[Any, ...]) -> Any:
    import boto3

    del read  # boto3 reads it again; it only tells clients apart
    return boto3.session.Session().client(**dict(settings))
