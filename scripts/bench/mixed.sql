-- What speed is measured on: one half rows as applications have them, with
-- text, numbers, dates and jsonb, and one half binary values of 256 kB that
-- no compressor makes smaller. psql runs it with the variables rows and blobs:
-- 6000000 and 4000 make 2.4 GB with indexes, a tenth of both a tenth of that.
CREATE EXTENSION IF NOT EXISTS pgcrypto;
CREATE TABLE orders(id bigserial PRIMARY KEY, customer_id int NOT NULL, status text, amount numeric(12,2), note text, created_at timestamptz, meta jsonb);
INSERT INTO orders(customer_id,status,amount,note,created_at,meta)
SELECT (random()*1e6)::int, (array['new','paid','shipped','returned'])[1+(random()*3)::int], (random()*1000)::numeric(12,2),
       md5(i::text)||' '||md5((i*7)::text), timestamptz '2026-01-01'-i*interval '1 second', jsonb_build_object('k',i%100,'v',md5(i::text))
FROM generate_series(1,:rows) i;
CREATE INDEX ON orders(customer_id);
CREATE TABLE files(id bigserial PRIMARY KEY, name text, body bytea);
-- WHERE i=i makes the inner query depend on the row, so that each gets bytes of its own.
INSERT INTO files(name,body)
SELECT 'f'||i, gen_random_bytes(1024)||(SELECT string_agg(gen_random_bytes(1024),'') FROM generate_series(1,255) WHERE i=i)
FROM generate_series(1,:blobs) i;
VACUUM ANALYZE;
CHECKPOINT;
