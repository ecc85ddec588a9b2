# Four images: the stores and the proxy with their settings, and Holdfast (receiver, workers, Flower).
# All but Postgres run as user 10001, which may write only to the folder that is a volume.

FROM valkey/valkey:8 AS valkey
COPY --chown=10001 deploy/valkey.conf deploy/start-valkey.sh /etc/holdfast/
RUN install -d -o 10001 -g 10001 /var/lib/holdfast
WORKDIR /var/lib/holdfast
USER 10001:10001
ENTRYPOINT ["sh", "/etc/holdfast/start-valkey.sh"]


FROM postgres:17 AS postgres
COPY --chown=10001 deploy/create-role.sh /etc/holdfast/


FROM caddy:2 AS caddy
COPY --chown=10001 deploy/Caddyfile /etc/holdfast/
# Caddy before 2.7 does not know request_buffers. Without them it answers 502 to deliveries that waited for the receiver.
RUN cd /etc/holdfast && { caddy adapt --config Caddyfile >/dev/null 2>&1 || sed -i /request_buffers/d Caddyfile; } \
 && caddy adapt --config Caddyfile >/dev/null
RUN install -d -o 10001 -g 10001 /var/lib/holdfast
ENV XDG_DATA_HOME=/var/lib/holdfast XDG_CONFIG_HOME=/var/lib/holdfast
USER 10001:10001
ENTRYPOINT ["caddy", "run", "--adapter", "caddyfile", "--config", "/etc/holdfast/Caddyfile"]


FROM python:3.13-slim AS packages
WORKDIR /srv/holdfast
# A layer that is built again only when the lock changes.
COPY requirements.lock .
RUN pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements.lock


FROM packages AS sbom
COPY requirements-sbom.lock pyproject.toml ./
RUN python -m venv /opt/cyclonedx \
 && /opt/cyclonedx/bin/pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements-sbom.lock \
 && /opt/cyclonedx/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file sbom.cdx.json "$(command -v python)"


FROM packages AS holdfast
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp holdfast \
 && install -d -o holdfast -g holdfast /var/lib/holdfast/documents /var/lib/holdfast/flower
COPY . .
COPY --from=sbom /srv/holdfast/sbom.cdx.json .
# Bytecode is compiled here, because the file system is read-only at run time.
RUN python -m compileall -q . && chmod -R a+rX .
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/srv/holdfast/bin:$PATH
USER holdfast
CMD ["python", "-m", "web"]
