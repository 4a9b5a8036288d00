# The Prometheus exporter for postgres, under upstream's name.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG SOURCE_DATE_EPOCH
RUN install_packages prometheus-postgres-exporter \
    && ln -s /usr/bin/prometheus-postgres-exporter /usr/local/bin/postgres_exporter \
    && seal_layer
USER 65534:65534
CMD ["postgres_exporter"]
