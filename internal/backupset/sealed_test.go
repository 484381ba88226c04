package backupset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/report"
	"dbbackup/internal/seal"
	"dbbackup/internal/store"
	"dbbackup/internal/store/dir"
)

// hand is somebody's keys.
type hand struct {
	secret *seal.Secret
	signer *seal.Signer
}

func newHand(t *testing.T) hand {
	t.Helper()
	secret, err := seal.NewSecret(false)
	must(t, err)
	signer, err := seal.NewSigner()
	must(t, err)
	return hand{secret, signer}
}

func (h hand) ring(t *testing.T) *seal.Keyring {
	t.Helper()
	return ringOf(t, h)
}

// ringOf has the identities of several hands.
func ringOf(t *testing.T, hands ...hand) *seal.Keyring {
	t.Helper()
	var k seal.Keyring
	for _, h := range hands {
		must(t, k.AddIdentities("identity.txt", h.secret.IdentityFile()))
	}
	return &k
}

func (h hand) to(t *testing.T) *seal.Recipients {
	t.Helper()
	var r seal.Recipients
	must(t, r.Add(h.secret.Recipient()))
	return &r
}

// seals is how h writes: signed, and able to read what is there.
func (h hand) seals(t *testing.T) WriterOption {
	t.Helper()
	return WithSealing(Sealing{To: h.to(t), Signer: h.signer, Keys: Keys{Ring: h.ring(t)}})
}

func (h hand) unsigned(t *testing.T) WriterOption {
	t.Helper()
	return WithSealing(Sealing{To: h.to(t), Keys: Keys{Ring: h.ring(t)}})
}

// opens reads with the identity alone, trusts with the public key, too.
func (h hand) opens(t *testing.T) Option {
	t.Helper()
	return WithKeys(Keys{Ring: h.ring(t)})
}

func (h hand) trusts(t *testing.T) Option {
	t.Helper()
	return WithKeys(Keys{Ring: h.ring(t), Trusted: h.signer.Public()})
}

func TestSealedSet(t *testing.T) {
	h, st := newHand(t), newStore(t)
	must(t, writeSample(t.Context(), st, sampleID, h.seals(t)))
	set := mustOpen(t, st, sampleID, h.trusts(t))
	m := set.Manifest()
	if m.Format != 3 || m.Sealed == nil || len(m.Databases) != 3 || m.Databases[0].Owner != "postgres" || m.Globals == nil {
		t.Errorf("the manifest reads as %+v", m)
	}
	r, err := set.OpenObject(t.Context(), "globals.sql")
	must(t, err)
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "CREATE ROLE app;\n" {
		t.Errorf("globals.sql is %q, %v", got, err)
	}
	if p := set.CheckObjects(t.Context(), set.ObjectsOf("db10"), nil, nil); len(p) != 0 {
		t.Errorf("problems %+v", p)
	}
	if _, err := set.Path("globals.sql"); !errors.Is(err, ErrNotLocal) {
		t.Errorf("the path of an encrypted object: %v", err)
	}
}

// Without a key a set can be listed, checked and removed, and nothing of it read.
func TestLockedSet(t *testing.T) {
	h, st := newHand(t), newStore(t)
	must(t, writeSample(t.Context(), st, sampleID, h.seals(t)))
	entries, err := List(t.Context(), st)
	must(t, err)
	if len(entries) != 1 || entries[0].Status != StatusComplete || len(entries[0].Problems) != 0 || entries[0].Omissions != 1 || entries[0].Sealed == nil {
		t.Fatalf("entries %+v", entries)
	}
	set := mustOpen(t, st, sampleID)
	if m := set.Manifest(); !set.Locked() || m.Databases[0].DatabaseBytes != 7_500_000 || m.Databases[0].Owner != "" || m.Server.SystemIdentifier == "" {
		t.Errorf("the envelope reads as %+v", m)
	}
	if _, err := set.OpenObject(t.Context(), "globals.sql"); !fault.Is(err, fault.WrongKey) {
		t.Errorf("an object: %v", err)
	}
	if _, err := set.Contents(t.Context(), &set.Manifest().Databases[0]); !fault.Is(err, fault.WrongKey) {
		t.Errorf("contents: %v", err)
	}
	must(t, Remove(t.Context(), st, sampleID))
	if left, err := filepath.Glob(filepath.Join(st.String(), sampleID, "*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// T47: another key opens nothing.
func TestWrongKey(t *testing.T) {
	h, other, st := newHand(t), newHand(t), newStore(t)
	must(t, writeSample(t.Context(), st, sampleID, h.seals(t)))
	if _, err := Open(t.Context(), st, sampleID, other.opens(t)); !fault.Is(err, fault.WrongKey) {
		t.Errorf("another key: %v", err)
	}
	// Damage of the key is not a wrong key.
	path := filepath.Join(st.String(), sampleID, "keys/000001.age")
	whole, err := os.ReadFile(path)
	must(t, err)
	for at := 0; at < len(whole); at += 11 {
		broken := bytes.Clone(whole)
		broken[at] ^= 4
		must(t, os.WriteFile(path, broken, 0o600))
		if _, err := Open(t.Context(), st, sampleID, h.opens(t)); !fault.Is(err, fault.Integrity) {
			t.Fatalf("the key with byte %d changed: %v", at, err)
		}
	}
}

// Everything that a plain set reads in plain is nowhere in the store.
func TestNothingIsWrittenInPlain(t *testing.T) {
	h, st := newHand(t), newStore(t)
	w, err := Create(t.Context(), st, sampleID, h.seals(t))
	must(t, err)
	must(t, w.WriteScratch(t.Context(), RunName, []byte(`{"tables":["public.payroll"]}`)))
	must(t, w.WriteScratch(t.Context(), "databases/db1.chunks/journal/000001.json", []byte(`payroll`)))
	must(t, w.WriteFile(t.Context(), "databases/db1.dump", []byte("CREATE TABLE payroll")))
	must(t, w.Suspend())
	m := sampleManifest()
	m.Failures = []Failure{{Database: "db9", Error: "table payroll is broken"}}
	m.Omissions = []Omission{{Database: "db1", Object: "table payroll", Reason: "payroll"}}
	m.Databases[0].Selection = &Selection{Tables: []string{"payroll"}, Selected: []string{"public.payroll"}}
	m.Host, m.Server.Host, m.Server.User, m.Server.BootstrapRole = "payroll.example", "/run/payroll", "payroll", "payroll"
	m.Globals.Roles, m.Databases[0].Owner, m.Databases[0].Roles = []string{"payroll"}, "payroll", []string{"payroll"}
	m.Databases[0].Tablespace, m.Databases[0].Extensions = "payroll", []string{"payroll"}
	must(t, writeSampleManifest(t.Context(), st, "cluster-20260103T030405Z", m, h.seals(t)))
	files := 0
	must(t, filepath.WalkDir(st.String(), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		files++
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte("payroll")) || strings.Contains(path, "payroll") {
			t.Errorf("%s names the table", path)
		}
		return err
	}))
	if files < 20 {
		t.Errorf("%d files were looked at", files)
	}
}

func writeSampleManifest(ctx context.Context, st store.Store, id string, m Manifest, options ...WriterOption) error {
	w, err := Create(ctx, st, id, options...)
	if err != nil {
		return err
	}
	for _, name := range []string{"globals.sql", "server/pg_hba.conf", "databases/db10.dir/toc.dat"} {
		if err := w.WriteFile(ctx, name, []byte("payroll")); err != nil {
			return err
		}
	}
	for i := range m.Databases {
		d := &m.Databases[i]
		for _, name := range []string{d.Dump, d.Create, d.Properties} {
			if d.Mode != Directory || name != d.Dump {
				if err := w.WriteFile(ctx, name, []byte("payroll")); err != nil {
					return err
				}
			}
		}
	}
	return w.Commit(ctx, m)
}

// forge changes manifest.json and makes every plain digest right again.
func forge(t *testing.T, folder string, change func(m map[string]any)) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, ManifestName))
	must(t, err)
	var m map[string]any
	must(t, json.Unmarshal(text, &m))
	change(m)
	head := fmt.Sprintf(`{"format": %v, "needs_tool": %q, `, m["format"], m["needs_tool"])
	delete(m, "format")
	delete(m, "needs_tool")
	rest, err := json.Marshal(m)
	must(t, err)
	text = append([]byte(head), rest[1:]...)
	decoded, err := readBack(text)
	must(t, err)
	sums, err := sumsOf(text, decoded)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(folder, ManifestName), text, 0o600))
	must(t, os.WriteFile(filepath.Join(folder, SumsName), sums, 0o600))
}

// T100: a manifest that was edited, with all plain digests made right.
func TestForgedManifest(t *testing.T) {
	h := newHand(t)
	var passphrase seal.Recipients
	must(t, passphrase.AddPassphrase("correct horse", 10))
	byPassphrase := &seal.Keyring{}
	byPassphrase.SetPassphrase(func() (string, error) { return "correct horse", nil })
	for name, c := range map[string]struct {
		write WriterOption
		read  Option
	}{
		"signed, trusted": {h.seals(t), h.trusts(t)}, "signed, trusted, locked": {h.seals(t), WithTrust(Keys{Trusted: h.signer.Public()})},
		"signed": {h.seals(t), h.opens(t)}, "unsigned": {h.unsigned(t), h.opens(t)},
		"passphrase": {WithSealing(Sealing{To: &passphrase}), WithKeys(Keys{Ring: byPassphrase})},
	} {
		t.Run(name, func(t *testing.T) {
			st := newStore(t)
			must(t, writeSample(t.Context(), st, sampleID, c.write))
			mustOpen(t, st, sampleID, c.read)
			forge(t, filepath.Join(st.String(), sampleID), func(m map[string]any) {
				m["databases"].([]any)[0].(map[string]any)["database_bytes"] = 1
			})
			_, err := Open(t.Context(), st, sampleID, c.read)
			wantIntegrity(t, err, "")
		})
	}
}

// Who has no key of the set can still encrypt to its recipient, which is public:
// another object, or another manifest, must not pass.
func TestForgedContents(t *testing.T) {
	h, st := newHand(t), newStore(t)
	must(t, writeSample(t.Context(), st, sampleID, h.unsigned(t)))
	folder := filepath.Join(st.String(), sampleID)
	set := mustOpen(t, st, sampleID)
	var thief seal.Recipients
	must(t, thief.Add(set.Envelope().Sealed.Recipient))
	fake, err := thief.Wrap([]byte("DROP TABLE everything;\n"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(folder, "globals.sql.age"), fake, 0o600))
	forge(t, folder, func(m map[string]any) {
		for _, o := range m["objects"].([]any) {
			if o := o.(map[string]any); o["name"] == "globals.sql.age" {
				sums, _ := sumsOf(fake, &Manifest{})
				o["bytes"], o["sha256"] = len(fake), string(sums[:64])
			}
		}
	})
	mustOpen(t, st, sampleID) // the plain digests are right
	_, err = Open(t.Context(), st, sampleID, h.opens(t))
	wantIntegrity(t, err, ManifestName)
}

// T37, T42 and what else may become of files, each noticed and named.
func TestTamperedFiles(t *testing.T) {
	h := newHand(t)
	write := func(t *testing.T) (*dir.Dir, string) {
		st := newStore(t)
		must(t, writeSample(t.Context(), st, "cluster-20260101T030405Z", h.seals(t)))
		must(t, writeSample(t.Context(), st, sampleID, h.seals(t)))
		return st, st.String()
	}
	other := "cluster-20260101T030405Z"
	copyOf := func(name string) func(t *testing.T, store string) {
		return func(t *testing.T, store string) {
			text, err := os.ReadFile(filepath.Join(store, other, name))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(store, sampleID, name), text, 0o600))
		}
	}
	all := func(changes ...func(t *testing.T, store string)) func(t *testing.T, store string) {
		return func(t *testing.T, store string) {
			for _, change := range changes {
				change(t, store)
			}
		}
	}
	change := func(name string, how func(whole []byte) []byte) func(t *testing.T, store string) {
		return func(t *testing.T, store string) {
			path := filepath.Join(store, sampleID, name)
			whole, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, how(whole), 0o600))
		}
	}
	remove := func(name string) func(t *testing.T, store string) {
		return func(t *testing.T, store string) { must(t, os.Remove(filepath.Join(store, sampleID, name))) }
	}
	for name, tamper := range map[string]func(t *testing.T, store string){
		"object of another set": copyOf("globals.sql.age"),
		"key of another set":    all(copyOf("keys/000001.age"), copyOf("keys/000001.json")),
		"key that anybody can make": func(t *testing.T, store string) {
			wrapped, err := h.to(t).Wrap(newHand(t).secret.IdentityFile(setComment + sampleID))
			must(t, err)
			must(t, os.Remove(filepath.Join(store, sampleID, "keys/000001.json")))
			must(t, os.WriteFile(filepath.Join(store, sampleID, "keys/000001.age"), wrapped, 0o600))
		},
		"manifest of another set":       all(copyOf(ManifestName), copyOf(SumsName), copyOf(macName), copyOf(signatureName)),
		"inner manifest of another set": copyOf("manifest.json.age"),
		"signature of another set":      copyOf(signatureName),
		"mac of another set":            copyOf(macName),
		"signature removed":             remove(signatureName),
		"mac removed":                   remove(macName),
		"keys removed":                  remove("keys/000001.age"),
		"tail removed":                  change("databases/db1.dump.age", func(b []byte) []byte { return b[:len(b)-1] }),
		"appended":                      change("databases/db1.dump.age", func(b []byte) []byte { return append(b, 0) }),
		"only a header":                 change("databases/db1.dump.age", func(b []byte) []byte { return b[:min(len(b), 200)] }),
		"two objects swapped": all(change("databases/db1.create.sql.age", func(b []byte) []byte { return nil }), func(t *testing.T, store string) {
			text, err := os.ReadFile(filepath.Join(store, sampleID, "databases/db10.create.sql.age"))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(store, sampleID, "databases/db1.create.sql.age"), text, 0o600))
		}),
		"a plain set in its place": func(t *testing.T, store string) {
			must(t, os.RemoveAll(filepath.Join(store, sampleID)))
			st := openStore(t, store)
			must(t, writeSample(t.Context(), st, sampleID))
		},
	} {
		t.Run(name, func(t *testing.T) {
			st, folder := write(t)
			tamper(t, folder)
			named := "" // by the error
			if strings.HasPrefix(name, "key") {
				named = "keys"
			}
			for _, reader := range []Option{h.trusts(t), h.opens(t)} {
				set, err := Open(t.Context(), st, sampleID, reader)
				if err == nil {
					for _, p := range append(set.CheckQuick(t.Context()), set.CheckDigests(t.Context(), nil)...) {
						err = errors.Join(err, p.Err)
					}
				}
				wantIntegrity(t, err, named)
				if name == "a plain set in its place" || name == "signature of another set" {
					break // who trusts nobody cannot tell
				}
			}
			// Whoever is trusted: the set says that it has them.
			if missing := map[string]string{"signature removed": signatureName, "mac removed": macName}[name]; missing != "" {
				_, err := Open(t.Context(), st, sampleID, h.opens(t))
				wantIntegrity(t, err, missing)
			}
		})
	}
}

// Who has the key of a set, and not the one that signs, is bound to what is in the
// encrypted manifest, too: it is of this set, and names what the envelope names.
func TestInnerManifestThatDoesNotFit(t *testing.T) {
	h := newHand(t)
	for name, change := range map[string]func(m *Manifest){
		"of another set":  func(m *Manifest) { m.ID = "cluster-20260101T030405Z" },
		"of another kind": func(m *Manifest) { m.Kind = Single },
		"of another time": func(m *Manifest) { m.Finished = m.Finished.Add(time.Second) },
		"of another object": func(m *Manifest) {
			m.Objects = append(m.Objects, Object{Name: "server/z.conf", SHA256: strings.Repeat("0", 64)})
		},
		"of another content": nil,
		"that is not valid":  func(m *Manifest) { m.Databases[0].Dump = "../databases/db1.dump" },
	} {
		t.Run(name, func(t *testing.T) {
			st := newStore(t)
			must(t, writeSample(t.Context(), st, sampleID, h.unsigned(t)))
			set := mustOpen(t, st, sampleID, h.opens(t))
			inner := innerOf(t, set)
			if change != nil {
				change(inner)
			} else {
				i := slices.IndexFunc(inner.Objects, func(o Object) bool { return o.Name == "globals.sql" })
				inner.Objects[i].SHA256 = strings.Repeat("0", 64)
			}
			reseal(t, st, set, inner)
			set, err := Open(t.Context(), st, sampleID, h.opens(t))
			var in io.ReadCloser
			if err == nil {
				in, err = set.OpenObject(t.Context(), "globals.sql")
			}
			if err == nil {
				_, err = io.Copy(io.Discard, in)
			}
			wantIntegrity(t, err, sampleID)
		})
	}
}

// An envelope names nothing that is not encrypted, and no key: those change.
func TestEnvelopeNamesEncryptedObjects(t *testing.T) {
	h, st := newHand(t), newStore(t)
	must(t, writeSample(t.Context(), st, sampleID, h.seals(t)))
	whole := mustOpen(t, st, sampleID).Envelope()
	must(t, whole.Validate())
	at := slices.IndexFunc(whole.Objects, func(o Object) bool { return o.Name == "globals.sql.age" })
	for _, name := range []string{"globals.sql", "keys/000001.age"} {
		m := *whole
		m.Objects = slices.Clone(m.Objects)
		m.Objects[at].Name = name
		slices.SortFunc(m.Objects, func(a, b Object) int { return strings.Compare(a.Name, b.Name) })
		if err := m.Validate(); err == nil || !strings.Contains(err.Error(), "is not encrypted") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func innerOf(t *testing.T, set *Set) *Manifest {
	t.Helper()
	m, err := set.innerManifest(t.Context())
	must(t, err)
	return m
}

// reseal puts another manifest into an encrypted set, as somebody with its key can.
func reseal(t *testing.T, st *dir.Dir, set *Set, inner *Manifest) {
	t.Helper()
	text, err := json.Marshal(inner)
	must(t, err)
	var stored bytes.Buffer
	out, err := set.secret.Encrypt(&stored)
	must(t, err)
	_, err = out.Write(text)
	must(t, err)
	must(t, out.Close())
	folder := filepath.Join(st.String(), sampleID)
	must(t, os.WriteFile(filepath.Join(folder, ManifestName+sealedSuffix), stored.Bytes(), 0o600))
	forge(t, folder, func(m map[string]any) {
		for _, o := range m["objects"].([]any) {
			if o := o.(map[string]any); o["name"] == ManifestName+sealedSuffix {
				sums, _ := sumsOf(stored.Bytes(), &Manifest{})
				o["bytes"], o["sha256"] = stored.Len(), string(sums[:64])
			}
		}
	})
	envelope, err := os.ReadFile(filepath.Join(folder, ManifestName))
	must(t, err)
	mac, err := set.secret.MAC(envelope)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(folder, macName), []byte(mac+"\n"), 0o600))
}

// T37: an object is cut where age begins a new chunk, and the reader says so also
// when nobody looked at digests before.
func TestObjectCutAtAFrame(t *testing.T) {
	h, st := newHand(t), newStore(t)
	w, err := Create(t.Context(), st, sampleID, h.seals(t))
	must(t, err)
	for _, name := range []string{"globals.sql", "server/pg_hba.conf"} {
		must(t, w.WriteFile(t.Context(), name, bytes.Repeat([]byte("row\n"), 50_000)))
	}
	m := sampleManifest()
	m.Databases = nil
	must(t, w.Commit(t.Context(), m))
	path := filepath.Join(st.String(), sampleID, "globals.sql.age")
	whole, err := os.ReadFile(path)
	must(t, err)
	header := len(whole) - 200_000 - 4*ageTag
	for name, broken := range map[string][]byte{
		"cut at a frame": whole[:header+2*(ageChunk+ageTag)], "cut in a frame": whole[:header+70_000], "longer": append(bytes.Clone(whole), "more"...),
		"a frame twice": append(bytes.Clone(whole[:header+ageChunk+ageTag]), whole[header:]...),
	} {
		must(t, os.WriteFile(path, broken, 0o600))
		set, err := Open(t.Context(), st, sampleID, h.trusts(t))
		must(t, err)
		r, err := set.OpenObject(t.Context(), "globals.sql")
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		t.Log(name, err)
		wantIntegrity(t, err, "globals.sql")
	}
}

// Where somebody is trusted, what is not signed counts for nothing.
func TestUnsignedSetsDoNotCount(t *testing.T) {
	h, other, st := newHand(t), newHand(t), newStore(t)
	must(t, writeSample(t.Context(), st, "cluster-20260101T030405Z"))
	must(t, writeSample(t.Context(), st, sampleID, h.seals(t)))
	must(t, writeSample(t.Context(), st, "cluster-20260103T030405Z", h.unsigned(t)))
	must(t, writeSample(t.Context(), st, "cluster-20260104T030405Z", other.seals(t)))
	entries, err := List(t.Context(), st, WithTrust(Keys{Trusted: h.signer.Public()}))
	must(t, err)
	for _, e := range entries {
		if want := e.ID == sampleID; (e.Status == StatusComplete) != want {
			t.Errorf("%s is %s: %s", e.ID, e.Status, e.Reason)
		}
	}
	id, _, err := Resolve(t.Context(), st, Latest, Want{}, h.trusts(t))
	if err != nil || id != sampleID {
		t.Errorf("the latest is %s, %v", id, err)
	}
}

// T48: after a rotation the new key opens a set, and the old one does not.
func TestRotation(t *testing.T) {
	old, fresh, st := newHand(t), newHand(t), newStore(t)
	must(t, writeSample(t.Context(), st, sampleID, old.seals(t)))
	before := withoutKeys(t, st)
	set := mustOpen(t, st, sampleID, old.opens(t))
	must(t, Rewrap(t.Context(), set, fresh.to(t)))
	mustOpen(t, st, sampleID, WithKeys(Keys{Ring: fresh.ring(t), Trusted: old.signer.Public()}))
	if _, err := Open(t.Context(), st, sampleID, old.opens(t)); !fault.Is(err, fault.WrongKey) {
		t.Errorf("the old key: %v", err)
	}
	wantSameTree(t, withoutKeys(t, st), before)
	info, versions, err := KeysOf(t.Context(), st, sampleID)
	if err != nil || versions != 1 || info.Version != 2 || info.Recipients[0].Key != fresh.secret.Recipient() {
		t.Errorf("keys %+v, %d versions, %v", info, versions, err)
	}
	locked := mustOpen(t, st, sampleID)
	if err := Rewrap(t.Context(), locked, old.to(t)); !fault.Is(err, fault.WrongKey) {
		t.Errorf("rotation without a key: %v", err)
	}
}

// withoutKeys are a set's files but for those that rotate.
func withoutKeys(t *testing.T, st *dir.Dir) map[string]string {
	t.Helper()
	files := tree(t, filepath.Join(st.String(), sampleID))
	maps.DeleteFunc(files, func(name, _ string) bool { return isKeyFile(name) })
	return files
}

// A copy needs no key, and is opened by the same one.
func TestSealedCopy(t *testing.T) {
	h, from, to := newHand(t), newStore(t), newStore(t)
	must(t, writeSample(t.Context(), from, sampleID, h.seals(t)))
	_, err := Copy(t.Context(), from, to, CopyOptions{}, report.Discard{}, sampleID)
	must(t, err)
	wantSameTree(t, tree(t, to.String()), tree(t, from.String()))
	mustOpen(t, to, sampleID, h.trusts(t))
	must(t, os.Remove(filepath.Join(to.String(), sampleID, "globals.sql.age"))) // a copy is mended, its key too
	must(t, os.Truncate(filepath.Join(to.String(), sampleID, "keys/000001.age"), 1))
	_, err = Copy(t.Context(), from, to, CopyOptions{}, report.Discard{}, sampleID)
	must(t, err)
	wantSameTree(t, tree(t, to.String()), tree(t, from.String()))
}

// A copy follows the rotations of what it was copied from, without the data, and
// keeps a key that was rotated more often.
func TestCopyBringsRotatedKeys(t *testing.T) {
	old, fresh, from, to := newHand(t), newHand(t), newStore(t), newStore(t)
	must(t, writeSample(t.Context(), from, sampleID, old.seals(t)))
	bring := func(from, to *dir.Dir) Copied {
		done, err := Copy(t.Context(), from, to, CopyOptions{}, report.Discard{}, sampleID)
		must(t, err)
		return done
	}
	bring(from, to)
	must(t, Rewrap(t.Context(), mustOpen(t, from, sampleID, old.opens(t)), fresh.to(t)))
	if done := bring(to, from); len(done.Sets)+len(done.Keys) > 0 {
		t.Errorf("an older key was brought: %+v", done)
	}
	mustOpen(t, from, sampleID, fresh.opens(t))

	before := withoutKeys(t, to)
	if done := bring(from, to); len(done.Sets) != 0 || done.Objects != 0 || len(done.Keys) != 1 {
		t.Errorf("done: %+v, want the key alone", done)
	}
	wantSameTree(t, tree(t, to.String()), tree(t, from.String()))
	wantSameTree(t, withoutKeys(t, to), before)
	if _, err := Open(t.Context(), to, sampleID, old.opens(t)); !fault.Is(err, fault.WrongKey) {
		t.Errorf("the old key: %v", err)
	}
	if done := bring(from, to); len(done.Keys) != 0 {
		t.Errorf("brought again: %+v", done)
	}
	// Killed after the note, after the key, and with a key that was damaged since.
	for name, undo := range map[string]func(key, note, older string) error{
		"note": func(key, _, older string) error { return os.Rename(key, older) },
		"key":  func(key, _, older string) error { return os.Link(key, older) },
		"cut":  func(key, _, _ string) error { return os.Truncate(key, 9) },
	} {
		keys := filepath.Join(to.String(), sampleID, "keys")
		must(t, undo(filepath.Join(keys, "000002.age"), filepath.Join(keys, "000002.json"), filepath.Join(keys, "000001.age")))
		bring(from, to)
		wantSameTree(t, tree(t, to.String()), tree(t, from.String()))
		if t.Failed() {
			t.Fatalf("after %s", name)
		}
	}
	// A set that lost an object is mended, and keeps its newer key.
	must(t, Rewrap(t.Context(), mustOpen(t, to, sampleID, fresh.opens(t)), old.to(t)))
	must(t, os.Remove(filepath.Join(to.String(), sampleID, "globals.sql.age")))
	if done := bring(from, to); len(done.Sets) != 1 {
		t.Errorf("mended: %+v", done)
	}
	mustOpen(t, to, sampleID, old.opens(t))
	if info, versions, err := KeysOf(t.Context(), to, sampleID); err != nil || versions != 1 || info.Version != 3 {
		t.Errorf("keys %+v, %d versions, %v", info, versions, err)
	}
	// Rotated as often on both sides: each keeps its own.
	must(t, Rewrap(t.Context(), mustOpen(t, from, sampleID, fresh.opens(t)), fresh.to(t)))
	if done := bring(from, to); len(done.Keys) != 0 {
		t.Errorf("brought %+v", done)
	}
	mustOpen(t, to, sampleID, old.opens(t))
}

// A rotation that was killed leaves two keys; both open, and the next one cleans up.
func TestRotationThatWasKilled(t *testing.T) {
	old, fresh, st := newHand(t), newHand(t), newStore(t)
	must(t, writeSample(t.Context(), st, sampleID, old.seals(t)))
	set := mustOpen(t, st, sampleID, old.opens(t))
	must(t, putKey(t.Context(), st, sampleID, 2, set.secret, fresh.to(t)))
	mustOpen(t, st, sampleID, old.opens(t))
	set = mustOpen(t, st, sampleID, fresh.opens(t))
	// Damage of the one that would fit is not a wrong key, though there is another.
	path := filepath.Join(st.String(), sampleID, "keys/000002.age")
	whole, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, whole[:len(whole)-1], 0o600))
	_, err = Open(t.Context(), st, sampleID, fresh.opens(t))
	wantIntegrity(t, err, "keys/000002.age")
	mustOpen(t, st, sampleID, old.opens(t))
	must(t, os.WriteFile(path, whole, 0o600))
	must(t, put(t.Context(), st, sampleID+"/keys/000003.json", []byte("cut")))
	must(t, Rewrap(t.Context(), set, fresh.to(t)))
	if _, versions, err := KeysOf(t.Context(), st, sampleID); err != nil || versions != 1 {
		t.Errorf("%d versions, %v", versions, err)
	}
	if _, err := Open(t.Context(), st, sampleID, old.opens(t)); !fault.Is(err, fault.WrongKey) {
		t.Errorf("the old key: %v", err)
	}
}
