# The image `mlflow`, the tracking server and registry, for compose.yaml and infra/mlflow.
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS build
WORKDIR /build
RUN python -m venv /opt/venv
COPY containers/mlflow.lock ./
RUN /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r mlflow.lock

FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
ARG VERSION=development
LABEL org.opencontainers.image.title="hand1000-mlflow" \
      org.opencontainers.image.description="MLflow on PostgreSQL and S3, with basic authentication" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
RUN useradd --create-home --uid 1000 mlflow
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false
USER 1000
WORKDIR /home/mlflow
EXPOSE 5000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=5 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:5000/health', timeout=4)"]
# MLFLOW_* variables set the database, artifacts, allowed hosts and passwords, or MLFLOW_AUTH_CONFIG_PATH the passwords.
ENTRYPOINT ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000", "--app-name", "basic-auth"]
