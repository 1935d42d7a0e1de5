# The image ships with its kernels and programs compiled: the service is ready seconds after it starts, and no compiler takes memory from it.
ARG BASE=python:3.13-slim
FROM ${BASE}

# Kernels are compiled for the processor that builds the image; on another kind the first start compiles them once more.
ENV PATH=/opt/venv/bin:$PATH \
    GOMP_CACHE_DIR=/var/cache/gomp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1

RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin gomp \
    && install --directory --owner gomp --group gomp /var/cache/gomp

WORKDIR /opt/gomp
COPY pyproject.toml README.md ./
COPY gomp gomp
COPY workers workers
RUN python3 -m venv /opt/venv && pip install --no-cache-dir .
COPY configs configs

USER gomp
RUN gomp kernels workers

# The service listens on 127.0.0.1 unless told otherwise; a container is scraped from outside.
ENV GOMP_METRICS_HOST=0.0.0.0
EXPOSE 6070
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"GOMP_METRICS_PORT\", \"6070\")}/livez', timeout=2)"]
ENTRYPOINT ["gomp", "serve"]
CMD ["--config", "/opt/gomp/configs/service.toml"]
