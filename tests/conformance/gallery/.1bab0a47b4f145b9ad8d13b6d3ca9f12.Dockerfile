# An image that keeps the contract with a toolkit of its own, but for the clause that FAULT names.
ARG BASE
FROM ${BASE}
ARG CAPABILITIES=com.amazonaws.sagemaker.capabilities
LABEL ${CAPABILITIES}.accept-bind-to-port=true \
      ${CAPABILITIES}.bidirectional-streaming=true \
      ${CAPABILITIES}.multi-models=true
COPY toolkit.py /toolkit
ENTRYPOINT ["python3", "/toolkit"]
ARG FAULT
ENV FAULT=${FAULT}
