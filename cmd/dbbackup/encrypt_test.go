package main

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dbbackup/internal/pgtest"
	"dbbackup/internal/pgtest/zoo"
)

// newKeys makes a folder of keys as a user does.
func newKeys(t testing.TB) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), "keys")
	inProcess(t, nil, "key", "new", folder).must(t, exitOK)
	return folder
}

// hands splits a folder of keys between the host that writes and the one that reads.
func hands(t testing.TB, folder string) (writer, reader []string) {
	t.Helper()
	return []string{"--encrypt", "--recipients-file", filepath.Join(folder, recipientsFile), "--sign-with", filepath.Join(folder, signingFile)},
		[]string{"--identity", filepath.Join(folder, identityFile), "--trust", filepath.Join(folder, trustedFile)}
}

func with(args []string, more ...[]string) []string {
	all := append([]string{}, args...)
	for _, m := range more {
		all = append(all, m...)
	}
	return all
}

// secretTable is a name that must not be found in the bytes of a store.
const secretTable = "payroll_of_everybody"

// secrets makes a database whose tables, schemas and omissions are named as
// nobody should see.
func secrets(t testing.TB, c *pgtest.Cluster) string {
	t.Helper()
	db := c.Database(t)
	c.Exec(t, db, `CREATE SCHEMA hush_schema; CREATE TABLE hush_schema.`+secretTable+`(id int PRIMARY KEY, salary text);
		INSERT INTO hush_schema.`+secretTable+` SELECT g, 'salary of ' || md5(g::text) FROM generate_series(1, 20000) g;
		CREATE TABLE `+secretTable+`_small AS SELECT 1 AS a; SELECT lo_from_bytea(0, 'salary blob')`)
	return db
}

// wantNothingInPlain looks for what must not be seen in every byte of a store.
func wantNothingInPlain(t testing.TB, store string, also ...string) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(store, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		files++
		text := readFile(t, path)
		for _, secret := range append([]string{secretTable, "hush_schema", "salary"}, also...) {
			if bytes.Contains(text, []byte(secret)) || strings.Contains(path, secret) {
				t.Errorf("%s shows %q", path, secret)
			}
		}
		return nil
	})
	if err != nil || files < 8 {
		t.Errorf("%d files were looked at, %v", files, err)
	}
}

// An encrypted set comes back equal in every mode that there is for it, and
// nothing in the store says what it holds.
func TestEncryptedSetReturnsEqual(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, keys := secrets(t, c), newKeys(t)
	writer, reader := hands(t, keys)
	eachOf(t, []string{"custom", "plain", "chunked", "auto"}, func(t *testing.T, mode string) {
		store := newStore(t)
		dbbackup(t, c.Env(), with([]string{"backup", "single", db, "--store", store, "--mode", mode, "--chunk-size", "64kB"}, writer)...).must(t, exitOK)
		wantNothingInPlain(t, store)
		inProcess(t, nil, with([]string{"verify", "--store", store}, reader)...).want(t, exitOK)
		if got := inProcess(t, nil, "verify", "--store", store).must(t, exitOK); !strings.Contains(got.stdout, "without its key") {
			t.Errorf("verify without a key says %s", got.stdout)
		}
		var shown struct {
			Databases []struct{ Owner string }
			Locked    bool
		}
		inProcess(t, nil, with([]string{"show", "--json", "--store", store}, reader)...).must(t, exitOK).decode(t, &shown)
		if shown.Locked || shown.Databases[0].Owner == "" {
			t.Errorf("show says %+v", shown)
		}
		if got := inProcess(t, nil, "show", "--store", store).must(t, exitOK).stdout; !strings.Contains(got, "locked") || strings.Contains(got, "owner") {
			t.Errorf("show without a key says %s", got)
		}
		if got := inProcess(t, nil, "list", "--store", store).must(t, exitOK).stdout; !strings.Contains(got, "ok; encrypted") {
			t.Errorf("list says %s", got)
		}
		to := c.FreeName(t)
		dbbackup(t, c.Env(), restoring(store, db, with(reader, []string{"--target-db", to})...)...).must(t, exitOK)
		zoo.Compare(t, c, db, c, to)
	})
}

// T47: a wrong or missing key opens nothing, and leaves nothing.
func TestT47WrongOrMissingKey(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, to := secrets(t, c), newStore(t), c.FreeName(t)
	writer, _ := hands(t, newKeys(t))
	dbbackup(t, c.Env(), with([]string{"backup", "single", db, "--store", store}, writer)...).must(t, exitOK)
	temporary := t.TempDir()
	env := append(c.Env(), "TMPDIR="+temporary)
	_, others := hands(t, newKeys(t))
	for name, args := range map[string][]string{"missing": nil, "wrong": others[:2]} {
		for _, command := range [][]string{
			restoring(store, db, with(args, []string{"--target-db", to})...), restoring(store, db, with(args, []string{"--dry-run"})...),
			with([]string{"verify", "--drill", "--store", store}, args),
		} {
			dbbackup(t, env, command...).want(t, exitWrongKey, "hint: ")
			if left := filesOf(t, temporary); len(left) != 0 {
				t.Errorf("%s key, %q: left %v", name, command, left)
			}
		}
	}
	inProcess(t, nil, with([]string{"show", "--store", store}, others[:2])...).want(t, exitWrongKey)
	inProcess(t, nil, with([]string{"show", onlySet(t, store), "--store", store}, others)...).want(t, exitIntegrity) // signed by somebody else
	for _, name := range databasesOf(t, c) {
		if name == to {
			t.Error("a database was made")
		}
	}
}

// T48: after a rotation the old key opens nothing any more, and the new one all.
func TestT48KeyRotation(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, to := secrets(t, c), newStore(t), c.FreeName(t)
	old, fresh := newKeys(t), newKeys(t)
	oldWriter, oldReader := hands(t, old)
	_, freshReader := hands(t, fresh)
	dbbackup(t, c.Env(), with([]string{"backup", "single", db, "--store", store}, oldWriter)...).must(t, exitOK)
	id, copied := onlySet(t, store), newStore(t)
	inProcess(t, nil, "copy", "--from", store, "--to", copied).must(t, exitOK)
	inProcess(t, nil, with([]string{"key", "rotate", "--store", store, "--recipients-file", filepath.Join(fresh, recipientsFile)}, freshReader[:2])...).want(t, exitWrongKey)
	inProcess(t, nil, with([]string{"key", "rotate", "--store", store}, oldReader)...).want(t, exitUsage)
	var rotated rotatedJSON
	inProcess(t, nil, with([]string{"key", "rotate", "--json", "--store", store, "--recipients-file", filepath.Join(fresh, recipientsFile)}, oldReader)...).must(t, exitOK).decode(t, &rotated)
	if len(rotated.Rotated) != 1 || rotated.Rotated[0] != id {
		t.Errorf("rotated %+v", rotated)
	}
	inProcess(t, nil, with([]string{"show", "--store", store}, oldReader)...).want(t, exitWrongKey)
	// The signer has not changed.
	reader := []string{freshReader[0], freshReader[1], oldReader[2], oldReader[3]}
	inProcess(t, nil, with([]string{"verify", "--store", store}, reader)...).want(t, exitOK)
	dbbackup(t, c.Env(), restoring(store, db, with(reader, []string{"--target-db", to})...)...).must(t, exitOK)
	zoo.Compare(t, c, db, c, to)
	listed := inProcess(t, nil, "key", "list", "--json", "--store", store).must(t, exitOK)
	var key listedKey
	listed.decode(t, &key)
	if recipient := strings.TrimSpace(string(readFile(t, filepath.Join(fresh, recipientsFile)))); key.Set != id || key.Rotations != 1 || key.Recipients[0].Key != recipient {
		t.Errorf("key list says %+v", key)
	}
	// A copy from before follows, and says so.
	if got := dbbackup(t, nil, "copy", "--from", store, "--to", copied).must(t, exitOK).stdout; !strings.Contains(got, "rotated "+id) {
		t.Errorf("copy printed %s", got)
	}
	dbbackup(t, nil, with([]string{"show", "--store", copied}, oldReader)...).want(t, exitWrongKey)
	dbbackup(t, nil, with([]string{"verify", "--store", copied}, reader)...).want(t, exitOK)
	// New sets are not for the old key either.
	freshWriter, _ := hands(t, fresh)
	dbbackup(t, c.Env(), with([]string{"backup", "single", db, "--store", store}, freshWriter)...).must(t, exitOK)
	inProcess(t, nil, with([]string{"show", "--store", store}, oldReader[:2])...).want(t, exitWrongKey)
	inProcess(t, nil, with([]string{"show", "--store", store}, freshReader)...).want(t, exitOK)
}

// T37, T42, T100: what somebody did to the files of a set, exit code 13.
func TestTamperedEncryptedSets(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, original := secrets(t, c), newStore(t)
	writer, reader := hands(t, newKeys(t))
	for range 2 {
		dbbackup(t, c.Env(), with([]string{"backup", "single", db, "--store", original, "--mode", "custom"}, writer)...).must(t, exitOK)
	}
	sets := listing(t, original)
	older, newest := sets[0].ID, sets[1].ID
	dump := func(store string) string {
		found, err := filepath.Glob(filepath.Join(store, newest, "databases", "*.dump.age"))
		if err != nil || len(found) != 1 {
			t.Fatalf("dumps: %v, %v", found, err)
		}
		return found[0]
	}
	place := func(store, name string) {
		writeFile(t, filepath.Join(store, newest, name), readFile(t, filepath.Join(store, older, name)), 0o600)
	}
	for name, tamper := range map[string]func(store string){
		"T37 cut at a frame": func(store string) {
			whole := readFile(t, dump(store))
			frames := (len(whole) - 184) / (64<<10 + 16)
			writeFile(t, dump(store), whole[:184+frames*(64<<10+16)], 0o600)
		},
		"T37 tail removed": func(store string) {
			whole := readFile(t, dump(store))
			writeFile(t, dump(store), whole[:len(whole)-100], 0o600)
		},
		"T37 appended": func(store string) { writeFile(t, dump(store), append(readFile(t, dump(store)), "more"...), 0o600) },
		"T42 manifest of an older set": func(store string) {
			for _, name := range []string{"manifest.json", "SHA256SUMS", "manifest.json.sig", "manifest.json.mac"} {
				place(store, name)
			}
		},
		"T42 inner manifest of an older set": func(store string) { place(store, "manifest.json.age") },
		"key of an older set": func(store string) {
			place(store, "keys/000001.age")
			place(store, "keys/000001.json")
		},
		"T100 edited": func(store string) {
			folder := filepath.Join(store, newest)
			text := bytes.Replace(readFile(t, filepath.Join(folder, "manifest.json")), []byte(`"kind": "single"`), []byte(`"kind":  "single"`), 1)
			writeFile(t, filepath.Join(folder, "manifest.json"), text, 0o600)
			sum := exec.Command("sh", "-c", `sum=$(sha256sum manifest.json) && sed -i "1s/.*/$sum/" SHA256SUMS && sha256sum -c --quiet SHA256SUMS`)
			sum.Dir = folder
			if out, err := sum.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		},
		"replaced by a plain set": func(store string) {
			if err := os.RemoveAll(filepath.Join(store, newest)); err != nil {
				t.Fatal(err)
			}
			dbbackup(t, c.Env(), "backup", "single", db, "--store", store, "--mode", "custom").must(t, exitOK)
			all := listing(t, store)
			if err := os.Rename(filepath.Join(store, all[len(all)-1].ID), filepath.Join(store, newest)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newStore(t)
			if err := os.CopyFS(store, os.DirFS(original)); err != nil {
				t.Fatal(err)
			}
			tamper(store)
			inProcess(t, nil, with([]string{"verify", newest, "--store", store}, reader)...).want(t, exitIntegrity)
			if strings.HasPrefix(name, "T100") { // also for who does not know the signer, and for who has no key
				inProcess(t, nil, with([]string{"show", newest, "--store", store}, reader[:2])...).want(t, exitIntegrity)
				inProcess(t, nil, with([]string{"show", newest, "--store", store}, reader[2:])...).want(t, exitIntegrity)
			}
			to := c.FreeName(t)
			restore := dbbackup(t, c.Env(), restoring(store, db, with(reader, []string{"--target-db", to, "--set", newest})...)...)
			restore.want(t, exitIntegrity, newest, "hint: ")
			if strings.HasPrefix(name, "T37") {
				restore.want(t, exitIntegrity, "databases/"+db+".dump")
			}
			for _, left := range databasesOf(t, c) {
				if strings.Contains(left, to) {
					t.Errorf("the database %s is left", left)
				}
			}
			for _, set := range listing(t, store) {
				if set.ID == newest && strings.HasPrefix(name, "T37") && set.Status == "complete" {
					t.Errorf("list shows %s as %s", set.ID, set.Status)
				}
			}
		})
	}
}

func TestEncryptedWithAPassphrase(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, to := secrets(t, c), newStore(t), c.FreeName(t)
	file := filepath.Join(t.TempDir(), "passphrase")
	writeFile(t, file, []byte("correct horse\n"), 0o644)
	args := []string{"backup", "single", db, "--store", store, "--encrypt"}
	dbbackup(t, c.Env(), args...).want(t, exitUsage, "for whom")
	dbbackup(t, c.Env(), with(args, []string{"--passphrase-file", file})...).want(t, exitPrecondition, "chmod 600")
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	// A program that a run starts does not see the passphrase (S1).
	hook := filepath.Join(t.TempDir(), "hook")
	writeFile(t, hook, []byte("#!/bin/sh\nif env | grep -q horse; then echo it is here; exit 1; fi\n"), 0o700)
	got := dbbackup(t, append(c.Env(), "DBBACKUP_PASSPHRASE=correct horse"), with(args, []string{"--before-hook", hook})...).must(t, exitOK)
	if strings.Contains(got.stdout+got.stderr, "horse") {
		t.Error("the passphrase was printed")
	}
	wantNothingInPlain(t, store, "correct horse")
	dbbackup(t, append(c.Env(), "DBBACKUP_PASSPHRASE=battery staple"), restoring(store, db, "--target-db", to)...).want(t, exitWrongKey, "passphrase is wrong")
	dbbackup(t, c.Env(), restoring(store, db, "--target-db", to, "--passphrase-file", file)...).must(t, exitOK)
	zoo.Compare(t, c, db, c, to)
}

// Keys that do not open the newest sets are not tried on all of them: a store has
// hundreds, and each takes a second where it is a passphrase.
func TestIncrementalWithTheWrongKey(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, keys, others, store := secrets(t, c), newKeys(t), newKeys(t), newStore(t)
	args := []string{"backup", "single", db, "--mode", "chunked", "--encrypt", "--incremental", "--store", store, "--keys"}
	for range 4 {
		dbbackup(t, c.Env(), with(args, []string{keys})...).must(t, exitOK)
	}
	unsigned := []string{"--identity", filepath.Join(others, identityFile), "--recipients-file", filepath.Join(others, recipientsFile)}
	r := dbbackup(t, c.Env(), with(args[:len(args)-1], unsigned)...)
	r.want(t, exitOK, "there is no set to start from")
	if n := strings.Count(r.stderr, "a set cannot be started from"); n != 3 {
		t.Errorf("tried on %d sets, want 3", n)
	}
}

// Every store gets the same encrypted set, a copy needs no key, and a rotation
// reaches them all.
func TestEncryptedInSeveralStores(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, keys, fresh := secrets(t, c), newKeys(t), newKeys(t)
	first, second, third := newStore(t), newStore(t), newStore(t)
	both := []string{"--store", first, "--store", second}
	dbbackup(t, c.Env(), with([]string{"backup", "single", db, "--mode", "chunked", "--encrypt", "--keys", keys}, both)...).must(t, exitOK)
	inProcess(t, nil, "copy", "--from", second, "--to", third).must(t, exitOK)
	for _, store := range []string{first, second, third} {
		wantNothingInPlain(t, store)
		inProcess(t, nil, "verify", "--store", store, "--keys", keys).want(t, exitOK)
	}
	inProcess(t, nil, with([]string{"key", "rotate", "--keys", keys, "--recipients-file", filepath.Join(fresh, recipientsFile)}, both)...).must(t, exitOK)
	for _, store := range []string{first, second} {
		inProcess(t, nil, "show", "--store", store, "--keys", keys).want(t, exitWrongKey)
		inProcess(t, nil, "verify", "--store", store, "--identity", filepath.Join(fresh, identityFile), "--trust", filepath.Join(keys, trustedFile)).want(t, exitOK)
	}
	inProcess(t, nil, "show", "--store", third, "--keys", keys).want(t, exitOK) // which nobody has rotated
}

// An incremental set is read with its own key alone, and no base is taken that
// is not encrypted, or not to be trusted.
func TestEncryptedIncremental(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, to := family(t, c), newStore(t), c.FreeName(t)
	keys := newKeys(t)
	writer, reader := hands(t, keys)
	dbbackup(t, c.Env(), chunking(store, db)...).must(t, exitOK)
	dbbackup(t, c.Env(), chunking(store, db, with(writer, []string{"--incremental"})...)...).want(t, exitPrecondition, "--identity")
	all := with(writer, reader)
	dbbackup(t, c.Env(), chunking(store, db, with(all, []string{"--incremental"})...)...).must(t, exitOK)
	show := func(id string) (n int64) {
		var m struct {
			Databases []struct{ Chunks struct{ Reused int64 } }
		}
		inProcess(t, nil, with([]string{"show", id, "--json", "--store", store}, reader)...).must(t, exitOK).decode(t, &m)
		return m.Databases[0].Chunks.Reused
	}
	if n := show("latest"); n != 0 {
		t.Errorf("%d chunks were taken from a set that is not encrypted", n)
	}
	changeFamily(t, c, db)
	dbbackup(t, c.Env(), chunking(store, db, "--encrypt", "--incremental", "--keys", keys)...).must(t, exitOK)
	if n := show("latest"); n == 0 {
		t.Error("nothing was taken from the encrypted set")
	}
	wantNothingInPlain(t, filepath.Join(store, listing(t, store)[2].ID), "child", "parent")

	// Somebody who knows the recipient made the newest set. It is not started from,
	// neither by who knows a signer nor by who signs.
	changeFamily(t, c, db)
	dbbackup(t, c.Env(), chunking(store, db, writer[:3]...)...).must(t, exitOK)
	foreign := listing(t, store)[3].ID
	for _, hand := range [][]string{with(writer, reader[:2]), with(writer, reader)} {
		dbbackup(t, c.Env(), chunking(store, db, with(hand, []string{"--incremental"})...)...).must(t, exitOK)
		var m struct{ References []struct{ Set string } }
		newest := listing(t, store)
		inProcess(t, nil, with([]string{"show", newest[len(newest)-1].ID, "--json", "--store", store}, reader)...).must(t, exitOK).decode(t, &m)
		if len(m.References) == 0 {
			t.Error("nothing was taken from any set")
		}
		for _, r := range m.References {
			if r.Set == foreign {
				t.Fatalf("what is in %s was taken, which nobody signed", foreign)
			}
		}
	}
	inProcess(t, nil, with([]string{"verify", "--store", store}, reader)...).want(t, exitOK)
	dbbackup(t, c.Env(), restoring(store, db, with(reader, []string{"--target-db", to})...)...).must(t, exitOK)
	zoo.Compare(t, c, db, c, to)

	t.Run("by hand", func(t *testing.T) { decryptByHand(t, c, store, db, keys) })

	// A plain run starts from the plain set, though there are newer ones.
	plain := newStore(t)
	if err := os.CopyFS(plain, os.DirFS(store)); err != nil {
		t.Fatal(err)
	}
	dbbackup(t, c.Env(), chunking(plain, db, "--incremental")...).must(t, exitOK)
	left := listing(t, plain)
	if got := chunksOf(t, plain, left[len(left)-1].ID); got.Reused == 0 {
		t.Error("nothing was taken from the plain set")
	}
}

// What a new run cannot read of an interrupted one it leaves alone, unless it has the
// whole of the same database.
func TestEncryptedInterruptedRunIsSuperseded(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store := family(t, c), newStore(t)
	writer, _ := hands(t, newKeys(t))
	r := start(t, c.Env(), chunking(store, db, with(writer, slow)...)...)
	eventually(t, "some chunks are finished", func() bool { return len(sealedJournals(t, store)) >= 8 })
	r.kill(t)
	id := wantUnfinished(t, store)
	dbbackup(t, c.Env(), "backup", "single", "postgres", "--store", store, "--mode", "chunked").must(t, exitOK)
	dbbackup(t, c.Env(), "backup", "single", db, "--store", store, "--mode", "chunked", "--table", "parent").must(t, exitOK)
	if got := listing(t, store); len(got) != 3 || !hasUnfinished(got, id) {
		t.Fatalf("after runs of something else: got %+v, want the interrupted one to be there", got)
	}
	dbbackup(t, c.Env(), "backup", "single", db, "--store", store, "--mode", "chunked").want(t, exitOK, "removed an unfinished set", id)
	wantSound(t, store, 3)
}

// decryptByHand restores the latest set with age, openssl, and what restores a
// plain set by hand, as docs/encryption.md says.
func decryptByHand(t *testing.T, c *pgtest.Cluster, store, db, keys string) {
	t.Helper()
	for _, program := range []string{"age", "openssl", "jq", "zstd"} {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("CI") != "" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	all := listing(t, store)
	id := all[len(all)-1].ID
	scripts, err := filepath.Abs("../../scripts")
	if err != nil {
		t.Fatal(err)
	}
	to := c.Database(t)
	for _, script := range []string{
		`openssl pkeyutl -verify -rawin -pubin -inkey "$KEYS/trusted.pem" -sigfile "$STORE/$ID/manifest.json.sig" -in "$STORE/$ID/manifest.json"`,
		`cd "$STORE/$ID" && sha256sum -c --quiet SHA256SUMS`,
		`age -d -i "$KEYS/identity.txt" "$STORE/$ID/keys/000001.age" > set.key
		 age -d -i set.key "$STORE/$ID/manifest.json.age" | jq -e '.format == 2 and (.databases | length) == 1'
		 age -d -i set.key "$STORE/$ID/globals.sql.age" | grep -q 'CREATE ROLE'`,
		`key=$(openssl kdf -keylen 32 -kdfopt digest:SHA256 -kdfopt key:"$(grep -v '^#' set.key)" -kdfopt info:'dbbackup manifest' HKDF | tr -d :)
		 openssl dgst -sha256 -mac HMAC -macopt hexkey:"$key" "$STORE/$ID/manifest.json" | grep -qF "$(cat "$STORE/$ID/manifest.json.mac")"`,
		`"$SCRIPTS/decrypt-set.sh" "$STORE/$ID" out "$KEYS/identity.txt"`,
		`"$SCRIPTS/restore-chunked.sh" "out/$ID" "$DB" "$TO"`,
	} {
		cmd := exec.Command("bash", "-euo", "pipefail", "-c", script) //nolint:gosec // the scripts stand above
		cmd.Dir = filepath.Join(filepath.Dir(keys), "work")
		if err := os.MkdirAll(cmd.Dir, 0o700); err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(c.Env(), "PATH="+c.BinDir+":"+os.Getenv("PATH"), "KEYS="+keys, "STORE="+store, "ID="+id, "SCRIPTS="+scripts, "DB="+db, "TO="+to)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
	}
	zoo.Compare(t, c, db, c, to)
	// The decrypted set is a plain one.
	inProcess(t, nil, "verify", id, "--store", filepath.Join(filepath.Dir(keys), "work", "out")).want(t, exitOK)
}

// A run that was killed leaves nothing in plain, and is gone on with by who can
// read it.
func TestEncryptedResume(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, to := family(t, c), newStore(t), c.FreeName(t)
	keys := newKeys(t)
	writer, reader := hands(t, keys)
	args := chunking(store, db, with(writer, slow)...)
	r := start(t, c.Env(), args...)
	eventually(t, "some chunks are finished", func() bool { return len(sealedJournals(t, store)) >= 8 })
	r.kill(t)
	id := wantUnfinished(t, store)
	wantNothingInPlain(t, store, "child", "parent")
	changeFamily(t, c, db)
	dbbackup(t, c.Env(), "resume", "--store", store).want(t, exitPrecondition, "--identity")
	dbbackup(t, c.Env(), with([]string{"resume", "--store", store}, reader)...).want(t, exitPrecondition, "--sign-with")
	dbbackup(t, c.Env(), "resume", "--store", store, "--keys", newKeys(t)).want(t, exitWrongKey)
	dbbackup(t, c.Env(), "resume", "--store", store, "--keys", keys).must(t, exitOK)
	if got := onlySet(t, store); got != id {
		t.Errorf("the resumed run made %s, want %s", got, id)
	}
	var m struct {
		Databases []struct{ Chunks struct{ Reused int64 } }
	}
	inProcess(t, nil, with([]string{"show", "--json", "--store", store}, reader)...).must(t, exitOK).decode(t, &m)
	if m.Databases[0].Chunks.Reused == 0 {
		t.Error("nothing was taken over")
	}
	wantNoScratch(t, store)
	inProcess(t, nil, with([]string{"verify", "--store", store}, reader)...).want(t, exitOK)
	dbbackup(t, c.Env(), restoring(store, db, with(reader, []string{"--target-db", to})...)...).must(t, exitOK)
	zoo.Compare(t, c, db, c, to)
}

func sealedJournals(t testing.TB, store string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(store, "*", "databases", "*.chunks", "journal", "*.json.age"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// Where a signer is trusted, prune counts on nothing else, and reads what it
// relies on.
func TestPruneOfEncryptedSets(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store := secrets(t, c), newStore(t)
	writer, reader := hands(t, newKeys(t))
	var ids []string
	for range 4 {
		dbbackup(t, c.Env(), with([]string{"backup", "single", db, "--store", store, "--mode", "custom"}, writer)...).must(t, exitOK)
		all := listing(t, store)
		ids = append(ids, all[len(all)-1].ID)
	}
	_, others := hands(t, newKeys(t))
	dbbackup(t, nil, with([]string{"prune", "--keep-last", "3", "--store", store}, others[:2])...).want(t, exitOK, "reading a set before older ones go")
	if all := listing(t, store); len(all) != 3 || all[0].ID != ids[1] {
		t.Errorf("left: %+v", all)
	}
	if err := os.RemoveAll(filepath.Join(store, "verified")); err != nil {
		t.Fatal(err)
	}
	ids = ids[1:]
	dbbackup(t, nil, "prune", "--keep-last", "2", "--store", store).want(t, exitOK) // without any key
	if all := listing(t, store); len(all) != 2 || all[0].ID != ids[1] {
		t.Errorf("left: %+v", all)
	}
	// A set of somebody else, the newest of all.
	dbbackup(t, c.Env(), "backup", "single", db, "--store", store, "--mode", "custom").must(t, exitOK)
	dbbackup(t, nil, with([]string{"prune", "--keep-last", "1", "--store", store}, reader)...).want(t, exitOK)
	all := listing(t, store)
	if len(all) != 2 || all[0].ID != ids[2] {
		t.Errorf("left: %+v", all)
	}
	wantNothingInPlain(t, filepath.Join(store, ids[2]))
	wantNothingInPlainRecords(t, store)
}

func wantNothingInPlainRecords(t testing.TB, store string) {
	t.Helper()
	for _, name := range filesOf(t, store) {
		if !strings.HasPrefix(name, "verified/") && !strings.HasPrefix(name, "drills/") || !strings.HasSuffix(name, ".json") {
			continue
		}
		if text := readFile(t, filepath.Join(store, name)); bytes.Contains(text, []byte(secretTable)) {
			t.Errorf("%s shows a table: %s", name, text)
		}
	}
}

// A drill of an encrypted set leaves a record without names.
func TestDrillOfAnEncryptedSet(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	db, store, keys := secrets(t, c), newStore(t), newKeys(t)
	dbbackup(t, c.Env(), "backup", "single", db, "--store", store, "--mode", "chunked", "--encrypt", "--keys", keys).must(t, exitOK)
	dbbackup(t, nil, "verify", "--drill", "--drill-target", c.URI("postgres"), "--store", store, "--keys", keys).must(t, exitOK)
	wantNothingInPlain(t, store)
	wantNothingInPlainRecords(t, store)
}

func TestKeyNew(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "keys")
	got := inProcess(t, nil, "key", "new", folder).must(t, exitOK)
	info, err := os.Stat(folder)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("folder: %v, %v", info, err)
	}
	for _, name := range []string{identityFile, recipientsFile, signingFile, trustedFile} {
		path := filepath.Join(folder, name)
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if strings.Contains(got.stdout+got.stderr, "AGE-SECRET-KEY") || !strings.Contains(got.stdout, strings.TrimSpace(string(readFile(t, filepath.Join(folder, recipientsFile))))) {
		t.Errorf("it says %s", got.stdout)
	}
	before := readFile(t, filepath.Join(folder, identityFile))
	inProcess(t, nil, "key", "new", folder).want(t, exitPrecondition, "never overwritten")
	if !bytes.Equal(before, readFile(t, filepath.Join(folder, identityFile))) {
		t.Error("the key was overwritten")
	}
	inProcess(t, nil, "key", "new", "--passphrase", filepath.Join(t.TempDir(), "k")).want(t, exitUsage)
	guarded := filepath.Join(t.TempDir(), "guarded")
	dbbackup(t, []string{"DBBACKUP_PASSPHRASE=correct horse"}, "key", "new", "--passphrase", guarded).must(t, exitOK)
	if text := readFile(t, filepath.Join(guarded, identityFile)); !bytes.HasPrefix(text, []byte("-----BEGIN AGE ENCRYPTED FILE-----")) {
		t.Errorf("the guarded identity is %s", text)
	}
	listed := inProcess(t, nil, "key", "list", "--keys", folder, "--store", t.TempDir()).must(t, exitOK)
	if strings.Contains(listed.stdout, "AGE-SECRET-KEY") || strings.Count(listed.stdout, "\n") != 4 {
		t.Errorf("key list says %s", listed.stdout)
	}
}

// A key that was given, and would not be used, is a mistake.
func TestKeysWithoutEncrypt(t *testing.T) {
	t.Parallel()
	c := shared.Cluster(t)
	store, keys := newStore(t), newKeys(t)
	dbbackup(t, c.Env(), "backup", "single", "postgres", "--store", store, "--keys", keys).want(t, exitUsage, "--encrypt")
	dbbackup(t, c.Env(), "backup", "single", "postgres", "--store", store, "--keys", keys, "--encrypt=false").must(t, exitOK)
	inProcess(t, nil, "show", "--store", store, "--identity", filepath.Join(keys, identityFile)).want(t, exitOK, "nothing proves who made it")
	dbbackup(t, c.Env(), "backup", "single", "postgres", "--store", store, "--encrypt", "--keys", keys, "--mode", "directory").want(t, exitUsage, "directory")
	dbbackup(t, c.Env(), "backup", "single", "postgres", "--store", store, "--encrypt", "--recipient", "AGE-SECRET-KEY-1X").want(t, exitUsage)
	_, err := os.Stat(filepath.Join(keys, "nothing"))
	if err == nil {
		t.Fatal("that file is there")
	}
	inProcess(t, nil, "list", "--store", store, "--trust", filepath.Join(keys, "nothing")).want(t, exitUsage)
	inProcess(t, nil, "list", "--store", store, "--keys", filepath.Join(keys, "nothing")).want(t, exitUsage)
	var m map[string]any
	if err := json.Unmarshal([]byte(inProcess(t, nil, "show", "--json", "--store", store).must(t, exitOK).stdout), &m); err != nil || m["sealed"] != nil {
		t.Errorf("the set that was left: %v, %v", m["sealed"], err)
	}
}
