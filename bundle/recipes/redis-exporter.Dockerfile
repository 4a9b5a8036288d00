# The Prometheus exporter for redis, where upstream's image has it.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG SOURCE_DATE_EPOCH
RUN install_packages prometheus-redis-exporter && ln -s /usr/bin/prometheus-redis-exporter /redis_exporter \
    && seal_layer
USER 65534:65534
CMD ["/redis_exporter"]
