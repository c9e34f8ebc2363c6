# CUDA 13 on hosts with an older driver: NVIDIA's forward-compatibility libraries, used only where needed.
ARG CUDA=nvidia/cuda:13.0.1-base-ubuntu24.04
ARG IMAGE=gpu-serve
FROM ${CUDA} AS cuda

FROM optml/${IMAGE}
COPY --from=cuda /usr/local/cuda-13.0/compat /usr/local/cuda/compat
COPY compat-entrypoint /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/compat-entrypoint"]
CMD ["serve"]
