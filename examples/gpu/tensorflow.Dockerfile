# TensorFlow on GPUs: trains; with --build-arg IMAGE=gpu-serve it also serves.
ARG IMAGE=gpu-train
FROM optml/${IMAGE}
RUN pip install --no-cache-dir 'tensorflow[and-cuda]==2.21.0'
