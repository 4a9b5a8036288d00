# PostgreSQL 17: server and client programs on PATH. No cluster: the postgres role runs initdb itself.
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG SOURCE_DATE_EPOCH
# Left out: pg_ctlcluster and its Perl, which the role does not use, and LLVM (130 MB), without which the server
# simply plans no JIT compilation.
RUN groupadd --gid 999 postgres \
    && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql --no-create-home --shell /usr/sbin/nologin postgres \
    && mkdir /etc/postgresql-common \
    && echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf \
    && PURGE_PACKAGES="postgresql-common postgresql-common-dev postgresql-client-common ssl-cert openssl locales libc-l10n \
        perl perl-modules-5.40 libperl5.40 libgdbm6t64 libgdbm-compat4t64 libjson-perl libio-pty-perl libipc-run-perl \
        libtext-charwidth-perl libtext-wrapi18n-perl procps libproc2-0 ucf sensible-utils libllvm19 libz3-4 libedit2" \
       install_packages postgresql-17 \
    && rm -rf /etc/postgresql-common /etc/postgresql /usr/lib/postgresql/17/lib/bitcode /usr/lib/postgresql/17/lib/llvmjit.so \
    && seal_layer
ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER 999:999
STOPSIGNAL SIGINT
CMD ["postgres"]
