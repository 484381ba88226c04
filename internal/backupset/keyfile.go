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
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"dbbackup/internal/fault"
	"dbbackup/internal/seal"
	"dbbackup/internal/store"
)

// setComment is the line before a set's key that says whose it is.
const setComment = "set "

// maxKeyBytes bounds what is read of a key file, and of what lies beside it.
const maxKeyBytes = 1 << 20

// keyNote lies beside a key file. Nothing in it is relied on but the digest, which
// tells damage from a wrong key.
type keyNote struct {
	SHA256     string           `json:"sha256"`
	Made       time.Time        `json:"made"`
	Recipients []seal.Recipient `json:"recipients"`
}

func keyName(version int, suffix string) string {
	return fmt.Sprintf("%s/%06d%s", keysFolder, version, suffix)
}

// putKey stores a set's key, wrapped. The note comes first: a key file that is
// there has one.
func putKey(ctx context.Context, st store.Store, id string, version int, secret *seal.Secret, to *seal.Recipients) error {
	wrapped, err := to.Wrap(secret.IdentityFile("the key of dbbackup "+setComment+id, setComment+id))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(wrapped)
	note, err := json.MarshalIndent(keyNote{hex.EncodeToString(sum[:]), time.Now().UTC().Truncate(time.Second), to.Named()}, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the note of a key: %w", err)
	}
	if err := put(ctx, st, id+"/"+keyName(version, ".json"), append(note, '\n')); err != nil {
		return err
	}
	return put(ctx, st, id+"/"+keyName(version, sealedSuffix), wrapped)
}

// keyFiles lists what lies in a set's folder of keys.
func keyFiles(ctx context.Context, st store.Store, id string) ([]string, error) {
	var names []string
	err := st.List(ctx, id+"/"+keysFolder+"/", func(info store.Info) error {
		names = append(names, strings.TrimPrefix(info.Key, id+"/"))
		return nil
	})
	return names, err
}

// versionOf reads the number of a key file, or of a note; 0 for anything else.
func versionOf(name string) int {
	base, suffix, _ := strings.Cut(path.Base(name), ".")
	if n, err := strconv.Atoi(base); err == nil && keyName(n, "."+suffix) == name {
		return n
	}
	return 0
}

// keyVersions lists the versions of a set's key, the newest first.
func keyVersions(ctx context.Context, st store.Store, id string) ([]int, error) {
	names, err := keyFiles(ctx, st, id)
	var versions []int
	for _, name := range names {
		if n := versionOf(name); n > 0 && strings.HasSuffix(name, sealedSuffix) {
			versions = append(versions, n)
		}
	}
	slices.Sort(versions)
	slices.Reverse(versions)
	return versions, err
}

// readSmall reads a small file of a set.
func readSmall(ctx context.Context, st store.Store, key string, limit int64) ([]byte, error) {
	in, err := st.Open(ctx, key)
	if err != nil {
		return nil, damaged(err, "%s", key)
	}
	defer in.Close()
	data, err := io.ReadAll(io.LimitReader(untilDone(ctx, in), limit+1))
	switch {
	case err != nil:
		return nil, damaged(err, "%s", key)
	case int64(len(data)) > limit:
		return nil, damaged(nil, "%s is larger than any that dbbackup writes", key)
	}
	return data, nil
}

// readKey reads one version of a set's key, still wrapped, and its note.
func readKey(ctx context.Context, st store.Store, id string, version int) (wrapped []byte, note keyNote, err error) {
	key := id + "/" + keyName(version, sealedSuffix)
	if wrapped, err = readSmall(ctx, st, key, maxKeyBytes); err != nil {
		return nil, note, err
	}
	text, err := readSmall(ctx, st, id+"/"+keyName(version, ".json"), maxKeyBytes)
	if errors.Is(err, store.ErrNotExist) {
		return wrapped, note, nil // then damage looks like a wrong key
	}
	if err != nil {
		return nil, note, err
	}
	if err := json.Unmarshal(text, &note); err != nil {
		return wrapped, keyNote{}, nil //nolint:nilerr // as above
	}
	if sum := sha256.Sum256(wrapped); hex.EncodeToString(sum[:]) != note.SHA256 {
		return nil, note, damaged(nil, "%s is damaged: its sha256 is not what %s says", key, keyName(version, ".json"))
	}
	return wrapped, note, nil
}

// unwrapKey opens a set's key with what the reader has. recipient is what the set
// says its key is for; empty in an unfinished set, which says nothing yet.
func unwrapKey(ctx context.Context, st store.Store, id, recipient string, ring *seal.Keyring) (*seal.Secret, error) {
	versions, err := keyVersions(ctx, st, id)
	if err != nil {
		return nil, err
	}
	if len(versions) == 0 {
		return nil, damaged(nil, "%s/%s is lost: there is no key to open the set with", id, keysFolder)
	}
	var damage, wrong error
	for _, version := range versions {
		secret, err := unwrapVersion(ctx, st, id, version, recipient, ring)
		switch {
		case err == nil:
			return secret, nil
		case fault.Is(err, fault.Integrity):
			damage = errors.Join(damage, err)
		case fault.Is(err, fault.WrongKey):
			wrong = cmp.Or(wrong, err)
		default:
			return nil, err
		}
	}
	return nil, cmp.Or(damage, wrong)
}

func unwrapVersion(ctx context.Context, st store.Store, id string, version int, recipient string, ring *seal.Keyring) (*seal.Secret, error) {
	key := id + "/" + keyName(version, sealedSuffix)
	wrapped, _, err := readKey(ctx, st, id, version)
	if err != nil {
		return nil, err
	}
	text, err := ring.Unwrap(wrapped)
	if errors.Is(err, seal.ErrDamaged) {
		return nil, damaged(err, "%s", key)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	secrets, err := seal.ParseSecrets(text)
	switch {
	case err != nil || len(secrets) != 1:
		return nil, damaged(nil, "%s holds no key of a set", key)
	case recipient != "" && secrets[0].Recipient() != recipient, !bytes.Contains(text, []byte("# "+setComment+id+"\n")):
		return nil, damaged(nil, "%s holds the key of another set", key)
	}
	return secrets[0], nil
}

// KeyInfo says who can open a set.
type KeyInfo struct {
	Version    int              `json:"version"` // grows with each rotation
	Made       time.Time        `json:"made"`
	Recipients []seal.Recipient `json:"recipients"` // as the store says; nothing proves it
}

// KeysOf lists whom the key of an encrypted set is wrapped to, by its newest
// version; older ones are there only when a rotation was killed.
func KeysOf(ctx context.Context, st store.Store, id string) (KeyInfo, int, error) {
	versions, err := keyVersions(ctx, st, id)
	if err != nil {
		return KeyInfo{}, 0, err
	}
	if len(versions) == 0 {
		return KeyInfo{}, 0, damaged(nil, "%s/%s is lost: there is no key to open the set with", id, keysFolder)
	}
	_, note, err := readKey(ctx, st, id, versions[0])
	return KeyInfo{versions[0], note.Made, note.Recipients}, len(versions), err
}

// Rewrap makes an encrypted set open to other recipients than before, without
// touching its data: its key is stored anew, and the older wrapping deleted once the
// new one is durable and was read back. Killed in between it leaves both, and
// may be called again. The set must have been opened with its key; the caller holds the
// store's lock. Who has kept a copy of the older wrapping can still open it.
func Rewrap(ctx context.Context, s *Set, to *seal.Recipients) error {
	if s.secret == nil {
		return errLocked(s.ID())
	}
	if err := s.rewrap(ctx, to); err != nil {
		return fmt.Errorf("rotate the key of backup set %s: %w", s.ID(), err)
	}
	return nil
}

func (s *Set) rewrap(ctx context.Context, to *seal.Recipients) error {
	older, err := keyFiles(ctx, s.st, s.ID())
	if err != nil {
		return err
	}
	next := 1
	for _, name := range older { // also of a note whose key a killed rotation did not write
		next = max(next, versionOf(name)+1)
	}
	if err := putKey(ctx, s.st, s.ID(), next, s.secret, to); err != nil {
		return err
	}
	if _, note, err := readKey(ctx, s.st, s.ID(), next); err != nil || note.SHA256 == "" {
		return errors.Join(err, errors.New("the new key file does not read back; the older one was kept"))
	}
	for _, name := range older {
		if err := s.st.Delete(ctx, s.Key(name)); err != nil {
			return fmt.Errorf("the new key is there, and the older one, too: %w", err)
		}
	}
	return nil
}

// parseReferenceKeys reads what references.key decrypts to.
func parseReferenceKeys(text []byte) (map[string]*seal.Secret, error) {
	keys := map[string]*seal.Secret{}
	id := ""
	for line := range strings.SplitSeq(string(text), "\n") {
		if name, ok := strings.CutPrefix(line, "# "+setComment); ok {
			id = name
		}
		if line == "" || line[0] == '#' {
			continue
		}
		secrets, err := seal.ParseSecrets([]byte(line))
		if err != nil || len(secrets) != 1 || id == "" {
			return nil, errors.New("it does not hold keys of sets")
		}
		keys[id], id = secrets[0], ""
	}
	return keys, nil
}
