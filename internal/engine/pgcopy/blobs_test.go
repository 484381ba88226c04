package pgcopy

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"dbbackup/internal/pgtest"
)

// What COPY escapes is undone.
func TestUnescapeText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.OneOf(rapid.String(), rapid.StringMatching(`[\\bfnrtvN.\x00-\x1f"']{0,12}`)).Draw(t, "text")
		if got := unescapeText(escapeText(want)); got != want {
			t.Fatalf("unescapeText(%q) = %q, want %q", escapeText(want), got, want)
		}
	})
	for text, want := range map[string]string{`\`: `\`, `a\`: `a\`, `\x`: `x`, ``: ``, `\\N`: `\N`} {
		if got := unescapeText(text); got != want {
			t.Errorf("unescapeText(%q) = %q, want %q", text, got, want)
		}
	}
}

// FuzzBlobOwner: a line that is none is an error, never a panic.
func FuzzBlobOwner(f *testing.F) {
	f.Add("16400\tpostgres\t\tcomment\\n")
	f.Add("1\to\t[{\"grantee\":\"\",\"privilege\":\"SELECT\",\"grantable\":true}]\t")
	f.Add("16400\tpostgres\t\t\t[{\"provider\":\"p\",\"label\":\"secret\"}]")
	f.Add("x\t\t\t")
	f.Fuzz(func(t *testing.T, line string) {
		b, err := parseBlobOwner(line)
		if n := strings.Count(line, "\t"); err == nil && n != 3 && n != 4 {
			t.Fatalf("%q is taken for %+v", line, b)
		}
	})
}

// T70, of a few thousand: content with holes, owners, privileges and comments, in
// two encodings. What did not change is not read again, although others come and go.
func TestLargeObjects(t *testing.T) {
	c := shared.Cluster(t)
	owner, reader := `lo "owner"`, `lo 'reader'` // names that are not ASCII are bytes to databases of other encodings
	for _, role := range []string{owner, reader} {
		c.Exec(t, "postgres", "CREATE ROLE "+pgtest.Quote(role))
	}
	for _, encoding := range []string{"UTF8", "LATIN1"} {
		t.Run(encoding, func(t *testing.T) {
			db := "lo_" + strings.ToLower(encoding)
			c.Exec(t, "postgres", "CREATE DATABASE "+db+" TEMPLATE template0 LOCALE 'C' ENCODING '"+encoding+"'")
			t.Cleanup(func() { c.DropDatabase(t, db) })
			s := newSite(t, c, db)
			c.Exec(t, db, fmt.Sprintf(`
				SELECT lo_from_bytea(100000 + i, decode(repeat(md5(i::text), i %% 200), 'hex')) FROM generate_series(1, 3000) i;
				SELECT lo_create(200000); SELECT lo_put(200000, 3000000, 'behind a hole');
				SELECT lo_from_bytea(200001, decode(repeat('00ff', 1200000), 'hex')); SELECT lo_create(200002); SELECT lo_create(4294967295);
				DO $$ BEGIN FOR i IN 100001..100200 LOOP
					EXECUTE format('ALTER LARGE OBJECT %%s OWNER TO %%I', i, %[1]s); EXECUTE format('GRANT SELECT ON LARGE OBJECT %%s TO %%I', i, %[2]s);
					EXECUTE format('COMMENT ON LARGE OBJECT %%s IS %%L', i, E'é\t\n\\ ' || i);
				END LOOP; END $$;
				GRANT ALL ON LARGE OBJECT 100300 TO %[3]s WITH GRANT OPTION; GRANT SELECT ON LARGE OBJECT 100301 TO PUBLIC;
				REVOKE ALL ON LARGE OBJECT 100302 FROM postgres`, literal(owner), literal(reader), pgtest.Quote(reader)))
			s.settle(t)
			first := s.capture(t, shot{})
			first.intact(t)
			check := func(c captured) {
				t.Helper()
				to := s.replayedTo(t, c, encoding)
				if want, got := blobsOf(t, s.cluster, db), blobsOf(t, s.cluster, to); want != got {
					t.Errorf("large objects: got %s, want %s", got, want)
				}
			}
			check(first)
			last := first
			for _, sql := range []string{
				"SELECT 1", // nothing
				"SELECT lo_put(101500, 5, 'changed')", "SELECT lo_unlink(100001)", "SELECT lo_create(100001)", "SELECT lo_create(150000)", "SELECT lo_unlink(200002)",
				"DO $$ BEGIN PERFORM lo_truncate(lo_open(200001, 131072), 1000); END $$", "COMMENT ON LARGE OBJECT 100300 IS 'é'",
			} {
				c.Exec(t, db, sql)
				next := s.capture(t, shot{base: first.base()})
				reused := 0
				for _, chunk := range next.contents.LargeObjects.Data {
					if chunk.Set != "" {
						reused++
					}
				}
				t.Logf("%s: %d of %d chunks reused", sql, reused, len(next.contents.LargeObjects.Data))
				if sql == "SELECT 1" && reused != len(next.contents.LargeObjects.Data) {
					t.Error("nothing has changed, and some were read again")
				}
				// The source itself is what a restored database would be.
				differences, err := Compare(t.Context(), s.src.Endpoint, db, next.contents, 1, nil)
				must(t, err)
				for _, d := range differences {
					t.Errorf("%s: %s: %s", sql, d.Table, d.Text)
				}
				last = next
			}
			check(last)
		})
	}
}

func literal(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// blobsOf is all that there is to large objects.
func blobsOf(t *testing.T, c *pgtest.Cluster, db string) string {
	t.Helper()
	return c.QueryString(t, db, `SELECT count(*) || ' ' || md5(string_agg(concat_ws('|', m.oid, r.rolname, m.lomacl::text, obj_description(m.oid, 'pg_largeobject'), md5(lo_get(m.oid))), e'\n' ORDER BY m.oid))
		FROM pg_largeobject_metadata m JOIN pg_roles r ON r.oid = m.lomowner`)
}

// replayedTo restores a set into a database of an encoding, and compares.
func (s *site) replayedTo(t *testing.T, c captured, encoding string) string {
	t.Helper()
	db := s.cluster.Database(t)
	s.cluster.DropDatabase(t, db)
	s.cluster.Exec(t, "postgres", "CREATE DATABASE "+db+" TEMPLATE template0 LOCALE 'C' ENCODING '"+encoding+"'")
	problems, err := s.replayInto(t.Context(), t, c, db)
	must(t, err)
	for _, p := range problems {
		t.Errorf("refused: %+v", p)
	}
	differences, err := Compare(t.Context(), s.src.Endpoint, db, c.contents, 2, nil)
	must(t, err)
	for _, d := range differences {
		t.Errorf("restored %s: %s: %s", c.set.ID(), d.Table, d.Text)
	}
	return db
}
