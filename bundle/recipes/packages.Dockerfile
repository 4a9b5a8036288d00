# A flat apt repository in /packages: what a Debian 13 host needs for the container engine, the firewall and Ansible's
# Docker modules. Nothing of this image is shipped but that folder.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG SOURCE_DATE_EPOCH
ARG PACKAGES
COPY make_repository /usr/local/sbin/make_repository
WORKDIR /packages
RUN sh /usr/local/sbin/make_repository
