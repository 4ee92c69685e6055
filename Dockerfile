# JupyterLab with everything installed:
#   docker build --tag safn . && docker run --rm --publish 8888:8888 safn
# The address with its token is in the output. `docker run --rm --volume "$PWD/runs:/safn/runs" safn make book` builds the book.
FROM python:3.13-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /safn
COPY . .
ENV PIP_NO_CACHE_DIR=1
RUN make install PYTHON=python
EXPOSE 8888
CMD ["make", "lab", "FLAGS=--ip=0.0.0.0 --no-browser"]
