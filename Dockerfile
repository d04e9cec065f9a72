# syntax=docker/dockerfile:1
# The service in a container, for a CPU or for NVIDIA GPUs:
#
#   docker build --target cpu  -t maquette:cpu  .
#   docker build --target cuda -t maquette:cuda .
#   docker run --init -p 127.0.0.1:8000:8000 -v maquette:/data maquette:cpu
#
# By itself it is `maquette serve` on SQLite in /data; deploy/compose.yaml runs its parts one by one.
# docs/deploy.md says more.

FROM node:22-bookworm-slim AS viewer
# The web page's 3D viewer, at the version of its lock file.
WORKDIR /src
COPY scripts/web-vendor.sh scripts/
COPY worker/web/package.json worker/web/package-lock.json worker/web/
RUN sh scripts/web-vendor.sh

FROM python:3.11-slim-bookworm AS runtime
# What Open3D and numba load; scripts/system-packages.sh has the same list for machines without containers.
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        libegl1 libgl1 libgomp1 libusb-1.0-0 libx11-6 \
    && rm -rf /var/lib/apt/lists/*
ENV PATH=/opt/maquette/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

FROM runtime AS source
RUN python -m venv /opt/maquette
WORKDIR /src
# Before the sources, so that a change of ours downloads nothing again.
COPY pyproject.toml constraints.txt README.md LICENSE ./

FROM source AS install-cpu
# Only torch may come from its own index: two indexes with equal rights would let either name any package.
# Behind a mirror: --build-arg TORCH_INDEX=https://mirror.example/whl/cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" \
        "$(grep '^torch==' constraints.txt)"
COPY . .
COPY --from=viewer /src/worker/web/vendor worker/web/vendor
RUN pip install --no-cache-dir -c constraints.txt '.[postgres,redis,s3,collider,draco,ktx2,meshopt,usd,c2pa,otel]'

FROM source AS install-cuda
# PyPI's wheel of torch brings its CUDA libraries; the driver is the host's.
RUN pip install --no-cache-dir -c constraints.txt torch
COPY . .
COPY --from=viewer /src/worker/web/vendor worker/web/vendor
RUN pip install --no-cache-dir -c constraints.txt '.[postgres,redis,s3,collider,draco,ktx2,meshopt,usd,c2pa,otel]'

FROM runtime AS service
# /data: database and artefacts when they are not servers, scratch, compiled kernels.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data maquette \
    && install -d -o maquette -g maquette -m 750 /data
ENV HOME=/data \
    MAQUETTE_DATA=/data \
    MAQUETTE_HOST=0.0.0.0 \
    MAQUETTE_PORT=8000 \
    NUMBA_CACHE_DIR=/data/kernels
USER maquette
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['MAQUETTE_PORT'] + '/healthz', timeout=4)"]
CMD ["maquette", "serve"]

FROM service AS cuda
COPY --from=install-cuda /opt/maquette /opt/maquette
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# The last target is what `docker build .` makes.
FROM service AS cpu
COPY --from=install-cpu /opt/maquette /opt/maquette
