# The Prometheus exporter for nginx, under upstream's name.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG SOURCE_DATE_EPOCH
RUN install_packages prometheus-nginx-exporter \
    && ln -s /usr/bin/prometheus-nginx-exporter /usr/local/bin/nginx-prometheus-exporter \
    && seal_layer
USER 65534:65534
CMD ["nginx-prometheus-exporter"]
