# Two targets: api (serves a model; no torch) and ui (the web page that chats through it).
# docs/docker.md says how to use them.
#
# The base may be any Debian-like image with Python 3.11 or newer, its venv and its pip.
ARG BASE_IMAGE=python:3.12-slim-bookworm

# What the package needs, without the package: built again only when pyproject.toml or
# constraints.txt change.
FROM ${BASE_IMAGE} AS core
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python3 -m venv --without-pip /opt/housecall
COPY pyproject.toml constraints.txt ./
RUN python3 -c 'import tomllib; \
project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
print(*project["dependencies"], sep="\n", file=open("core.txt", "w")); \
print(*project["optional-dependencies"]["ui"], sep="\n", file=open("ui.txt", "w"))' \
    && pip --python /opt/housecall/bin/python install -c constraints.txt -r core.txt

FROM core AS core-and-ui
RUN pip --python /opt/housecall/bin/python install -c constraints.txt -r core.txt -r ui.txt

FROM ${BASE_IMAGE} AS wheel
WORKDIR /build
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM ${BASE_IMAGE} AS runtime
# /data holds the database, /runs is where runs are mounted: `housecall` looks for runs/ in /.
# The user is a number in USER, so that an orchestrator can see that it is not root.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp \
        --shell /usr/sbin/nologin housecall \
    && install -d -o housecall -g housecall -m 700 /data \
    && install -d /runs
ENV PATH=/opt/housecall/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /
LABEL org.opencontainers.image.licenses=Apache-2.0

FROM runtime AS api
# The engine's OpenMP, which slim images lack.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/*
COPY --from=core /opt/housecall /opt/housecall
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip --python /opt/housecall/bin/python install \
        --no-cache-dir --no-deps --no-index /wheels/*.whl
LABEL org.opencontainers.image.title="Housecall API" \
      org.opencontainers.image.description="A private, guarded, traceable LLM API"
# A host other than loopback makes `serve` insist on HOUSECALL_API_KEYS.
ENV HOUSECALL_HOST=0.0.0.0 \
    HOUSECALL_PORT=8000 \
    HOUSECALL_DATA_DIR=/data
USER 10001:10001
VOLUME /data
EXPOSE 8000
# http.client, because urllib would ask a proxy named in the environment.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['HOUSECALL_PORT']), timeout=4); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["housecall"]
CMD ["serve"]

FROM runtime AS ui
COPY --from=core-and-ui /opt/housecall /opt/housecall
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip --python /opt/housecall/bin/python install \
        --no-cache-dir --no-deps --no-index /wheels/*.whl
LABEL org.opencontainers.image.title="Housecall UI" \
      org.opencontainers.image.description="A web page that chats through the Housecall API"
# Without a name of its own, Streamlit asks a server on the internet for the address it has there.
ENV HOUSECALL_URL=http://api:8000 \
    STREAMLIT_BROWSER_SERVER_ADDRESS=localhost \
    STREAMLIT_SERVER_PORT=8501
USER 10001:10001
EXPOSE 8501
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['STREAMLIT_SERVER_PORT']), timeout=4); c.request('GET', '/_stcore/health'); raise SystemExit(c.getresponse().status != 200)"]
# What `housecall ui` runs (usage statistics off), but reachable from outside of the container.
CMD ["python", "-c", "import os; from housecall.ui.launch import command; run = command(int(os.environ['STREAMLIT_SERVER_PORT'])); os.execv(run[0], [*run, '--server.address=0.0.0.0'])"]
