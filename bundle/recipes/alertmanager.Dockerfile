# Alertmanager and amtool, under upstream's names.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG SOURCE_DATE_EPOCH
RUN install_packages prometheus-alertmanager && rm -rf /etc/prometheus \
    && ln -s /usr/bin/prometheus-alertmanager /usr/local/bin/alertmanager \
    && seal_layer
USER 65534:65534
CMD ["alertmanager"]
