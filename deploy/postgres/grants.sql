-- What the postgres broker needs of a server. A superuser runs it once, in the database of the target:
--   psql -d orders -v database=orders -v password="$(cat orders-admin-password)" -f grants.sql
\set ON_ERROR_STOP on
BEGIN;

-- What the scopes of the target mean. Credentials are members of these roles and get nothing else.
CREATE ROLE orders_ro NOLOGIN;
CREATE ROLE orders_rw NOLOGIN;
GRANT USAGE ON SCHEMA public TO orders_ro, orders_rw;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO orders_ro;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO orders_rw;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO orders_ro;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO orders_rw;

-- A role can connect wherever PUBLIC can. Do the same in every other database of the server.
REVOKE CONNECT ON DATABASE :"database" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"database" TO orders_ro, orders_rw;

-- Who makes the roles. It is no superuser.
CREATE ROLE sallyport LOGIN CREATEROLE CONNECTION LIMIT 20 PASSWORD :'password';
GRANT CONNECT ON DATABASE :"database" TO sallyport;
-- To give the roles of the scopes away. Up to version 15 CREATEROLE can give any role away, and this is not needed.
GRANT orders_ro, orders_rw TO sallyport WITH ADMIN OPTION;
-- To end the sessions of a credential.
GRANT pg_signal_backend TO sallyport;

COMMIT;
