# The Prometheus exporter for node, under upstream's name.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG SOURCE_DATE_EPOCH
RUN install_packages prometheus-node-exporter \
    && ln -s /usr/bin/prometheus-node-exporter /usr/local/bin/node_exporter \
    && seal_layer
USER 65534:65534
CMD ["node_exporter"]
