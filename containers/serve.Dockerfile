# The image `serve`, `hand1000 serve` on the CPU. For a GPU, build it with PyPI's torch and CUDA: --build-arg TORCH=cuda
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS build
WORKDIR /build
# Without this index, Linux gets the build of torch with gigabytes of CUDA.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG TORCH=torch-cpu
RUN python -m venv /opt/venv
COPY containers/serve.lock containers/torch-cpu.lock containers/cuda.lock ./
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r "${TORCH}.lock" \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r serve.lock
COPY pyproject.toml README.md LICENSE ./
COPY hand1000 hand1000
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
ARG VERSION=development
ARG COMMIT=
LABEL org.opencontainers.image.title="hand1000-serve" \
      org.opencontainers.image.description="A registered model of hand1000 over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
RUN useradd --create-home --uid 1000 hand1000
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 HAND1000_COMMIT=${COMMIT} \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /home/hand1000
EXPOSE 8000
# The start includes the download of the weights.
HEALTHCHECK --interval=15s --timeout=5s --start-period=600s --retries=5 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# MLFLOW_TRACKING_URI names the registry; the arguments name the model: --model models:/hand1000-four@champion
ENTRYPOINT ["hand1000", "serve", "--host", "0.0.0.0", "--port", "8000"]
