# A server of many tasks on a CPU. The encoder and the runs are mounted, and can be read only:
#
#     docker build -t trimtab .
#     docker run -p 8000:8000 -v /srv/encoder:/encoder:ro -v /srv/runs:/runs:ro -e TRIMTAB_TOKEN trimtab
#
# What stands behind the image's name goes to `trimtab serve`, in the place of the last line here.
FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
WORKDIR /build

# torch without CUDA, which is gigabytes smaller; alone, so that it is not built again with every change of the source.
RUN pip install torch --index-url https://download.pytorch.org/whl/cpu
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install ".[serve]"

# A cache and a home that it may write to; all else, what is mounted too, it only reads.
RUN useradd --create-home --uid 10001 trimtab
USER 10001
WORKDIR /home/trimtab
VOLUME ["/encoder", "/runs"]
EXPOSE 8000

# The engine moves; --start-period is the time to read a large encoder. There is no curl in the image.
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz/live', timeout=4)"]

# No shell in between, so that SIGTERM comes to the server, which then finishes what waits (30 s: docker stop -t 40).
ENTRYPOINT ["trimtab", "serve"]
CMD ["/encoder", "--runs", "/runs", "--host", "0.0.0.0"]
