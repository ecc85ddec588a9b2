#!/bin/sh
# Runs at each start of the stack, before the database is migrated: the role of receiver and workers, with the password in
# .env, and its database. The role owns its database and is no superuser, so it can neither read files of the server nor run
# programs there. PGHOST and PGPASSWORD, that of the superuser, say where.
set -eu

works() { PGPASSWORD=$HOLDFAST_PASSWORD psql --no-psqlrc --username holdfast --dbname holdfast --command '' 2>/dev/null; }

works || psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username postgres --dbname postgres <<'SQL'
\getenv password HOLDFAST_PASSWORD
SELECT 'CREATE ROLE holdfast NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'holdfast') \gexec
SELECT 'CREATE DATABASE holdfast OWNER holdfast'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'holdfast') \gexec
REVOKE ALL ON DATABASE holdfast, postgres FROM PUBLIC;
-- The login is last: whatever an interrupted run left out, the next one does.
ALTER ROLE holdfast LOGIN PASSWORD :'password';
SQL
