package pgarchive

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"dbbackup/internal/pgtest"
)

var shared pgtest.Shared

func TestMain(m *testing.M) { os.Exit(shared.Run(m)) }

// zooSQL has one of each thing that hangs on a table in its own way.
const zooSQL = `
create schema types;
create schema "odd ""s";
create type types.mood as enum ('a', 'b');
create domain types.pos as int check (value > 0);
create table customers (id serial primary key, m types.mood, p types.pos);
insert into customers (m, p) select 'a', g from generate_series(1, 2000) g;
create table orders (id bigint generated always as identity primary key, c int,
	note text, constraint orders_customer_fk foreign key (c) references customers (id));
insert into orders (c, note) select g, md5(g::text) from generate_series(1, 2000) g;
create index orders_c on orders (c);
create view ov as select o.id, c.m from orders o join customers c on c.id = o.c;
create materialized view mv as select count(*) n from orders;
create unique index mv_i on mv (n);
create materialized view mv2 as select n + 1 as n1 from mv;
create table ev (id int, ts date, v text, primary key (id, ts)) partition by range (ts);
create table ev_23 partition of ev for values from ('2023-01-01') to ('2024-01-01') partition by list (id);
create table ev_23_1 partition of ev_23 for values in (1);
create table ev_24 partition of ev for values from ('2024-01-01') to ('2025-01-01');
create index on ev (v);
create view ev_view as select id from ev;
create materialized view ev_mv as select count(*) n from ev;
create function trg() returns trigger language plpgsql as 'begin return new; end';
create trigger t1 before insert on ev for each row execute function trg();
alter table ev add constraint ev_fk foreign key (id) references customers (id);
insert into ev values (1, '2023-05-05', 'x'), (2, '2024-05-05', 'y');
create sequence standalone;
select setval('standalone', 77);
create table usesseq (a int default nextval('standalone'));
create statistics st1 on id, c from orders;
alter table customers enable row level security;
create policy pol on customers using (exists (select 1 from orders));
comment on table orders is 'o';
comment on constraint orders_customer_fk on orders is 'x';
grant select on orders to public;
grant select (c) on orders to public;
create table "a%b*?" (x int);
insert into "a%b*?" values (1);
create table "new
line" (x int primary key);
insert into "new
line" values (1), (2);
create table "Twin" (x int);
create table twin (x int);
insert into "Twin" values (1);
insert into twin values (1), (2), (3);
create rule r1 as on insert to twin do also insert into "Twin" values (new.x);
create table a (x int primary key);
create table "a b" (x int primary key references a);
create table "odd ""s".twin (x int);
create table base (x int);
create table heir (y int) inherits (base);
create table nothing ();
create view circle1 as select 1 as x;
create view circle2 as select x from circle1;
create or replace view circle1 as select x from circle2;
create extension citext;
create table ci (c citext primary key);
insert into ci values ('A');
create publication pub for table orders;
select lo_from_bytea(0, 'abc'), lo_from_bytea(0, '');
`

var zooOnce sync.Once

// zoo is a database with zooSQL in it, for all tests; they only read it.
func zoo(t *testing.T) (*pgtest.Cluster, string) {
	t.Helper()
	c := shared.Cluster(t)
	zooOnce.Do(func() {
		c.Exec(t, "postgres", "create database zoo")
		c.Exec(t, "zoo", zooSQL)
	})
	return c, "zoo"
}

// pgTool runs one of PostgreSQL's programs and returns its output.
func pgTool(t *testing.T, c *pgtest.Cluster, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(c.BinDir, name), args...)
	cmd.Env = append(os.Environ(), c.Env()...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, stderr.String())
	}
	return string(out)
}

func dump(t *testing.T, c *pgtest.Cluster, db string, args ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive")
	pgTool(t, c, "pg_dump", append(args, "-f", path, "-d", db)...)
	return path
}

func open(t *testing.T, path string, opts ...Option) *TOC {
	t.Helper()
	toc, err := Open(path, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return toc
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func find(t *testing.T, toc *TOC, desc, schema, tag string) *Entry {
	t.Helper()
	i := slices.IndexFunc(toc.Entries, func(e Entry) bool {
		return e.Desc == desc && e.Schema == schema && e.Tag == tag
	})
	if i < 0 {
		t.Fatalf("no entry %s %s.%s", desc, schema, tag)
	}
	return &toc.Entries[i]
}

// mustContain fails unless err is there and says all the texts.
func mustContain(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		err = errors.New("<no error>")
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("got error %q, want %q in it", err, text)
		}
	}
}
