# The image `cpu`, for every task that needs no accelerator.
# checkov:skip=CKV_DOCKER_2:a task ends by itself
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS build
WORKDIR /build
# Without this index, Linux gets the build of torch with gigabytes of CUDA.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
RUN python -m venv /opt/venv
COPY containers/torch-cpu.lock containers/cpu.lock ./
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r torch-cpu.lock \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r cpu.lock
COPY pyproject.toml README.md LICENSE ./
COPY hand1000 hand1000
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
ARG VERSION=development
ARG COMMIT=
LABEL org.opencontainers.image.title="hand1000-cpu" \
      org.opencontainers.image.description="Tasks of hand1000 that need no GPU" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
COPY containers/system-packages.sh /tmp/
RUN sh /tmp/system-packages.sh && rm -rf /var/lib/apt/lists/* /tmp/system-packages.sh \
    && useradd --create-home --uid 1000 hand1000
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY tasks tasks
COPY workflows workflows
COPY models models
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 HAND1000_COMMIT=${COMMIT}
USER 1000
