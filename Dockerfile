# Three images: the store and the proxy with their settings, and Holdfast (receiver, workers, Flower).
# All run as user 10001, which may write only to the folder that is a volume.

FROM valkey/valkey:8 AS valkey
COPY --chown=10001 deploy/valkey.conf deploy/start-valkey.sh /etc/holdfast/
RUN install -d -o 10001 -g 10001 /var/lib/holdfast
WORKDIR /var/lib/holdfast
USER 10001:10001
ENTRYPOINT ["sh", "/etc/holdfast/start-valkey.sh"]


FROM caddy:2 AS caddy
COPY --chown=10001 deploy/Caddyfile /etc/holdfast/
# Caddy before 2.7 does not know request_buffers. Without them it answers 502 to deliveries that waited for the receiver.
RUN caddy adapt --adapter caddyfile --config /etc/holdfast/Caddyfile >/dev/null 2>&1 || sed -i /request_buffers/d /etc/holdfast/Caddyfile
RUN install -d -o 10001 -g 10001 /var/lib/holdfast
ENV XDG_DATA_HOME=/var/lib/holdfast XDG_CONFIG_HOME=/var/lib/holdfast
USER 10001:10001
ENTRYPOINT ["caddy", "run", "--adapter", "caddyfile", "--config", "/etc/holdfast/Caddyfile"]


FROM python:3.13-slim AS holdfast
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp holdfast \
 && install -d -o holdfast -g holdfast /var/lib/holdfast/documents /var/lib/holdfast/flower
WORKDIR /srv/holdfast
# The packages are a separate layer, which is rebuilt only when the lock changes. Bytecode is compiled here, because the
# file system is read-only at run time.
COPY requirements.lock .
RUN pip install --no-cache-dir --only-binary :all: --require-hashes -r requirements.lock
COPY . .
RUN python -m compileall -q . && chmod -R a+rX .
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PATH=/srv/holdfast/bin:$PATH
USER holdfast
CMD ["python", "-m", "web"]
