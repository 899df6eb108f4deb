# syntax=docker/dockerfile:1
# The server as an image: built on Debian bookworm, run on its slim form by a user without rights.
#
#   docker build -t tidegate .
#   docker build -t tidegate --build-arg PROFILE=release .     # builds faster, runs a little slower
#
# tests/docker_build_steps.sh runs the RUN steps of the stage `build` without a container engine.

ARG RUST_VERSION=1.95

FROM rust:${RUST_VERSION}-bookworm AS build
# `dist` has link-time optimisation; `release` and `dev` are the other profiles of Cargo.toml.
ARG PROFILE=dist
WORKDIR /src
# librdkafka and the OpenSSL that it is linked with are C: they want a compiler, make, pkg-config and Perl.
RUN apt-get update && apt-get install -y --no-install-recommends build-essential perl pkg-config && rm -rf /var/lib/apt/lists/*
# Only what .dockerignore lets through.
COPY . .
# The caches are not part of the image, so the binary is taken out of them in the same step. Cargo calls the folder of `dev` `debug`.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --workspace --bin tidegate --profile "${PROFILE}" && \
    install -D "${CARGO_TARGET_DIR:-target}/$([ "${PROFILE}" = dev ] && echo debug || echo "${PROFILE}")/tidegate" out/tidegate && \
    out/tidegate --version

FROM debian:bookworm-slim
# The certificates are for brokers and registries behind TLS, and for checkpoints on S3.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
# The folder belongs to the user before it becomes a volume, so that a new volume does too.
RUN useradd --system --uid 10001 --home-dir /var/lib/tidegate --shell /usr/sbin/nologin tidegate && \
    install -d -o tidegate -g tidegate -m 0700 /var/lib/tidegate
COPY --from=build /src/out/tidegate /usr/local/bin/tidegate
COPY LICENSE /usr/share/doc/tidegate/LICENSE
USER tidegate
WORKDIR /var/lib/tidegate
VOLUME /var/lib/tidegate
ENV TIDEGATE_DATA_DIR=/var/lib/tidegate
# Until there is authentication the server listens on loopback only: of this container, or of the host with `--network host`. A published
# port (`-p`) does not reach it.
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s --retries=6 \
    CMD ["tidegate", "sql", "--url", "grpc://127.0.0.1:50051", "-c", "SELECT 1"]
ENTRYPOINT ["tidegate"]
CMD ["serve", "--listen", "127.0.0.1:50051"]
