# CPython of Debian 13 with its standard library, as `python` and `python3`; no pip: the app brings its own wheel.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG SOURCE_DATE_EPOCH
RUN install_packages python3 && ln -s python3 /usr/bin/python \
    && seal_layer
CMD ["python3"]
