package seal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"filippo.io/age"
)

// Secret is the identity of one set: it encrypts, decrypts and authenticates all
// that is in it.
type Secret struct {
	identity  age.Identity
	recipient age.Recipient
	private   string // AGE-SECRET-KEY-...
	public    string // age1...
}

// NewSecret makes a Secret. One that is to be wrapped to post-quantum
// recipients is of their kind.
func NewSecret(postQuantum bool) (*Secret, error) {
	if postQuantum {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		return &Secret{id, id.Recipient(), id.String(), id.Recipient().String()}, nil
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return &Secret{id, id.Recipient(), id.String(), id.Recipient().String()}, nil
}

// ParseSecrets reads an identity file: one key in each line, but for comments.
func ParseSecrets(text []byte) ([]*Secret, error) {
	identities, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return nil, errNoIdentityFile // what age says may quote the line
	}
	secrets := make([]*Secret, 0, len(identities))
	for _, identity := range identities {
		switch id := identity.(type) {
		case *age.X25519Identity:
			secrets = append(secrets, &Secret{id, id.Recipient(), id.String(), id.Recipient().String()})
		case *age.HybridIdentity:
			secrets = append(secrets, &Secret{id, id.Recipient(), id.String(), id.Recipient().String()})
		default:
			return nil, errNoIdentityFile
		}
	}
	return secrets, nil
}

// Recipient is the public half, as age writes it.
func (s *Secret) Recipient() string { return s.public }

// IdentityFile is what `age -i` reads. The comments become lines that begin with #.
func (s *Secret) IdentityFile(comments ...string) []byte {
	var b bytes.Buffer
	for _, comment := range comments {
		fmt.Fprintf(&b, "# %s\n", comment)
	}
	fmt.Fprintf(&b, "# public key: %s\n%s\n", s.public, s.private)
	return b.Bytes()
}

// Encrypt returns a writer whose bytes come out encrypted at w: as one age file
// when it is closed. Closing it does not close w.
func (s *Secret) Encrypt(w io.Writer) (io.WriteCloser, error) {
	return age.Encrypt(w, s.recipient)
}

// Decrypt reads an age file. No byte is returned that was not authenticated; a
// file that was cut, or that something follows, is an error.
func (s *Secret) Decrypt(r io.Reader) (io.Reader, error) { return age.Decrypt(r, s.identity) }

// DecryptAt reads an age file of the given size from any place, and returns the
// size of what is in it. The last 64 KiB are read at once, then as much as is asked for.
func (s *Secret) DecryptAt(r io.ReaderAt, size int64) (io.ReaderAt, int64, error) {
	return age.DecryptReaderAt(r, size, s.identity)
}

// macUse separates this use of a Secret from every other.
const macUse = "dbbackup manifest"

// MAC authenticates a text: nobody makes it without the Secret. 64 hex digits.
func (s *Secret) MAC(text []byte) (string, error) {
	key, err := hkdf.Key(sha256.New, []byte(s.private), nil, macUse, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("derive a key: %w", err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(text)
	return hex.EncodeToString(mac.Sum(nil)), nil
}

// CheckMAC reports whether MAC made this.
func (s *Secret) CheckMAC(text []byte, mac string) (bool, error) {
	want, err := s.MAC(text)
	return err == nil && hmac.Equal([]byte(want), []byte(mac)), err
}
