# Inference and trainer workers, and `trce` where it needs torch: exports, erasures offline, the GPU's
# check. On a GPU host torch is the CUDA build that the package index serves.
# Build from the repository's root: docker build -f deploy/worker.Dockerfile .
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
FROM ${PYTHON_IMAGE}

# torch alone: by far the largest layer, and the one that changes least.
WORKDIR /app
COPY pyproject.toml requirements.lock ./
RUN pip install --quiet --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        --constraint requirements.lock torch
# What not every installation needs. Debian packages, parted by spaces: `g++` for TRCE_COMPILE_UNET.
ARG TRCE_PACKAGES=""
RUN test -z "$TRCE_PACKAGES" \
 || { apt-get update -qq && apt-get install -y -qq --no-install-recommends $TRCE_PACKAGES \
      && rm -rf /var/lib/apt/lists/*; }
# Extras of pyproject.toml beside ours, parted by commas: `nudenet` for the detector of that name.
ARG TRCE_EXTRAS=""
RUN touch README.md LICENSE NOTICE \
 && pip install --quiet --no-cache-dir --disable-pip-version-check --root-user-action=ignore \
        --constraint requirements.lock ".[worker,s3,tracing,c2pa,demo${TRCE_EXTRAS:+,$TRCE_EXTRAS}]" \
 && rm -rf README.md LICENSE NOTICE build *.egg-info

RUN useradd --uid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin trce \
 && install -d -o trce -g trce /data
COPY models ./models
COPY core ./core
COPY cli ./cli
COPY diffusion ./diffusion
COPY trainer ./trainer
COPY worker ./worker
RUN python -m compileall -q core cli diffusion trainer worker

# Nothing is fetched from a model hub: models come by `trce models import`.
ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TRCE_DATA_DIR=/data \
    HF_HUB_OFFLINE=1 HF_HOME=/tmp/huggingface MPLCONFIGDIR=/tmp/matplotlib
USER trce
WORKDIR /tmp
VOLUME /data
ENTRYPOINT ["python", "-m", "worker"]
CMD ["inference"]
