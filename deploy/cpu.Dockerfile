# phi3v serve on the CPU. Build in the repository's root: docker build -f deploy/cpu.Dockerfile -t phi3v .
FROM debian:trixie-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/phi3v
COPY . /source
RUN /opt/phi3v/bin/pip install --no-cache-dir -c /source/.ci/constraints.txt "/source[cpu,serve,mcp]"

FROM debian:trixie-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home phi3v \
    && install -d -o phi3v /models
COPY --from=build /opt/phi3v /opt/phi3v
ENV PATH=/opt/phi3v/bin:$PATH HF_HUB_CACHE=/models PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /home/phi3v
VOLUME /models
EXPOSE 8000
# 503 while the model is being loaded.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["phi3v"]
CMD ["serve", "--host", "0.0.0.0"]
