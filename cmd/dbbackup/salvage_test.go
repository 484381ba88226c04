package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"dbbackup/internal/backupset"
)

// salvaged is the JSON of a restore with --salvage.
type salvaged struct {
	Result    string
	Databases []struct {
		Name, Result string
		Refused      []string
		Lost         []struct {
			Table     string
			FirstPage uint32 `json:"first_page"`
			EndPage   uint32 `json:"end_page"`
			FirstOID  uint32 `json:"first_oid"`
			Rows      int64
			Object    string
		}
	}
}

// T79: a chunk is lost or damaged, and there is no other set. With --salvage the rest
// comes back, what is lost is named before and after, and the foreign key that cannot
// be made is reported; without, nothing is restored.
func TestT79Salvage(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := family(t, c)
	c.Exec(t, db, "COMMENT ON CONSTRAINT child_parent_fkey ON child IS 'every child has one'")
	for name, harm := range map[string]func(t *testing.T, path string){
		"missing": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"flipped byte": flipByte,
		"cut short": func(t *testing.T, path string) {
			if err := os.Truncate(path, 100); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to, jobs := c.FreeName(t), "2"
			if name == "missing" {
				jobs = "1"
			}
			store := captured(t, c, db, "--mode", "chunked", "--chunk-size", "64kB")
			id := onlySet(t, store)
			set := filepath.Join(store, id)
			object := chunkOf(t, set, db, "parent")
			harm(t, filepath.Join(set, object))
			rows, pages := int64(0), ""
			contents := readContents(t, filepath.Join(set, "databases", db+".chunks", backupset.ContentsName))
			for _, table := range contents.Tables {
				for i := range table.Chunks {
					if k := &table.Chunks[i]; k.Object == object {
						rows += k.Rows
						pages = fmt.Sprintf("ctid < '(%d,0)' OR ctid >= '(%d,0)'", k.FirstPage, k.EndPage)
					}
				}
			}
			dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--set", id)...).want(t, exitIntegrity, "--salvage")

			args := restoring(store, db, "--target-db", to, "--set", id, "--salvage", "--jobs", jobs)
			dry := dbbackup(t, c.Env(), append([]string{"restore", "single", "--dry-run"}, args[2:]...)...)
			if dry.must(t, exitOK); !strings.Contains(dry.stdout, "is damaged") || !strings.Contains(dry.stdout, "Will be missing: ") {
				t.Errorf("dry run: got %s, want what will be missing", dry.stdout)
			}
			got := dbbackup(t, c.Env(), append([]string{"restore", "single", "--json"}, args[2:]...)...)
			got.want(t, exitOmissions, fmt.Sprintf("will be missing: %d rows of table public.parent", rows),
				fmt.Sprintf("lost: %d rows of table public.parent", rows), "refused: ALTER TABLE", "child_parent_fkey")
			var result salvaged
			got.decode(t, &result)
			if d := result.Databases; result.Result != "omissions" || len(d) != 1 || d[0].Result != "incomplete" || len(d[0].Lost) != 1 ||
				d[0].Lost[0].Table != "public.parent" || d[0].Lost[0].Rows != rows || d[0].Lost[0].Object != object ||
				len(d[0].Refused) != 2 || !strings.Contains(d[0].Refused[0], "child_parent_fkey") {
				t.Errorf("result: got %+v, want one lost chunk of %d rows, and the foreign key and its comment refused", result, rows)
			}
			wantTables(t, c, to, "child 4000", fmt.Sprintf("parent %d", 4000-rows))
			const sum = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM "
			for table, condition := range map[string]string{"child": "true", "parent": pages} {
				want := c.QueryString(t, db, sum+table+" t WHERE "+condition)
				if got := c.QueryString(t, to, sum+table+" t"); got != want {
					t.Errorf("table %s: the rows are others than the sound ones", table)
				}
			}
			wantQuiet(t, c, to)
		})
	}
}

// A salvage of tables that are sound loses nothing, and says so by its exit code;
// in a database that is there it loads what is sound.
func TestSalvageOfSomeTables(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, whole, into := family(t, c), c.FreeName(t), c.FreeName(t)
	store := captured(t, c, db, "--mode", "chunked", "--chunk-size", "64kB")
	id := onlySet(t, store)
	flipByte(t, filepath.Join(store, id, chunkOf(t, filepath.Join(store, id), db, "child")))
	run := func(args ...string) result {
		return dbbackup(t, c.Env(), restoring(store, db, append(args, "--set", id)...)...)
	}
	if got := run("--target-db", whole, "--table", "parent", "--salvage"); strings.Contains(got.stdout, "Lost") {
		t.Errorf("nothing is lost: got %s", got.stdout)
	} else {
		got.want(t, exitOK)
	}
	wantTables(t, c, whole, "parent 4000")
	run("--target-db", into, "--schema-only").must(t, exitOK)
	run("--target-db", into, "--data-only").want(t, exitIntegrity)
	got := run("--target-db", into, "--data-only", "--salvage")
	got.want(t, exitOmissions, "rows of table public.child")
	if !strings.Contains(got.stdout, "Lost of "+into+" (1):") || !strings.Contains(got.stdout, "incomplete") {
		t.Errorf("summary: got %s, want what is lost", got.stdout)
	}
	if n := c.QueryString(t, into, "SELECT count(*) FROM parent WHERE EXISTS (SELECT 1 FROM child)"); n != "4000" {
		t.Errorf("got %s parents, want 4000, and some children", n)
	}
}

// Large objects: whose contents are lost are there, and empty, and named; when their
// owners are lost, all are.
func TestSalvageOfLargeObjects(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := c.Database(t)
	c.Exec(t, db, "CREATE TABLE t AS SELECT 1 AS id; SELECT lo_from_bytea(4711, 'large')")
	for name, tc := range map[string]struct {
		piece func(lo *backupset.LargeObjectChunks) *backupset.Chunk
		text  string
		left  string
	}{
		"data":   {func(lo *backupset.LargeObjectChunks) *backupset.Chunk { return &lo.Data[0] }, "contents of the large objects 4711 to 4711", "1"},
		"owners": {func(lo *backupset.LargeObjectChunks) *backupset.Chunk { return &lo.Metadata }, "all 1 large objects", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			store, to := captured(t, c, db, "--mode", "chunked"), c.FreeName(t)
			set := filepath.Join(store, onlySet(t, store))
			contents := readContents(t, filepath.Join(set, "databases", db+".chunks", backupset.ContentsName))
			piece := tc.piece(contents.LargeObjects)
			path := filepath.Join(set, piece.Object)
			content := readFile(t, path)
			content[piece.Offset+piece.Bytes/2] ^= 1
			writeFile(t, path, content, 0o600)
			dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--salvage", "--set", filepath.Base(set))...).want(t, exitOmissions, "lost: "+tc.text)
			wantTables(t, c, to, "t 1")
			if got := c.QueryString(t, to, "SELECT count(*) FROM pg_largeobject_metadata"); got != tc.left {
				t.Errorf("got %s large objects, want %s", got, tc.left)
			}
		})
	}
}

// Where --salvage makes no sense it is refused, and says what to do.
func TestSalvageIsRefused(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := smallDatabase(t, c)
	for _, mode := range dumpModes {
		store := captured(t, c, db, "--mode", mode)
		dbbackup(t, c.Env(), restoring(store, db, "--target-db", c.FreeName(t), "--salvage")...).
			want(t, exitUsage, "captured in "+mode+" mode", "docs/runbook-lost-table.md")
	}
	store := captured(t, c, db, "--mode", "chunked")
	for _, other := range []string{"--schema-only", "--clean"} {
		dbbackup(t, c.Env(), restoring(store, db, "--salvage", other)...).want(t, exitUsage, "--salvage")
	}
}

// A whole cluster is salvaged as far as it goes: of each database what is sound, and
// what is gone is named, by database; without --salvage, nothing is written.
func TestSalvageOfACluster(t *testing.T) {
	t.Parallel()
	c := shared.Start(t)
	for _, db := range []string{"dumped", "part", "sound", "unknown"} {
		c.CreateDatabase(t, db)
		c.Exec(t, db, "CREATE TABLE t AS SELECT g AS id, md5(g::text) AS word FROM generate_series(1, 3000) g; CREATE TABLE other AS TABLE t")
	}
	file := configFile(t, "databases: {dumped: {mode: custom}, sound: {mode: custom}}\n")
	store := newStore(t)
	dbbackup(t, c.Env(), "backup", "cluster", "--config", file, "--store", store, "--chunked-over", "1", "--chunk-size", "64kB").must(t, exitOK)
	id := onlySet(t, store)
	set := filepath.Join(store, id)
	rows, object := int64(0), chunkOf(t, set, "part", "t")
	for _, table := range readContents(t, filepath.Join(set, "databases/part.chunks", backupset.ContentsName)).Tables {
		for _, k := range table.Chunks {
			if k.Object == object {
				rows += k.Rows
			}
		}
	}
	for _, object := range []string{object, "globals.sql", "databases/part.properties.json", "databases/part.create.sql", "databases/dumped.dump"} {
		flipByte(t, filepath.Join(set, object))
	}
	if err := os.Remove(filepath.Join(set, "databases/unknown.chunks", backupset.ContentsName)); err != nil {
		t.Fatal(err)
	}
	for _, db := range []string{"dumped", "part", "sound", "unknown"} {
		c.DropDatabase(t, db)
	}
	dbbackup(t, c.Env(), "restore", "cluster", "--store", store).want(t, exitNotFound, "which is damaged", "--set SET --salvage")
	dbbackup(t, c.Env(), "restore", "cluster", "--store", store, "--set", id).want(t, exitIntegrity, "nothing was written", "hint: restore another set; where there is none, --salvage")

	got := dbbackup(t, c.Env(), "restore", "cluster", "--store", store, "--set", id, "--salvage", "--json")
	got.want(t, exitOmissions, "lost: all of database dumped: ", "with pg_restore: docs/runbook-lost-table.md",
		"lost: all of database unknown: ", `docs/runbook-lost-table.md, "contents.json is damaged"`,
		"will be missing: roles and tablespaces", "globals.sql", "privileges, settings and comment of database part itself",
		fmt.Sprintf("lost: database part: %d rows of table public.t", rows))
	var result salvaged
	got.decode(t, &result)
	ended := map[string]string{}
	for _, d := range result.Databases {
		ended[d.Name] = d.Result
	}
	want := map[string]string{"dumped": "lost", "part": "incomplete", "postgres": "ok", "sound": "ok", "template1": "ok", "unknown": "lost"}
	if result.Result != "omissions" || !maps.Equal(ended, want) {
		t.Errorf("result: got %s, %v, want omissions, %v", result.Result, ended, want)
	}
	wantTables(t, c, "part", "other 3000", fmt.Sprintf("t %d", 3000-rows))
	wantTables(t, c, "sound", "other 3000", "t 3000")
	for _, db := range []string{"dumped", "unknown"} {
		if hasDatabase(t, c, db) || unfinished(t, c, db) != "" {
			t.Errorf("database %s is there, and nothing of it could be restored", db)
		}
	}
	c.Exec(t, "postgres", "CREATE ROLE anybody")
	const may = "SELECT has_database_privilege('anybody', 'part', 'CONNECT'), has_database_privilege('anybody', 'sound', 'CONNECT')"
	if got := strings.Join(c.Query(t, "postgres", may)[0], " "); got != "f t" {
		t.Errorf("who may connect: got %s, want f t: the privileges of part are lost", got)
	}
	dbbackup(t, c.Env(), restoring(store, "unknown", "--set", id, "--salvage")...).
		want(t, exitIntegrity, backupset.ContentsName, `hint: restore another set, a newer incremental one among them`)
}

// Rows whose definitions are damaged can be loaded into tables that somebody else
// made: nothing that was asked for is lost.
func TestSalvageOfRowsWithoutDefinitions(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, into := smallDatabase(t, c), c.FreeName(t)
	c.Exec(t, db, `CREATE SEQUENCE s; SELECT setval('s', 42); SELECT lo_from_bytea(0, 'large')`)
	store := captured(t, c, db, "--mode", "chunked")
	set := onlySet(t, store)
	run := func(args ...string) result {
		return dbbackup(t, c.Env(), restoring(store, db, append(args, "--set", set)...)...)
	}
	run("--target-db", into, "--schema-only").must(t, exitOK)
	c.Exec(t, "postgres", "ALTER DATABASE "+into+" SET default_transaction_read_only = on") // for everybody else
	flipByte(t, filepath.Join(store, set, "databases", db+".chunks", backupset.SchemaName))
	run("--target-db", c.FreeName(t), "--salvage").want(t, exitIntegrity, backupset.SchemaName, "hint: make the definitions from another set", "--data-only --salvage")
	run("--target-db", into, "--data-only").want(t, exitIntegrity, backupset.SchemaName)
	run("--target-db", into, "--data-only", "--salvage", "--table", "branches").want(t, exitOK, "--data-only does not need them")
	wantTables(t, c, into, "accounts 0", "branches 200")
	c.Exec(t, into, "TRUNCATE branches")
	run("--target-db", into, "--data-only", "--salvage").want(t, exitOK)
	wantTables(t, c, into, "accounts 300", "branches 200")
	if got := c.QueryString(t, into, "SELECT (SELECT count(*) FROM pg_largeobject_metadata) || ' ' || last_value FROM s"); got != "1 42" {
		t.Errorf("large objects and the sequence: got %s, want 1 42", got)
	}
}

// A damaged chunk is found while the others are loaded. What was loaded is kept, and
// the error says where, and how to go on: with the object put back, from another
// store, or without what is damaged. No row is loaded twice.
func TestDamageFoundWhileLoadingIsGoneOnWith(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db := family(t, c)
	store, other := captured(t, c, db, "--mode", "chunked", "--chunk-size", "64kB"), newStore(t)
	id := onlySet(t, store)
	dbbackup(t, nil, "copy", id, "--from", store, "--to", other).must(t, exitOK)
	last := backupset.Chunk{}
	for _, table := range readContents(t, filepath.Join(store, id, "databases", db+".chunks", backupset.ContentsName)).Tables {
		for _, k := range table.Chunks {
			if last.Object == "" || k.RawBytes < last.RawBytes { // the largest are loaded first
				last = k
			}
		}
	}
	object := filepath.Join(store, id, last.Object)
	content := readFile(t, object)
	content[last.Offset+last.Bytes/2] ^= 1
	writeFile(t, object, content, 0o600)

	names := map[string]string{}
	for _, way := range []string{"put back", "other store", "salvage"} {
		to := c.FreeName(t)
		names[way] = to
		got := dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--jobs", "1")...)
		left := unfinished(t, c, to)
		got.want(t, exitIntegrity, last.Object, "kept as database "+left, "DROP DATABASE "+left, "another store that has the set", "--salvage")
		if left == "" || hasDatabase(t, c, to) || loaded(t, c, to) == 0 {
			t.Fatalf("%s: %d chunks are loaded into %q", way, loaded(t, c, to), left)
		}
	}
	goOn := func(code int, way, store string, args ...string) {
		t.Helper()
		got := dbbackup(t, c.Env(), restoring(store, db, append(args, "--target-db", names[way], "--jobs", "1")...)...)
		got.want(t, code, "going on with an interrupted restore")
		wantQuiet(t, c, names[way])
	}
	goOn(exitOmissions, "salvage", store, "--salvage")
	goOn(exitOK, "other store", other)
	if err := os.Remove(object); err != nil { // copy looks at what is missing, and at sizes
		t.Fatal(err)
	}
	dbbackup(t, nil, "copy", id, "--from", other, "--to", store).must(t, exitOK)
	goOn(exitOK, "put back", store)
	const sums = "SELECT (SELECT count(*) || md5(string_agg(t::text, ',' ORDER BY id)) FROM child t) || (SELECT count(*) || md5(string_agg(t::text, ',' ORDER BY id)) FROM parent t)"
	want := c.QueryString(t, db, sums)
	for _, way := range []string{"put back", "other store"} {
		if c.QueryString(t, names[way], sums) != want {
			t.Errorf("%s: the rows are others than those of the source", way)
		}
	}
	const rows = "SELECT (SELECT count(*) FROM child) + (SELECT count(*) FROM parent)"
	if got, want := c.QueryString(t, names["salvage"], rows), strconv.FormatInt(8000-last.Rows, 10); got != want {
		t.Errorf("salvage: got %s rows, want %s", got, want)
	}
}
