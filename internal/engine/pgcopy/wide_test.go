package pgcopy

import (
	"os"
	"strings"
	"testing"

	"dbbackup/compress"
	"dbbackup/internal/backupset"
	"dbbackup/internal/pgtest"
)

// Rows that are captured column by column, with what other rows have gigabytes for.
func TestWideRows(t *testing.T) {
	c := shared.Cluster(t)
	s := newSite(t, c, c.Database(t))
	const ways = `CASE i % 5 WHEN 0 THEN 3000 WHEN 1 THEN 999 WHEN 2 THEN 1000 WHEN 3 THEN 1001 ELSE 1 END`
	c.Exec(t, s.db, `
		CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TYPE pair AS (a int, b text);
		CREATE TABLE b (i int GENERATED ALWAYS AS IDENTITY, body bytea, note text, twice int GENERATED ALWAYS AS (7) STORED, other bytea, n numeric);
		INSERT INTO b (body, note, other, n) SELECT decode(repeat('00ff0a5c', `+ways+`), 'hex'), repeat(E'\\é\t\n', i % 700), CASE WHEN i % 3 = 0 THEN NULL ELSE '\x01'::bytea END, 10^(i % 50) FROM generate_series(1, 15) i;
		CREATE TABLE t (body text, "Größe" varchar, c char(20), j jsonb, x xml, ms mood[], p pair, i int[]) ;
		INSERT INTO t SELECT repeat(E'\\ä\n', `+ways+`), repeat('ß', i), 'c', jsonb_build_object('k', repeat('j', `+ways+`)), '<a>b</a>'::xml, '{sad,glad}'::mood[], (i, repeat('p', `+ways+`))::pair, array_fill(i, ARRAY[`+ways+`])
		  FROM generate_series(1, 15) i;
		INSERT INTO t (body) VALUES (NULL), (''), (repeat('x', 5000));
		CREATE TABLE p (m mood, body bytea) PARTITION BY HASH (m);
		CREATE TABLE p0 (body bytea, m mood); ALTER TABLE p0 ALTER m DROP NOT NULL; ALTER TABLE p ATTACH PARTITION p0 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
		CREATE TABLE p1 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1);
		INSERT INTO p (m, body) SELECT (CASE WHEN i % 2 = 0 THEN 'sad' ELSE 'glad' END)::mood, decode(repeat('00', `+ways+`), 'hex') FROM generate_series(1, 20) i;
		CREATE TABLE narrow (body text); INSERT INTO narrow VALUES ('x')`)
	for over, refuse := range map[int64]refusal{1000: refuseChunks, 100: refuseRows} {
		lower := func(l *limits) { l.wideOver, l.sliceBytes, l.refuse = over, 300, refuse }
		first := s.capture(t, shot{bytes: 8 << 10, tune: func(c *capture) { lower(&c.limits) }})
		wide := 0
		for i := range first.contents.Tables {
			for _, chunk := range first.contents.Tables[i].Chunks {
				wide += len(chunk.Wide)
			}
		}
		if wide < 5 {
			t.Errorf("%d rows were captured column by column: the test shows nothing", wide)
		}
		first.intact(t)
		// Rows by themselves have the digest that they have among others, so that
		// reading the table back need not know which they were.
		compare := func(k *comparison) {
			if refuse == refuseRows {
				k.contents = &backupset.Contents{}
			}
		}
		same := func(c captured) {
			db := s.replayed(t, c, compare)
			s.sameRows(t, db, "b", "t", "narrow", "(SELECT * FROM p)")
		}
		same(first)
		if refuse == refuseChunks {
			continue
		}
		s.settle(t)
		// An incremental set takes such chunks over.
		again := s.capture(t, shot{bytes: 8 << 10, tune: func(c *capture) { lower(&c.limits) }})
		second := s.capture(t, shot{base: again.base(), bytes: 8 << 10, tune: func(c *capture) { lower(&c.limits) }})
		if reused, read := second.reused(t, "b"); reused == 0 || read != 0 {
			t.Errorf("%d chunks reused, %d read", reused, read)
		}
		same(second)
	}
}

// T63: values and rows that no message of the server can hold, with their own
// size. It takes 20 GB of disk and 4 GB of memory, so it is asked for.
func TestT63WideValues(t *testing.T) {
	if os.Getenv("DBBACKUP_TEST_WIDE") == "" {
		t.Skip("DBBACKUP_TEST_WIDE=1 runs it")
	}
	c := shared.Start(t, pgtest.WithHBA("host all all 127.0.0.1/32 trust"), pgtest.WithSetting("autovacuum", "off"))
	c.CreateDatabase(t, "app")
	s := newSite(t, c, "app")
	c.Exec(t, s.db, `CREATE TABLE b (id text PRIMARY KEY, a bytea, b bytea, c bytea);
		ALTER TABLE b ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL, ALTER c SET STORAGE EXTERNAL;
		CREATE TABLE t (id text PRIMARY KEY, a text, b text); ALTER TABLE t ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL`)
	mb := func(n string) string { return "repeat('0123456789abcde\\', " + n + " * 65536)" }
	bytes := func(n string) string { return "convert_to(" + mb(n) + ", 'UTF8')" }
	for _, sql := range []string{
		"INSERT INTO b VALUES ('511', " + bytes("511") + ")", "INSERT INTO b VALUES ('513', " + bytes("513") + ")",
		"INSERT INTO b VALUES ('1022', " + bytes("1022") + ")",
		"INSERT INTO b VALUES ('3 x 511', " + bytes("511") + ")", "UPDATE b SET b = " + bytes("511") + " WHERE id = '3 x 511'",
		"UPDATE b SET c = " + bytes("511") + " WHERE id = '3 x 511'", "INSERT INTO b VALUES ('small', 'x', NULL, '')",
		"INSERT INTO b SELECT 'filler ' || i, decode(repeat('00', 1000), 'hex') FROM generate_series(1, 100) i",
		"INSERT INTO b VALUES ('300', " + bytes("300") + ")", // is wide, and the server can send it
		"INSERT INTO t VALUES ('600', " + mb("600") + ")",    // as text it becomes 637 MB
		"INSERT INTO t VALUES ('2 x 600', " + mb("600") + ")", "UPDATE t SET b = " + mb("600") + " WHERE id = '2 x 600'",
		"INSERT INTO t VALUES ('backslashes', repeat('\\', 600 * 1024 * 1024))", // as text it doubles
		"INSERT INTO t VALUES ('small', 'x')",
	} {
		c.Exec(t, s.db, sql)
		t.Logf("%.60s", sql)
	}
	for _, chunk := range []int64{1, 64 << 30} { // a chunk for each page, and one for all
		before := peakRSS(t)
		got := s.capture(t, shot{bytes: chunk, codec: compress.Codec{Name: compress.Zstd, Level: 1}})
		captured := peakRSS(t)
		for _, name := range []string{"b", "t"} {
			wide, pieces := 0, 0
			for _, one := range got.table(t, name).Chunks {
				wide += len(one.Wide)
				for _, row := range one.Wide {
					pieces += len(row.Pieces)
				}
			}
			t.Logf("table %s: %d chunks, %d rows by themselves, in %d pieces", name, len(got.table(t, name).Chunks), wide, pieces)
		}
		got.intact(t)
		checked := peakRSS(t)
		db := s.replayed(t, got) // compares every row
		t.Logf("peak RSS: %d MB before, %d MB after the capture, %d MB after Check, %d MB after Replay and Compare", before>>20, captured>>20, checked>>20, peakRSS(t)>>20)
		if captured > 64<<20 {
			t.Errorf("the capture took %d MB", captured>>20)
		}
		for table, columns := range map[string]string{"b": "a b c", "t": "a b"} {
			sql := "SELECT string_agg(concat_ws(' ', id"
			for _, column := range strings.Fields(columns) {
				sql += ", octet_length(" + column + "), md5(substring(" + column + ", 1, 1000000)), md5(substring(" + column + ", 300000000, 1000000))"
			}
			sql += "), ', ' ORDER BY id) FROM " + table
			if want, got := c.QueryString(t, s.db, sql), c.QueryString(t, db, sql); got != want {
				t.Errorf("table %s: got %s, want %s", table, got, want)
			}
		}
		c.DropDatabase(t, db)
	}
}

// peakRSS is the most memory that this process ever had.
func peakRSS(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile("/proc/self/status")
	must(t, err)
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	fields := strings.Fields(rest)
	n := int64(0)
	for _, digit := range fields[0] {
		n = n*10 + int64(digit-'0')
	}
	return n << 10
}
