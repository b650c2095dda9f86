-- MariaDB 10.4 and later: the roles that scopes name, and the account that Sallyport makes accounts with.
-- Run it once as root, for instance: mariadb < mariadb.sql

CREATE ROLE orders_ro;
GRANT SELECT ON orders.* TO orders_ro;
CREATE ROLE orders_rw;
GRANT SELECT, INSERT, UPDATE, DELETE ON orders.* TO orders_rw;

-- Narrow '%' to where Sallyport runs, and replace the password: its DSN is a secret of Sallyport's.
CREATE USER 'sallyport'@'%' IDENTIFIED BY 'CHANGE-ME' REQUIRE SSL;

-- Make, lock and drop accounts. On MariaDB this right reaches every account, root's too: guard the DSN as root's password.
GRANT CREATE USER ON *.* TO 'sallyport'@'%';
-- See the sessions of others, and end them.
GRANT PROCESS, CONNECTION ADMIN ON *.* TO 'sallyport'@'%';
-- Find the accounts of a name. Their password hashes stay hidden.
GRANT SELECT (User, Host, is_role) ON mysql.user TO 'sallyport'@'%';
-- SET DEFAULT ROLE for another account asks for this right, on the whole database.
GRANT UPDATE ON mysql.* TO 'sallyport'@'%';
-- Hand out these roles and no others.
GRANT orders_ro TO 'sallyport'@'%' WITH ADMIN OPTION;
GRANT orders_rw TO 'sallyport'@'%' WITH ADMIN OPTION;
