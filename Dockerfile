# The command `hetmorph`, with the shipped models: docker run --rm -v "$PWD":/data hetmorph register --moving /data/m.nii.gz …
FROM python:3.12-slim
WORKDIR /opt/hetmorph
COPY . .
RUN pip install --no-cache-dir ".[formats,hub]"
# Files come out as those of whoever runs it with --user; a home is needed where caches go.
ENV HOME=/tmp
WORKDIR /data
ENTRYPOINT ["hetmorph"]
