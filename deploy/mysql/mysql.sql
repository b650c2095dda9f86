-- MySQL 8.0 and later: the roles that scopes name, and the account that Sallyport makes accounts with.
-- Run it once as root, for instance: mysql < mysql.sql

CREATE ROLE orders_ro;
GRANT SELECT ON orders.* TO orders_ro;
CREATE ROLE orders_rw;
GRANT SELECT, INSERT, UPDATE, DELETE ON orders.* TO orders_rw;

-- Narrow '%' to where Sallyport runs, and replace the password: its DSN is a secret of Sallyport's.
CREATE USER 'sallyport'@'%' IDENTIFIED BY 'CHANGE-ME' REQUIRE SSL;

-- Make, lock and drop accounts, but for those with SYSTEM_USER: give that to root and to whoever must be out of reach.
GRANT CREATE USER ON *.* TO 'sallyport'@'%';
-- See the sessions of others, and end them.
GRANT PROCESS, CONNECTION_ADMIN ON *.* TO 'sallyport'@'%';
-- Find the accounts of a name. Their password hashes stay hidden.
GRANT SELECT (User, Host) ON mysql.user TO 'sallyport'@'%';
-- Hand out these roles and no others.
GRANT orders_ro, orders_rw TO 'sallyport'@'%' WITH ADMIN OPTION;
-- Where roles can create views, routines, triggers or events, these let their definer be dropped (before 8.2: SET_USER_ID).
-- GRANT SET_ANY_DEFINER, ALLOW_NONEXISTENT_DEFINER ON *.* TO 'sallyport'@'%';
