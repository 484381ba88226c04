package seal

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"dbbackup/internal/fault"
)

// Signer signs sets: an Ed25519 private key.
type Signer struct{ key ed25519.PrivateKey }

// Trusted are public keys of signers.
type Trusted []ed25519.PublicKey

const (
	privateBlock = "PRIVATE KEY" // PKCS #8
	publicBlock  = "PUBLIC KEY"  // PKIX
)

// NewSigner makes a key.
func NewSigner() (*Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a signing key: %w", err)
	}
	return &Signer{key}, nil
}

// ParseSigner reads a PEM file with a PKCS #8 private key, as PEM and
// `openssl genpkey -algorithm ed25519` write it. name is for messages.
func ParseSigner(name string, text []byte) (*Signer, error) {
	const hint = "`dbbackup key new DIR` makes one, and so does openssl genpkey -algorithm ed25519"
	block, _ := pem.Decode(text)
	if block == nil || block.Type != privateBlock {
		return nil, fault.New(fault.Usage, hint, "%s holds no PEM block %q", name, privateBlock)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fault.New(fault.Usage, hint, "%s holds no private key that can be read", name)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fault.New(fault.Usage, hint, "the key in %s is not of the kind Ed25519", name)
	}
	return &Signer{private}, nil
}

// PEM is the private key, as ParseSigner reads it.
func (s *Signer) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		return nil, fmt.Errorf("encode the signing key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}), nil
}

// Public is the public half.
func (s *Signer) Public() Trusted {
	public, _ := s.key.Public().(ed25519.PublicKey) // by its documentation
	return Trusted{public}
}

// Sign returns the signature of a text: 64 bytes.
func (s *Signer) Sign(text []byte) []byte { return ed25519.Sign(s.key, text) }

// ParseTrusted reads a PEM file with one or more PKIX public keys.
func ParseTrusted(name string, text []byte) (Trusted, error) {
	const hint = "it is the trusted.pem of `dbbackup key new`, or what openssl pkey -pubout writes"
	var keys Trusted
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type == privateBlock {
			return nil, fault.New(fault.Usage, hint, "%s holds a private key; who only reads must not have it", name)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		public, ok := key.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, fault.New(fault.Usage, hint, "a key in %s is no public key of the kind Ed25519", name)
		}
		keys = append(keys, public)
	}
	if len(keys) == 0 {
		return nil, fault.New(fault.Usage, hint, "%s holds no PEM block %q", name, publicBlock)
	}
	return keys, nil
}

// PEM is the public keys, as ParseTrusted reads them.
func (t Trusted) PEM() ([]byte, error) {
	var text []byte
	for _, key := range t {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			return nil, fmt.Errorf("encode the public key: %w", err)
		}
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der})...)
	}
	return text, nil
}

// ErrNotTrusted is a signature that no trusted key made.
var ErrNotTrusted = errors.New("no trusted key made the signature")

// Verify says whether one of the keys signed the text.
func (t Trusted) Verify(text, signature []byte) error {
	for _, key := range t {
		if len(signature) == ed25519.SignatureSize && ed25519.Verify(key, text, signature) {
			return nil
		}
	}
	return ErrNotTrusted
}

// Fingerprints name the keys: SHA-256 of the DER form, in hex, as
// `openssl pkey -pubin -outform DER | sha256sum` prints it.
func (t Trusted) Fingerprints() []string {
	var prints []string
	for _, key := range t {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			continue // a key that was parsed or made encodes
		}
		sum := sha256.Sum256(der)
		prints = append(prints, hex.EncodeToString(sum[:]))
	}
	return prints
}
