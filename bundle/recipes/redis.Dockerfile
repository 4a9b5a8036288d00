# Redis: redis-server, redis-cli, redis-check-aof and redis-benchmark. No configuration: the redis role brings it.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG SOURCE_DATE_EPOCH
RUN groupadd --gid 999 redis \
    && useradd --uid 999 --gid 999 --home-dir /data --no-create-home --shell /usr/sbin/nologin redis \
    && install_packages redis-server && rm -rf /etc/redis \
    && seal_layer
USER 999:999
CMD ["redis-server"]
