# The image of every node of a cluster, of the driver of a job, and of `djsandbox` itself.
#
#   docker build --tag djsandbox-ray:0.1.0 .
#       The default, VARIANT=gpu: torch as pinned; its wheels bring the CUDA libraries, so the base
#       needs none. Runs without a GPU too, but is several GB larger than need be.
#   docker build --tag djsandbox-ray:0.1.0-cpu --build-arg VARIANT=cpu --build-arg TORCH_INDEX=URL .
#       The same versions of torch and torchvision, both built without CUDA, from the index at URL
#       (PyTorch's own for CPU wheels, or a mirror of it). One of each kind does not work together.

ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE}
# wget is what KubeRay's probes and the health check below call; `ray up` copies files with rsync.
# Volumes that are mounted over /tmp/ray take their owner from it.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends rsync wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 --shell /bin/bash ray \
    && install --directory --owner=ray --group=ray /tmp/ray
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1
WORKDIR /opt/djsandbox

# What changes seldom comes first, so that most builds and pulls find it in place: torch, which is
# most of the image, then the other requirements, then the package.
COPY requirements.txt ./
ARG VARIANT=gpu
ARG TORCH_INDEX
RUN case "${VARIANT}" in \
      gpu) python -m pip install --constraint requirements.txt torch torchvision ;; \
      cpu) python -m pip install --no-deps \
             --index-url "${TORCH_INDEX:?VARIANT=cpu needs --build-arg TORCH_INDEX=URL}" \
             $(sed -nE 's/^(torch|torchvision)==.*/&+cpu/p' requirements.txt) ;; \
      *) echo "VARIANT is gpu or cpu, not '${VARIANT}'" >&2; exit 1 ;; \
    esac
RUN python -m pip install --requirement requirements.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY configs configs
COPY djsandbox_ray djsandbox_ray
RUN python -m pip install --no-deps . && rm -rf build djsandbox_ray *.egg-info
# Kept in run.json beside the versions: --build-arg GIT_COMMIT=$(git rev-parse HEAD)
ARG GIT_COMMIT
ENV DJSANDBOX_GIT_COMMIT=${GIT_COMMIT}

# A number, so that Kubernetes can see that it is not root.
USER 1000:1000
WORKDIR /home/ray
EXPOSE 6379 8080 8265
# Of a node of a cluster, head or worker: asks the agent that `ray start` runs on it.
HEALTHCHECK --interval=30s --timeout=10s --start-period=90s \
    CMD wget -q -T 5 -O - http://127.0.0.1:52365/api/local_raylet_healthz | grep -q success
CMD ["djsandbox", "--help"]
