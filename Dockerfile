# One image for all roles: docker build -t ringmesh:local .
# Another base: --build-arg BASE=REPOSITORY:TAG (CPython 3.11 or newer, with venv; glibc, as the wheels want it)
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
WORKDIR /opt/ringmesh
COPY requirements.lock requirements-run.lock ./
# The dependencies first: this layer stands until a lock changes. setuptools comes with its hashes too; it installs
# the project and goes, with pip, before the environment is copied.
RUN python3 -m venv /opt/venv \
 && awk '/^setuptools==/ {on = 1} on {print} on && !/\\$/ {exit}' requirements.lock > /tmp/setuptools.lock \
 && /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --only-binary=:all: \
      --require-hashes -r requirements-run.lock -r /tmp/setuptools.lock
COPY . .
# Editable: boards and captures are found beside services/, as in a checkout. Bytecode is made here because the root
# is read-only where it runs; unchecked, because file times do not survive a copy of the image.
RUN /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check \
      --no-deps --no-build-isolation --editable . \
 && /opt/venv/bin/python -m pip uninstall --quiet --yes setuptools pip \
 && /opt/venv/bin/python -m compileall -q --invalidation-mode unchecked-hash services common \
 && rm -rf build *.egg-info requirements.lock requirements-run.lock


FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ringmesh" \
      org.opencontainers.image.description="A virtualised Arm platform as a mesh of asyncio services" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 ringmesh \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin ringmesh \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/ringmesh
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/ringmesh /opt/ringmesh
# One admin port for every role, so that the health check knows where to ask; compose.yaml gives each its own.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RINGMESH_ADMIN__HOST=0.0.0.0 \
    RINGMESH_ADMIN__PORT=9100
WORKDIR /opt/ringmesh
USER 10001:10001
EXPOSE 7101 7102 7103 9100-9104
# -S -I: no site packages, nothing of the environment's Python settings: an interpreter that starts in no time.
HEALTHCHECK --interval=5s --timeout=3s --start-period=15s --retries=3 CMD ["python", "-S", "-I", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['RINGMESH_ADMIN__PORT'] + '/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["ringmesh"]
CMD ["serve", "guest"]
