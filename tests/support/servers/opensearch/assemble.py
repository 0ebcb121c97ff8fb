"""Assemble an OpenSearch home out of its libraries: modules in folders of their own, plugins unpacked.

    python assemble.py LIBRARIES HOME

LIBRARIES holds the jars that `pom.xml` names and the zips of the plugins. Modules that other jars must not see lie in
their own class loader, so their jars move from the common folder to the module's.
"""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

VERSION = "2.19.1"
MODULES = {
    "transport-netty4": ("transport.Netty4Plugin", "", ("netty", "transport-netty4")),
    "lang-painless": (
        "painless.PainlessPlugin",
        "",
        ("lang-painless", "opensearch-scripting-painless", "antlr", "asm"),
    ),
    "mapper-extras": ("index.mapper.MapperExtrasPlugin", "", ("mapper-extras",)),
    "parent-join": ("join.ParentJoinPlugin", "", ("parent-join",)),
    "analysis-common": ("analysis.common.CommonAnalysisPlugin", "lang-painless", ("analysis-common",)),
    "reindex": (
        "index.reindex.ReindexPlugin",
        "",
        ("reindex", "opensearch-rest-client", "opensearch-ssl-config", "httpa", "httpc", "commons-"),
    ),
}
DESCRIPTOR = """\
description={name}
version={version}
name={name}
classname=org.opensearch.{plugin}
java.version=11
opensearch.version={version}
extended.plugins={extends}
has.native.controller=false
"""


def assemble(libraries: Path, home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    common = home / "lib"
    common.mkdir(parents=True)
    for jar in libraries.glob("*.jar"):
        shutil.copy(jar, common)
    for name, (plugin, extends, prefixes) in MODULES.items():
        folder = home / "modules" / name
        folder.mkdir(parents=True)
        for jar in [jar for prefix in prefixes for jar in common.glob(f"{prefix}*.jar")]:
            shutil.move(jar, folder)
        descriptor = DESCRIPTOR.format(name=name, version=VERSION, plugin=plugin, extends=extends)
        (folder / "plugin-descriptor.properties").write_text(descriptor)
    for archive in libraries.glob("*.zip"):
        with zipfile.ZipFile(archive) as plugin_zip:
            plugin_zip.extractall(
                home / "plugins" / archive.stem.removesuffix(".0").removesuffix(f"-{VERSION}")
            )
    source = Path(__file__).parent / "Main.java"
    subprocess.run(
        ["javac", "--release", "17", "-cp", f"{common}/*", "-d", home / "classes", source], check=True
    )


if __name__ == "__main__":
    assemble(Path(sys.argv[1]), Path(sys.argv[2]))
