package seal

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"dbbackup/internal/fault"
)

// testWork keeps scrypt short.
const testWork = 10

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newSecret(t *testing.T, postQuantum bool) *Secret {
	t.Helper()
	s, err := NewSecret(postQuantum)
	must(t, err)
	return s
}

func recipients(t *testing.T, keys ...string) *Recipients {
	t.Helper()
	var r Recipients
	for _, key := range keys {
		must(t, r.Add(key))
	}
	must(t, r.Validate())
	return &r
}

// sshKey makes a key pair with ssh-keygen.
func sshKey(t *testing.T, kind, passphrase string) (private []byte, public string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	args := []string{"-q", "-t", kind, "-N", passphrase, "-f", path}
	if out, err := exec.Command("ssh-keygen", args...).CombinedOutput(); err != nil {
		t.Skipf("ssh-keygen: %v: %s", err, out)
	}
	private, err := os.ReadFile(path)
	must(t, err)
	text, err := os.ReadFile(path + ".pub")
	must(t, err)
	return private, string(text)
}

func TestEveryRecipientOpens(t *testing.T) {
	first, second := newSecret(t, false), newSecret(t, false)
	private, public := sshKey(t, "ed25519", "")
	guarded, guardedPublic := sshKey(t, "ed25519", "of the key")
	wrapped, err := recipients(t, first.Recipient()+"\n# the other one\n\n"+second.Recipient(), public, guardedPublic).Wrap([]byte("text"))
	must(t, err)
	for name, file := range map[string][]byte{
		"first": first.IdentityFile(), "second": second.IdentityFile("with", "comments"), "ssh": private, "guarded ssh": guarded,
	} {
		var k Keyring
		k.SetPassphrase(func() (string, error) { return "of the key", nil })
		must(t, k.AddIdentities(name, file))
		if got, err := k.Unwrap(wrapped); err != nil || string(got) != "text" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	var k Keyring
	k.SetPassphrase(func() (string, error) { return "another one", nil })
	must(t, k.AddIdentities("guarded", guarded))
	if _, err := k.Unwrap(wrapped); !fault.Is(err, fault.WrongKey) {
		t.Errorf("an SSH key with a wrong passphrase: %v", err)
	}
}

func TestPostQuantum(t *testing.T) {
	s := newSecret(t, true)
	r := recipients(t, s.Recipient())
	if !r.PostQuantum() || r.Named()[0].Type != "mlkem768x25519" {
		t.Errorf("recipients %+v", r.Named())
	}
	wrapped, err := r.Wrap([]byte("text"))
	must(t, err)
	var k Keyring
	must(t, k.AddIdentities("file", s.IdentityFile()))
	if got, err := k.Unwrap(wrapped); err != nil || string(got) != "text" {
		t.Errorf("%q, %v", got, err)
	}
	must(t, r.Add(newSecret(t, false).Recipient()))
	if err := r.Validate(); !fault.Is(err, fault.Usage) {
		t.Errorf("mixed kinds: %v", err)
	}
}

func TestPassphrase(t *testing.T) {
	var r Recipients
	must(t, r.AddPassphrase("correct horse", testWork))
	wrapped, err := r.Wrap([]byte("text"))
	must(t, err)
	for passphrase, want := range map[string]fault.Kind{"correct horse": fault.Failed, "wrong horse": fault.WrongKey, "": fault.Usage} {
		asked := 0
		var k Keyring
		k.SetPassphrase(func() (string, error) { asked++; return passphrase, nil })
		for range 2 {
			got, err := k.Unwrap(wrapped)
			if fault.KindOf(err) != want || (err == nil) != (string(got) == "text") {
				t.Errorf("%q opens %q, %v", passphrase, got, err)
			}
		}
		if asked != 1 {
			t.Errorf("it was asked %d times", asked)
		}
	}
	var nothing Keyring
	if _, err := nothing.Unwrap(wrapped); !fault.Is(err, fault.WrongKey) || !strings.Contains(err.Error(), "passphrase") {
		t.Errorf("without a passphrase: %v", err)
	}
	must(t, r.Add(newSecret(t, false).Recipient()))
	if err := r.Validate(); !fault.Is(err, fault.Usage) {
		t.Errorf("a passphrase beside a recipient: %v", err)
	}
}

// T47: a wrong key is told from damage.
func TestWrongKeyAndDamage(t *testing.T) {
	right, wrong := newSecret(t, false), newSecret(t, false)
	wrapped, err := recipients(t, right.Recipient()).Wrap([]byte("text"))
	must(t, err)
	var k Keyring
	must(t, k.AddIdentities("file", wrong.IdentityFile()))
	if _, err := k.Unwrap(wrapped); !fault.Is(err, fault.WrongKey) {
		t.Errorf("a wrong key: %v", err)
	}
	if _, err := new(Keyring).Unwrap(wrapped); !fault.Is(err, fault.WrongKey) || !strings.Contains(err.Error(), "no identity was given") {
		t.Errorf("no key: %v", err)
	}
	must(t, k.AddIdentities("file", right.IdentityFile()))
	if got, err := k.Unwrap(wrapped); err != nil || string(got) != "text" {
		t.Errorf("both keys: %q, %v", got, err)
	}
	for name, broken := range map[string][]byte{
		"cut": wrapped[:len(wrapped)-1], "longer": append(bytes.Clone(wrapped), 0), "empty": nil,
		"other text": append(bytes.Clone(wrapped[:len(wrapped)-1]), wrapped[len(wrapped)-1]^1),
	} {
		if _, err := k.Unwrap(broken); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestProtectedIdentityFile(t *testing.T) {
	s := newSecret(t, false)
	var guard Recipients
	must(t, guard.AddPassphrase("of the file", testWork))
	armored, err := guard.WrapArmored(s.IdentityFile())
	must(t, err)
	binary, err := guard.Wrap(s.IdentityFile())
	must(t, err)
	wrapped, err := recipients(t, s.Recipient()).Wrap([]byte("text"))
	must(t, err)
	for name, file := range map[string][]byte{"armored": armored, "binary": binary} {
		var k Keyring
		must(t, k.AddIdentities("file", file))
		if _, err := k.Unwrap(wrapped); !fault.Is(err, fault.WrongKey) {
			t.Errorf("%s, without the passphrase: %v", name, err)
		}
		k.SetPassphrase(func() (string, error) { return "of the file", nil })
		if got, err := k.Unwrap(wrapped); err != nil || string(got) != "text" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		var bad Keyring
		bad.SetPassphrase(func() (string, error) { return "another", nil })
		must(t, bad.AddIdentities("file", file))
		if _, err := bad.Unwrap(wrapped); !fault.Is(err, fault.WrongKey) {
			t.Errorf("%s, with a wrong passphrase: %v", name, err)
		}
	}
}

// What is refused is never quoted: it may be a private key in the wrong place.
func TestRefusedKeysAreNotQuoted(t *testing.T) {
	s := newSecret(t, false)
	private := strings.TrimSpace(strings.Split(string(s.IdentityFile()), "\n")[1])
	var r Recipients
	var k Keyring
	for name, err := range map[string]error{
		"private key as a recipient": r.Add(private), "garbage": r.Add("age1" + private), "ssh": r.Add("ssh-ed25519 " + private),
		"recipient as an identity": k.AddIdentities("file", []byte(s.Recipient())), "private with a tail": k.AddIdentities("file", []byte(private+"x")),
		"pem": k.AddIdentities("file", []byte("-----BEGIN X-----\n"+private)),
	} {
		if !fault.Is(err, fault.Usage) || strings.Contains(err.Error(), private[15:]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStreams(t *testing.T) {
	s := newSecret(t, false)
	plain := make([]byte, 3*64<<10+17)
	for i := range plain {
		plain[i] = byte(i * 7 >> 3)
	}
	var stored bytes.Buffer
	w, err := s.Encrypt(&stored)
	must(t, err)
	_, err = w.Write(plain)
	must(t, err)
	must(t, w.Close())
	whole := stored.Bytes()
	r, err := s.Decrypt(bytes.NewReader(whole))
	must(t, err)
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	at, size, err := s.DecryptAt(bytes.NewReader(whole), int64(len(whole)))
	must(t, err)
	part := make([]byte, 70_000)
	if n, err := at.ReadAt(part, 60_000); err != nil || n != len(part) || size != int64(len(plain)) || !bytes.Equal(part, plain[60_000:130_000]) {
		t.Errorf("%d of %d bytes, %v", n, size, err)
	}
	const frame, tag = 64 << 10, 16
	header := len(whole) - len(plain) - 4*tag
	for name, broken := range map[string][]byte{ // T37
		"cut between frames": whole[:header+2*(frame+tag)], "cut in a frame": whole[:len(whole)-5],
		"longer": append(bytes.Clone(whole), "more"...), "a frame twice": append(bytes.Clone(whole), whole[header+3*(frame+tag):]...),
	} {
		r, err := s.Decrypt(bytes.NewReader(broken))
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if err == nil {
			t.Errorf("%s: nothing is noticed", name)
		}
	}
}

func TestMAC(t *testing.T) {
	s, other := newSecret(t, false), newSecret(t, false)
	mac, err := s.MAC([]byte("text"))
	must(t, err)
	for name, c := range map[string]struct {
		s    *Secret
		text string
		want bool
	}{"right": {s, "text", true}, "other text": {s, "test", false}, "other key": {other, "text", false}} {
		if got, err := c.s.CheckMAC([]byte(c.text), mac); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestSignature(t *testing.T) {
	signer, err := NewSigner()
	must(t, err)
	text, err := signer.PEM()
	must(t, err)
	signer, err = ParseSigner("signing.pem", text)
	must(t, err)
	other, err := NewSigner()
	must(t, err)
	public, err := append(other.Public(), signer.Public()...).PEM()
	must(t, err)
	trusted, err := ParseTrusted("trusted.pem", public)
	must(t, err)
	signature := signer.Sign([]byte("text"))
	must(t, trusted.Verify([]byte("text"), signature))
	for name, err := range map[string]error{
		"other text": trusted.Verify([]byte("test"), signature), "other key": other.Public().Verify([]byte("text"), signature),
		"cut": trusted.Verify([]byte("text"), signature[:63]), "none": trusted.Verify([]byte("text"), nil), "nobody": Trusted(nil).Verify([]byte("text"), signature),
	} {
		if !errors.Is(err, ErrNotTrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ParseTrusted("file", text); !fault.Is(err, fault.Usage) {
		t.Errorf("a private key as a trusted one: %v", err)
	}
	if _, err := ParseSigner("file", public); !fault.Is(err, fault.Usage) {
		t.Errorf("a public key as a signing one: %v", err)
	}
}
