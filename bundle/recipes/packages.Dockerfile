# A repository in /packages: what a host of one operating system needs for the container engine, the firewall and Ansible's
# Docker modules. Nothing of this image is shipped but that folder.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG SOURCE_DATE_EPOCH
ARG PACKAGES
# make_repository, and where the engine's maker has a repository of its own: maker.list or maker.repo, and maker.asc, its key.
COPY . /recipe/
WORKDIR /packages
RUN sh /recipe/make_repository
