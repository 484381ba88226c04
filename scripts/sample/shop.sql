-- A small shop: keys, partitions, views, functions, triggers, privileges.
--
-- usage: createdb shop && psql -d shop -f roles.sql -f shop.sql
--        psql -v orders=1000000 makes it larger (default 20000)
\if :{?orders} \else \set orders 20000 \endif
CREATE SCHEMA shop AUTHORIZATION shop_owner;
GRANT USAGE ON SCHEMA shop TO shop_staff;
ALTER DEFAULT PRIVILEGES FOR ROLE shop_owner IN SCHEMA shop GRANT SELECT ON TABLES TO shop_staff;
SET ROLE shop_owner;
SET search_path = shop;

CREATE TYPE order_state AS ENUM ('new', 'paid', 'shipped', 'returned');
CREATE DOMAIN email AS text CHECK (VALUE ~ '^[^@ ]+@[^@ ]+$');

CREATE TABLE customers(
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    mail email NOT NULL UNIQUE,
    invited_by bigint REFERENCES customers,
    joined date NOT NULL DEFAULT current_date);
CREATE TABLE products(
    sku text PRIMARY KEY,
    title text NOT NULL,
    price numeric(10, 2) NOT NULL CHECK (price >= 0),
    gross numeric(10, 2) GENERATED ALWAYS AS (round(price * 1.19, 2)) STORED,
    tags text[] NOT NULL DEFAULT '{}',
    attributes jsonb NOT NULL DEFAULT '{}');
CREATE TABLE orders(
    id bigint NOT NULL,
    placed timestamptz NOT NULL,
    customer bigint NOT NULL REFERENCES customers,
    state order_state NOT NULL DEFAULT 'new',
    total numeric(12, 2) NOT NULL DEFAULT 0,
    PRIMARY KEY (id, placed)) PARTITION BY RANGE (placed);
CREATE TABLE orders_2024 PARTITION OF orders FOR VALUES FROM ('2024-01-01 00:00+00') TO ('2025-01-01 00:00+00');
CREATE TABLE orders_2025 PARTITION OF orders FOR VALUES FROM ('2025-01-01 00:00+00') TO ('2026-01-01 00:00+00');
CREATE TABLE orders_rest PARTITION OF orders DEFAULT;
CREATE TABLE lines(
    order_id bigint NOT NULL,
    placed timestamptz NOT NULL,
    sku text NOT NULL REFERENCES products DEFERRABLE INITIALLY DEFERRED,
    quantity int NOT NULL CHECK (quantity > 0),
    FOREIGN KEY (order_id, placed) REFERENCES orders);
CREATE SEQUENCE order_numbers START 1000 INCREMENT 3 OWNED BY orders.id;

CREATE FUNCTION order_total(number bigint) RETURNS numeric LANGUAGE sql STABLE SET search_path = shop, pg_temp AS
    $$ SELECT coalesce(sum(l.quantity * p.gross), 0) FROM lines l JOIN products p USING (sku) WHERE l.order_id = number $$;
CREATE FUNCTION no_way_back() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state = 'returned' THEN
        RAISE EXCEPTION 'order % was returned', OLD.id;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER no_way_back BEFORE UPDATE OF state ON orders FOR EACH ROW EXECUTE FUNCTION no_way_back();

INSERT INTO customers(name, mail, invited_by)
SELECT 'Customer ' || i, 'customer' || i || '@example.org', NULLIF(i / 10, 0) FROM generate_series(1, 2000) i;
INSERT INTO products(sku, title, price, tags, attributes)
SELECT 'SKU-' || i, 'Ärticle No. ' || i || E'\nsecond line', i * 1.37, ARRAY['tag' || i % 7, NULL, 'a "quoted" tag'],
       jsonb_build_object('weight', i * 0.1, 'colour', (ARRAY['red', 'green', NULL])[1 + i % 3])
FROM generate_series(1, 500) i;
INSERT INTO orders(id, placed, customer, state)
SELECT nextval('order_numbers'), timestamptz '2023-11-01 00:00+00' + i * interval '53 minutes', 1 + i % 2000,
       (enum_range(NULL::order_state))[1 + i % 4]
FROM generate_series(1, :orders) i;
INSERT INTO lines SELECT o.id, o.placed, 'SKU-' || 1 + (o.id + n) % 500, 1 + n FROM orders o, generate_series(0, 2) n;

CREATE INDEX orders_customer ON orders(customer);
CREATE INDEX orders_open ON orders(placed DESC) WHERE state IN ('new', 'paid');
CREATE INDEX lines_order ON lines(order_id) INCLUDE (sku);
CREATE INDEX products_attributes ON products USING gin (attributes);
CREATE VIEW open_orders AS SELECT o.id, c.name, o.state FROM orders o JOIN customers c ON c.id = o.customer WHERE o.state IN ('new', 'paid');
CREATE MATERIALIZED VIEW turnover AS SELECT date_trunc('month', placed) AS month, state, count(*) AS orders FROM orders GROUP BY 1, 2;
CREATE UNIQUE INDEX turnover_key ON turnover(month, state);
ALTER TABLE customers ENABLE ROW LEVEL SECURITY;
CREATE POLICY staff_sees_all ON customers FOR SELECT TO shop_staff USING (true);
GRANT INSERT, UPDATE (state) ON orders TO shop_staff WITH GRANT OPTION;
COMMENT ON TABLE orders IS 'one row per order, a partition per year';
COMMENT ON COLUMN orders.total IS 'gross';
RESET ROLE;
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET search_path = shop, public', current_database());
    EXECUTE format('ALTER ROLE clerk IN DATABASE %I SET work_mem = ''16MB''', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO shop_staff', current_database());
    EXECUTE format('COMMENT ON DATABASE %I IS ''the sample shop''', current_database());
END $$;
ANALYZE;
