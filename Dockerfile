# Images of ProcessHub for Kubernetes: static binaries on an empty base, run as a numeric user.
#
#   buildah bud --target operator -t localhost/processhub-operator:dev .
#   docker build --target sidecar -t localhost/processhub-sidecar:dev .
#
# BUILDER is the base that has the Rust toolchain. BINARIES=prebuilt takes ready binaries from the folder PREBUILT of
# the build context instead of compiling them (what the test clusters do).
ARG BUILDER=docker.io/library/rust:1.95-bookworm
ARG BINARIES=compiled

FROM ${BUILDER} AS compiled
WORKDIR /src
COPY . .
RUN RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --release --locked --target "$(rustc -vV | sed -n 's/^host: //p')" --target-dir /target \
      --package processhub-operator --package processhub-sidecar --package processhub-adapter --package counter \
      --package room --package processhub-e2e \
      --bin processhub-operator --bin processhub-sidecar --bin processhub-adapter --bin counter --bin room --bin processhub-load \
 && mkdir /out \
 && for name in processhub-operator processhub-sidecar processhub-adapter counter room processhub-load; do \
      cp /target/*/release/"$name" /out/; done

FROM scratch AS prebuilt
ARG PREBUILT=.
COPY ${PREBUILT}/ /out/

FROM ${BINARIES} AS binaries

FROM scratch AS operator
COPY --from=binaries /out/processhub-operator /processhub-operator
USER 65532:65532
ENTRYPOINT ["/processhub-operator"]

FROM scratch AS sidecar
COPY --from=binaries /out/processhub-sidecar /processhub-sidecar
USER 65532:65532
ENTRYPOINT ["/processhub-sidecar"]

FROM scratch AS adapter
COPY --from=binaries /out/processhub-adapter /processhub-adapter
USER 65532:65532
ENTRYPOINT ["/processhub-adapter"]

FROM scratch AS counter
COPY --from=binaries /out/counter /counter
USER 65532:65532
ENTRYPOINT ["/counter"]

FROM scratch AS room
COPY --from=binaries /out/room /room
USER 65532:65532
ENTRYPOINT ["/room"]

# What drives the demonstration's processes on a cluster that exists already.
FROM scratch AS clients
COPY --from=binaries /out/processhub-load /processhub-load
USER 65532:65532
ENTRYPOINT ["/processhub-load"]
