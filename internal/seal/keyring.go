package seal

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"

	"dbbackup/internal/fault"
)

// ErrDamaged is a wrapped text that nobody can open, whatever the key.
var ErrDamaged = errors.New("it is not what was encrypted")

var errNoIdentityFile = errors.New("it holds no age identity (AGE-SECRET-KEY-1...) and no SSH private key")

// Keyring is what a reader can open sets with: identities, and a passphrase that
// is asked for only when it is needed, once. The zero value has nothing. It is safe for
// concurrent use once it is filled.
type Keyring struct {
	identities []age.Identity
	locked     []identityFile // that need the passphrase
	passphrase func() (string, error)

	mu    sync.Mutex
	asked bool
	given string
	fail  error
}

type identityFile struct {
	name string
	data []byte
}

// maxIdentityBytes bounds what an identity file may hold when decrypted.
const maxIdentityBytes = 1 << 20

// SetPassphrase says how the passphrase is to be had: of sets, of identity files
// and of SSH keys that are protected with one.
func (k *Keyring) SetPassphrase(ask func() (string, error)) { k.passphrase = ask }

// Empty reports whether there is nothing to open a set with.
func (k *Keyring) Empty() bool {
	return k == nil || len(k.identities) == 0 && len(k.locked) == 0 && k.passphrase == nil
}

// AddIdentities reads an identity file: of age, of age protected with a
// passphrase, or an SSH private key. name is for messages.
func (k *Keyring) AddIdentities(name string, data []byte) error {
	switch {
	case isEncrypted(data):
		k.locked = append(k.locked, identityFile{name, data})
		return nil
	case bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN ")):
		id, err := k.parseSSH(name, data)
		if err != nil {
			return badIdentityFile(name, err)
		}
		k.identities = append(k.identities, id)
		return nil
	}
	secrets, err := ParseSecrets(data)
	if err != nil {
		return badIdentityFile(name, err)
	}
	for _, s := range secrets {
		k.identities = append(k.identities, s.identity)
	}
	return nil
}

// Public lists the public halves of the identities that are open without a
// passphrase, as far as they tell them.
func (k *Keyring) Public() []Recipient {
	var keys []Recipient
	for _, identity := range k.identities {
		switch id := identity.(type) {
		case *age.X25519Identity:
			keys = append(keys, Recipient{typeX25519, id.Recipient().String()})
		case *age.HybridIdentity:
			keys = append(keys, Recipient{typeHybrid, id.Recipient().String()})
		}
	}
	return keys
}

func badIdentityFile(name string, err error) error {
	return fault.New(fault.Usage, "`dbbackup key new DIR` makes one", "identity file %s: %w", name, err)
}

func isEncrypted(data []byte) bool {
	return bytes.HasPrefix(data, []byte("age-encryption.org/")) || bytes.HasPrefix(bytes.TrimSpace(data), []byte(armor.Header))
}

func (k *Keyring) parseSSH(name string, data []byte) (age.Identity, error) {
	id, err := agessh.ParseIdentity(data)
	var protected *ssh.PassphraseMissingError
	if !errors.As(err, &protected) {
		if err != nil {
			return nil, errNoIdentityFile
		}
		return id, nil
	}
	if protected.PublicKey == nil {
		return nil, errors.New("the SSH key is protected in an old format: convert it with ssh-keygen -p -f FILE")
	}
	guarded := &guardedSSH{name: name}
	guarded.EncryptedSSHIdentity, err = agessh.NewEncryptedSSHIdentity(protected.PublicKey, data, func() ([]byte, error) {
		var text string
		text, guarded.fail = k.ask("identity file " + name)
		return []byte(text), guarded.fail
	})
	return guarded, err
}

// guardedSSH is an SSH key that is protected with a passphrase. A wrong one is
// no damage of what it should open.
type guardedSSH struct {
	*agessh.EncryptedSSHIdentity
	name string
	fail error // of asking
}

func (g *guardedSSH) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	key, err := g.EncryptedSSHIdentity.Unwrap(stanzas)
	switch {
	case err == nil || errors.Is(err, age.ErrIncorrectIdentity):
		return key, err
	case g.fail != nil:
		return nil, g.fail
	}
	return nil, fault.New(fault.WrongKey, "give the passphrase that it is protected with", "identity file %s: the passphrase does not open it", g.name)
}

// ask returns the passphrase, which is asked for once.
func (k *Keyring) ask(of string) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.passphrase == nil {
		return "", fault.New(fault.WrongKey, "--passphrase-file FILE, DBBACKUP_PASSPHRASE, or a terminal to ask on",
			"%s is protected with a passphrase, and none was given", of)
	}
	if !k.asked {
		k.asked = true
		k.given, k.fail = k.passphrase()
	}
	return k.given, k.fail
}

// Unwrap opens what Recipients.Wrap made. When nothing fits it is
// fault.WrongKey; ErrDamaged is what no key would open.
func (k *Keyring) Unwrap(wrapped []byte) ([]byte, error) {
	identities, err := k.open()
	if err != nil {
		return nil, err
	}
	scrypt := &passphraseIdentity{keyring: k}
	in, err := age.Decrypt(bytes.NewReader(wrapped), append(identities, scrypt)...)
	var none *age.NoIdentityMatchError
	switch {
	case scrypt.fail != nil:
		return nil, scrypt.fail
	case errors.As(err, &none):
		return nil, wrongKey(none.StanzaTypes, len(identities))
	case fault.KindOf(err) != fault.Failed:
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	text, err := io.ReadAll(io.LimitReader(in, maxIdentityBytes))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return text, nil
}

func wrongKey(types []string, tried int) error {
	what := "is encrypted to other recipients (" + strings.Join(types, ", ") + ")"
	if len(types) == 1 && types[0] == typeScrypt {
		return fault.New(fault.WrongKey, "give the passphrase that the set was made with", "the passphrase is wrong")
	}
	if tried == 0 {
		return fault.New(fault.WrongKey, "--identity FILE, or --keys DIR", "it %s, and no identity was given", what)
	}
	return fault.New(fault.WrongKey, "give the identity of one of its recipients; `dbbackup key list` shows them", "it %s", what)
}

// open returns the identities, those in protected files included.
func (k *Keyring) open() ([]age.Identity, error) {
	identities := append([]age.Identity{}, k.identities...)
	for _, file := range k.locked {
		secrets, err := k.unlock(file)
		if err != nil {
			return nil, err
		}
		for _, s := range secrets {
			identities = append(identities, s.identity)
		}
	}
	return identities, nil
}

func (k *Keyring) unlock(file identityFile) ([]*Secret, error) {
	passphrase, err := k.ask("identity file " + file.name)
	if err != nil {
		return nil, err
	}
	scrypt, err := newScrypt(passphrase)
	if err != nil {
		return nil, err
	}
	in := io.Reader(bytes.NewReader(file.data))
	if !bytes.HasPrefix(file.data, []byte("age-")) {
		in = armor.NewReader(bufio.NewReader(in))
	}
	plain, err := age.Decrypt(in, scrypt)
	if err != nil {
		return nil, fault.New(fault.WrongKey, "give the passphrase that it was protected with", "identity file %s: the passphrase does not open it", file.name)
	}
	text, err := io.ReadAll(io.LimitReader(plain, maxIdentityBytes))
	if err != nil {
		return nil, badIdentityFile(file.name, err)
	}
	secrets, err := ParseSecrets(text)
	if err != nil {
		return nil, badIdentityFile(file.name, err)
	}
	return secrets, nil
}

// passphraseIdentity asks for the passphrase where a file wants one.
type passphraseIdentity struct {
	keyring *Keyring
	fail    error
}

func (p *passphraseIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	if len(stanzas) != 1 || stanzas[0].Type != typeScrypt {
		return nil, age.ErrIncorrectIdentity
	}
	passphrase, err := p.keyring.ask("the set")
	if err != nil {
		p.fail = err
		return nil, err
	}
	identity, err := newScrypt(passphrase)
	if err != nil {
		p.fail = err
		return nil, err
	}
	return identity.Unwrap(stanzas)
}

// maxWork bounds what a file may ask for: 1 GB of memory, four times what age
// takes by itself.
const maxWork = 20

func newScrypt(passphrase string) (*age.ScryptIdentity, error) {
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, fault.New(fault.Usage, "", "the passphrase is empty")
	}
	identity.SetMaxWorkFactor(maxWork)
	return identity, nil
}
