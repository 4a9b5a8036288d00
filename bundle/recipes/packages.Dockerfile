# A repository in /packages: what a host of one operating system needs for the container engine, the firewall and Ansible's
# Docker modules. Nothing of this image is shipped but that folder.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG SOURCE_DATE_EPOCH
ARG PACKAGES
# make_repository, and for an upstream package repository of the engine: upstream.list or upstream.repo, and upstream.asc, its key.
COPY . /recipe/
WORKDIR /packages
RUN sh /recipe/make_repository
