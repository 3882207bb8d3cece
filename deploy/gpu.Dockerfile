# Serves a TensorRT plan on an NVIDIA GPU. From the repository's root:
#   docker build -f deploy/gpu.Dockerfile -t rtformer-deploy:gpu .
#   docker run --gpus all -p 8000:8000 -e RTFORMER_API_KEY=... -v "$PWD/models-here:/models:ro" rtformer-deploy:gpu
# The driver comes from the host (NVIDIA Container Toolkit); CUDA's and TensorRT's libraries are wheels, so no CUDA base image is needed.
# A plan belongs to one TensorRT build: give the version that built it, as `rtformer-deploy inspect engine.plan` prints it.
# Checked with hadolint; this file has not been built yet.

FROM python:3.11-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
ARG TENSORRT=11.4.0.106
WORKDIR /source
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE NOTICE constraints.txt ./
COPY rtformer_deploy rtformer_deploy
COPY models models
COPY calibration calibration
COPY plugins plugins
RUN python -m venv /opt/rtformer \
 && /opt/rtformer/bin/pip install --no-cache-dir --constraint constraints.txt '.[serve,gpu]' "tensorrt==${TENSORRT}" \
 && /opt/rtformer/bin/python -c 'from rtformer_deploy.image import native; assert native.available()'

FROM python:3.11-slim-bookworm
COPY --from=build /opt/rtformer /opt/rtformer
ENV PATH=/opt/rtformer/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/tmp \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10m --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=2)"]
ENTRYPOINT ["rtformer-deploy"]
CMD ["serve", "/models/engine.plan", "--host", "0.0.0.0", "--drain", "10", "--lanes", "4", "--log-json"]
