package seal

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"

	"dbbackup/internal/fault"
)

// Recipients are those who will be able to open what is wrapped: one or more
// public keys, or else one passphrase.
type Recipients struct {
	list  []age.Recipient
	named []Recipient
}

// Recipient is one of them as it may be told to anybody.
type Recipient struct {
	Type string `json:"type"`          // as in the stanza of an age file: X25519, mlkem768x25519, ssh-ed25519, ssh-rsa, scrypt
	Key  string `json:"key,omitempty"` // public; a passphrase has none
}

// The types of recipients, as age's files name them.
const (
	typeX25519 = "X25519"
	typeHybrid = "mlkem768x25519"
	typeScrypt = "scrypt"
)

// Add reads public keys, one in each line: age1..., ssh-ed25519, ssh-rsa. Empty
// lines and those that begin with # are left out.
func (r *Recipients) Add(text string) error {
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		if err := r.add(line); err != nil {
			return fault.New(fault.Usage, "public keys begin with age1, ssh-ed25519 or ssh-rsa; `dbbackup key new` makes one",
				"line %d is no recipient's public key", i+1) // which may be a private one: it is not quoted
		}
	}
	return nil
}

func (r *Recipients) add(line string) error {
	one := Recipient{Key: line}
	var recipient age.Recipient
	var err error
	if kind, _, ssh := strings.Cut(line, " "); ssh {
		one.Type = kind
		recipient, err = agessh.ParseRecipient(line)
	} else {
		var all []age.Recipient
		if all, err = age.ParseRecipients(strings.NewReader(line)); err == nil {
			recipient = all[0]
		}
		one.Type = typeX25519
		if _, hybrid := recipient.(*age.HybridRecipient); hybrid {
			one.Type = typeHybrid
		}
	}
	if err != nil {
		return err
	}
	r.list, r.named = append(r.list, recipient), append(r.named, one)
	return nil
}

// AddPassphrase adds a passphrase, which age wants to be alone. logN is the work
// factor; 0 is age's own, which takes about a second and 256 MB.
func (r *Recipients) AddPassphrase(passphrase string, logN int) error {
	if passphrase == "" {
		return fault.New(fault.Usage, "", "the passphrase is empty")
	}
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return err
	}
	if logN > 0 {
		recipient.SetWorkFactor(logN)
	}
	r.list, r.named = append(r.list, recipient), append(r.named, Recipient{Type: typeScrypt})
	return nil
}

// Empty reports whether there is none.
func (r *Recipients) Empty() bool { return len(r.list) == 0 }

// Named lists them.
func (r *Recipients) Named() []Recipient { return r.named }

// PostQuantum reports whether they are of the kind that resists quantum computers.
func (r *Recipients) PostQuantum() bool { return len(r.named) > 0 && r.named[0].Type == typeHybrid }

// Validate refuses what age cannot put into one file.
func (r *Recipients) Validate() error {
	if r.Empty() {
		return fault.New(fault.Usage, "--recipient age1..., --recipients-file FILE, --keys DIR or --passphrase-file FILE", "encryption needs to know for whom")
	}
	for _, one := range r.named {
		if one.Type == typeScrypt && len(r.list) > 1 {
			return fault.New(fault.Usage, "give either", "a passphrase cannot be combined with recipients: age wants it alone")
		}
		if (one.Type == typeHybrid) != r.PostQuantum() {
			return fault.New(fault.Usage, "give recipients of one kind", "post-quantum recipients (age1pq1...) cannot be mixed with others")
		}
	}
	return nil
}

// Wrap encrypts a small text to all of them.
func (r *Recipients) Wrap(text []byte) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := r.wrapTo(&b, text); err != nil {
		return nil, fmt.Errorf("encrypt to the recipients: %w", err)
	}
	return b.Bytes(), nil
}

// WrapArmored is Wrap, as text.
func (r *Recipients) WrapArmored(text []byte) ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	out := armor.NewWriter(&b)
	if err := r.wrapTo(out, text); err != nil {
		return nil, fmt.Errorf("encrypt to the recipients: %w", err)
	}
	if err := out.Close(); err != nil {
		return nil, fmt.Errorf("encrypt to the recipients: %w", err)
	}
	return b.Bytes(), nil
}

func (r *Recipients) wrapTo(w io.Writer, text []byte) error {
	out, err := age.Encrypt(w, r.list...)
	if err != nil {
		return err
	}
	if _, err := out.Write(text); err != nil {
		return err
	}
	return out.Close()
}
