"""A real OpenSearch with k-NN and neural search, assembled out of its libraries."""

import pytest
from support.servers.process import SERVERS, ServerProcess, free_port, java_home

VERSION = "2.19.1"
_SETTINGS = """\
cluster.name: tests
discovery.type: single-node
network.host: 127.0.0.1
http.port: {http}
transport.port: {transport}
path.data: {folder}/data
path.logs: {folder}/logs
cluster.routing.allocation.disk.threshold_enabled: false
"""
_LOGGING = """\
status=warn
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=[%d][%p][%c{1.}] %m%n
rootLogger.level=info
rootLogger.appenderRef.console.ref=console
"""


class OpenSearchServer(ServerProcess):
    """One node."""

    name = f"OpenSearch {VERSION}"
    home = SERVERS / f"opensearch-{VERSION}"

    def command(self) -> list[str]:
        if not self.home.is_dir():
            pytest.fail(f"there is no {self.name} at {self.home}: run `make servers` (needs Maven)")
        config = self.folder / "config"
        config.mkdir()
        (config / "opensearch.yml").write_text(
            _SETTINGS.format(http=self.port, transport=free_port(), folder=self.folder)
        )
        (config / "log4j2.properties").write_text(_LOGGING)
        java = str(java_home(21, 17) / "bin" / "java")
        options = ["-Xms512m", "-Xmx1g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
        options += ["-Dlog4j2.disable.jmx=true", "-Djava.security.manager=allow"]
        classes = f"{self.home}/lib/*:{self.home}/classes"
        return [java, *options, "-cp", classes, "Main", str(self.home), str(config)]
