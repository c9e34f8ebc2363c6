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
COPY toolkit.py /copies/0
COPY toolkit.py /copies/1
COPY toolkit.py /copies/2
COPY toolkit.py /copies/3
COPY toolkit.py /copies/4
COPY toolkit.py /copies/5
COPY toolkit.py /copies/6
COPY toolkit.py /copies/7
COPY toolkit.py /copies/8
COPY toolkit.py /copies/9
COPY toolkit.py /copies/10
COPY toolkit.py /copies/11
COPY toolkit.py /copies/12
COPY toolkit.py /copies/13
COPY toolkit.py /copies/14
COPY toolkit.py /copies/15
COPY toolkit.py /copies/16
COPY toolkit.py /copies/17
COPY toolkit.py /copies/18
COPY toolkit.py /copies/19
COPY toolkit.py /copies/20
COPY toolkit.py /copies/21
COPY toolkit.py /copies/22
COPY toolkit.py /copies/23
COPY toolkit.py /copies/24
COPY toolkit.py /copies/25
COPY toolkit.py /copies/26
COPY toolkit.py /copies/27
COPY toolkit.py /copies/28
COPY toolkit.py /copies/29
COPY toolkit.py /copies/30
COPY toolkit.py /copies/31
COPY toolkit.py /copies/32
COPY toolkit.py /copies/33
COPY toolkit.py /copies/34
COPY toolkit.py /copies/35
COPY toolkit.py /copies/36
COPY toolkit.py /copies/37
COPY toolkit.py /copies/38
COPY toolkit.py /copies/39
COPY toolkit.py /copies/40
COPY toolkit.py /copies/41
COPY toolkit.py /copies/42
COPY toolkit.py /copies/43
COPY toolkit.py /copies/44
COPY toolkit.py /copies/45
COPY toolkit.py /copies/46
COPY toolkit.py /copies/47
COPY toolkit.py /copies/48
COPY toolkit.py /copies/49
COPY toolkit.py /copies/50
COPY toolkit.py /copies/51
COPY toolkit.py /copies/52
COPY toolkit.py /copies/53
COPY toolkit.py /copies/54
COPY toolkit.py /copies/55
COPY toolkit.py /copies/56
COPY toolkit.py /copies/57
COPY toolkit.py /copies/58
COPY toolkit.py /copies/59