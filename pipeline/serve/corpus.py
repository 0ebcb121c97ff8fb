"""What a server shows: the endpoints, and the table, index and runs of a run config where there is one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from models.errors import bad_request
from pipeline.config.defaults import DEFAULT_ENDPOINTS
from pipeline.config.load import load_config
from pipeline.config.run_config import RunConfig
from pipeline.search.open_index import SearchIndex
from transforms.index.state import STATE


@dataclass
class Corpus:
    """What a server shows.

    Attributes:
        config: the run config; None where only endpoints, or only an index, are served.
        config_paths: its file, as a list of none or one.
        index_path: folder of the index; None without one.
        endpoints: folder of the endpoints' definitions.
        models: the run config's ``models`` section.
    """

    config: RunConfig | None = None
    config_paths: tuple[str, ...] = ()
    index_path: str | None = None
    endpoints: str = DEFAULT_ENDPOINTS
    models: Mapping[str, Any] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock, repr=False)
    _index: SearchIndex | None = None
    _seen: int = 0

    @property
    def index(self) -> SearchIndex:
        """The index at its newest state: opened again when an update has replaced it.

        Raises:
            InferenceError: 404, there is none.
        """
        if self.index_path is None:
            bad_request("this server has no index: start it with a run config that has one", status=404)
        try:
            changed = (Path(self.index_path) / STATE).stat().st_mtime_ns
        except FileNotFoundError:
            changed = 0
        if not changed:
            bad_request(
                f"there is no index at {self.index_path} yet; make it with `run` or `index`", status=404
            )
        with self._lock:
            if self._index is None or changed != self._seen:
                self._index, self._seen = SearchIndex(self.index_path), changed
            return self._index


def open_corpus(config_or_index: str | None, overrides: list[str] | None = None) -> Corpus:
    """What a command's first argument means: a run config, the folder of an index, or neither.

    Args:
        config_or_index: None serves the endpoints of the default folder.
        overrides: ``key.path=value`` settings of a run config.

    Raises:
        ConfigError: the run config is wrong.
    """
    if config_or_index is None:
        return Corpus()
    if Path(config_or_index).is_dir():
        return Corpus(index_path=config_or_index)
    config = load_config(config_or_index, overrides)
    index_path = None if config.index is None else config.index.path
    return Corpus(config, (config_or_index,), index_path, config.endpoints.path, config.models)
