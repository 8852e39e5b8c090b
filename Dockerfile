# policyd as a container: `docker build -t policyd:0.1.0 .`, then `docker run policyd:0.1.0 --help`.
# Pinned by tag here; in your own registry pin by digest: --build-arg PYTHON=…@sha256:… --build-arg UV=…@sha256:…
ARG PYTHON=python:3.12.12-slim-bookworm
ARG UV=ghcr.io/astral-sh/uv:0.9.10

FROM ${UV} AS uv

FROM ${PYTHON} AS build
COPY --from=uv /uv /usr/local/bin/uv
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /src
COPY pyproject.toml uv.lock README.md LICENSE ./
# What is installed is what uv.lock names, with its hashes; this layer changes only with it.
RUN uv sync --frozen --no-dev --no-install-project --extra k8s
COPY policyd ./policyd
RUN uv sync --frozen --no-dev --no-editable --extra k8s

FROM ${PYTHON}
COPY --from=build /src/.venv /src/.venv
ENV PATH=/src/.venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
EXPOSE 50051 9902
ENTRYPOINT ["policyd"]
CMD ["--help"]
