# The page in a container: no network once it is built, no root, some 1.5 GB of which most is PyTorch for the CPU.
#
#     docker build -t doodle-duet . && docker run --rm --init -p 7860:7860 doodle-duet
#
# docs/hosting.md says more.
FROM python:3.11-slim-bookworm

# Cairo draws PNG.
RUN apt-get update \
    && apt-get install --no-install-recommends -y libcairo2=1.16.* \
    && rm -rf /var/lib/apt/lists/*

# A user of its own, and a place where it may keep compiled code.
RUN useradd --create-home --uid 1000 duet \
    && install -d -o duet /var/cache/doodle-duet
WORKDIR /srv/doodle-duet

# What changes seldom comes first: PyTorch, then the other packages, then the network, then the program.
COPY requirements.txt ./
RUN grep '^torch' requirements.txt > /tmp/torch.txt \
    && pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu -r /tmp/torch.txt \
    && rm /tmp/torch.txt
RUN pip install --no-cache-dir -r requirements.txt
COPY checkpoints ./checkpoints
COPY LICENSE app.py ./
COPY app ./app
COPY sketch_core ./sketch_core

USER 1000
ENV DUET_HOST=0.0.0.0 \
    DUET_PORT=7860 \
    DUET_DEVICE=cpu \
    GRADIO_ANALYTICS_ENABLED=False \
    HF_HUB_OFFLINE=1 \
    NUMBA_CACHE_DIR=/var/cache/doodle-duet \
    PYTHONUNBUFFERED=1
# Compiles once, here, what would be compiled at each start (for this kind of CPU; another one compiles its own).
RUN python -c "import sketch_core; s = sketch_core.load(device='cpu'); s.vary(s.complete(s.draw(n=2)[0], n=9)[0])"

EXPOSE 7860
# Ready within seconds; as long as it compiles on another kind of CPU, within a minute.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"DUET_PORT\"]}/health', timeout=4)"]
# Answers what is in flight on SIGTERM, in less than the ten seconds that Docker gives.
CMD ["python", "app.py"]
