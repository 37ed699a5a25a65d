FROM golang:1.26-bookworm AS build
WORKDIR /src
# A layer of its own, which only a change of the dependencies makes again.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o /weir ./cmd/proxy
RUN mkdir /data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /weir /weir
# WEIR_DATA_DIR, ./data, is here. Empty, and the user's own: a new volume is made
# after it.
COPY --from=build --chown=65532:65532 /data /data
VOLUME /data
USER 65532:65532
# Reachable from outside the container, so it starts only with WEIR_API_KEYS (or
# with WEIR_ALLOW_ANONYMOUS=true).
ENV WEIR_ADDR=:8080
# WEIR_ADMIN_ADDR stays 127.0.0.1:9091: profiles show what the process does, and
# nothing asks who reads them. A port-forward or a sidecar in the same network
# namespace reaches it; WEIR_ADMIN_ADDR=:9091 opens it to the container's network.
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=5s CMD ["/weir", "health"]
ENTRYPOINT ["/weir"]
