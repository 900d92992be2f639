# The HTTP service, `trce` and the first-run setup: no torch, a few hundred megabytes.
# Build from the repository's root: docker build -f deploy/service.Dockerfile .
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
FROM ${PYTHON_IMAGE}

# Dependencies first, from the pinned versions: this layer stays until one of the two files changes.
# What is installed of the project itself is its metadata and the `trce` command.
WORKDIR /app
COPY pyproject.toml requirements.lock ./
RUN touch README.md LICENSE NOTICE \
 && pip install --quiet --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        --constraint requirements.lock '.[service,s3,tracing]' \
 && rm -rf README.md LICENSE NOTICE build *.egg-info

RUN useradd --uid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin trce \
 && install -d -o trce -g trce /data
COPY models ./models
COPY core ./core
COPY cli ./cli
COPY service ./service
RUN python -m compileall -q core cli service

ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    TRCE_DATA_DIR=/data TRCE_HOST=0.0.0.0 TRCE_PORT=8000
USER trce
WORKDIR /tmp
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=5s --timeout=4s --start-period=30s --retries=3 CMD ["python", "-m", "service.health"]
CMD ["python", "-m", "service"]
