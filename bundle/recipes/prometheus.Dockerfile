# Prometheus and promtool.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG SOURCE_DATE_EPOCH
RUN install_packages prometheus promtool && rm -rf /etc/prometheus \
    && seal_layer
USER 65534:65534
CMD ["prometheus"]
