"""A real Elasticsearch out of its integration-test distribution: vectors, sparse vectors and nested documents, but no
inference module, so no `semantic_text` and no `_inference`.
"""

import shutil
from pathlib import Path

import pytest
from support.servers.process import SERVERS, ServerProcess, free_port, java_home

NEWEST, OLDER = "9.5.3", "8.19.21"

_SETTINGS = """\
discovery.type: single-node
network.host: 127.0.0.1
http.port: {http}
transport.port: {transport}
path.data: {folder}/data
path.logs: {folder}/logs
xpack.security.enabled: false
cluster.routing.allocation.disk.threshold_enabled: false
"""


class ElasticsearchServer(ServerProcess):
    """One node.

    Args:
        version: 9.5.3 (needs Java 21 or newer) or 8.19.21 (Java 17).
    """

    def __init__(self, version: str = NEWEST) -> None:
        super().__init__()
        self.version = version
        self.name = f"Elasticsearch {version}"
        self.home = SERVERS / f"elasticsearch-{version}"
        if not self.home.is_dir():
            pytest.fail(f"there is no {self.name} at {self.home}: run `make servers` (needs Maven)")
        self._java = java_home(99, 21) if version.startswith("9") else java_home(25, 17)

    def command(self) -> list[str]:
        (self.folder / "tmp").mkdir()
        config = Path(shutil.copytree(self.home / "config", self.folder / "config"))
        settings = _SETTINGS.format(http=self.port, transport=free_port(), folder=self.folder)
        (config / "elasticsearch.yml").write_text(settings)
        options = config / "jvm.options.d"
        options.mkdir(exist_ok=True)
        (options / "small.options").write_text("-Xms512m\n-Xmx512m\n-XX:TieredStopAtLevel=1\n")
        return [str(self.home / "bin" / "elasticsearch")]

    def environment(self) -> dict[str, str]:
        return {
            "ES_JAVA_HOME": str(self._java),
            "ES_PATH_CONF": str(self.folder / "config"),
            "ES_TMPDIR": str(self.folder / "tmp"),
        }
