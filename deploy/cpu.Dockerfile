# Serves an OpenVINO or ONNX Runtime plan on a CPU. From the repository's root:
#   docker build -f deploy/cpu.Dockerfile -t rtformer-deploy:cpu .
#   docker run -p 8000:8000 -e RTFORMER_API_KEY=... -v "$PWD/models-here:/models:ro" rtformer-deploy:cpu
# Checked with hadolint; this file has not been built yet.

FROM python:3.11-slim-bookworm AS build
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE NOTICE constraints.txt ./
COPY rtformer_deploy rtformer_deploy
COPY models models
COPY calibration calibration
COPY plugins plugins
# The native code is compiled here; without a compiler it would be left out, and the image would be slow.
RUN python -m venv /opt/rtformer \
 && /opt/rtformer/bin/pip install --no-cache-dir --constraint constraints.txt '.[serve]' \
 && /opt/rtformer/bin/python -c 'from rtformer_deploy.image import native; assert native.available()'

FROM python:3.11-slim-bookworm
COPY --from=build /opt/rtformer /opt/rtformer
ENV PATH=/opt/rtformer/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/tmp
USER 10001:10001
EXPOSE 8000
# Healthy means ready: the engine is open. On a large GPU plan that takes minutes, here seconds.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/v2/health/ready', timeout=2)"]
ENTRYPOINT ["rtformer-deploy"]
CMD ["serve", "/models/engine.plan", "--host", "0.0.0.0", "--drain", "10", "--log-json"]
