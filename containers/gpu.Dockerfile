# The image `gpu`: the training and drawing tasks. On Linux the pinned torch of the registry brings CUDA.
FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv /opt/venv
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY hand1000 hand1000
RUN /opt/venv/bin/pip install --no-cache-dir --requirement requirements.lock \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps .

FROM python:3.11-slim-bookworm
COPY containers/system-packages.sh /tmp/
RUN sh /tmp/system-packages.sh && rm -rf /var/lib/apt/lists/* /tmp/system-packages.sh \
    && useradd --create-home --uid 1000 hand1000
COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY tasks tasks
COPY workflows workflows
COPY models models
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
