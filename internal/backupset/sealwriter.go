package backupset

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"

	"dbbackup/internal/fault"
	"dbbackup/internal/seal"
	"dbbackup/internal/store"
)

// Sealing is how a writer encrypts a set.
type Sealing struct {
	To     *seal.Recipients // who can open it
	Signer *seal.Signer     // nil: nobody signs it
	// Keys are for what is there already: an interrupted run's set, and older
	// sets that a new one refers to.
	Keys Keys
}

// WriterOption is how a set is written.
type WriterOption func(*Sealing)

// WithSealing encrypts the set.
func WithSealing(s Sealing) WriterOption { return func(to *Sealing) { *to = s } }

// sealing is what a Writer knows of an encrypted set.
type sealing struct {
	secret  *seal.Secret
	signer  *seal.Signer
	trusted seal.Trusted

	mu      sync.Mutex
	stored  map[string]Object       // by the name in the plain set, as it is stored
	older   map[string]*seal.Secret // by set
	objects map[string]Object       // of older sets, by SET/NAME in the plain one, as they are stored
}

func newSealing(secret *seal.Secret, s Sealing) *sealing {
	return &sealing{
		secret: secret, signer: s.Signer, trusted: s.trust(),
		stored: map[string]Object{}, older: map[string]*seal.Secret{}, objects: map[string]Object{},
	}
}

// trust is who a set must be signed by that this one goes on from: anybody, when
// nothing is known of signers.
func (s Sealing) trust() seal.Trusted {
	trusted := slices.Clone(s.Keys.Trusted)
	if s.Signer != nil {
		trusted = append(trusted, s.Signer.Public()...)
	}
	return trusted
}

// ReadKeys are the keys for sets that the new one may refer to.
func (s Sealing) ReadKeys() Keys { return Keys{Ring: s.Keys.Ring, Trusted: s.trust()} }

// begin makes the set's key and stores it, wrapped, before anything is encrypted
// with it: what is stored can be opened from the first byte on.
func (s Sealing) begin(ctx context.Context, st store.Store, id string) (*sealing, error) {
	if err := s.To.Validate(); err != nil {
		return nil, err
	}
	secret, err := seal.NewSecret(s.To.PostQuantum())
	if err != nil {
		return nil, err
	}
	if err := putKey(ctx, st, id, 1, secret, s.To); err != nil {
		return nil, err
	}
	if s.Signer != nil {
		if err := put(ctx, st, id+"/"+originName, s.Signer.Sign(origin(id, secret))); err != nil {
			return nil, err
		}
	}
	return newSealing(secret, s), nil
}

// origin is what the signature under an unfinished set says: who began it chose
// this key. Without that anybody who knows a recipient could lay down the
// beginning of a set for `resume` to finish, and to sign.
func origin(id string, secret *seal.Secret) []byte {
	return fmt.Appendf(nil, "dbbackup set %s\n%s\n", id, secret.Recipient())
}

// sealedWriter encrypts one object, and hashes what the store takes (B2).
type sealedWriter struct {
	out   io.Writer
	age   io.WriteCloser
	sum   hash.Hash
	bytes int64
}

// encrypt returns a writer of what is to be stored as one object.
func (s *sealing) encrypt(out io.Writer) (*sealedWriter, error) {
	w := &sealedWriter{out: out, sum: sha256.New()}
	var err error
	w.age, err = s.secret.Encrypt(storing{w})
	return w, err
}

func (w *sealedWriter) Write(p []byte) (int, error) { return w.age.Write(p) }

// Close ends the age file.
func (w *sealedWriter) Close() error { return w.age.Close() }

// object is what was stored, under its name in the store.
func (w *sealedWriter) object(name string) Object {
	return Object{Name: name + sealedSuffix, Bytes: w.bytes, SHA256: hex.EncodeToString(w.sum.Sum(nil))}
}

// storing is the side of a sealedWriter that age writes to.
type storing struct{ w *sealedWriter }

func (s storing) Write(p []byte) (int, error) {
	n, err := s.w.out.Write(p)
	s.w.sum.Write(p[:n])
	s.w.bytes += int64(n)
	return n, err
}

func (s *sealing) record(name string, stored Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stored[name] = stored
}

// Sealed reports whether the set is encrypted.
func (w *Writer) Sealed() bool { return w.seal != nil }

// Refer makes an encrypted set able to refer to the objects of an older one, and
// to those that it refers to itself: it takes over their keys. An older set that
// is not encrypted as the new one is, or not at all, cannot be referred to.
func (w *Writer) Refer(older *Set) error {
	if w.Sealed() != older.Sealed() {
		return fault.New(fault.Precondition, "", "backup set %s: one of the sets is encrypted, and the other is not", older.ID())
	}
	if w.seal == nil {
		return nil
	}
	if older.secret == nil {
		return errLocked(older.ID())
	}
	s := w.seal
	s.mu.Lock()
	defer s.mu.Unlock()
	s.older[older.ID()] = older.secret
	for id, secret := range older.older {
		s.older[id] = secret
	}
	for _, o := range older.envelope.Objects {
		s.objects[older.ID()+"/"+logicalName(o.Name)] = o
	}
	for _, r := range older.envelope.References {
		s.objects[r.Set+"/"+logicalName(r.Name)] = r.Object
	}
	return nil
}

// ReferenceKey is where the store has what a reference of the set names.
func (w *Writer) ReferenceKey(r Reference) string {
	key := r.Set + "/" + r.Name
	if w.Sealed() {
		key += sealedSuffix
	}
	return key
}

// references returns the references of an envelope, and what decrypts to the keys
// of the sets that they name.
func (s *sealing) references(m *Manifest) (references []Reference, keys []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	of := ""
	for _, r := range m.References { // sorted by set
		stored, ok := s.objects[r.Set+"/"+r.Name]
		secret := s.older[r.Set]
		if !ok || secret == nil {
			return nil, nil, fmt.Errorf("reference %s: the key of that set is not known", r.path())
		}
		references = append(references, Reference{Database: r.Database, Set: r.Set, Object: stored})
		if r.Set != of {
			of = r.Set
			keys = append(keys, secret.IdentityFile(setComment+r.Set)...)
		}
	}
	slices.SortFunc(references, compareReferences)
	return references, keys, nil
}

// publishSealed writes what makes an encrypted set exist: the plain set's
// manifest and digests, encrypted, and around them the envelope.
func (w *Writer) publishSealed(ctx context.Context, m *Manifest, text, sums []byte) error {
	s := w.seal
	references, keys, err := s.references(m)
	if err != nil {
		return err
	}
	small := map[string][]byte{ManifestName: text, SumsName: sums}
	if len(keys) > 0 {
		small[referencesKey] = keys
	}
	var objects []Object
	for name, data := range small {
		o, err := w.putSealed(ctx, name, data)
		if err != nil {
			return err
		}
		objects = append(objects, o)
	}
	s.mu.Lock()
	for _, o := range m.Objects {
		objects = append(objects, s.stored[o.Name])
	}
	s.mu.Unlock()
	slices.SortFunc(objects, func(a, b Object) int { return cmp.Compare(a.Name, b.Name) })
	sealed := Sealed{Recipient: s.secret.Recipient()}
	if s.signer != nil {
		sealed.Signer = s.signer.Public().Fingerprints()[0]
	}
	text, err = json.MarshalIndent(envelopeOf(m, sealed, objects, references), "", "  ")
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	return w.publishEnvelope(ctx, append(text, '\n'))
}

func (w *Writer) publishEnvelope(ctx context.Context, text []byte) error {
	m, err := readBack(text)
	if err != nil {
		return err
	}
	sums, err := sumsOf(text, m)
	if err != nil {
		return err
	}
	mac, err := w.seal.secret.MAC(text)
	if err != nil {
		return err
	}
	if err := put(ctx, w.st, w.id+"/"+SumsName, sums); err != nil {
		return err
	}
	if err := put(ctx, w.st, w.id+"/"+macName, []byte(mac+"\n")); err != nil {
		return err
	}
	if w.seal.signer != nil {
		if err := put(ctx, w.st, w.id+"/"+signatureName, w.seal.signer.Sign(text)); err != nil {
			return err
		}
	}
	return put(ctx, w.st, w.id+"/"+ManifestName, text)
}

// readBack: what this package would not read back must not be published.
func readBack(text []byte) (*Manifest, error) {
	m, err := decodeManifest(bytes.NewReader(text))
	if err == nil {
		err = m.Validate()
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest back: %w", err)
	}
	return m, nil
}

// putSealed stores a small object encrypted, and returns it as it is stored.
func (w *Writer) putSealed(ctx context.Context, name string, data []byte) (Object, error) {
	out, err := w.st.Create(ctx, w.id+"/"+name+sealedSuffix, int64(len(data)))
	if err != nil {
		return Object{}, err
	}
	defer out.Abort() //nolint:errcheck // after a commit this does nothing; else the first error counts
	encrypted, err := w.seal.encrypt(out)
	if err != nil {
		return Object{}, err
	}
	if _, err := encrypted.Write(data); err != nil {
		return Object{}, err
	}
	if err := errors.Join(encrypted.Close(), out.Commit()); err != nil {
		return Object{}, err
	}
	return encrypted.object(name), nil
}
