# CUDA 13 on hosts whose driver is older: NVIDIA's forward-compatibility libraries, used only where they are needed.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04 AS cuda

FROM optml/gpu-serve
COPY --from=cuda /usr/local/cuda-13.0/compat /usr/local/cuda/compat
COPY --chmod=755 compat-entrypoint /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/compat-entrypoint"]
CMD ["serve"]
