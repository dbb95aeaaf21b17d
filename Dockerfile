# syntax=docker/dockerfile:1
# The gateway alone:           docker build -t tollgate .
# The two demo services too:   docker build --target demo -t tollgate-demo .

FROM rust:1.95-bookworm AS source
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .

# The cache mounts keep compiled dependencies from one build to the next, so only what changed is compiled again. They
# are no part of the image: what is wanted is copied out of them within the same step.
FROM source AS gateway
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --locked --release --features plugins --bin tollgate \
    && install -D target/release/tollgate /out/tollgate

FROM source AS services
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --locked --profile quick --example task_service --example analytics_service \
    && install -D -t /out target/quick/examples/task_service target/quick/examples/analytics_service

FROM debian:bookworm-slim AS demo
COPY --from=services /out/ /usr/local/bin/
USER 10001:10001

# Last, so that it is what is built by default.
FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin tollgate
COPY --from=gateway /out/tollgate /usr/local/bin/tollgate
COPY gateway.yaml /etc/tollgate/
COPY routes.d/ /etc/tollgate/routes.d/
# Nobody may call until you put consumers there.
COPY consumers.d/ /etc/tollgate/consumers.d/
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
# Mount your own configuration here; a change in it applies without a restart.
VOLUME /etc/tollgate
EXPOSE 8000
# The admin address listens on loopback only, within the container.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["tollgate", "health"]
ENTRYPOINT ["tollgate"]
CMD ["run", "--config", "/etc/tollgate/gateway.yaml"]
