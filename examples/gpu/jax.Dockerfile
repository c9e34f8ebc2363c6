# JAX on GPUs: trains; with --build-arg IMAGE=gpu-serve it also serves.
ARG IMAGE=gpu-train
FROM optml/${IMAGE}
RUN pip install --no-cache-dir 'jax[cuda13]==0.12.0.1'
