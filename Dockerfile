# The Data Collection Service: web processes (the default command) and workers (`python -m app worker`).
#
#   docker build -t airlift/app . && docker run --rm -p 8000:8000 airlift/app
#
# Where no package index is reachable, put the lock's wheels and pip's own into `wheels/` beside this file.
# The base is any image with CPython 3.13; the bundle's `debian` source passes one without pip.
ARG BASE_IMAGE=docker.io/library/python:3.13.15-slim-trixie@sha256:7c61056e61ac89e852de05f3dc6fa51a6dd2181797bceed46aa725dd7cb2cd3b

# Dependencies: rebuilt only when the lock changes.
FROM ${BASE_IMAGE} AS dependencies
ARG SOURCE_DATE_EPOCH
WORKDIR /build
# `wheel[s]` matches nothing where there is no such folder, and that is no error.
COPY app/requirements.txt wheel[s]/ ./wheels/
# Installed as it is locked, with nothing resolved; then checked. pip itself never enters the environment.
RUN set -eu; \
    python3 -m venv --without-pip /opt/venv; \
    wheel=$(find wheels -name 'pip-*.whl'); \
    if [ -n "$wheel" ]; then \
        set -- "$wheel/pip"; \
        export PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels; \
    else \
        set -- -m pip; \
    fi; \
    set -- "$@" --disable-pip-version-check --no-cache-dir --python /opt/venv/bin/python; \
    python3 "$@" install --no-deps --require-hashes --only-binary :all: --requirement wheels/requirements.txt; \
    python3 "$@" check || { echo "app/requirements.txt does not fit together; renew it: make lock" >&2; exit 1; }; \
    find /opt/venv -name '__pycache__' -prune -exec rm -rf {} +; \
    python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/venv/lib

# Code: compiled here, since nothing can be written where it runs.
FROM ${BASE_IMAGE} AS code
COPY app /srv/app
# Models and fonts hardly ever change: in a layer of their own they do not travel with each change of the code.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /srv/app \
    && mkdir -p /srv/data/app/reports \
    && mv /srv/app/models /srv/data/app/models \
    && mv /srv/app/reports/fonts /srv/data/app/reports/fonts

FROM ${BASE_IMAGE}
# The upstream base brings pip; nothing that could fetch or build belongs where the service runs.
RUN rm -rf /usr/local/bin/pip* /usr/local/lib/python3*/site-packages/pip* \
        /usr/local/lib/python3*/ensurepip \
    && echo 'airlift:x:10001:10001:Airlift:/nonexistent:/usr/sbin/nologin' >> /etc/passwd \
    && echo 'airlift:x:10001:' >> /etc/group
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONPATH=/srv \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PROMETHEUS_MULTIPROC_DIR=/tmp/prom
WORKDIR /srv
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=code /srv/data/app /srv/app
COPY --from=code /srv/app /srv/app

ARG VERSION=1.0.0
ARG REVISION=unknown
ENV RELEASE=${VERSION} REVISION=${REVISION}
LABEL org.opencontainers.image.title="Airlift Data Collection Service" \
      org.opencontainers.image.description="Collects, classifies and sums up, where there is no internet" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# Readiness, so that "healthy" means "may get work". A lone `docker run` answers but is not ready without Postgres: it
# shows as unhealthy and says what is missing; nothing is restarted for that.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-m", "app", "healthcheck"]
# gunicorn, in the same process, so that it is the one that gets SIGTERM.
CMD ["python", "-m", "app", "serve"]
