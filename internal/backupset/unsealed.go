package backupset

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"dbbackup/internal/fault"
	"dbbackup/internal/seal"
	"dbbackup/internal/store"
)

// unsealed is what a key opens of an encrypted set. The zero value is a set that
// is locked, or not encrypted.
type unsealed struct {
	secret *seal.Secret
	older  map[string]*seal.Secret // of the sets that it refers to
	// references are objects of older sets by SET/NAME in the plain set: how they
	// are stored, and what they hold.
	references map[string]storedObject
	ends       endsCache
}

type storedObject struct{ stored, plain Object }

// Sealed reports whether the set is encrypted.
func (s *Set) Sealed() bool { return s.envelope.Sealed != nil }

// Locked reports whether the set is encrypted and was opened without a key.
func (s *Set) Locked() bool { return s.Sealed() && s.secret == nil }

// Envelope is manifest.json as it is stored. Unless the set is encrypted it is the
// manifest. It must not be changed.
func (s *Set) Envelope() *Manifest { return s.envelope }

// named is the name in the manifest of what has this name in the store.
func (s *Set) named(stored string) string {
	if s.Sealed() && !s.Locked() {
		return logicalName(stored)
	}
	return stored
}

// authenticate checks who made the set, as far as the keys can tell, and opens it
// with them.
func (s *Set) authenticate(ctx context.Context, k Keys) error {
	if len(k.Trusted) == 0 && (!s.Sealed() || k.Ring.Empty()) {
		return nil
	}
	if !s.Sealed() {
		if len(k.Trusted) > 0 {
			return s.notTrusted("it is not signed: sets that are not encrypted never are")
		}
		return nil
	}
	text, err := s.manifestText(ctx)
	if err != nil {
		return err
	}
	if len(k.Trusted) > 0 {
		if err := s.checkSignature(ctx, text, k.Trusted); err != nil {
			return err
		}
	}
	if k.Ring.Empty() {
		return nil
	}
	return s.unseal(ctx, text, k.Ring)
}

func (s *Set) notTrusted(why string) error {
	return fault.New(fault.Integrity, "somebody else may have made or changed it; --trust FILE says whose sets count",
		"backup set %s does not come from a trusted key: %s", s.ID(), why)
}

func (s *Set) checkSignature(ctx context.Context, text []byte, trusted seal.Trusted) error {
	signature, err := readSmall(ctx, s.st, s.ID()+"/"+signatureName, maxKeyBytes)
	if errors.Is(err, store.ErrNotExist) {
		return s.notTrusted("it is not signed")
	}
	if err != nil {
		return err
	}
	if err := trusted.Verify(text, signature); err != nil {
		return s.notTrusted(err.Error())
	}
	return nil
}

// unseal opens the set with a key. After that its manifest is the complete one, and
// known to be what goes with the envelope.
func (s *Set) unseal(ctx context.Context, text []byte, ring *seal.Keyring) error {
	secret, err := unwrapKey(ctx, s.st, s.ID(), s.envelope.Sealed.Recipient, ring)
	if err != nil {
		return err
	}
	mac, err := readSmall(ctx, s.st, s.ID()+"/"+macName, maxKeyBytes)
	if err != nil {
		return err
	}
	if ok, err := secret.CheckMAC(text, strings.TrimSuffix(string(mac), "\n")); err != nil || !ok {
		return errors.Join(err, damaged(nil, "%s/%s was changed by somebody without the set's key: %s is not its own", s.ID(), ManifestName, macName))
	}
	// From here on the envelope is what the writer wrote.
	if len(s.envelope.Sealed.Signer) > 0 {
		if err := s.lookForSignature(ctx); err != nil {
			return err
		}
	}
	s.secret = secret
	m, err := s.innerManifest(ctx)
	if err == nil {
		err = s.bind(ctx, m)
	}
	if err != nil {
		s.unsealed = unsealed{}
		return err
	}
	shown := *m
	shown.Format, shown.NeedsTool, shown.Sealed = s.envelope.Format, s.envelope.NeedsTool, s.envelope.Sealed
	s.manifest, s.index = &shown, m.Objects
	return nil
}

// lookForSignature: where the envelope says that it is signed, it is.
func (s *Set) lookForSignature(ctx context.Context) error {
	_, err := readSmall(ctx, s.st, s.ID()+"/"+signatureName, maxKeyBytes)
	return err
}

// innerManifest reads the manifest of the plain set.
func (s *Set) innerManifest(ctx context.Context) (*Manifest, error) {
	name := ManifestName + sealedSuffix
	stored, _ := objectIndex(s.envelope.Objects).find(name) // Validate saw it
	label := s.ID() + "/" + name
	in, err := s.decrypt(ctx, s.ID(), stored, s.secret)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	m, err := decodeManifest(in)
	if err != nil {
		return nil, damaged(err, "%s", label)
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // the digest
		return nil, err
	}
	if err := m.Validate(); err != nil || m.Sealed != nil {
		return nil, damaged(err, "%s is not valid", label)
	}
	return m, nil
}

// bind compares the inner manifest with the envelope: they are of one set, and
// name the same objects.
func (s *Set) bind(ctx context.Context, m *Manifest) error {
	e, label := s.envelope, s.ID()+"/"+ManifestName+sealedSuffix
	if m.ID != e.ID || m.Kind != e.Kind || !m.Finished.Equal(e.Finished) {
		return damaged(nil, "%s is the manifest of another set, %.80q", label, m.ID)
	}
	for _, o := range m.Objects {
		if !objectIndex(e.Objects).has(o.Name + sealedSuffix) {
			return damaged(nil, "%s names the object %.80q, and %s does not", label, o.Name, ManifestName)
		}
	}
	s.references = map[string]storedObject{}
	for _, r := range e.References {
		s.references[r.Set+"/"+logicalName(r.Name)] = storedObject{stored: r.Object}
	}
	for _, r := range m.References {
		key := r.Set + "/" + r.Name
		both, ok := s.references[key]
		if !ok {
			return damaged(nil, "%s refers to %.80q, and %s does not", label, r.path(), ManifestName)
		}
		both.plain = r.Object
		s.references[key] = both
	}
	if len(m.References) == 0 {
		return nil
	}
	return s.readReferenceKeys(ctx, m)
}

// readReferenceKeys reads the keys of the older sets that this one refers to.
func (s *Set) readReferenceKeys(ctx context.Context, m *Manifest) error {
	name := referencesKey + sealedSuffix
	stored, ok := objectIndex(s.envelope.Objects).find(name)
	if !ok || stored.Bytes > maxManifestBytes {
		return damaged(nil, "%s/%s is missing or too large", s.ID(), name)
	}
	in, err := s.decrypt(ctx, s.ID(), stored, s.secret)
	if err != nil {
		return err
	}
	defer in.Close()
	text, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if s.older, err = parseReferenceKeys(text); err != nil {
		return damaged(err, "%s/%s", s.ID(), name)
	}
	for _, r := range m.References {
		if s.older[r.Set] == nil {
			return damaged(nil, "%s/%s lacks the key of set %s", s.ID(), name, r.Set)
		}
	}
	return nil
}

// storedOf returns how objects and references of the manifest are stored.
func (s *Set) storedOf(objects []Object, references []Reference) ([]Object, []Reference, error) {
	if !s.Sealed() || s.Locked() {
		return objects, references, nil
	}
	objects, references = slices.Clone(objects), slices.Clone(references)
	for i := range objects {
		both, err := s.find(s.ID(), objects[i].Name)
		if err != nil {
			return nil, nil, err
		}
		objects[i] = both.stored
	}
	for i := range references {
		both, err := s.find(references[i].Set, references[i].Name)
		if err != nil {
			return nil, nil, err
		}
		references[i].Object = both.stored
	}
	return objects, references, nil
}

// find returns an object of the set, or of an older one, in both its forms.
func (s *Set) find(id, name string) (storedObject, error) {
	if id != s.ID() {
		both, ok := s.references[id+"/"+name]
		if !ok {
			return both, damaged(nil, "object %s of backup set %s is not among the references of %s", name, id, s.ID())
		}
		return both, nil
	}
	plain, ok := s.index.find(name)
	stored, okStored := objectIndex(s.envelope.Objects).find(name + sealedSuffix)
	if !ok || !okStored {
		return storedObject{}, damaged(nil, "object %s of backup set %s is not in the manifest", name, id)
	}
	return storedObject{stored, plain}, nil
}

// secretOf is the key of the set, or of one that it refers to.
func (s *Set) secretOf(id string) *seal.Secret {
	if id == s.ID() {
		return s.secret
	}
	return s.older[id]
}

// openSealed reads an object of an encrypted set and checks it, twice: what is
// stored against the envelope, and what is in it against the manifest.
func (s *Set) openSealed(ctx context.Context, id string, plain Object) (io.ReadCloser, error) {
	both, err := s.find(id, plain.Name)
	if err != nil {
		return nil, err
	}
	in, err := s.decrypt(ctx, id, both.stored, s.secretOf(id))
	if err != nil {
		return nil, err
	}
	return newCheckedReader(in, plain, fmt.Sprintf("object %s of backup set %s", plain.Name, id), false), nil
}

// decrypt reads an object from its start. Its size and digest as it is stored are
// checked on the way.
func (s *Set) decrypt(ctx context.Context, id string, stored Object, secret *seal.Secret) (io.ReadCloser, error) {
	in, err := s.open(ctx, id, stored)
	if err != nil {
		return nil, err
	}
	label := fmt.Sprintf("object %s of backup set %s", stored.Name, id)
	plain, err := secret.Decrypt(in)
	if err != nil {
		// What is stored decides: bytes that are not what was written are found by
		// their digest, and named as that.
		_, digestErr := io.Copy(io.Discard, in)
		return nil, errors.Join(decryptFailed(digestErr, err, label), in.Close())
	}
	return &decrypted{plain: plain, stored: in, label: label}, nil
}

// decryptFailed says why an object does not decrypt.
func decryptFailed(stored, err error, label string) error {
	if stored != nil {
		return stored
	}
	if fault.KindOf(err) != fault.Failed {
		return err
	}
	return damaged(nil, "%s does not decrypt with the key of the set: %v", label, err)
}

// decrypted reads an object out of its age file.
type decrypted struct {
	plain  io.Reader
	stored io.ReadCloser // ends with the check of what is stored
	label  string
}

func (d *decrypted) Read(p []byte) (int, error) {
	n, err := d.plain.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		if _, err := io.Copy(io.Discard, d.stored); err != nil {
			return n, err
		}
		return n, io.EOF
	case err != nil && fault.KindOf(err) == fault.Failed && !errors.Is(err, context.Canceled):
		return n, damaged(nil, "%s does not decrypt: %v", d.label, err)
	}
	return n, err
}

func (d *decrypted) Close() error { return d.stored.Close() }

// openRange reads the stored bytes of a piece, decrypted where they are encrypted.
func (s *Set) openRange(ctx context.Context, id string, p *Piece) (io.ReadCloser, error) {
	if s.Locked() {
		return nil, errLocked(s.ID())
	}
	if !s.Sealed() {
		return s.st.OpenRange(ctx, id+"/"+p.Object, p.Offset, p.Bytes)
	}
	both, err := s.find(id, p.Object)
	if err != nil {
		return nil, err
	}
	if p.Offset == 0 && p.Bytes == both.plain.Bytes {
		return s.decrypt(ctx, id, both.stored, s.secretOf(id))
	}
	return s.decryptPart(ctx, id, both, p)
}

// readAhead is how much of a part is decrypted at a time.
const readAhead = 64 << 10

// decryptPart reads some of an object: the beginning of its age file and the end of
// it, which are kept for the next part, and what the part lies in.
func (s *Set) decryptPart(ctx context.Context, id string, both storedObject, p *Piece) (io.ReadCloser, error) {
	key := id + "/" + both.stored.Name
	source := &rangedFile{size: both.stored.Bytes, ends: &s.ends, key: key, open: func(offset, length int64) (io.ReadCloser, error) {
		return s.st.OpenRange(ctx, key, offset, length)
	}}
	plain, size, err := s.secretOf(id).DecryptAt(source, both.stored.Bytes)
	if err == nil && size != both.plain.Bytes {
		err = fmt.Errorf("it holds %d bytes, and the manifest says %d", size, both.plain.Bytes)
	}
	if err != nil {
		return nil, errors.Join(partFailed(err, key), source.Close())
	}
	source.stream(p.Offset, p.Bytes, both.plain.Bytes)
	in := bufio.NewReaderSize(io.NewSectionReader(plain, p.Offset, p.Bytes), readAhead)
	return &part{in: in, source: source, key: key}, nil
}

func partFailed(err error, key string) error {
	if fault.KindOf(err) != fault.Failed || errors.Is(err, store.ErrNotExist) || isStoreFailure(err) {
		return err
	}
	return damaged(nil, "object %s does not decrypt: %v", key, err)
}

// part is some of an object, decrypted.
type part struct {
	in     io.Reader
	source *rangedFile
	key    string
}

func (p *part) Read(b []byte) (int, error) {
	n, err := p.in.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = partFailed(err, p.key)
	}
	return n, err
}

func (p *part) Close() error { return p.source.Close() }

// putScratch stores a scratch object. That of an encrypted set is encrypted, and
// authenticated under its name: who adds to the beginnings of others is noticed.
func (w *Writer) putScratch(ctx context.Context, name string, data []byte) error {
	if w.seal == nil {
		return put(ctx, w.st, w.key(name), data)
	}
	mac, err := w.seal.secret.MAC(scratchText(w.id, name, data))
	if err != nil {
		return err
	}
	_, err = w.putSealed(ctx, name, append([]byte(mac+"\n"), data...))
	return err
}

func scratchText(id, name string, data []byte) []byte {
	return append(fmt.Appendf(nil, "scratch %s/%s\n", id, name), data...)
}

// openScratch reads what putScratch stored.
func (w *Writer) openScratch(ctx context.Context, name string) ([]byte, error) {
	key := w.key(name)
	stored, err := readSmall(ctx, w.st, key, maxScratchBytes)
	if err != nil {
		return nil, err
	}
	in, err := w.seal.secret.Decrypt(bytes.NewReader(stored))
	var text []byte
	if err == nil {
		text, err = io.ReadAll(in)
	}
	if err != nil {
		return nil, damaged(nil, "scratch object %s does not decrypt: %v", key, err)
	}
	mac, data, _ := bytes.Cut(text, []byte("\n"))
	if ok, err := w.seal.secret.CheckMAC(scratchText(w.id, name, data), string(mac)); err != nil || !ok {
		return nil, errors.Join(err, damaged(nil, "scratch object %s was not written by the interrupted run", key))
	}
	return data, nil
}

// readSealed reads an object that an interrupted run left, as it is stored and as
// it was, and notes down the former.
func (w *Writer) readSealed(ctx context.Context, want Object) error {
	in, err := w.st.Open(ctx, w.key(want.Name))
	if err != nil {
		return err
	}
	defer in.Close()
	stored, plain := sha256.New(), sha256.New()
	counted := &storedCounter{in: io.TeeReader(untilDone(ctx, in), stored)}
	decrypted, err := w.seal.secret.Decrypt(counted)
	var n int64
	if err == nil {
		n, err = io.CopyBuffer(struct{ io.Writer }{plain}, decrypted, make([]byte, 256<<10))
	}
	if err != nil {
		return damaged(err, "object %s", want.Name)
	}
	if digest := hex.EncodeToString(plain.Sum(nil)); n != want.Bytes || digest != want.SHA256 {
		return damaged(nil, "object %s is not what the interrupted run wrote", want.Name)
	}
	w.seal.record(want.Name, Object{Name: want.Name + sealedSuffix, Bytes: counted.n, SHA256: hex.EncodeToString(stored.Sum(nil))})
	return nil
}

type storedCounter struct {
	in io.Reader
	n  int64
}

func (c *storedCounter) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	c.n += int64(n)
	return n, err
}

// reopen opens the key of an unfinished set, which says nothing of it in plain.
func (s Sealing) reopen(ctx context.Context, st store.Store, id string, signed bool) (*sealing, error) {
	if s.Keys.Ring.Empty() {
		return nil, fault.New(fault.Precondition, "--identity FILE, --keys DIR or --passphrase-file FILE; or back up again",
			"the unfinished set is encrypted, and going on with it needs its key")
	}
	if signed && s.Signer == nil {
		return nil, fault.New(fault.Precondition, "--sign-with FILE, or --keys DIR", "the run that began the unfinished set was to sign it, and no signing key was given")
	}
	secret, err := unwrapKey(ctx, st, id, "", s.Keys.Ring)
	if err != nil {
		return nil, err
	}
	if trusted := s.trust(); len(trusted) > 0 {
		signature, err := readSmall(ctx, st, id+"/"+originName, maxKeyBytes)
		if err == nil {
			err = trusted.Verify(origin(id, secret), signature)
		}
		if err != nil {
			return nil, fault.New(fault.Integrity, "back up again", "no trusted key began the unfinished set: %w", err)
		}
	}
	return newSealing(secret, s), nil
}
